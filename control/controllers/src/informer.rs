//! One watch of a kind, kept as a map, shared by every controller that reads the kind.
//!
//! Woken by the API server's watch. Owns the map. Promises: a handler sees each change after the map shows it; after a lost watch the map
//! is brought up to date by a new list, vanished objects included.

use crate::queue::Key;
use futures::TryStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

/// What a kind must be to be watched.
pub trait Kind: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind for K {}

type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// The newest known objects of a kind.
pub struct Informer<K> {
    objects: RwLock<Objects<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: (Sender<bool>, Receiver<bool>),
}

struct Objects<K> {
    by_key: BTreeMap<Key, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
}

impl<K: Kind> Default for Informer<K> {
    fn default() -> Self {
        let objects = Objects { by_key: BTreeMap::new(), by_owner: HashMap::new() };
        Self { objects: RwLock::new(objects), handlers: RwLock::default(), synced: channel(false) }
    }
}

impl<K: Kind> Informer<K> {
    /// Has `handler` called with the old and the new state of every object that changes. Register before [`Informer::run`].
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// An object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// All objects of a namespace, or of all with an empty `namespace`.
    #[must_use]
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        if namespace.is_empty() {
            return objects.by_key.values().cloned().collect();
        }
        let from = (Bound::Included(Key::new(namespace, "")), Bound::Unbounded);
        objects
            .by_key
            .range(from)
            .take_while(|(k, _)| &*k.namespace == namespace)
            .map(|(_, o)| o.clone())
            .collect()
    }

    /// The objects whose controller has this uid.
    #[must_use]
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        let keys = objects.by_owner.get(uid);
        keys.into_iter().flatten().filter_map(|key| objects.by_key.get(key)).cloned().collect()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.synced.1.clone();
        // the sender lives as long as `self`
        let _ = synced.wait_for(|done| *done).await;
    }

    fn set(&self, key: Key, new: Option<Arc<K>>) {
        let old = {
            let mut guard = self.objects.write();
            let objects = &mut *guard;
            let old = match &new {
                Some(object) => objects.by_key.insert(key.clone(), object.clone()),
                None => objects.by_key.remove(&key),
            };
            let (before, after) =
                (old.as_deref().and_then(controller_uid), new.as_deref().and_then(controller_uid));
            if before != after {
                if let Some(uid) = before
                    && let Some(keys) = objects.by_owner.get_mut(uid)
                {
                    keys.remove(&key);
                    if keys.is_empty() {
                        objects.by_owner.remove(uid);
                    }
                }
                if let Some(uid) = after {
                    objects.by_owner.entry(uid.to_owned()).or_default().insert(key);
                }
            }
            old
        };
        // a relist shows every object again: only real changes wake anybody
        let version = |o: &Option<Arc<K>>| o.as_ref().and_then(|o| o.resource_version());
        if old.is_some() && version(&old) == version(&new) {
            return;
        }
        for handler in self.handlers.read().iter() {
            handler(old.as_ref(), new.as_ref());
        }
    }

    /// Watches until cancelled.
    pub async fn run(self: Arc<Self>, api: Api<K>, config: watcher::Config, shutdown: CancellationToken) {
        let stream = watch(api, config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listing = BTreeSet::new();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.try_next() => event,
            };
            match event {
                Ok(Some(Event::Init)) => listing.clear(),
                Ok(Some(Event::InitApply(object))) => {
                    listing.insert(key_of(&object));
                    self.set(key_of(&object), Some(Arc::new(object)));
                }
                Ok(Some(Event::InitDone)) => {
                    let gone: Vec<Key> = self
                        .objects
                        .read()
                        .by_key
                        .keys()
                        .filter(|key| !listing.contains(*key))
                        .cloned()
                        .collect();
                    gone.into_iter().for_each(|key| self.set(key, None));
                    listing.clear();
                    self.synced.0.send_replace(true);
                }
                Ok(Some(Event::Apply(object))) => self.set(key_of(&object), Some(Arc::new(object))),
                Ok(Some(Event::Delete(object))) => self.set(key_of(&object), None),
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "watch interrupted; it is resumed"),
            }
        }
    }
}

/// An object's key.
#[must_use]
pub fn key_of<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The uid of the owner that controls an object.
#[must_use]
pub fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}
