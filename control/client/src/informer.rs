//! One watch of a kind, kept as a map, shared by everybody who reads the kind.
//!
//! Woken by the API server's watch. Owns the map. Promises: a handler sees each change after the map shows it; after a lost watch the map
//! is brought up to date by a new list, vanished objects included; an object that cannot be read stays as it was last known, and is
//! never taken for one that is not there ([`Informer::exists`]); a new life of the watch calls the handlers for everything again.

use crate::decode::{Metadata, decode, report};
use crate::follow::{Raw, follow};
use crate::key::Key;
use crate::source::Source;
use futures::StreamExt;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use supervise::Task;
use tokio::sync::watch::{Receiver, Sender, channel};

/// What a kind must be to be watched.
pub trait Kind: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind for K {}

type UnreadHandler = Box<dyn Fn(&Key) + Send + Sync>;
type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// The newest known objects of a kind.
pub struct Informer<K> {
    objects: RwLock<Objects<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    unread: RwLock<Vec<UnreadHandler>>,
    synced: (Sender<bool>, Receiver<bool>),
}

struct Objects<K> {
    by_key: BTreeMap<Key, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    /// Those whose newest state cannot be read.
    unreadable: BTreeSet<Key>,
}

impl<K: Kind> Default for Informer<K> {
    fn default() -> Self {
        let objects =
            Objects { by_key: BTreeMap::new(), by_owner: HashMap::new(), unreadable: BTreeSet::new() };
        Self {
            objects: RwLock::new(objects),
            handlers: RwLock::default(),
            unread: RwLock::default(),
            synced: channel(false),
        }
    }
}

impl<K: Kind> Informer<K> {
    /// Has `handler` called with the old and the new state of every object that changes. Register before the watch begins.
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Has `handler` called with the key of every object that goes and was never read: there is no state to call the others with.
    /// For whoever removes what belongs to an object that is gone. Register before the watch begins.
    pub fn on_unread_gone(&self, handler: impl Fn(&Key) + Send + Sync + 'static) {
        self.unread.write().push(Box::new(handler));
    }

    /// An object, as it was last read.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// Whether there is an object of this name, readable or not.
    #[must_use]
    pub fn exists(&self, key: &Key) -> bool {
        let objects = self.objects.read();
        objects.by_key.contains_key(key) || objects.unreadable.contains(key)
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

    /// The task that watches.
    pub fn task(self: &Arc<Self>, name: impl Into<Arc<str>>, source: Source) -> Task {
        let this = self.clone();
        Task::endless(name, move || this.clone().run(source.clone()))
    }

    /// Watches forever. May be begun again after its end.
    async fn run(self: Arc<Self>, source: Source) {
        let path = source.path.clone();
        let mut listing = BTreeSet::new();
        // What handlers saw in the task's previous life is not known: they see it again.
        let mut again = *self.synced.1.borrow();
        let mut raw = follow(source);
        while let Some(raw) = raw.next().await {
            match raw {
                Raw::Begin => listing.clear(),
                Raw::Listed(json) => {
                    listing.insert(self.see(&path, json.get(), again));
                }
                Raw::End => {
                    self.gone_but(&std::mem::take(&mut listing));
                    again = false;
                    self.synced.0.send_replace(true);
                }
                Raw::Set(json) => drop(self.see(&path, json.get(), false)),
                Raw::Gone(json) => self.set(&Metadata::of(json.get()).identity().key, None, false),
                Raw::Failed(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(path, error, "watch interrupted; it is resumed");
                }
            }
        }
    }

    /// Takes an object's new state.
    fn see(&self, path: &str, json: &str, again: bool) -> Key {
        match decode::<K>(json) {
            Ok(object) => {
                let key = Key::of(&object);
                self.set(&key, Some(Arc::new(object)), again);
                key
            }
            Err(error) => {
                let key = Metadata::of(json).identity().key;
                report(path, &key, &error);
                self.objects.write().unreadable.insert(key.clone());
                key
            }
        }
    }

    /// Drops what a complete list does not have.
    fn gone_but(&self, listed: &BTreeSet<Key>) {
        let gone: Vec<Key> = {
            let objects = self.objects.read();
            let known = objects.by_key.keys().chain(&objects.unreadable);
            known.filter(|key| !listed.contains(*key)).cloned().collect()
        };
        gone.iter().for_each(|key| self.set(key, None, false));
    }

    fn set(&self, key: &Key, new: Option<Arc<K>>, again: bool) {
        let (old, unread) = {
            let mut objects = self.objects.write();
            let unread = objects.unreadable.contains(key);
            (objects.set(key, new.clone()), unread)
        };
        if unread && old.is_none() && new.is_none() {
            self.unread.read().iter().for_each(|handler| handler(key));
        }
        // a relist shows every object again: only real changes wake anybody
        let version = |o: &Option<Arc<K>>| o.as_ref().and_then(|o| o.resource_version());
        let same = old.is_some() && version(&old) == version(&new);
        if (same && !again) || (old.is_none() && new.is_none()) {
            return;
        }
        for handler in self.handlers.read().iter() {
            handler(old.as_ref(), new.as_ref());
        }
    }
}

impl<K: Resource> Objects<K> {
    /// Sets or removes an object, and gives its state before.
    fn set(&mut self, key: &Key, new: Option<Arc<K>>) -> Option<Arc<K>> {
        self.unreadable.remove(key);
        let after = new.as_deref().and_then(controller_uid).map(str::to_owned);
        let old = match new {
            Some(object) => self.by_key.insert(key.clone(), object),
            None => self.by_key.remove(key),
        };
        let before = old.as_deref().and_then(controller_uid);
        if before != after.as_deref() {
            if let Some(uid) = before
                && let Some(keys) = self.by_owner.get_mut(uid)
            {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(uid);
                }
            }
            if let Some(uid) = after {
                self.by_owner.entry(uid).or_default().insert(key.clone());
            }
        }
        old
    }
}

/// Namespace and name of `object`.
#[must_use]
pub fn key_of<K: Resource>(object: &K) -> Key {
    Key::of(object)
}

/// The uid of the owner that controls an object.
#[must_use]
pub fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

#[cfg(test)]
mod tests;
