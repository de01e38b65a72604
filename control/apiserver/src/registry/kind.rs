//! One served version of one resource: the registry's single view of what `machinery` knows about it.
//!
//! Inside the registry an object always has the form of the version it is stored in; the client's version is met at the
//! edges only, by [`Kind::to_storage`] and [`Kind::to_client`].

use super::slot::Slot;
use super::{metadata, stored};
use jiff::Timestamp;
use machinery::custom::{self, Definition, Version};
use machinery::field::FieldError;
use machinery::object::{Gk, Gr, Gvk};
use machinery::resources::{self, Resource, strategy, table, validate};
use machinery::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Entry;

/// A resource in one of its versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The declaration.
    pub resource: &'static Resource,
    /// The version spoken with the client.
    pub version: &'static str,
    /// A custom resource's definition.
    pub custom: Option<&'static Slot>,
}

impl Kind {
    /// The resource that a path names.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let resource = resources::by_gvr(group, version, plural)?;
        let version = resource.versions.iter().find(|v| **v == version)?;
        Some(Kind { resource, version, custom: None })
    }

    /// The resource in the version it is stored in: what the server itself works with. Where another group stores
    /// it, the first version served.
    pub(crate) fn stored(resource: &'static Resource) -> Self {
        let version = resource
            .versions
            .iter()
            .find(|v| resource.group == resource.storage_group && **v == resource.storage_version)
            .or(resource.versions.first())
            .copied()
            .unwrap_or_default();
        Kind { resource, version, custom: None }
    }

    /// The resource whose objects are of that kind.
    pub(crate) fn by_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        let resource = resources::by_gvk(group, version, kind)?;
        Kind::find(group, version, resource.plural)
    }

    /// A built-in resource by group and plural.
    pub(crate) fn of(group: &str, plural: &str) -> Option<Self> {
        resources::by_group_resource(group, plural).map(Kind::stored)
    }

    /// Every served version of what is stored here, this one among them: the same objects by other names. `subresource`
    /// must be served there, too.
    pub(crate) fn equivalents(self, subresource: &str) -> impl Iterator<Item = Self> {
        let same = move |r: &&'static Resource| {
            let stored = r.is_stored() && r.key_prefix == self.resource.key_prefix;
            (stored || self.is(r.group, r.plural))
                && (subresource.is_empty() || r.subresource(subresource).is_some())
        };
        let builtin =
            resources::all().iter().filter(move |r| self.custom.is_none() && same(r)).flat_map(|resource| {
                resource.versions.iter().map(move |version| Kind { resource, version, custom: None })
            });
        let served = self.custom.and_then(Slot::definition);
        let versions = served.map(|d| d.versions.iter().map(|v| (v.served, v.name, v.resource)).collect());
        let versions: Vec<(bool, &'static str, &'static Resource)> = versions.unwrap_or_default();
        let subresource = subresource.to_owned();
        let custom = versions.into_iter().filter(move |(served, _, resource)| {
            *served && (subresource.is_empty() || resource.subresource(&subresource).is_some())
        });
        let slot = self.custom;
        builtin.chain(custom.map(move |(_, version, resource)| Kind { resource, version, custom: slot }))
    }

    pub(crate) fn gr(&self) -> Gr {
        Gr::new(self.resource.group, self.resource.plural)
    }

    pub(crate) fn gk(&self) -> Gk {
        Gk::new(self.resource.group, self.resource.kind)
    }

    pub(crate) fn gvk(&self) -> Gvk {
        Gvk::new(self.resource.group, self.version, self.resource.kind)
    }

    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version(self.version)
    }

    /// Is this `group`'s `plural`?
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    /// True where stored bytes are what this version's clients get.
    pub(crate) fn is_storage(&self) -> bool {
        if let Some(slot) = self.custom {
            return slot.definition().is_some_and(|d| d.storage == self.version && !d.asks());
        }
        resources::convert::is_storage(self.resource, self.version)
    }

    /// The fields a selector may name.
    pub(crate) fn selectable(&self) -> impl Iterator<Item = &'static str> {
        let namespace = self.resource.namespaced.then_some("metadata.namespace");
        std::iter::once("metadata.name").chain(namespace).chain(self.resource.fields.iter().copied())
    }

    /// The value of a selectable field of a stored object.
    pub(crate) fn field_value(&self, stored: &Value, field: &str) -> Option<String> {
        resources::selectable::value(self.resource, stored, field)
    }

    /// Upstream's text for a field selector that names no selectable field.
    pub(crate) fn unknown_field_label(&self, field: &str) -> String {
        if self.resource.fields.is_empty() {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {field}")
        }
    }

    /// A stored entry as an object, in the stored version.
    pub(crate) fn decode(&self, entry: &Entry) -> Result<Value, Status> {
        stored::decode(&entry.value, entry.mod_revision)
            .map_err(|e| Status::internal_error(format!("decode {}: {e}", entry.key)))
    }

    /// The bytes the watch cache holds as an object, in the stored version.
    pub(crate) fn decode_wire(&self, bytes: &[u8]) -> Result<Value, Status> {
        serde_json::from_slice(bytes)
            .map_err(|e| Status::internal_error(format!("decode {}: {e}", self.gr())))
    }

    /// Turns an object of the stored version into one of the client's.
    ///
    /// Custom objects come from the registry in the client's version already, but for lists and watches of a definition whose
    /// versions differ by name only.
    pub(crate) fn to_client(self, object: &mut Value) {
        if let Some((definition, version)) = self.definition() {
            if machinery::object::api_version(object) != self.api_version() {
                machinery::object::set_gvk(object, &self.gvk());
                // What is stored was brought to its schema; what this version's does not know goes now.
                if let Err(error) = definition.coerce(definition_version(&definition, version), object, true)
                {
                    tracing::warn!(error, kind = %self.gvk(), "convert an object");
                }
            }
            return;
        }
        if !self.is_storage() {
            resources::convert::from_storage(self.resource, self.version, object);
        }
    }

    /// Turns an object of the client's version into one of the stored version.
    pub(crate) fn to_storage(self, object: &mut Value) {
        if self.custom.is_some() {
            return;
        }
        // Even the stored version has what is only ever sent, such as a secret's `stringData`.
        resources::convert::to_storage(self.resource, self.version, object);
    }

    /// The bytes to store for an object of the stored version.
    pub(crate) fn encode(&self, object: &Value) -> Result<bytes::Bytes, Status> {
        stored::encode(object).map_err(|e| Status::internal_error(format!("encode {}: {e}", self.gr())))
    }

    /// The key of an object.
    pub(crate) fn key_of(&self, object: &Value) -> String {
        self.resource.key(metadata::namespace(object), metadata::name(object))
    }
}

/// What an object of this kind must be and become: `machinery`'s pure functions.
impl Kind {
    /// Fills in what the client left out.
    pub(crate) fn default(&self, object: &mut Value) {
        if let Some((definition, version)) = self.definition() {
            return definition.default(definition_version(&definition, version), object);
        }
        resources::defaults::apply(self.resource, object);
    }

    /// Makes a new object what objects of its kind start as.
    pub(crate) fn prepare_create(&self, object: &mut Value) {
        if let Some((definition, version)) = self.definition() {
            return custom::strategy::prepare_create(definition_version(&definition, version), object);
        }
        strategy::prepare_for_create(self.resource, object);
        strategy::canonicalize(self.resource, object);
    }

    /// Carries over what this write may not change.
    pub(crate) fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if let Some((definition, version)) = self.definition() {
            return match subresource {
                "status" => custom::strategy::prepare_status_update(new, old),
                _ => custom::strategy::prepare_update(definition_version(&definition, version), new, old),
            };
        }
        match subresource {
            "" => strategy::prepare_for_update(self.resource, new, old),
            // The scheduler's binding writes spec and status at once, which no client may.
            "binding" => {}
            _ => strategy::prepare_for_subresource_update(self.resource, subresource, new, old),
        }
        strategy::canonicalize(self.resource, new);
    }

    /// What is wrong with a new object.
    pub(crate) fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        if let Some((definition, version)) = self.definition() {
            return custom::strategy::validate_create(definition_version(&definition, version), object);
        }
        validate::create(self.resource, object)
    }

    /// What is wrong with a change.
    pub(crate) fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        if let Some((definition, version)) = self.definition() {
            let version = definition_version(&definition, version);
            return match subresource {
                "status" => custom::strategy::validate_status(version, new, old),
                _ => custom::strategy::validate_update(version, new, old),
            };
        }
        match subresource {
            "" => validate::update(self.resource, new, old),
            sub => validate::subresource_update(self.resource, sub, new, old),
        }
    }

    /// What an author ought to know of an object that is accepted all the same.
    pub(crate) fn warnings(&self, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        if !subresource.is_empty() {
            return Vec::new();
        }
        if self.custom.is_some() {
            return custom::strategy::warnings(object, old);
        }
        strategy::warnings(self.resource, object, old)
    }

    /// The warning of a delete that leaves its dependents behind.
    pub(crate) fn orphaning_warning(&self) -> Option<String> {
        strategy::orphaning_warning(self.resource).map(str::to_owned)
    }

    /// The fields a write of this subresource (the object itself where empty) resets.
    pub(crate) fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        if let Some((definition, version)) = self.definition() {
            let status = definition_version(&definition, version).status;
            return strategy::reset_fields_of_custom(status, subresource);
        }
        strategy::reset_fields(self.resource, subresource)
    }

    /// May a PUT create it?
    pub(crate) fn creates_on_update(&self) -> bool {
        self.custom.is_none() && strategy::allow_create_on_update(self.resource)
    }

    /// May a PUT name no resourceVersion?
    pub(crate) fn unconditional_update(&self) -> bool {
        self.custom.is_none() && strategy::allow_unconditional_update(self.resource)
    }

    /// The columns of its table.
    pub(crate) fn columns(&self) -> Value {
        if let Some((definition, version)) = self.definition() {
            return definition_version(&definition, version).columns.headers();
        }
        table::columns(self.resource).iter().map(table::Column::definition).collect()
    }

    /// Its row.
    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Value {
        if let Some((definition, version)) = self.definition() {
            return json!({"cells": definition_version(&definition, version).columns.cells(object, now)});
        }
        let mut row = json!({"cells": table::cells(self.resource, object, now)});
        if let Some(conditions) = table::conditions(object) {
            row["conditions"] = conditions;
        }
        row
    }
}

/// Custom resources.
impl Kind {
    /// What the definition says now, and where in it this version is; none for built-in resources, and for a custom
    /// one that is no longer served.
    pub(crate) fn definition(&self) -> Option<(Arc<Definition>, usize)> {
        let definition = self.custom?.definition()?;
        let at = definition.versions.iter().position(|v| v.name == self.version)?;
        Some((definition, at))
    }

    /// The canonical form of an object of this kind, and the fields it does not know.
    ///
    /// # Errors
    /// For a value of the wrong type, in the words of Go's decoder.
    pub(crate) fn normalize(&self, value: Value) -> Result<(Value, Vec<String>), String> {
        if let Some((definition, version)) = self.definition() {
            let mut value = value;
            let unknown = definition.coerce(definition_version(&definition, version), &mut value, false)?;
            return Ok((value, unknown));
        }
        let table = machinery::schema::builtin();
        let Some(id) = table.kind(&self.gvk()) else { return Ok((value, Vec::new())) };
        let normalized = table.normalize(id, value).map_err(|e| e.to_string())?;
        Ok((normalized.value, normalized.unknown))
    }

    /// Whether a webhook makes this version's objects of stored ones.
    pub(crate) fn is_converted(&self) -> bool {
        self.definition().is_some_and(|(definition, _)| definition.asks())
    }

    /// What clients of a deprecated version of a custom resource are told.
    pub(crate) fn deprecation(&self) -> Option<String> {
        let (definition, version) = self.definition()?;
        definition_version(&definition, version).warning.clone()
    }
}

/// The version [`Kind::definition`] found.
pub(crate) fn definition_version(definition: &Definition, at: usize) -> &Version {
    // The index was found in this very definition.
    &definition.versions[at]
}
