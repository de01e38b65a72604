//! One served version of one resource: the registry's single view of what `machinery` knows about it.
//!
//! Inside the registry an object always has the form of the version it is stored in; the client's version is met at the
//! edges only, by [`Kind::to_storage`] and [`Kind::to_client`].

use super::{metadata, stored};
use jiff::Timestamp;
use machinery::field::FieldError;
use machinery::object::{Gk, Gr, Gvk};
use machinery::resources::{self, Resource, strategy, table, validate};
use machinery::status::Status;
use serde_json::{Value, json};
use store::Entry;

/// A resource in one of its versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The declaration.
    pub resource: &'static Resource,
    /// The version spoken with the client.
    pub version: &'static str,
}

impl Kind {
    /// The resource that a path names.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let resource = resources::by_gvr(group, version, plural)?;
        let version = resource.versions.iter().find(|v| **v == version)?;
        Some(Kind { resource, version })
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
        Kind { resource, version }
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
        resources::all()
            .iter()
            .filter(same)
            .flat_map(|resource| resource.versions.iter().map(move |version| Kind { resource, version }))
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
    pub(crate) fn to_client(self, object: &mut Value) {
        if !self.is_storage() {
            resources::convert::from_storage(self.resource, self.version, object);
        }
    }

    /// Turns an object of the client's version into one of the stored version.
    pub(crate) fn to_storage(self, object: &mut Value) {
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
        resources::defaults::apply(self.resource, object);
    }

    /// Makes a new object what objects of its kind start as.
    pub(crate) fn prepare_create(&self, object: &mut Value) {
        strategy::prepare_for_create(self.resource, object);
        strategy::canonicalize(self.resource, object);
    }

    /// Carries over what this write may not change.
    pub(crate) fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value) {
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
        validate::create(self.resource, object)
    }

    /// What is wrong with a change.
    pub(crate) fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        match subresource {
            "" => validate::update(self.resource, new, old),
            sub => validate::subresource_update(self.resource, sub, new, old),
        }
    }

    /// What an author ought to know of an object that is accepted all the same.
    pub(crate) fn warnings(&self, object: &Value) -> Vec<String> {
        strategy::warnings(self.resource, object)
    }

    /// The warning of a delete that leaves its dependents behind.
    pub(crate) fn orphaning_warning(&self) -> Option<String> {
        strategy::orphaning_warning(self.resource).map(str::to_owned)
    }

    /// May a PUT create it?
    pub(crate) fn creates_on_update(&self) -> bool {
        strategy::allow_create_on_update(self.resource)
    }

    /// May a PUT name no resourceVersion?
    pub(crate) fn unconditional_update(&self) -> bool {
        strategy::allow_unconditional_update(self.resource)
    }

    /// The columns of its table.
    pub(crate) fn columns(&self) -> Value {
        table::columns(self.resource).iter().map(table::Column::definition).collect()
    }

    /// Its row.
    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Value {
        let mut row = json!({"cells": table::cells(self.resource, object, now)});
        if let Some(conditions) = table::conditions(object) {
            row["conditions"] = conditions;
        }
        row
    }
}
