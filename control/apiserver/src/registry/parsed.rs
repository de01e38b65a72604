//! Stored configuration in the form it is used in, parsed once a change.
//!
//! Whoever asks compares the keys and revisions in the watch cache with those of the last parse: no task, no notice, and
//! never older than the watch cache.

use super::Registry;
use super::kind::Kind;
use super::storage::unready;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use store::Revision;

struct Held<T> {
    stamp: Vec<(Arc<str>, Revision)>,
    items: Arc<Vec<T>>,
}

/// Items parsed from all objects of one resource, in the order of the objects' names.
pub(crate) struct Parsed<T>(Mutex<Held<T>>);

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Parsed(Mutex::new(Held { stamp: Vec::new(), items: Arc::default() }))
    }
}

impl<T> Parsed<T> {
    /// The items `parse` makes of every object (in the stored version) of `kind`.
    pub(crate) fn get(
        &self,
        registry: &Registry,
        kind: &Kind,
        parse: impl Fn(&Value, &mut Vec<T>),
    ) -> Result<Arc<Vec<T>>, Status> {
        let snapshot = registry.cache(kind)?.snapshot().map_err(|e| unready(kind, &e))?;
        let prefix = kind.resource.list_key(None);
        let mut held = self.0.lock();
        let now: Vec<_> =
            snapshot.range(&prefix, None).map(|object| (object.key.clone(), object.revision)).collect();
        if now != held.stamp {
            let mut items = Vec::new();
            for object in snapshot.range(&prefix, None) {
                match kind.decode_wire(&object.bytes) {
                    Ok(value) => parse(&value, &mut items),
                    Err(error) => tracing::warn!(%error, key = &*object.key, "unreadable configuration"),
                }
            }
            held.items = Arc::new(items);
            held.stamp = now;
        }
        Ok(held.items.clone())
    }
}
