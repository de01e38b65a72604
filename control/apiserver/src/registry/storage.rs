//! The store and the watch caches as the verbs see them: objects in and out, failures as statuses.

use super::kind::Kind;
use super::slot::Slot;
use super::{Registry, stored};
use bytes::Bytes;
use machinery::access::Get as _;
use machinery::custom::Version;
use machinery::fields::FieldSelector;
use machinery::status::{Cause, Details, Reason, Status};
use serde_json::Value;
use std::time::Duration;
use store::cache::{Cache, Feed, Indexed, Snapshot};
use store::{Entry, Error, Expect, Revision};
use supervise::Task;

/// What the watch cache keeps of an entry. `kinds` are the resources stored under the same prefix.
pub(super) fn extract(kinds: &[Kind], entry: &Entry) -> Indexed {
    let bytes = stored::wire(&entry.value, entry.mod_revision);
    // Where nothing but metadata is selected by, nothing else is taken apart: definitions are large.
    let plain = kinds.iter().all(|kind| kind.resource.fields.is_empty());
    let read = if plain { metadata_of(&entry.value) } else { serde_json::from_slice::<Value>(&entry.value) };
    let Ok(object) = read else {
        // Unreadable values are listed as they are: whoever wrote them must be able to see and delete them.
        return Indexed { bytes, ..Indexed::default() };
    };
    let labels = object.texts("metadata.labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut fields = std::collections::BTreeMap::new();
    for kind in kinds {
        for field in kind.selectable() {
            if let Some(value) = kind.field_value(&object, field) {
                fields.insert(field.to_owned(), value);
            }
        }
    }
    Indexed { bytes, labels, fields }
}

/// An object with its metadata, and nothing else of it.
fn metadata_of(bytes: &[u8]) -> serde_json::Result<Value> {
    #[derive(serde::Deserialize)]
    struct Object {
        #[serde(default)]
        metadata: Value,
    }
    let Object { metadata } = serde_json::from_slice(bytes)?;
    Ok(serde_json::json!({"metadata": metadata}))
}

/// What the watch cache keeps of a custom object: its bytes as clients of the stored version read them.
pub(super) fn extract_custom(slot: &Slot, entry: &Entry) -> Indexed {
    let read = slot.serving().zip(serde_json::from_slice::<Value>(&entry.value).ok());
    let Some((serving, mut object)) = read else {
        return Indexed { bytes: stored::wire(&entry.value, entry.mod_revision), ..Indexed::default() };
    };
    let definition = serving.definition();
    definition.read(&mut object);
    let bytes = match stored::encode(&object) {
        Ok(bytes) => stored::wire(&bytes, entry.mod_revision),
        Err(_) => stored::wire(&entry.value, entry.mod_revision),
    };
    let labels = object.texts("metadata.labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut fields = std::collections::BTreeMap::new();
    fields.insert("metadata.name".to_owned(), machinery::object::name(&object).to_owned());
    let namespace = machinery::object::namespace(&object);
    if !namespace.is_empty() {
        fields.insert("metadata.namespace".to_owned(), namespace.to_owned());
    }
    for version in &definition.versions {
        fields.extend(custom_fields(version, &object));
    }
    Indexed { bytes, labels, fields }
}

/// Whether a custom object, in the version its client speaks, is selected.
pub(super) fn selects(kind: &Kind, fields: &FieldSelector, object: &Value) -> bool {
    let mut values = std::collections::BTreeMap::new();
    values.insert("metadata.name".to_owned(), machinery::object::name(object).to_owned());
    values.insert("metadata.namespace".to_owned(), machinery::object::namespace(object).to_owned());
    if let Some(custom) = kind.definition() {
        values.extend(custom_fields(custom.version(), object));
    }
    fields.matches(|field| values.get(field).map(String::as_str))
}

/// The values of a version's selectable fields.
pub(super) fn custom_fields<'a>(
    version: &'a Version,
    object: &'a Value,
) -> impl Iterator<Item = (String, String)> + 'a {
    version.selectable.iter().map(|field| {
        let value = field.path.first(object).filter(|v| !v.is_null());
        (field.name.to_owned(), value.map(machinery::goformat::go_value).unwrap_or_default())
    })
}

/// The task that fills the watch cache of a key prefix, `/registry/pods/`: one a cache, so that none ends with another. A new life
/// lists again and ends the watches of the one before.
pub(super) fn feed_task(prefix: &str, feed: Feed) -> Task {
    let resource = prefix.trim_start_matches("/registry/").trim_end_matches('/');
    Task::endless(format!("feed/{resource}"), move || feed.clone().run())
}

impl Registry {
    /// The resources whose watch cache has not read everything yet, by the start of their keys.
    #[must_use]
    pub fn unsynced(&self) -> Vec<&'static str> {
        let unready = self.caches.iter().filter(|(_, cache)| cache.revision().is_err());
        unready.map(|(prefix, _)| *prefix).collect()
    }

    /// Has every watch cache let go of what is old.
    pub(crate) fn forget_old(&self) {
        self.caches.values().for_each(Cache::forget_old);
        self.custom.forget_old();
    }

    /// The watch cache of a resource.
    pub(crate) fn cache(&self, kind: &Kind) -> Result<Cache, Status> {
        if let Some(slot) = kind.custom {
            return self.custom_cache(slot);
        }
        self.caches
            .get(kind.resource.key_prefix.as_str())
            .cloned()
            .ok_or_else(|| Status::internal_error(format!("{} has no watch cache", kind.gr())))
    }

    /// The watch cache of a resource, filled: one that nobody asked for before is filled now.
    pub(crate) async fn filled(&self, kind: &Kind) -> Result<Cache, Status> {
        let cache = self.cache(kind)?;
        if kind.custom.is_some() {
            cache.filled().await.map_err(|e| unready(kind, &e))?;
        }
        Ok(cache)
    }

    /// The stored entry, read from the store itself.
    pub(crate) async fn entry(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Entry>, Status> {
        let key = kind.resource.key(namespace, name);
        self.backend.get(&key).await.map_err(|e| failed(kind, name, "get", &e))
    }

    /// The object in `kind`'s version, read from the store itself.
    pub(crate) async fn read(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        match self.entry(kind, namespace, name).await? {
            Some(entry) => self.decode(kind, &entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// The object, or 404.
    pub(crate) async fn read_required(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Value, Status> {
        self.read(kind, namespace, name).await?.ok_or_else(|| Status::not_found(&kind.gr(), name))
    }

    /// Every object, as new as the store has them, not decoded.
    pub(crate) async fn fresh(&self, kind: &Kind) -> Result<Snapshot, Status> {
        self.cache(kind)?.newest().await.map_err(|e| unready(kind, &e))
    }

    /// Every object of a namespace (all, where empty), as new as the store has them.
    pub(crate) async fn current(&self, kind: &Kind, namespace: &str) -> Result<Vec<Value>, Status> {
        decoded(kind, namespace, &self.fresh(kind).await?)
    }

    /// Every object of a namespace (all, where empty) as the watch cache has it now.
    pub(crate) fn cached(&self, kind: &Kind, namespace: &str) -> Result<Vec<Value>, Status> {
        let snapshot = self.cache(kind)?.snapshot().map_err(|e| unready(kind, &e))?;
        decoded(kind, namespace, &snapshot)
    }

    /// One object as the watch cache has it, or from the store where the cache does not know it (yet).
    pub(crate) async fn lookup(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let cached = self.cache(kind)?.get(&kind.resource.key(namespace, name)).ok().flatten();
        match cached {
            Some(object) => kind.decode_wire(&object.bytes).map(Some),
            None => self.read(kind, namespace, name).await,
        }
    }

    /// Writes an object if the key is in the expected state. `Ok(None)`: it is not.
    pub(crate) async fn write(
        &self,
        kind: &Kind,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Option<Entry>, Status> {
        match self.backend.put(key, value, expect, ttl).await {
            Ok(entry) => Ok(Some(entry)),
            Err(error) => refused(kind, key, "write", &error),
        }
    }

    /// Removes a key if it is at `revision`. `Ok(None)`: it is not.
    pub(crate) async fn remove(
        &self,
        kind: &Kind,
        key: &str,
        at: Revision,
    ) -> Result<Option<(Entry, Revision)>, Status> {
        match self.backend.delete(key, Expect::At(at)).await {
            Ok(removed) => Ok(Some(removed)),
            Err(error) => refused(kind, key, "delete", &error),
        }
    }
}

/// What a write that failed comes to: nothing where the key was not in the expected state.
pub(crate) fn refused<T>(
    kind: &Kind,
    key: &str,
    operation: &str,
    error: &Error,
) -> Result<Option<T>, Status> {
    match error {
        Error::Conflict { .. } => Ok(None),
        error => Err(failed(kind, key.rsplit('/').next().unwrap_or_default(), operation, error)),
    }
}

/// A store failure as clients see it.
pub(crate) fn failed(kind: &Kind, name: &str, operation: &str, error: &Error) -> Status {
    match error {
        Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.".to_owned())
        }
        Error::Future { asked, current } => too_large(*asked, *current),
        Error::TooLarge { size, limit, .. } => Status::request_entity_too_large(format!(
            "{} {name:?}: object is too large: {size} bytes, the limit is {limit}",
            kind.gr()
        )),
        Error::Closed { .. } => Status::service_unavailable("the server is shutting down"),
        // Nothing has happened: clients may try again by themselves (upstream: `storage.IsUnreachable`).
        Error::Unavailable { .. } => Status::server_timeout(&kind.gr(), operation, 2),
        Error::Undecided { .. } => Status::timeout(supervise::chain(error), 0),
        other => {
            tracing::error!(resource = %kind.gr(), name, operation, error = other as &dyn std::error::Error, "store");
            Status::internal_error(other)
        }
    }
}

/// The objects of a namespace (all, where empty).
fn decoded(kind: &Kind, namespace: &str, snapshot: &Snapshot) -> Result<Vec<Value>, Status> {
    let prefix = kind.resource.list_key(Some(namespace));
    snapshot.range(&prefix, None).map(|o| kind.decode_wire(&o.bytes)).collect()
}

/// A cache that cannot answer, as clients see it.
pub(crate) fn unready(kind: &Kind, error: &store::cache::Error) -> Status {
    match error {
        store::cache::Error::NotFresh { asked, current } => too_large(*asked, *current),
        store::cache::Error::TooOld { .. } => Status::expired(error.to_string()),
        store::cache::Error::Unavailable { .. } => Status::server_timeout(&kind.gr(), "list", 2),
        store::cache::Error::NotReady { .. } => {
            Status::too_many_requests(format!("storage is (re)initializing: {}", kind.gr()), 1)
        }
    }
}

/// 504 with the cause by which clients know that they are ahead of this server.
fn too_large(asked: Revision, current: Revision) -> Status {
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    Status::failure(
        504,
        Reason::Timeout,
        format!("Timeout: Too large resource version: {asked}, current: {current}"),
    )
    .with_details(Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() })
}
