//! Which definitions are refused, in upstream's words (`pkg/apis/apiextensions/validation`). Upstream checks a form of the
//! definition in which what all versions share stands once, above them: so do the paths in its words.

mod fields;
mod schema;
mod webhook;

use super::conditions::{self, Approval};
use super::definition::is_true;
use super::structural;
use crate::access::{Get as _, same};
use crate::field::{FieldError, Path};
use crate::names;
use serde_json::Value;

type Errors = Vec<FieldError>;

/// Which rules do not hold since the stored definition breaks them already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lenience {
    pub structural: bool,
    pub conversion_versions: bool,
    pub ca_bundle: bool,
}

/// What is wrong with a new definition.
#[must_use]
pub(crate) fn create(crd: &Value) -> Errors {
    let mut errors = Errors::new();
    let spec = crd.at("spec");
    let name = crate::object::name(crd);
    if name != format!("{}.{}", spec.text("names.plural"), spec.text("group")) {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&Path::from("metadata.name"), name, why));
    }
    let lenience = Lenience { structural: false, conversion_versions: false, ca_bundle: true };
    check_spec(spec, None, lenience, &mut errors);
    status(crd, &mut errors);
    approval(crd, None, &mut errors);
    if spec.flag("preserveUnknownFields") {
        errors.push(preserve());
    }
    errors
}

/// What is wrong with a changed definition.
#[must_use]
pub(crate) fn update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let path = Path::new("spec");
    let versions = before.items("conversion.webhook.conversionReviewVersions");
    let lenience = Lenience {
        structural: before.flag("preserveUnknownFields") && !structural::violations(old).is_empty(),
        conversion_versions: !versions.is_empty() && !versions.iter().any(|v| v == "v1" || v == "v1beta1"),
        ca_bundle: !is_true(old, "Established") || webhook::bad_bundle(before),
    };
    check_spec(spec, Some(before), lenience, &mut errors);
    let mut fixed = |path: Path, at: &str| {
        if !same(spec.at(at), before.at(at)) {
            errors.push(FieldError::invalid(&path, spec.at(at).clone(), "field is immutable"));
        }
    };
    if is_true(old, "Established") {
        fixed(path.child("scope"), "scope");
        fixed(path.child("names").child("kind"), "names.kind");
    }
    fixed(path.child("group"), "group");
    fixed(path.child("names").child("plural"), "names.plural");
    status(new, &mut errors);
    approval(new, Some(old), &mut errors);
    if spec.flag("preserveUnknownFields") && !before.flag("preserveUnknownFields") {
        errors.push(preserve());
    }
    errors
}

fn preserve() -> FieldError {
    let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    FieldError::invalid(&Path::new("spec").child("preserveUnknownFields"), true, why)
}

/// What is wrong with a definition's status alone.
#[must_use]
pub(crate) fn update_status(new: &Value) -> Errors {
    let mut errors = Errors::new();
    names_of(new.at("status.acceptedNames"), &Path::new("status").child("acceptedNames"), &mut errors);
    errors
}

fn status(crd: &Value, errors: &mut Errors) {
    errors.extend(update_status(crd));
    let path = Path::new("status").child("storedVersions");
    let stored = crd.items("status.storedVersions");
    if stored.is_empty() {
        let why = "must have at least one stored version";
        errors.push(FieldError::invalid(&path, Value::Null, why));
        return;
    }
    let versions = crd.items("spec.versions");
    for version in versions.iter().filter(|v| v.flag("storage")) {
        if !stored.contains(version.at("name")) {
            let why = format!("must have the storage version {}", version.text("name"));
            errors.push(FieldError::invalid(&path, Value::Array(stored.to_vec()), why));
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| v.at("name") == name) {
            let name = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&path.index(i), name, why));
        }
    }
}

fn approval(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !conditions::is_protected(new.text("spec.group")) {
        return;
    }
    let state = conditions::approval(new);
    let kind = |a: &Approval| std::mem::discriminant(a);
    if old.is_some_and(|old| kind(&conditions::approval(old)) == kind(&state)) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(conditions::APPROVED);
    match state {
        Approval::Missing(why) => errors.push(FieldError::required(&path, why)),
        Approval::Invalid(why) => {
            let value = crate::object::annotation(new, conditions::APPROVED).unwrap_or_default();
            errors.push(FieldError::invalid(&path, value, why));
        }
        Approval::Approved(_) | Approval::Bypassed(_) => {}
    }
}

fn label(path: &Path, value: &str, mixed: bool, errors: &mut Errors) {
    let checked = if mixed { value.to_lowercase() } else { value.to_owned() };
    let wrong = names::dns1035_label(&checked);
    if !value.is_empty() && !wrong.is_empty() {
        let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
        errors.push(FieldError::invalid(path, value, format!("{prefix}{}", wrong.join(","))));
    }
}

fn names_of(of: &Value, path: &Path, errors: &mut Errors) {
    for (key, mixed) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        label(&path.child(key), of.text(key), mixed, errors);
    }
    let texts = |key: &str, errors: &mut Errors| {
        for (i, text) in of.items(key).iter().enumerate() {
            let text = text.as_str().unwrap_or_default();
            let wrong = names::dns1035_label(text);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(&path.child(key).index(i), text, wrong.join(",")));
            }
        }
    };
    texts("shortNames", errors);
    if !of.text("kind").is_empty() && of.text("kind") == of.text("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.child("listKind"), of.text("listKind"), why));
    }
    texts("categories", errors);
}

/// What every version has alike, if there is any version.
fn shared<'v>(spec: &'v Value, at: &str) -> Option<&'v Value> {
    let versions = spec.items("versions");
    let first = versions.first()?.at(at);
    versions.iter().all(|v| v.at(at) == first).then_some(first)
}

fn check_spec(spec: &Value, old: Option<&Value>, lenience: Lenience, errors: &mut Errors) {
    let path = Path::new("spec");
    let group = spec.text("group");
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required(&path.child("group"), ""));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid(&path.child("group"), group, wrong.join(",")));
    } else if !group.contains('.') {
        let why = "should be a domain with at least one dot";
        errors.push(FieldError::invalid(&path.child("group"), group, why));
    }
    match spec.text("scope") {
        "" => errors.push(FieldError::required(&path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let known = ["Cluster", "Namespaced"];
            errors.push(FieldError::not_supported(&path.child("scope"), other, &known));
        }
    }
    for (i, version) in spec.items("versions").iter().enumerate() {
        if !version.at("schema.openAPIV3Schema").is_object() && !lenience.structural {
            let path = path.child("versions").index(i).child("schema").child("openAPIV3Schema");
            errors.push(FieldError::required(&path, ""));
        }
    }
    versions(spec, old, lenience, &path, errors);
    let names_path = path.child("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        if spec.at("names").text(key).is_empty() {
            errors.push(FieldError::required(&names_path.child(key), ""));
        }
    }
    names_of(spec.at("names"), &names_path, errors);
    shared_fields(spec, old, lenience, &path, errors);
    webhook::conversion(spec, lenience, &path.child("conversion"), errors);
}

/// What stands in versions and differs between them.
fn versions(spec: &Value, old: Option<&Value>, lenience: Lenience, path: &Path, errors: &mut Errors) {
    let path = path.child("versions");
    let list = spec.items("versions");
    for (i, version) in list.iter().enumerate() {
        let path = path.index(i);
        let wrong = names::dns1035_label(version.text("name"));
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&path.child("name"), version.text("name"), wrong.join(",")));
        }
        fields::deprecation(version, &path.child("deprecationWarning"), errors);
        if shared(spec, "schema").is_none() {
            let before = version_of(old, version.text("name")).map(|v| v.at("schema.openAPIV3Schema"));
            let status = version.has("subresources.status");
            let props = version.at("schema.openAPIV3Schema");
            schema::check(props, before, status, lenience, &path.child("schema"), errors);
        }
        if shared(spec, "subresources").is_none() {
            fields::subresources(version.at("subresources"), &path.child("subresources"), errors);
        }
        if shared(spec, "additionalPrinterColumns").is_none() {
            let path = path.child("additionalPrinterColumns");
            fields::columns(version.items("additionalPrinterColumns"), &path, errors);
        }
        if shared(spec, "selectableFields").is_none() || shared(spec, "schema").is_none() {
            let before = version_of(old, version.text("name"));
            fields::selectable(version, before, &path.child("selectableFields"), errors);
        }
    }
    let count = list.iter().filter(|v| v.flag("storage")).count();
    let name = |v: &Value| v.text("name").to_owned();
    let mut distinct: Vec<String> = list.iter().map(name).collect();
    distinct.sort();
    distinct.dedup();
    if distinct.len() != list.len() {
        let why = "must contain unique version names";
        errors.push(FieldError::invalid(&path, spec.at("versions").clone(), why));
    }
    if count != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&path, spec.at("versions").clone(), why));
    }
}

fn version_of<'v>(spec: Option<&'v Value>, name: &str) -> Option<&'v Value> {
    spec?.items("versions").iter().find(|v| v.text("name") == name)
}

/// What all versions have alike.
fn shared_fields(spec: &Value, old: Option<&Value>, lenience: Lenience, path: &Path, errors: &mut Errors) {
    if let Some(of) = shared(spec, "schema").filter(|s| s.has("openAPIV3Schema")) {
        let before = old.and_then(|o| shared(o, "schema")).map(|s| s.at("openAPIV3Schema"));
        let status = spec.items("versions").iter().any(|v| v.has("subresources.status"));
        let path = path.child("validation");
        schema::check(of.at("openAPIV3Schema"), before, status, lenience, &path, errors);
    }
    if let Some(of) = shared(spec, "subresources") {
        fields::subresources(of, &path.child("subresources"), errors);
    }
    if let Some(of) = shared(spec, "additionalPrinterColumns") {
        let of = of.as_array().map(Vec::as_slice).unwrap_or_default();
        fields::columns(of, &path.child("additionalPrinterColumns"), errors);
    }
    if shared(spec, "selectableFields").is_some()
        && shared(spec, "schema").is_some()
        && let Some(first) = spec.items("versions").first()
    {
        let before = old.and_then(|o| o.items("versions").first());
        fields::selectable(first, before, &path.child("selectableFields"), errors);
    }
}

#[cfg(test)]
mod tests;
