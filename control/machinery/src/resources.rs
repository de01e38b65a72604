//! The built-in resources: one declaration each, and the pure functions that make an object of one kind right.
//!
//! - [`Resource`], [`all`], [`by_gvr`], [`by_gvk`], [`groups`]: the declarations, read once from `data/resources.txt`
//! - [`selectable`]: the value a field selector compares
//! - [`convert`]: between the served versions of one stored resource
//! - [`defaults`]: what upstream fills in when a client leaves a field out
//! - [`strategy`]: what a server does to an object before it is created, updated or deleted
//! - [`validate`]: which objects are refused, and in which words
//! - [`table`]: the columns and cells `kubectl get` prints

mod annotations;
pub mod convert;
pub mod defaults;
mod parse;
pub mod quota;
pub mod selectable;
pub mod strategy;
pub mod table;
pub(crate) mod validate;

use std::sync::LazyLock;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

/// The verbs of a resource whose declaration names none.
const STANDARD_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// An API group: its versions in priority order, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Empty for the core group.
    pub name: &'static str,
    /// The served versions, preferred first; never empty.
    pub versions: Vec<&'static str>,
}

impl Group {}

/// A part of a resource with its own verbs, such as `status` or `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// The last segment of the path.
    pub name: &'static str,
    /// The kind that is read or sent.
    pub kind: &'static str,
    /// Group and version of that kind where they are not the resource's own.
    pub group_version: Option<(&'static str, &'static str)>,
    /// Sorted, as discovery lists them.
    pub verbs: Vec<&'static str>,
}

/// Declaration of a built-in resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// The versions that serve it, preferred first; never empty.
    pub versions: Vec<&'static str>,
    /// The group objects are kept in: its own but for `events.k8s.io`, which shares the core group's events.
    pub storage_group: &'static str,
    /// The version objects are kept in.
    pub storage_version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `PodList`.
    pub list_kind: String,
    /// `pods`, as in a path.
    pub plural: &'static str,
    /// `pod`, as a user may type it.
    pub singular: String,
    /// `po`.
    pub short_names: Vec<&'static str>,
    /// `all`, `api-extensions`.
    pub categories: Vec<&'static str>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Sorted, as discovery lists them.
    pub verbs: Vec<&'static str>,
    /// In discovery's order.
    pub subresources: Vec<Subresource>,
    /// Where objects are kept, with the closing slash: `/registry/services/specs/`.
    pub key_prefix: String,
    /// What a field selector may name beside `metadata.name` (and `metadata.namespace` where namespaced).
    pub fields: Vec<&'static str>,
    /// The version that discovery's hash is computed from.
    pub(crate) hash_version: &'static str,
}

impl Resource {
    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether clients may write a status apart from the object.
    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether the verb is served on the resource itself.
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects are kept at all; reviews and bindings are answered and forgotten.
    pub fn is_stored(&self) -> bool {
        self.serves("list") && self.serves("create")
    }

    /// Whether objects are kept as JSON although there is a protobuf form (upstream: the two servers behind the main one have codecs of
    /// their own).
    pub fn is_stored_as_json(&self) -> bool {
        matches!(self.group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
    }

    /// `apps/v1`, or `v1` in the core group, for one of the versions served.
    pub fn api_version(&self, version: &str) -> String {
        group_version(self.group, version)
    }

    /// The `apiVersion` of objects at rest.
    pub fn storage_api_version(&self) -> String {
        group_version(self.storage_group, self.storage_version)
    }

    /// `deployments.apps`, or `pods` in the core group: the name errors give a resource.
    pub fn qualified_name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The folder that holds a namespace's objects; the whole resource's where none is given.
    pub fn list_key(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced && !namespace.is_empty() => {
                format!("{}{namespace}/", self.key_prefix)
            }
            _ => self.key_prefix.clone(),
        }
    }

    /// The key one object is kept under.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.key_prefix)
        } else {
            format!("{}{name}", self.key_prefix)
        }
    }

    /// Whether a field selector may name this path in any version.
    pub fn selects_by(&self, field: &str) -> bool {
        field == "metadata.name"
            || (self.namespaced && field == "metadata.namespace")
            || self.fields.contains(&field)
    }

    /// Discovery's `storageVersionHash`; empty for what is not stored.
    pub fn storage_version_hash(&self) -> String {
        if !self.is_stored() {
            return String::new();
        }
        let text = format!("{}/{}/{}", self.storage_group, self.hash_version, self.kind);
        let digest = Sha256::digest(text.as_bytes());
        base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
    }
}

/// `group/version`, without the slash in the core group.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

struct Table {
    groups: Vec<Group>,
    resources: Vec<Resource>,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| parse::table(include_str!("../data/resources.txt"), STANDARD_VERBS));

/// Every built-in resource, by group in discovery's order, then by name.
pub fn all() -> &'static [Resource] {
    &TABLE.resources
}

/// Every group in discovery's order, the core group first.
pub fn groups() -> &'static [Group] {
    &TABLE.groups
}

/// The resource a path names, where that version serves it.
pub fn by_gvr(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|r| r.group == group && r.plural == plural && r.versions.contains(&version))
}

/// The resource whose objects have this kind, where that version serves it.
pub fn by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    all().iter().find(|r| r.group == group && r.kind == kind && r.versions.contains(&version))
}

/// The resource of that name in whichever version it has.
pub fn by_group_resource(group: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().find(|r| r.group == group && r.plural == plural)
}

#[cfg(test)]
mod tests;
