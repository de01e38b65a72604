//! Label selectors inside specs, field by field.

use serde_json::Value;

use super::{
    Errors,
    rules::{labels, qualified, text},
};
use crate::{
    field::{FieldError, Path},
    labels::Selector,
    names,
    resources::access::Get,
};

pub(super) fn label_selector(path: &Path, selector: &Value, errors: &mut Errors) {
    labels(&path.child("matchLabels"), selector.at("matchLabels"), errors);
    for (index, expression) in selector.items("matchExpressions").iter().enumerate() {
        requirement(&path.child("matchExpressions").index(index), expression, errors);
    }
}

fn requirement(path: &Path, requirement: &Value, errors: &mut Errors) {
    let values = requirement.items("values");
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if values.is_empty() {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), detail));
            }
        }
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    qualified(&path.child("key"), requirement.text("key"), errors);
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        text(&path.child("values").index(index), value, names::label_value(value), errors);
    }
}

/// The selector of a workload: valid, not empty, and matching its own template.
pub(super) fn of_template(kind: &str, path: &Path, spec: &Value, errors: &mut Errors) {
    let (selector_path, selector) = (path.child("selector"), spec.at("selector"));
    if selector.is_null() {
        errors.push(FieldError::required(&selector_path, ""));
        return;
    }
    label_selector(&selector_path, selector, errors);
    if selector.fields("matchLabels").is_none_or(serde_json::Map::is_empty)
        && selector.items("matchExpressions").is_empty()
    {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(&selector_path, selector.clone(), detail));
    }
    matches_template(path, selector, spec, errors);
}

/// Whether a selector that can be read at all matches the labels of the template beside it.
pub(super) fn matches_template(path: &Path, selector: &Value, spec: &Value, errors: &mut Errors) {
    match Selector::from_label_selector(selector) {
        Ok(parsed) => {
            let empty = serde_json::Map::new();
            let template = spec.fields("template.metadata.labels").unwrap_or(&empty);
            if !parsed.is_empty() && !parsed.matches(template) {
                let path = path.child("template").child("metadata").child("labels");
                let detail = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(&path, Value::Object(template.clone()), detail));
            }
        }
        Err(_) => {
            errors.push(FieldError::invalid(
                &path.child("selector"),
                selector.clone(),
                "invalid label selector",
            ));
        }
    }
}
