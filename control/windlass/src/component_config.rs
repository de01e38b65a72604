//! Configuration files of upstream's components: strict, by a table of the kind's fields.
//!
//! `apiVersion` and `kind` must be right; a field that is in no table is refused with its path; one without effect here is named in a
//! warning, unless it says nothing (`null`, empty, zero), as files that were written with every default do.

use anyhow::{Context as _, bail};
use machinery::unset::says_nothing;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A kind of configuration.
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    /// A line a field: its path, its type, and `unused` where it has no effect here.
    pub(crate) fields: &'static str,
}

/// A kind of the API server's configuration, in every version upstream reads it in; their fields are the same.
pub(crate) const fn of_api_server(kind: &'static str, fields: &'static str) -> [Kind; 3] {
    [
        Kind { api_version: "apiserver.config.k8s.io/v1", kind, fields },
        Kind { api_version: "apiserver.config.k8s.io/v1beta1", kind, fields },
        Kind { api_version: "apiserver.config.k8s.io/v1alpha1", kind, fields },
    ]
}

/// A field's text; empty where it has none.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A file's content, every field of its type.
#[derive(Debug)]
pub(crate) struct Document(pub(crate) Value);

struct Field {
    path: &'static str,
    kind: &'static str,
    used: bool,
}

/// The flag that reads the file, and every file's: read and judged.
pub(crate) fn load(path: &Path, kind: &Kind) -> anyhow::Result<Document> {
    judged(path, &text_of(path)?, kind)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn judged(path: &Path, text: &str, kind: &Kind) -> anyhow::Result<Document> {
    let (document, unused) = read(text, kind).with_context(|| format!("load {}", path.display()))?;
    for path in unused {
        tracing::warn!(kind = kind.kind, "field {path} has no effect here");
    }
    Ok(document)
}

/// The same for a file that is of one of several versions.
pub(crate) fn load_one_of(path: &Path, kinds: &[Kind]) -> anyhow::Result<Document> {
    // Read once: another may be put in its place meanwhile.
    let text = text_of(path)?;
    // What is no YAML at all is refused below.
    let given: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let named = kinds.iter().find(|kind| given["apiVersion"] == kind.api_version).or(kinds.first());
    judged(path, &text, named.context("no kind is expected")?)
}

/// The document, and the fields in it that have no effect.
fn read(text: &str, kind: &Kind) -> anyhow::Result<(Document, Vec<String>)> {
    let mut value: Value =
        serde_saphyr::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.to_string().trim()))?;
    let Some(object) = value.as_object_mut() else { bail!("a mapping is expected") };
    let found = (object.remove("apiVersion"), object.remove("kind"));
    let given = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, name) = (given(&found.0), given(&found.1));
    if (version.as_str(), name.as_str()) != (kind.api_version, kind.kind) {
        bail!(
            "no kind {name:?} is registered for version {version:?}; {} {} is expected",
            kind.api_version,
            kind.kind
        );
    }
    let fields = fields(kind);
    let (mut unknown, mut unused) = (Vec::new(), Vec::new());
    walk(&value, "", "", &mut |path, shape, value| match judge(&fields, shape, value) {
        Judgement::Deeper => true,
        Judgement::Fine => false,
        Judgement::Unused => {
            if !says_nothing(value) {
                unused.push(path.to_owned());
            }
            false
        }
        Judgement::Unknown => {
            unknown.push(format!("unknown field {path:?}"));
            false
        }
        Judgement::Wrong(expected) => {
            unknown.push(format!("field {path:?}: {expected} is expected"));
            false
        }
    });
    if !unknown.is_empty() {
        bail!("strict decoding error: {}", unknown.join(", "));
    }
    Ok((Document(value), unused))
}

fn fields(kind: &Kind) -> Vec<Field> {
    let lines = kind.fields.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let field = |line: &'static str| {
        let mut words = line.split(' ');
        Some(Field { path: words.next()?, kind: words.next()?, used: words.next().is_none() })
    };
    lines.filter_map(field).collect()
}

enum Judgement {
    /// Its parts are fields.
    Deeper,
    Fine,
    Unused,
    Unknown,
    Wrong(&'static str),
}

fn judge(fields: &[Field], shape: &str, value: &Value) -> Judgement {
    if let Some(field) = fields.iter().find(|field| field.path == shape) {
        return match (value.is_null() || is(field.kind, value), field.used) {
            (false, _) => Judgement::Wrong(field.kind),
            (true, true) => Judgement::Fine,
            (true, false) => Judgement::Unused,
        };
    }
    let parent = |separator: char| {
        let below =
            |field: &&Field| field.path.strip_prefix(shape).is_some_and(|rest| rest.starts_with(separator));
        fields.iter().find(below)
    };
    match (value, parent('['), parent('.')) {
        _ if shape.is_empty() => Judgement::Deeper,
        (Value::Null, Some(_), _) | (Value::Null, _, Some(_)) => Judgement::Fine,
        (Value::Array(_), Some(_), _) | (Value::Object(_), _, Some(_)) => Judgement::Deeper,
        (_, Some(_), _) => Judgement::Wrong("a list"),
        (_, _, Some(_)) => Judgement::Wrong("a mapping"),
        _ => Judgement::Unknown,
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "string" => value.is_string(),
        "duration" => value.as_str().is_some_and(|text| machinery::duration::parse(text).is_ok()),
        _ => true,
    }
}

/// Calls `visit` for every value with its path and the path of its kind (`a[].b`), and goes into those it wants.
fn walk(value: &Value, path: &str, shape: &str, visit: &mut impl FnMut(&str, &str, &Value) -> bool) {
    if !visit(path, shape, value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                walk(value, &format!("{path}{dot}{name}"), &format!("{shape}{dot}{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                walk(value, &format!("{path}[{index}]"), &format!("{shape}[]"), visit);
            }
        }
        _ => {}
    }
}

impl Document {
    fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// A text, unless it is empty.
    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(crate) fn bool(&self, pointer: &str) -> Option<bool> {
        self.at(pointer).and_then(Value::as_bool)
    }

    /// A duration, unless it is zero, which stands for the default.
    pub(crate) fn duration(&self, pointer: &str) -> Option<Duration> {
        let nanos = machinery::duration::parse(self.text(pointer)?).ok()?;
        u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    /// The items of a list.
    pub(crate) fn items(&self, pointer: &str) -> &[Value] {
        self.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        api_version: "x.k8s.io/v1",
        kind: "X",
        fields: "# a comment\na string\nb.c int\nb.d duration unused\nlist[].e bool\nfree any\nnames[] string\n",
    };

    fn refused(text: &str) -> String {
        read(&format!("apiVersion: x.k8s.io/v1\nkind: X\n{text}"), &KIND).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path() {
        assert_eq!(refused("f: 1"), "strict decoding error: unknown field \"f\"");
        assert_eq!(refused("b: {c: 1, x: 2}"), "strict decoding error: unknown field \"b.x\"");
        assert_eq!(
            refused("list: [{e: true}, {g: 1}]"),
            "strict decoding error: unknown field \"list[1].g\""
        );
        assert!(refused("b: {c: x}").contains("\"b.c\": int"));
        assert!(refused("list: {e: true}").contains("a list"));
        assert!(refused("b: [1]").contains("a mapping"));
        assert!(refused("b: {d: 1}").contains("duration"));
    }

    #[test]
    fn another_kind_is_refused() {
        for text in ["apiVersion: x.k8s.io/v2\nkind: X", "apiVersion: x.k8s.io/v1\nkind: Y", "a: b", "[]"] {
            assert!(read(text, &KIND).is_err(), "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_is_named_where_it_says_something() {
        let text =
            "apiVersion: x.k8s.io/v1\nkind: X\nb: {c: 1, d: 3s}\nfree: {any: [1]}\nlist: null\nnames: [a]";
        let (document, unused) = read(text, &KIND).unwrap();
        assert_eq!(unused, ["b.d"]);
        assert_eq!(document.duration("/b/d"), Some(Duration::from_secs(3)));
        let (_, unused) = read("apiVersion: x.k8s.io/v1\nkind: X\nb: {d: 0s}", &KIND).unwrap();
        assert!(unused.is_empty());
    }
}
