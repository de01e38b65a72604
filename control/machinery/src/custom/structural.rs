//! Which schemas are structural: a type everywhere, and nothing in a value validation that is not in the structure too
//! (upstream: `pkg/apiserver/schema`). Schemas are looked at as they are written.

use crate::access::Get as _;
use crate::field::{FieldError, Path};
use crate::re2::Regex;
use serde_json::{Value, json};

/// How deep schemas may nest; deeper ones are refused before they exhaust the stack.
pub(crate) const DEPTH_MAX: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is not structural in any of a definition's schemas.
#[must_use]
pub(crate) fn violations(crd: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::new("spec");
    if crd.flag("spec.preserveUnknownFields") {
        errors.push(FieldError::invalid(&spec.child("preserveUnknownFields"), true, "must be false"));
    }
    for (i, version) in crd.items("spec.versions").iter().enumerate() {
        let props = version.at("schema.openAPIV3Schema");
        if props.is_object() {
            let path = spec.child("versions").index(i).child("schema").child("openAPIV3Schema");
            errors.extend(check(props, &path));
        }
    }
    errors
}

/// What is not structural in a schema, sorted.
#[must_use]
pub(crate) fn check(props: &Value, path: &Path) -> Vec<FieldError> {
    if too_deep(props, 0) {
        return vec![FieldError::forbidden(path, "schema is nested too deeply")];
    }
    let mut errors = Vec::new();
    invariants(props, Level::Root, path, &mut errors);
    complete(props, Some(props), path, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn too_deep(value: &Value, depth: usize) -> bool {
    depth > 2 * DEPTH_MAX
        || match value {
            Value::Object(fields) => fields.values().any(|v| too_deep(v, depth + 1)),
            Value::Array(items) => items.iter().any(|v| too_deep(v, depth + 1)),
            _ => false,
        }
}

fn invariants(s: &Value, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = s.text("type");
    let type_path = path.child("type");
    if kind == "array" && !s.has("items") {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if s.at("items").is_object() {
        invariants(s.at("items"), Level::Item, &path.child("items"), errors);
    }
    for (name, property) in s.fields("properties").into_iter().flatten() {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = path.child("additionalProperties");
    if s.has("additionalProperties") {
        if level == Level::Root {
            errors.push(FieldError::forbidden(&additional, "must not be used at the root"));
        }
        if s.at("additionalProperties").is_object() {
            invariants(s.at("additionalProperties"), Level::Field, &additional, errors);
        }
    }
    let (either, preserve, embedded) = (
        s.flag("x-kubernetes-int-or-string"),
        s.flag("x-kubernetes-preserve-unknown-fields"),
        s.flag("x-kubernetes-embedded-resource"),
    );
    for (is, name) in
        [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
    {
        if either && is {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&path.child(name), true, why));
        }
    }
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    let any = *s.at("anyOf") == both;
    let first = s.items("allOf").first().is_some_and(|a| *a.at("anyOf") == both);
    values(s, any, first, level, path, errors);
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match kind {
            "" => FieldError::required(&type_path, why),
            kind => FieldError::invalid(&type_path, kind, why),
        });
    } else if kind.is_empty() && !either && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&type_path, why));
    }
    if embedded && s.has("additionalProperties") {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&additional, why));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&type_path, kind, "must be object at the root"));
    }
    metadata(s, level, embedded, path, errors);
    let properties = s.fields("properties").is_some_and(|p| !p.is_empty());
    if embedded && !preserve && !properties {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.child("properties"), why));
    }
}

/// What a schema may say of the fields every object has.
fn metadata(s: &Value, level: Level, embedded: bool, path: &Path, errors: &mut Vec<FieldError>) {
    let of_object = level == Level::Root || embedded;
    let property = |name: &str| s.fields("properties").and_then(|p| p.get(name));
    for name in ["kind", "apiVersion"] {
        if let Some(of) = property(name).filter(|of| of_object && of.text("type") != "string") {
            let path = path.child("properties").key(name).child("type");
            errors.push(FieldError::invalid(&path, of.text("type"), "must be string"));
        }
    }
    let Some(of) = property("metadata") else { return };
    let path = path.child("properties").key("metadata");
    if of_object && of.text("type") != "object" {
        errors.push(FieldError::invalid(&path.child("type"), of.text("type"), "must be object"));
    }
    if level == Level::Root {
        let named = |p: &serde_json::Map<String, Value>| p.keys().all(|k| k == "name" || k == "generateName");
        let more = of.as_object().into_iter().flatten().any(|(key, value)| match key.as_str() {
            "type" | "default" => false,
            "properties" => !value.as_object().is_some_and(named),
            _ => !value.is_null(),
        });
        if more {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
}

/// Value validations: `allOf`, `anyOf`, `oneOf`, `not`.
fn values(
    s: &Value,
    skip_any: bool,
    skip_first: bool,
    level: Level,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    if !skip_any {
        for (i, of) in s.items("anyOf").iter().enumerate() {
            nested(of, false, level, &path.child("anyOf").index(i), errors);
        }
    }
    for (i, of) in s.items("allOf").iter().enumerate() {
        nested(of, skip_first && i == 0, level, &path.child("allOf").index(i), errors);
    }
    for (i, of) in s.items("oneOf").iter().enumerate() {
        nested(of, false, level, &path.child("oneOf").index(i), errors);
    }
    if s.at("not").is_object() {
        nested(s.at("not"), false, level, &path.child("not"), errors);
    }
    let pattern = s.text("pattern");
    if let Err(error) = Regex::check(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(&path.child("pattern"), pattern, why));
    }
}

/// What may not stand in a value validation, and what is said of it.
const NOT_NESTED: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
];

fn nested(s: &Value, skip_any: bool, level: Level, path: &Path, errors: &mut Vec<FieldError>) {
    values(s, skip_any, false, level, path, errors);
    if s.at("items").is_object() {
        nested(s.at("items"), false, level, &path.child("items"), errors);
    }
    for (name, of) in s.fields("properties").into_iter().flatten() {
        nested(of, false, Level::Field, &path.child("properties").key(name), errors);
    }
    for (name, why) in NOT_NESTED {
        if set(s, name) {
            errors.push(FieldError::forbidden(&path.child(name), why));
        }
    }
    if set(s, "x-kubernetes-validations") {
        let path = path.child("x-kubernetes-validations");
        errors.push(FieldError::forbidden(&path, "must be empty to be structural"));
    }
    if s.fields("properties").is_some_and(|p| p.contains_key("metadata")) {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}

fn set(s: &Value, name: &str) -> bool {
    match s.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is)) => *is || name == "additionalProperties",
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// Every field a value validation names must be in the structure.
fn complete(v: &Value, s: Option<&Value>, s_path: &Path, v_path: &Path, errors: &mut Vec<FieldError>) {
    if v.at("not").is_object() {
        covered(v.at("not"), s, s_path, &v_path.child("not"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, of) in v.items(key).iter().enumerate() {
            covered(of, s, s_path, &v_path.child(key).index(i), errors);
        }
    }
}

fn covered(v: &Value, s: Option<&Value>, s_path: &Path, v_path: &Path, errors: &mut Vec<FieldError>) {
    let Some(s) = s else {
        errors.push(FieldError::required(s_path, format!("because it is defined in {v_path}")));
        return;
    };
    complete(v, Some(s), s_path, v_path, errors);
    if v.at("items").is_object() {
        let inner = Some(s.at("items")).filter(|i| i.is_object());
        covered(v.at("items"), inner, &s_path.child("items"), &v_path.child("items"), errors);
    }
    for (name, of) in v.fields("properties").into_iter().flatten() {
        let (s_path, v_path) = (s_path.child("properties").key(name), v_path.child("properties").key(name));
        match s.fields("properties").and_then(|p| p.get(name)) {
            Some(inner) => covered(of, Some(inner), &s_path, &v_path, errors),
            None => {
                errors.push(FieldError::required(&s_path, format!("because it is defined in {v_path}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(props: Value, texts: &[&str]) {
        let found: Vec<String> = check(&props, &Path::new("s")).iter().map(ToString::to_string).collect();
        assert_eq!(found, texts);
    }

    #[test]
    fn a_type_everywhere() {
        refused(json!({"type": "object", "properties": {"a": {"type": "string"}}}), &[]);
        refused(
            json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"}}}),
            &[
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[b].items: Required value: must be specified",
            ],
        );
        refused(
            json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            &[],
        );
        refused(json!({}), &["s.type: Required value: must not be empty at the root"]);
    }

    #[test]
    fn value_validations_restrict_what_is_in_the_structure() {
        refused(
            json!({"type": "object", "properties": {"a": {"type": "string"}},
                "anyOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"minLength": 1}}}]}),
            &[
                "s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
                "s.properties[b]: Required value: because it is defined in s.anyOf[1].properties[b]",
            ],
        );
        refused(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        );
    }

    #[test]
    fn a_pattern_that_go_cannot_read_must_not_be_taken_and_others_are() {
        for (pattern, why) in [
            ("a++", "invalid nested repetition operator: `++`"),
            ("(?x)", "invalid or unsupported Perl syntax: `(?x`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("x[a", "missing closing ]: `[a`"),
        ] {
            let said = format!(
                "s.not.pattern: Invalid value: \"{pattern}\": must be a valid regular expression, but isn't: error parsing regexp: {why}"
            );
            refused(json!({"type": "object", "not": {"pattern": pattern}}), &[&said]);
        }
        for pattern in [r"[^()[\]]+", r"\Q..\E", r"\07", "a{,5}", "{", ""] {
            refused(json!({"type": "object", "not": {"pattern": pattern}}), &[]);
        }
    }
}
