//! What is wrong with an object of a built-in kind; empty where nothing is. The kinds' own rules are in [`crate::resources::validate`], those of
//! definitions in [`crate::custom::check`], which knows the kinds.

use crate::custom::check;
use crate::field::FieldError;
use crate::resources::{Resource, validate};
use serde_json::Value;

fn is_definition(resource: &Resource) -> bool {
    resource.group == "apiextensions.k8s.io" && resource.kind == "CustomResourceDefinition"
}

/// Of an object that is to be created.
pub fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = validate::create(resource, object);
    if is_definition(resource) {
        errors.extend(check::create(object));
    }
    errors
}

/// Of an object that is to replace another.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate::update(resource, new, old);
    if is_definition(resource) {
        errors.extend(check::update(new, old));
    }
    errors
}

/// Of an object whose subresource is to be written: the metadata, and what that subresource may hold.
pub fn subresource_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut errors = validate::subresource_update(resource, subresource, new, old);
    if is_definition(resource) && subresource == "status" {
        errors.extend(check::update_status(new));
    }
    errors
}
