//! The rules of custom resources, by what their definition says now.

use super::versions::Answers;
use super::{Owned, Rules, Scaling, Selects};
use crate::registry::serving::Serving;
use jiff::Timestamp;
use machinery::apply::managed::Managed;
use machinery::apply::versions::{Halt, Versions};
use machinery::apply::{self, Applied};
use machinery::cel::Type;
use machinery::custom::node::Custom as Structure;
use machinery::custom::outline::Listed;
use machinery::custom::{Conversion, Definition, Origin, Version, rules, strategy};
use machinery::field::FieldError;
use machinery::object::{self, Gvk, parse_api_version};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// A version that a definition serves.
pub(crate) struct Custom {
    serving: Arc<Serving>,
    /// Where in the definition the version is.
    at: usize,
    /// Compiled once something is asked that the outline does not say.
    definition: OnceLock<Arc<Definition>>,
}

impl Custom {
    /// What a definition says of a version; none where it has none of that name.
    pub(crate) fn of(serving: Arc<Serving>, version: &str) -> Option<Self> {
        let at = serving.outline.versions.iter().position(|v| v.name == version)?;
        Some(Custom { serving, at, definition: OnceLock::new() })
    }

    fn definition(&self) -> &Definition {
        self.definition.get_or_init(|| self.serving.definition())
    }

    fn listed(&self) -> &Listed {
        // The index was found in this very outline.
        &self.serving.outline.versions[self.at]
    }

    pub(crate) fn version(&self) -> &Version {
        // A definition has the versions of its outline, in its order.
        &self.definition().versions[self.at]
    }

    fn gvk(&self) -> Gvk {
        Gvk::new(self.serving.outline.group, self.listed().name, self.listed().resource.kind)
    }

    fn structure(&self) -> Structure<'_> {
        Structure::Object(self.version().schema.as_deref())
    }
}

impl Rules for Custom {
    fn is_storage(&self) -> bool {
        self.serving.outline.storage == self.listed().name && !self.serving.outline.asks()
    }

    /// Custom objects come from the registry in the client's version already, but for lists and watches of a definition whose
    /// versions differ by name only.
    fn to_client(&self, object: &mut Value) {
        let gvk = self.gvk();
        if object::api_version(object) != gvk.api_version() {
            object::set_gvk(object, &gvk);
            // What is stored was brought to its schema; what this version's does not know goes now.
            if let Err(error) = self.definition().coerce(self.version(), object, Origin::Stored) {
                tracing::warn!(error, kind = %gvk, "convert an object");
            }
        }
    }

    /// In flight it is in the client's version.
    fn to_storage(&self, _: &mut Value) {}

    fn to_flight(&self, object: &mut Value) {
        self.to_client(object);
    }

    fn normalize(&self, mut object: Value) -> Result<(Value, Vec<String>), String> {
        let unknown = self.definition().coerce(self.version(), &mut object, Origin::Sent)?;
        Ok((object, unknown))
    }

    fn normalize_applied(&self, mut object: Value) -> Result<Value, String> {
        self.definition().coerce(self.version(), &mut object, Origin::Applied)?;
        Ok(object)
    }

    fn closed(&self) -> Option<&'static str> {
        let why = "create not allowed while custom resource definition is terminating";
        self.serving.outline.terminating.then_some(why)
    }

    fn scaling(&self) -> Option<Scaling> {
        let scale = self.listed().scale.as_ref()?;
        Some(Scaling {
            wanted: scale.spec_replicas.clone(),
            present: scale.status_replicas.clone(),
            selects: scale.selector.clone().map_or(Selects::Nothing, Selects::Text),
        })
    }

    fn object_type(&self) -> Option<Type> {
        Some(rules::object_type(self.version().schema.as_deref()))
    }

    fn has_protobuf(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        self.definition().default(self.version(), object);
    }

    fn share(&self, _: &mut Value) -> bool {
        false
    }

    /// It is kept as JSON, and what reading fills in is filled in there.
    fn read_back(&self, _: &mut Value) {}

    fn prepare_create(&self, object: &mut Value) -> Vec<String> {
        strategy::prepare_create(self.version(), object);
        Vec::new()
    }

    fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        match subresource {
            "status" => strategy::prepare_status_update(new, old),
            _ => strategy::prepare_update(self.version(), new, old),
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        strategy::validate_create(self.version(), object)
    }

    fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        match subresource {
            "status" => strategy::validate_status(self.version(), new, old),
            _ => strategy::validate_update(self.version(), new, old),
        }
    }

    fn warnings(&self, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        if subresource.is_empty() { strategy::warnings(object, old) } else { Vec::new() }
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        machinery::resources::strategy::reset_fields_of_custom(self.listed().status, subresource)
    }

    fn creates_on_update(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> Value {
        self.version().columns.headers()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Value {
        json!({"cells": self.version().columns.cells(object, now)})
    }

    fn deprecation(&self) -> Option<String> {
        self.listed().warning.clone()
    }

    fn zero(&self, _: &Value) -> Value {
        let gvk = self.gvk();
        json!({"apiVersion": gvk.api_version(), "kind": gvk.kind})
    }

    fn untypable(&self, config: &Value) -> Vec<String> {
        // Where a definition of old keeps every unknown field, none is undeclared.
        let structure =
            if self.definition().preserve_unknown { Structure::Object(None) } else { self.structure() };
        apply::untypable(structure, config)
    }

    fn owners(&self, of: Owned<'_>, new: &Value, answers: &Answers) -> Result<Option<Managed>, Halt> {
        let versions = Others { custom: self, answers };
        apply::update(self.structure(), of.live, new, of.present, of.write, &versions).map(Some)
    }

    fn apply(&self, of: Owned<'_>, config: &Value, answers: &Answers) -> Result<Applied, Halt> {
        let versions = Others { custom: self, answers };
        apply::apply(self.structure(), of.live, config, of.present, of.write, &versions)
    }
}

/// All versions of a definition, served or not, and what its webhook said so far.
struct Others<'a> {
    custom: &'a Custom,
    answers: &'a Answers,
}

impl<'a> Others<'a> {
    fn version(&self, api_version: &str) -> Option<&'a Version> {
        let definition = self.custom.definition();
        let (group, version) = parse_api_version(api_version)?;
        definition.version(version).filter(|_| group == definition.group)
    }
}

impl<'a> Versions<Structure<'a>> for Others<'a> {
    fn structure(&self, api_version: &str) -> Option<Structure<'a>> {
        self.version(api_version).map(|version| Structure::Object(version.schema.as_deref()))
    }

    fn objects(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt> {
        let definition = self.custom.definition();
        if let Conversion::Webhook(_) = definition.conversion {
            return self.answers.of(objects, api_version);
        }
        let renamed = |object: &&Value| {
            let mut object = (*object).clone();
            let Some(version) = self.version(api_version) else { return object };
            object::set_gvk(&mut object, &Gvk::new(definition.group, version.name, version.resource.kind));
            if let Err(error) = definition.coerce(version, &mut object, Origin::Stored) {
                tracing::debug!(error, api_version, "an owner's version of an object");
            }
            object
        };
        Ok(objects.iter().map(renamed).collect())
    }
}
