//! What the cache holds: an object's bytes and the few fields that lists, selectors and watches ask for.

use super::ordered::Keyed;
use crate::{Entry, Revision};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the API server takes out of a stored value, once per revision of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexed {
    /// The object as clients get it (canonical JSON with its resourceVersion), shared by every list and watch.
    pub bytes: Bytes,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Values of selectable fields by path, `spec.nodeName`.
    pub fields: BTreeMap<String, String>,
}

/// One object in the cache.
#[derive(Debug, PartialEq, Eq)]
pub struct Cached {
    /// Full key, `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// The object as clients get it.
    pub bytes: Bytes,
    /// `metadata.namespace`, `None` for cluster-scoped objects.
    pub namespace: Option<Box<str>>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Values of selectable fields by path, `spec.nodeName`.
    pub fields: BTreeMap<String, String>,
    /// The object's resourceVersion. For the object of a deletion: the revision of the deletion.
    pub revision: Revision,
    /// Revision at which the object was created.
    pub create_revision: Revision,
}

impl Cached {
    /// The object of `entry` under the resource's `prefix`; the key's last segment is the name, one before it the
    /// namespace.
    pub(super) fn new(prefix: &str, entry: &Entry, indexed: Indexed) -> Self {
        let path = entry.key.strip_prefix(prefix).unwrap_or(&entry.key);
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace.into()), name.into()),
            None => (None, path.into()),
        };
        let Indexed { bytes, labels, fields } = indexed;
        Self {
            key: entry.key.clone(),
            bytes,
            namespace,
            name,
            labels,
            fields,
            revision: entry.mod_revision,
            create_revision: entry.create_revision,
        }
    }
}

impl Keyed for Arc<Cached> {
    fn key(&self) -> &str {
        &self.key
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was created.
    Added,
    /// It was written again.
    Modified,
    /// It was deleted.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// Added, modified or deleted.
    pub kind: ChangeKind,
    /// The object after the change; for a deletion its last state with the deletion's resourceVersion.
    pub object: Arc<Cached>,
    /// The object before the change, `None` for an addition.
    pub prev: Option<Arc<Cached>>,
    /// Revision of the change.
    pub revision: Revision,
}

/// Which objects a list or a watch is about. The narrower, the fewer changes a watch is woken for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every object of the resource.
    All,
    /// Objects of one namespace.
    Namespace(String),
    /// A single object.
    Object {
        /// Its namespace, `None` where the resource is cluster-scoped.
        namespace: Option<String>,
        /// `metadata.name`.
        name: String,
    },
    /// Objects whose selectable field has this value (pods of one node), in any namespace. A watch gets the changes whose
    /// object has the value before or after.
    Field {
        /// The field, `spec.nodeName`.
        name: String,
        /// What the field must equal.
        value: String,
    },
}

impl Scope {
    /// The keys the scope lies within.
    pub(super) fn key_prefix(&self, resource: &str) -> String {
        match self {
            Self::All | Self::Field { .. } => resource.to_owned(),
            Self::Namespace(namespace) => format!("{resource}{namespace}/"),
            Self::Object { namespace: Some(namespace), name } => format!("{resource}{namespace}/{name}"),
            Self::Object { namespace: None, name } => format!("{resource}{name}"),
        }
    }

    /// Whether the scope holds `object`.
    pub fn holds(&self, object: &Cached) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => object.namespace.as_deref() == Some(namespace),
            Self::Object { namespace, name } => {
                object.namespace.as_deref() == namespace.as_deref() && *object.name == **name
            }
            Self::Field { name, value } => object.fields.get(name) == Some(value),
        }
    }
}
