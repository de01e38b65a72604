//! Follows CustomResourceDefinitions.
//!
//! Woken by: any change of one. Reads: all of them, from the watch cache. Writes: their accepted names and conditions; the table
//! of what is served. Promises: a definition says Established only once its objects are served, names belong to those
//! they were given first, and what a deleted definition defined is no longer served.

use super::Stop;
use super::removal::Removals;
use crate::registry::kind::Kind;
use crate::registry::metadata::{deleting, finalizers, name, time};
use crate::registry::slot::Storage;
use crate::registry::storage::{extract_custom, feed_task};
use crate::write::Writer;
use crate::write::definition::FINALIZER;
use machinery::custom::{Definition, conditions};
use machinery::object;
use machinery::resources::Resource;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::cache::{Cache, ChangeKind, Scope, Watcher};
use supervise::{Backoff, Task};

/// The pauses while the definitions cannot be read.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Serves what is defined already, and leaves a task behind that follows further definitions.
pub(super) async fn keep(writer: &Arc<Writer>, stop: &Stop) {
    let Some(kind) = Kind::of("apiextensions.k8s.io", "customresourcedefinitions") else { return };
    let mut keeper = Keeper {
        writer: writer.clone(),
        kind,
        definitions: BTreeMap::new(),
        removals: Removals::default(),
        stop: stop.clone(),
    };
    let Some(first) = keeper.look_at_all().await else { return };
    let first = Mutex::new(Some(first));
    // What is known outlives a life of the task: the next one forgets what went meanwhile.
    let keeper = Arc::new(tokio::sync::Mutex::new(keeper));
    writer.registry.tasks(&stop.begun).keep(Task::endless("custom-resource-definitions", move || {
        let (keeper, watcher) = (keeper.clone(), first.lock().take());
        async move { keeper.lock().await.follow(watcher).await }
    }));
}

struct Keeper {
    writer: Arc<Writer>,
    /// The resource of definitions.
    kind: Kind,
    /// Every definition by name, as it was last seen.
    definitions: BTreeMap<String, Value>,
    removals: Removals,
    stop: Stop,
}

impl Keeper {
    /// Looks at every definition, and gives the watch that goes on from there.
    async fn look_at_all(&mut self) -> Option<Watcher> {
        let cache = self.writer.registry.cache(&self.kind).ok()?;
        let (snapshot, watcher) = cache.snapshot_and_watch(&Scope::All).ok()?;
        let all = snapshot.range(&self.kind.resource.key_prefix, None);
        let all = all.filter_map(|o| self.kind.decode_wire(&o.bytes).ok());
        let all = all.map(|crd| (name(&crd).to_owned(), crd)).collect();
        let before = std::mem::replace(&mut self.definitions, all);
        for gone in before.keys().filter(|name| !self.definitions.contains_key(*name)) {
            self.forget(gone);
        }
        let names: Vec<String> = self.definitions.keys().cloned().collect();
        for name in names {
            self.look_at(&name).await;
        }
        Some(watcher)
    }

    async fn follow(&mut self, mut watcher: Option<Watcher>) {
        let mut pauses = PAUSES;
        loop {
            while let Some(change) = match &mut watcher {
                Some(watcher) => watcher.next().await,
                None => None,
            } {
                let Ok(crd) = self.kind.decode_wire(&change.object.bytes) else { continue };
                if change.kind == ChangeKind::Deleted {
                    self.went(&crd).await;
                } else {
                    let of = name(&crd).to_owned();
                    self.definitions.insert(of.clone(), crd);
                    self.look_at(&of).await;
                }
            }
            let Ok(cache) = self.writer.registry.cache(&self.kind) else { return };
            cache.ready().await;
            watcher = self.look_at_all().await;
            match &watcher {
                Some(_) => pauses.reset(),
                None => pauses.pause().await,
            }
        }
    }

    /// Stops serving a definition. Its names are free: others of the group may have been waiting for them.
    async fn went(&mut self, crd: &Value) {
        self.definitions.remove(name(crd));
        self.forget(name(crd));
        let group = &crd["spec"]["group"];
        let waiting = self.definitions.iter().filter(|(_, other)| other["spec"]["group"] == *group);
        let waiting: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
        for name in waiting {
            self.look_at(&name).await;
        }
    }

    /// Brings one definition to what it should say, and serves what it says.
    async fn look_at(&mut self, of: &str) {
        let Some(crd) = self.definitions.get(of) else { return };
        let others: Vec<Value> =
            self.definitions.iter().filter(|(n, _)| *n != of).map(|(_, c)| c.clone()).collect();
        let planned = conditions::plan(crd, &others, &time(jiff::Timestamp::now()));
        self.install(planned.as_ref().unwrap_or(crd)).await;
        if planned.is_some() {
            let change = |old: &Value| {
                let mut new = conditions::plan(old, &others, &time(jiff::Timestamp::now()))
                    .unwrap_or_else(|| old.clone());
                object::set_resource_version(&mut new, "");
                Ok(new)
            };
            match self.writer.amend(&self.kind, "", of, "status", &change).await {
                Ok(written) => {
                    self.definitions.insert(of.to_owned(), written);
                }
                Err(error) if error.code == 404 => {}
                // The next look at it, which its author's next write or our restart brings, tries again.
                Err(error) => tracing::warn!(%error, definition = of, "write the status of a definition"),
            }
        }
        let crd = self.definitions.get(of);
        if let Some(crd) = crd.filter(|c| deleting(c) && finalizers(c).contains(&FINALIZER)) {
            self.removals.begin(&self.writer, self.kind, crd, &self.stop.begun);
        }
    }

    /// Serves what a definition says, once its objects are known.
    async fn install(&self, crd: &Value) {
        let served = &self.writer.registry.custom;
        let slot = served.slot(name(crd));
        let present = slot.definition();
        let definition = match Definition::compile(crd) {
            Ok(definition) => definition,
            Err(reason) => {
                tracing::debug!(%reason, "a definition is not served");
                self.forget(name(crd));
                return;
            }
        };
        let same = present.as_ref().is_some_and(|p| p.same_storage(&definition));
        let published = |d: &Definition| (d.established, d.terminating);
        if same && present.as_deref().is_some_and(|p| published(p) == published(&definition)) {
            return;
        }
        let storage = match same {
            true => None,
            false => match self.storage_of(&definition).await {
                Some(storage) => Some(storage),
                None => return,
            },
        };
        slot.serve(definition, storage);
        served.changed();
    }

    /// A watch cache of a definition's objects, filled.
    async fn storage_of(&self, definition: &Definition) -> Option<Storage> {
        let resource: &'static Resource = definition.version(definition.storage)?.resource;
        let reader = Arc::new(definition.clone());
        let extract = move |entry: &store::Entry| extract_custom(&reader, entry);
        let registry = &self.writer.registry;
        let (backend, options) = (registry.backend.clone(), registry.config.cache.clone());
        let (cache, feed) = Cache::new(backend, resource.key_prefix.as_str(), extract, options);
        let tasks = registry.serving(&self.stop.drained);
        let storage = Storage::new(cache, tasks.keep_alone(feed_task(&resource.key_prefix, feed)));
        storage.cache.ready().await;
        Some(storage)
    }

    fn forget(&self, name: &str) {
        let served = &self.writer.registry.custom;
        let slot = served.slot(name);
        if slot.definition().is_some() {
            slot.clear();
            served.changed();
        }
    }
}
