//! What a version says beside its schema: deprecation, subresources, columns, selectable fields.

use super::Errors;
use crate::access::Get as _;
use crate::field::{FieldError, Path};
use serde_json::Value;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MOST_SELECTABLE: usize = 8;

pub(super) fn deprecation(version: &Value, path: &Path, errors: &mut Errors) {
    let Some(warning) = version.at("deprecationWarning").as_str() else { return };
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, warning, why));
    if !version.flag("deprecated") {
        return refuse("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        refuse("must not be an empty string".to_owned());
    }
    if let Some((i, _)) =
        warning.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))
    {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
}

fn simple_path(text: &str, path: &Path, errors: &mut Errors) -> bool {
    if text.starts_with('.') {
        return true;
    }
    errors.push(FieldError::invalid(path, text, "must be a simple json path starting with ."));
    false
}

pub(super) fn subresources(of: &Value, path: &Path, errors: &mut Errors) {
    let scale = of.at("scale");
    if !scale.is_object() {
        return;
    }
    for (key, root) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let (path, text) = (path.child(&format!("scale.{key}")), scale.text(key));
        if text.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if simple_path(text, &path, errors) && !text.starts_with(&format!("{root}.")) {
            errors.push(FieldError::invalid(&path, text, format!("should be a json path under {root}")));
        }
    }
    let (path, text) = (path.child("scale.labelSelectorPath"), scale.text("labelSelectorPath"));
    if !text.is_empty()
        && simple_path(text, &path, errors)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        let why = "should be a json path under either .spec or .status";
        errors.push(FieldError::invalid(&path, text, why));
    }
}

pub(super) fn columns(columns: &[Value], path: &Path, errors: &mut Errors) {
    for (i, column) in columns.iter().enumerate() {
        let path = path.index(i);
        if column.text("name").is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
        match column.text("type") {
            "" => errors.push(FieldError::required(&path.child("type"), one_of(&COLUMN_TYPES))),
            kind if COLUMN_TYPES.contains(&kind) => {}
            kind => errors.push(FieldError::invalid(&path.child("type"), kind, one_of(&COLUMN_TYPES))),
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            errors.push(FieldError::invalid(&path.child("format"), format, one_of(&COLUMN_FORMATS)));
        }
        match column.text("jsonPath") {
            "" => errors.push(FieldError::required(&path.child("JSONPath"), "")),
            text => {
                simple_path(text, &path.child("JSONPath"), errors);
            }
        }
    }
}

/// The schema a simple path leads to, or why it leads nowhere.
pub(super) fn follow<'s>(props: &'s Value, path: &str) -> Result<&'s Value, String> {
    let Some(names) = path.strip_prefix('.') else {
        return Err(format!("expected [ or . but got: {path}"));
    };
    let mut here = props;
    for name in names.split('.') {
        if name.is_empty() || name.contains(['[', ']']) {
            return Err(format!("does not refer to a valid field: {name}"));
        }
        let property = here.fields("properties").and_then(|p| p.get(name));
        here = match property {
            Some(property) => property,
            None if here.at("additionalProperties").is_object() => here.at("additionalProperties"),
            None if std::ptr::eq(here, props) && name == "metadata" => &Value::Null,
            None => return Err(format!("does not refer to a valid field: {name}")),
        };
    }
    Ok(here)
}

pub(super) fn selectable(version: &Value, old: Option<&Value>, path: &Path, errors: &mut Errors) {
    let list = version.items("selectableFields");
    let props = version.at("schema.openAPIV3Schema");
    if list.is_empty() {
        return;
    }
    if !props.is_object() {
        let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
        errors.push(FieldError::invalid(path, "", why));
        return;
    }
    let mut known: Vec<&str> = Vec::new();
    for (i, field) in list.iter().enumerate() {
        let path = path.index(i).child("jsonPath");
        let text = field.text("jsonPath");
        if text.is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        let schema = match follow(props, text) {
            Ok(schema) => schema,
            Err(why) => {
                errors.push(FieldError::invalid(&path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if text == ".metadata" || text.starts_with(".metadata.") {
            errors.push(FieldError::invalid(&path, text, "must not point to fields in metadata"));
        }
        if !matches!(schema.text("type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&path, text, why));
        }
        if known.contains(&text) {
            errors.push(FieldError::duplicate(&path, text));
        } else {
            known.push(text);
        }
    }
    let unchanged = old.is_some_and(|o| o.items("selectableFields") == list);
    if known.len() > MOST_SELECTABLE && !unchanged {
        errors.push(FieldError::too_many(path, known.len(), MOST_SELECTABLE));
    }
}
