//! Field paths and field errors, worded as upstream's `field.Path` and `field.Error` word them.
//!
//! The texts end up in `Status` messages and causes, which clients and tests match on.

use crate::goformat::{go_number, go_quote};
use serde_json::Value;
use std::fmt;

/// Where in an object something is: `spec.containers[0].name`, `metadata.annotations[foo]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// A path of one name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Path(name.into())
    }

    /// The object itself; its children have no leading dot.
    #[must_use]
    pub fn root() -> Self {
        Path::default()
    }

    /// `self.name`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        path.push_str(&self.0);
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        Path(path)
    }

    /// `self[i]`, an item of a list.
    #[must_use]
    pub fn index(&self, i: usize) -> Self {
        Path(format!("{}[{i}]", self.0))
    }

    /// `self[key]`, an entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }

    /// True for [`Path::root`].
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// `spec.containers[0].image`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    /// Upstream prints its nil path as `<nil>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Path(path.to_owned())
    }
}

/// What is wrong with a field; its [`ErrorType::cause`] is the `reason` of a `StatusCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// A reference to something that does not exist.
    NotFound,
    /// Absent or empty and must not be.
    Required,
    /// Must be unique and is not.
    Duplicate,
    /// Malformed or out of bounds.
    Invalid,
    /// Not one of an enumeration.
    NotSupported,
    /// Well formed, but not allowed here.
    Forbidden,
    /// Too many bytes; the value is not repeated.
    TooLong,
    /// `FieldValueTooMany`.
    TooMany,
    /// Not the caller's fault.
    Internal,
    /// Not of the schema's type.
    TypeInvalid,
}

impl ErrorType {
    /// The machine readable cause, such as `FieldValueRequired`.
    #[must_use]
    pub(crate) fn cause(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// The human readable form, such as `Required value`.
    #[must_use]
    pub(crate) fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::Internal)
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of wrong.
    pub error_type: ErrorType,
    /// Path of the field.
    pub field: String,
    /// The offending value; `None` where it is not shown.
    pub bad_value: Option<Value>,
    /// What would be right, possibly empty.
    pub detail: String,
}

impl FieldError {
    /// An error whose value is shown.
    #[must_use]
    pub fn new(
        error_type: ErrorType,
        field: &Path,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        FieldError {
            error_type,
            field: field.to_string(),
            bad_value: Some(value.into()),
            detail: detail.into(),
        }
    }

    fn without_value(error_type: ErrorType, field: &Path, detail: impl Into<String>) -> Self {
        FieldError { error_type, field: field.to_string(), bad_value: None, detail: detail.into() }
    }

    /// `f: Required value: detail`.
    #[must_use]
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::without_value(ErrorType::Required, field, detail)
    }

    /// `f: Invalid value: "v": detail`.
    #[must_use]
    pub fn invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, value, detail)
    }

    /// `f: Duplicate value: "v"`.
    #[must_use]
    pub fn duplicate(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, field, value, "")
    }

    /// `f: Not found: "v"`.
    #[must_use]
    pub fn not_found(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, field, value, "")
    }

    /// `f: Unsupported value: "v": supported values: "A", "B"`; the values are listed in order.
    #[must_use]
    pub fn not_supported<S: AsRef<str>>(field: &Path, value: impl Into<Value>, supported: &[S]) -> Self {
        let mut quoted: Vec<String> = supported.iter().map(|s| go_quote(s.as_ref())).collect();
        quoted.sort();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(ErrorType::NotSupported, field, value, detail)
    }

    /// As [`FieldError::not_supported`], for values upstream lists in an order of its own.
    #[must_use]
    pub fn not_supported_as_listed<S: AsRef<str>>(
        field: &Path,
        value: impl Into<Value>,
        supported: &[S],
    ) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| go_quote(s.as_ref())).collect();
        Self::new(ErrorType::NotSupported, field, value, format!("supported values: {}", quoted.join(", ")))
    }

    /// `f: Forbidden: detail`.
    #[must_use]
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::without_value(ErrorType::Forbidden, field, detail)
    }

    /// `f: Too long: may not be more than N bytes`.
    #[must_use]
    pub fn too_long(field: &Path, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        Self::without_value(ErrorType::TooLong, field, format!("may not be more than {max_bytes} {unit}"))
    }

    /// `f: Too many: actual: must have at most N items`.
    #[must_use]
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooMany, field, actual, format!("must have at most {max} {unit}"))
    }

    /// `f: Internal error: err`.
    #[must_use]
    pub fn internal(field: &Path, error: &dyn fmt::Display) -> Self {
        Self::without_value(ErrorType::Internal, field, error.to_string())
    }

    /// `f: Invalid value: "v": detail` with the cause `FieldValueTypeInvalid`.
    #[must_use]
    pub(crate) fn type_invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::TypeInvalid, field, value, detail)
    }

    /// The text without the field, as it stands in a `StatusCause`.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.error_type.text().to_owned();
        if let Some(value) = self.bad_value.as_ref().filter(|_| self.error_type.shows_value()) {
            text.push_str(": ");
            text.push_str(&render_value(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// Strings in Go's quotes, numbers, booleans and null bare, structures as the JSON of Go, which spells out what HTML could misread.
fn render_value(value: &Value) -> String {
    match value {
        Value::String(s) => go_quote(s),
        Value::Number(n) => go_number(n),
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            let mut json = String::new();
            write_json(value, &mut json);
            json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
    }
}

/// Structures of `meta.v1` whose fields Go writes in an order that is not the alphabet's, each with those that tell it from a map. Structures
/// of the API's other packages have other names inside upstream's server, whatever their order.
const ORDERED: [(&[&str], &[&str]); 2] = [
    (&["matchLabels", "matchExpressions"], &["matchLabels", "matchExpressions"]),
    (
        &["apiVersion", "kind", "name", "uid"],
        &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"],
    ),
];

/// JSON whose structures have their fields in Go's order.
fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            write_each('[', items, ']', out, write_json);
        }
        Value::Object(fields) => {
            let is = |(told, all): &&(&[&str], &[&str])| {
                told.iter().all(|name| fields.contains_key(*name))
                    && fields.keys().all(|name| all.contains(&name.as_str()))
            };
            let order = ORDERED.iter().find(is).map_or(&[][..], |(_, all)| *all);
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| order.iter().position(|of| of == name));
            write_each('{', fields, '}', out, |(name, value), out| {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_json(value, out);
            });
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_each<T>(
    open: char,
    items: impl IntoIterator<Item = T>,
    close: char,
    out: &mut String,
    mut write: impl FnMut(T, &mut String),
) {
    out.push(open);
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

/// Upstream's `ErrorList.ToAggregate().Error()`: distinct texts, bare when one, else `[a, b]`; `None` when empty.
#[must_use]
pub(crate) fn aggregate(errors: &[FieldError]) -> Option<String> {
    let mut seen: Vec<String> = Vec::with_capacity(errors.len());
    for text in errors.iter().map(ToString::to_string) {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.len() {
        0 => None,
        1 => seen.pop(),
        _ => Some(format!("[{}]", seen.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_render_children_indexes_and_keys() {
        let spec = Path::new("spec");
        assert_eq!(spec.child("containers").index(0).child("name").to_string(), "spec.containers[0].name");
        assert_eq!(
            Path::new("metadata").child("annotations").key("foo").to_string(),
            "metadata.annotations[foo]"
        );
        assert_eq!(Path::root().child("a").to_string(), "a");
        assert_eq!(Path::root().to_string(), "<nil>");
    }

    #[test]
    fn errors_read_as_upstream_writes_them() {
        let f = Path::new("spec").child("x");
        let cases = [
            (FieldError::required(&f, ""), "spec.x: Required value"),
            (FieldError::required(&f, "need it"), "spec.x: Required value: need it"),
            (FieldError::invalid(&f, "a\"b\n", "no"), r#"spec.x: Invalid value: "a\"b\n": no"#),
            (FieldError::invalid(&f, -3, "must be positive"), "spec.x: Invalid value: -3: must be positive"),
            (FieldError::invalid(&f, true, "no"), "spec.x: Invalid value: true: no"),
            (FieldError::invalid(&f, Value::Null, "no"), "spec.x: Invalid value: null: no"),
            (
                FieldError::duplicate(&f, json!(["<a&b>"])),
                "spec.x: Duplicate value: [\"\\u003ca\\u0026b\\u003e\"]",
            ),
            (FieldError::invalid(&f, json!({"a": 1}), "no"), "spec.x: Invalid value: {\"a\":1}: no"),
            (FieldError::duplicate(&f, "v"), "spec.x: Duplicate value: \"v\""),
            (FieldError::not_found(&f, "v"), "spec.x: Not found: \"v\""),
            (
                FieldError::not_supported(&f, "v", &["B", "A"]),
                "spec.x: Unsupported value: \"v\": supported values: \"A\", \"B\"",
            ),
            (FieldError::forbidden(&f, "not now"), "spec.x: Forbidden: not now"),
            (FieldError::too_long(&f, 63), "spec.x: Too long: may not be more than 63 bytes"),
            (FieldError::too_many(&f, 9, 8), "spec.x: Too many: 9: must have at most 8 items"),
            (FieldError::internal(&f, &"boom"), "spec.x: Internal error: boom"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn structures_are_written_in_the_order_of_their_fields_and_maps_in_that_of_their_keys() {
        let shown = |value: Value| FieldError::duplicate(&Path::new("f"), value).body();
        let selector = json!({"matchExpressions": [{"key": "k", "operator": "Exists"}], "matchLabels": {"b": "1", "a": "2"}});
        assert_eq!(
            shown(selector),
            r#"Duplicate value: {"matchLabels":{"a":"2","b":"1"},"matchExpressions":[{"key":"k","operator":"Exists"}]}"#
        );
        let owner = json!({"apiVersion": "v1", "blockOwnerDeletion": true, "controller": true, "kind": "K", "name": "n", "uid": "u"});
        assert_eq!(
            shown(json!([owner])),
            r#"Duplicate value: [{"apiVersion":"v1","kind":"K","name":"n","uid":"u","controller":true,"blockOwnerDeletion":true}]"#
        );
        // Labels that are called so.
        assert_eq!(
            shown(json!({"name": "n", "kind": "K", "controller": "c"})),
            r#"Duplicate value: {"controller":"c","kind":"K","name":"n"}"#
        );
    }

    #[test]
    fn aggregates_drop_repeats_and_bracket_many() {
        let a = FieldError::required(&Path::new("a"), "");
        let b = FieldError::required(&Path::new("b"), "");
        assert_eq!(aggregate(&[]), None);
        assert_eq!(aggregate(&[a.clone(), a.clone()]).as_deref(), Some("a: Required value"));
        assert_eq!(aggregate(&[a, b]).as_deref(), Some("[a: Required value, b: Required value]"));
    }
}
