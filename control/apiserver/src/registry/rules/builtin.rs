//! The rules of built-in resources: `machinery`'s pure functions, by the resource's declaration.

use super::versions::Answers;
use super::{Owned, Rules, Scaling, Selects, signing_request, tls_pair};
use crate::apart::apart;
use jiff::Timestamp;
use machinery::admission::kinds;
use machinery::apply::managed::Managed;
use machinery::apply::versions::{Halt, Versions};
use machinery::apply::{self, Applied};
use machinery::cel::Type;
use machinery::field::FieldError;
use machinery::object::{self, Gvk, parse_api_version};
use machinery::resources::{Resource, convert, defaults, strategy, table};
use machinery::schema;
use machinery::schema::node::Builtin as Structure;
use machinery::status::Status;
use machinery::validation;
use serde_json::{Value, json};

/// A version of a built-in resource.
pub(crate) struct Builtin {
    pub resource: &'static Resource,
    pub version: &'static str,
}

/// The structure of an object by its own group, version and kind.
fn structure(object: &Value) -> Option<Structure<'static>> {
    let table = schema::builtin();
    Gvk::of(object).and_then(|gvk| table.kind(&gvk)).map(|id| Structure::new(table, id))
}

impl Builtin {
    fn gvk(&self) -> Gvk {
        Gvk::new(self.resource.group, self.version, self.resource.kind)
    }
}

/// Does work whose time grows with the object in a way that other requests of this thread need not wait for it: a definition's rules are
/// compiled, and their costs estimated, in some milliseconds.
fn judged<T>(resource: &Resource, work: impl FnOnce() -> T) -> T {
    match (resource.group, resource.kind) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => apart(work),
        _ => work(),
    }
}

impl Rules for Builtin {
    fn is_storage(&self) -> bool {
        convert::is_storage(self.resource, self.version)
    }

    fn to_client(&self, object: &mut Value) {
        if !self.is_storage() {
            convert::from_storage(self.resource, self.version, object);
        }
    }

    fn to_storage(&self, object: &mut Value) {
        // Even the stored version has what is only ever sent, such as a secret's `stringData`.
        convert::to_storage(self.resource, self.version, object);
    }

    /// In flight it is in the stored version.
    fn to_flight(&self, _: &mut Value) {}

    fn normalize(&self, object: Value) -> Result<(Value, Vec<String>), String> {
        let table = schema::builtin();
        let Some(id) = table.kind(&self.gvk()) else { return Ok((object, Vec::new())) };
        let normalized = table.normalize(id, object).map_err(|e| e.to_string())?;
        Ok((normalized.value, normalized.unknown))
    }

    fn normalize_applied(&self, object: Value) -> Result<Value, String> {
        self.normalize(object).map(|(object, _)| object)
    }

    fn closed(&self) -> Option<&'static str> {
        None
    }

    fn scaling(&self) -> Option<Scaling> {
        self.resource.subresource("scale")?;
        let (wanted, present) = ("spec.replicas".to_owned(), "status.replicas".to_owned());
        Some(Scaling { wanted, present, selects: Selects::Labels })
    }

    fn object_type(&self) -> Option<Type> {
        kinds::builtin(&self.gvk())
    }

    fn has_protobuf(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        defaults::apply(self.resource, object);
    }

    fn share(&self, object: &mut Value) -> bool {
        defaults::share(self.resource, object)
    }

    fn read_back(&self, object: &mut Value) {
        defaults::read_back(self.resource, object);
    }

    fn prepare_create(&self, object: &mut Value) -> Vec<String> {
        let outdated = strategy::warnings_of_outdated(self.resource, object);
        strategy::prepare_for_create(self.resource, object);
        strategy::canonicalize(self.resource, object);
        outdated
    }

    fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        match subresource {
            "" => strategy::prepare_for_update(self.resource, new, old),
            // The scheduler's binding writes spec and status at once, which no client may.
            "binding" => {}
            _ => {
                strategy::prepare_for_subresource_update(self.resource, subresource, new, old);
                let now = machinery::time::format(Timestamp::now());
                strategy::note_transition(self.resource, subresource, new, old, &now);
            }
        }
        strategy::canonicalize(self.resource, new);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = judged(self.resource, || validation::create(self.resource, object));
        if (self.resource.group, self.resource.kind) == ("certificates.k8s.io", "CertificateSigningRequest") {
            signing_request::insert(object, &mut errors);
        }
        errors
    }

    fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        match subresource {
            "" => judged(self.resource, || validation::update(self.resource, new, old)),
            sub => validation::subresource_update(self.resource, sub, new, old),
        }
    }

    fn warnings(&self, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = match subresource {
            "" => strategy::warnings(self.resource, object, old),
            "status" => strategy::status_warnings(self.resource, object),
            _ => Vec::new(),
        };
        if subresource.is_empty() && (self.resource.group, self.resource.kind) == ("", "Secret") {
            found.extend(tls_pair::warning(object));
        }
        found
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        strategy::reset_fields(self.resource, subresource)
    }

    fn creates_on_update(&self) -> bool {
        strategy::allow_create_on_update(self.resource)
    }

    fn unconditional_update(&self) -> bool {
        strategy::allow_unconditional_update(self.resource)
    }

    fn columns(&self) -> Value {
        table::columns(self.resource).iter().map(table::Column::definition).collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Value {
        let mut row = json!({"cells": table::cells(self.resource, object, now)});
        if let Some(conditions) = table::conditions(object) {
            row["conditions"] = conditions;
        }
        row
    }

    fn deprecation(&self) -> Option<String> {
        None
    }

    fn zero(&self, object: &Value) -> Value {
        let table = schema::builtin();
        let Some(gvk) = Gvk::of(object) else { return json!({}) };
        let empty = json!({"apiVersion": gvk.api_version(), "kind": gvk.kind});
        let normalized = table.kind(&gvk).and_then(|id| table.normalize(id, empty.clone()).ok());
        normalized.map_or(empty, |normalized| normalized.value)
    }

    fn untypable(&self, config: &Value) -> Vec<String> {
        structure(config).map(|structure| apply::untypable(structure, config)).unwrap_or_default()
    }

    fn owners(&self, of: Owned<'_>, new: &Value, _: &Answers) -> Result<Option<Managed>, Halt> {
        let Some(structure) = structure(new) else { return Ok(None) };
        apply::update(structure, of.live, new, of.present, of.write, &Others(self.resource)).map(Some)
    }

    fn apply(&self, of: Owned<'_>, config: &Value, _: &Answers) -> Result<Applied, Halt> {
        let structure = structure(config);
        let structure =
            structure.ok_or_else(|| Status::internal_error(format!("no schema of {}", self.gvk())))?;
        apply::apply(structure, of.live, config, of.present, of.write, &Others(self.resource))
    }
}

/// The versions in which a resource is served. What it was in another group, upstream does not compare either.
struct Others(&'static Resource);

impl Others {
    fn version<'v>(&self, api_version: &'v str) -> Option<&'v str> {
        let (group, version) = parse_api_version(api_version)?;
        Some(version).filter(|version| group == self.0.group && self.0.versions.contains(version))
    }
}

impl Versions<Structure<'static>> for Others {
    fn structure(&self, api_version: &str) -> Option<Structure<'static>> {
        let table = schema::builtin();
        let gvk = Gvk::new(self.0.group, self.version(api_version)?, self.0.kind);
        table.kind(&gvk).map(|id| Structure::new(table, id))
    }

    fn objects(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt> {
        let converted = |object: &&Value| {
            let mut object = (*object).clone();
            let from = object::api_version(&object).to_owned();
            if let (Some(from), Some(to)) = (self.version(&from), self.version(api_version)) {
                convert::to_storage(self.0, from, &mut object);
                convert::from_storage(self.0, to, &mut object);
            }
            object
        };
        Ok(objects.iter().map(converted).collect())
    }
}
