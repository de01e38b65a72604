//! One served version of one resource: the registry's single view of what `machinery` knows about it.
//!
//! Inside the registry an object always has the form of the version it is stored in; the client's version is met at the
//! edges only, by [`Kind::to_storage`] and [`Kind::to_client`].

use super::rules::{Builtin, Custom, Rules};
use super::slot::Slot;
use super::{metadata, stored};
use machinery::object::{Gk, Gr, Gvk};
use machinery::resources::{self, Resource, strategy};
use machinery::status::Status;
use serde_json::Value;
use store::Entry;
use tokio_util::sync::CancellationToken;

/// A resource in one of its versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
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
        let served = self.custom.and_then(Slot::serving);
        let versions =
            served.map(|s| s.outline.versions.iter().map(|v| (v.served, v.name, v.resource)).collect());
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

    /// Is this the resource of CustomResourceDefinitions?
    pub(crate) fn is_definitions(&self) -> bool {
        self.is("apiextensions.k8s.io", "customresourcedefinitions")
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

    /// The bytes to store for an object of the stored version.
    pub(crate) fn encode(&self, object: &Value) -> Result<bytes::Bytes, Status> {
        stored::encode(object).map_err(|e| Status::internal_error(format!("encode {}: {e}", self.gr())))
    }

    /// The key of an object.
    pub(crate) fn key_of(&self, object: &Value) -> String {
        self.resource.key(metadata::namespace(object), metadata::name(object))
    }
}

/// What is asked most of its [`Rules`], at the edges: on the way in and out.
impl Kind {
    /// What objects of this kind must be and become. Of a custom resource, what its definition says now; where that is gone, nothing
    /// built in applies either, and the store refuses what comes.
    pub(crate) fn rules(&self) -> Box<dyn Rules> {
        match self.definition() {
            Some(custom) => Box::new(custom),
            None => Box::new(Builtin { resource: self.resource, version: self.version }),
        }
    }

    /// What the definition says now of this version; none for built-in resources, and for a custom one that is no longer served.
    pub(crate) fn definition(&self) -> Option<Custom> {
        Custom::of(self.custom?.serving()?, self.version)
    }

    /// Whether a path finds it: custom resources are found by paths of their own scope only, `everywhere` (lists and watches) from outside
    /// of namespaces, too.
    pub(crate) fn is_found(&self, namespace: &str, everywhere: bool) -> bool {
        self.custom.is_none()
            || self.resource.namespaced != namespace.is_empty()
            || (self.resource.namespaced && everywhere)
    }

    /// Cancelled when its objects get another watch cache.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.custom.and_then(Slot::storage).map(|storage| storage.replaced.clone()).unwrap_or_default()
    }

    /// True where stored bytes are what this version's clients get.
    pub(crate) fn is_storage(&self) -> bool {
        self.rules().is_storage()
    }

    /// Whether reading gives what is stored: a custom object is brought to its definition, or is gone with it.
    pub(crate) fn reads_as_stored(&self) -> bool {
        self.custom.is_none()
    }

    /// Whether a webhook makes this version's objects of stored ones.
    pub(crate) fn is_converted(&self) -> bool {
        self.custom.and_then(Slot::serving).is_some_and(|serving| serving.outline.asks())
    }

    /// Turns an object of the stored version into one of the client's.
    pub(crate) fn to_client(self, object: &mut Value) {
        self.rules().to_client(object);
    }

    /// Turns an object of the client's version into one of the stored version.
    pub(crate) fn to_storage(self, object: &mut Value) {
        self.rules().to_storage(object);
    }

    /// The canonical form of an object, and the fields its schema does not have.
    ///
    /// # Errors
    /// For a value of the wrong type, in the words of Go's decoder.
    pub(crate) fn normalize(&self, object: Value) -> Result<(Value, Vec<String>), String> {
        self.rules().normalize(object)
    }

    /// Fills in what the client left out.
    pub(crate) fn default(&self, object: &mut Value) {
        self.rules().default(object);
    }

    /// The warning of a delete that leaves its dependents behind.
    pub(crate) fn orphaning_warning(&self) -> Option<String> {
        strategy::orphaning_warning(self.resource).map(str::to_owned)
    }
}
