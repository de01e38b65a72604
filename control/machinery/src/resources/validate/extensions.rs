//! What extends the server: custom resources, aggregated APIs.

use serde_json::Value;

use super::{Errors, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::Get,
};

pub(super) fn custom_resource_definition(definition: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), definition.at("spec"));
    let (group, plural) = (spec.text("group"), spec.text("names.plural"));
    let name = definition.text("metadata.name");
    let wanted = format!("{plural}.{group}");
    if name != wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&Path::from("metadata.name"), name, detail));
    }
    if rules::required(&path.child("group"), group, errors) {
        rules::subdomain(&path.child("group"), group, errors);
        if !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            errors.push(FieldError::invalid(&path.child("group"), group, detail));
        }
    }
    rules::one_of(&path.child("scope"), spec.text("scope"), &["Cluster", "Namespaced"], errors);
    let names_path = path.child("names");
    for (key, lower) in [("plural", true), ("singular", true), ("kind", false), ("listKind", false)] {
        let value = spec.at("names").text(key);
        if value.is_empty() {
            if key != "singular" {
                errors.push(FieldError::required(&names_path.child(key), ""));
            }
            continue;
        }
        let checked = if lower { value.to_owned() } else { value.to_lowercase() };
        let messages = names::dns1035_label(&checked);
        if !messages.is_empty() {
            let detail = if lower {
                messages.join(",")
            } else {
                format!("may have mixed case, but should otherwise match: {}", messages.join(","))
            };
            errors.push(FieldError::invalid(&names_path.child(key), value, detail));
        }
    }
    if spec.text("names.kind") == spec.text("names.listKind") && !spec.text("names.kind").is_empty() {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&names_path.child("listKind"), spec.text("names.listKind"), detail));
    }
    versions(&path.child("versions"), spec, errors);
}

fn versions(path: &Path, spec: &Value, errors: &mut Errors) {
    let versions = spec.items("versions");
    let stored = versions.iter().filter(|version| version.flag("storage")).count();
    if versions.is_empty() || stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, spec.at("versions").clone(), detail));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = version.text("name");
        rules::text(&path.child("name"), name, names::dns1035_label(name), errors);
        if versions.iter().take(index).any(|other| other.text("name") == name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        let schema_path = path.child("schema").child("openAPIV3Schema");
        let schema = version.at("schema.openAPIV3Schema");
        if schema.is_null() {
            errors.push(FieldError::required(&schema_path, "schemas are required"));
        } else {
            if schema.text("type") != "object" {
                let detail = "must be object at the root";
                if schema.text("type").is_empty() {
                    errors.push(FieldError::required(&schema_path.child("type"), detail));
                } else {
                    errors.push(FieldError::invalid(&schema_path.child("type"), schema.text("type"), detail));
                }
            }
            structural(&schema_path, schema, true, errors);
        }
        for (index, column) in version.items("additionalPrinterColumns").iter().enumerate() {
            let path = path.child("additionalPrinterColumns").index(index);
            rules::required(&path.child("name"), column.text("name"), errors);
            let types = ["boolean", "date", "integer", "number", "string"];
            rules::one_of(&path.child("type"), column.text("type"), &types, errors);
            rules::required(&path.child("jsonPath"), column.text("jsonPath"), errors);
        }
    }
}

/// How deep a schema may nest; deeper ones are refused before they exhaust the stack.
const DEPTH_MAX: usize = 200;

/// A structural schema names a type everywhere, so that unknown fields can be told from known ones.
fn structural(path: &Path, schema: &Value, root: bool, errors: &mut Errors) {
    if path.as_str().matches('.').count() > DEPTH_MAX {
        errors.push(FieldError::forbidden(path, "schema is nested too deeply"));
        return;
    }
    let free =
        schema.flag("x-kubernetes-int-or-string") || schema.flag("x-kubernetes-preserve-unknown-fields");
    let kind = schema.text("type");
    if kind.is_empty() && !free && !root {
        let path = path.child("type");
        errors.push(FieldError::required(&path, "must not be empty for specified object fields"));
    }
    let kinds = ["array", "boolean", "integer", "number", "object", "string"];
    rules::supported_or_empty(&path.child("type"), kind, &kinds, errors);
    if schema.has("$ref") {
        errors.push(FieldError::forbidden(&path.child("$ref"), "must not be set"));
    }
    if kind == "array" && !schema.has("items") {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if schema.fields("properties").is_some_and(|p| !p.is_empty()) && schema.has("additionalProperties") {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(&path.child("additionalProperties"), detail));
    }
    for (name, property) in schema.fields("properties").into_iter().flatten() {
        structural(&path.child("properties").key(name), property, false, errors);
    }
    if schema.at("items").is_object() {
        structural(&path.child("items"), schema.at("items"), false, errors);
    }
    if schema.at("additionalProperties").is_object() {
        structural(&path.child("additionalProperties"), schema.at("additionalProperties"), false, errors);
    }
}

/// Once a definition is established its objects' names and scope stay.
pub(super) fn custom_resource_definition_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let established = old
        .items("status.conditions")
        .iter()
        .any(|condition| condition.text("type") == "Established" && condition.text("status") == "True");
    if established {
        rules::immutable(&path.child("scope"), new.at("spec.scope"), old.at("spec.scope"), errors);
        let kind = path.child("names").child("kind");
        rules::immutable(&kind, new.at("spec.names.kind"), old.at("spec.names.kind"), errors);
    }
    rules::immutable(&path.child("group"), new.at("spec.group"), old.at("spec.group"), errors);
    let plural = path.child("names").child("plural");
    rules::immutable(&plural, new.at("spec.names.plural"), old.at("spec.names.plural"), errors);
    for (index, version) in old.items("status.storedVersions").iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if !new.items("spec.versions").iter().any(|version| version.text("name") == name) {
            let path = Path::new("status").child("storedVersions").index(index);
            let detail = "missing from spec.versions; ".to_owned()
                + name
                + " was previously a storage version, and must remain in spec.versions until a storage migration \
                   ensures no data remains persisted in "
                + name
                + " and removes "
                + name
                + " from status.storedVersions";
            errors.push(FieldError::invalid(&path, name, detail));
        }
    }
}

pub(super) fn api_service(service: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), service.at("spec"));
    let wanted = format!("{}.{}", spec.text("version"), spec.text("group"));
    let name = service.text("metadata.name");
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        errors.push(FieldError::invalid(&Path::from("metadata.name"), name, detail));
    }
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let value = spec.int(key).unwrap_or_default();
        if value <= 0 || value > max {
            let detail = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(&path.child(key), value, detail));
        }
    }
    if spec.has("service") {
        let path = path.child("service");
        rules::required(&path.child("namespace"), spec.text("service.namespace"), errors);
        rules::required(&path.child("name"), spec.text("service.name"), errors);
    }
}
