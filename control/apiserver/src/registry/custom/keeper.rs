//! Follows CustomResourceDefinitions.
//!
//! Woken by: any change of one. Reads: all of them, from the watch cache. Writes: their accepted names and conditions; the table
//! of what is served. Promises: a definition says Established only once its objects are served, names belong to whom
//! they were given first, and what a deleted definition defined is served no more.

use super::super::kind::Kind;
use super::super::metadata::{deleting, finalizers, name, time};
use super::super::run::feed_task;
use super::super::{Registry, storage};
use super::removal::FINALIZER;
use super::slot::Storage;
use machinery::custom::{Definition, conditions};
use machinery::object;
use machinery::resources::Resource;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::cache::{Cache, ChangeKind, Scope, Watcher};
use supervise::Task;
use tokio_util::sync::CancellationToken;

/// What could not be written is tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);

pub(super) fn definitions() -> Option<Kind> {
    Kind::of("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Every definition by name, as it was last seen.
type Known = BTreeMap<String, Value>;

impl Registry {
    /// Serves what is defined already, and leaves a task behind that follows further definitions.
    pub(in crate::registry) async fn keep_definitions(self: &Arc<Self>, shutdown: &CancellationToken) {
        let Some(kind) = definitions() else { return };
        self.custom.own.get_or_init(|| Arc::downgrade(self));
        let known = Arc::new(tokio::sync::Mutex::new(Known::new()));
        let Some(first) = self.look_at_all(&kind, &mut *known.lock().await, shutdown).await else { return };
        let (registry, first) = (self.clone(), Arc::new(Mutex::new(Some(first))));
        let stop = shutdown.clone();
        self.tasks(shutdown).keep(Task::endless("custom-resource-definitions", move || {
            let (registry, known, stop, watcher) =
                (registry.clone(), known.clone(), stop.clone(), first.lock().take());
            // What is known outlives a life: the next one forgets what went meanwhile.
            async move { registry.follow_definitions(kind, &mut *known.lock().await, watcher, &stop).await }
        }));
    }

    /// Looks at every definition, and gives the watch that goes on from there.
    async fn look_at_all(
        self: &Arc<Self>,
        kind: &Kind,
        known: &mut Known,
        shutdown: &CancellationToken,
    ) -> Option<Watcher> {
        let (snapshot, watcher) = self.cache(kind).ok()?.snapshot_and_watch(&Scope::All).ok()?;
        let all =
            snapshot.range(&kind.resource.key_prefix, None).filter_map(|o| kind.decode_wire(&o.bytes).ok());
        let before = std::mem::replace(known, all.map(|crd| (name(&crd).to_owned(), crd)).collect());
        for gone in before.keys().filter(|name| !known.contains_key(*name)) {
            self.forget(gone);
        }
        let names: Vec<String> = known.keys().cloned().collect();
        for name in names {
            self.look_at(kind, known, &name, shutdown).await;
        }
        Some(watcher)
    }

    async fn follow_definitions(
        self: Arc<Self>,
        kind: Kind,
        known: &mut Known,
        mut watcher: Option<Watcher>,
        shutdown: &CancellationToken,
    ) {
        loop {
            while let Some(change) = match &mut watcher {
                Some(watcher) => watcher.next().await,
                None => None,
            } {
                let Ok(crd) = kind.decode_wire(&change.object.bytes) else { continue };
                let of = name(&crd).to_owned();
                if change.kind == ChangeKind::Deleted {
                    known.remove(&of);
                    self.forget(&of);
                    // Its names are free: others of the group may have been waiting for them.
                    let group = crd["spec"]["group"].clone();
                    let waiting: Vec<String> = known
                        .iter()
                        .filter(|(_, other)| other["spec"]["group"] == group)
                        .map(|(name, _)| name.clone())
                        .collect();
                    for name in waiting {
                        self.look_at(&kind, known, &name, shutdown).await;
                    }
                } else {
                    known.insert(of.clone(), crd);
                    self.look_at(&kind, known, &of, shutdown).await;
                }
            }
            let Ok(cache) = self.cache(&kind) else { return };
            cache.ready().await;
            loop {
                match self.look_at_all(&kind, known, shutdown).await {
                    Some(next) => break watcher = Some(next),
                    None => tokio::time::sleep(AGAIN).await,
                }
            }
        }
    }

    /// Brings one definition to what it should say, and serves what it says.
    async fn look_at(
        self: &Arc<Self>,
        kind: &Kind,
        known: &mut Known,
        of: &str,
        shutdown: &CancellationToken,
    ) {
        let Some(crd) = known.get(of) else { return };
        let others: Vec<Value> = known.iter().filter(|(n, _)| *n != of).map(|(_, c)| c.clone()).collect();
        let planned = conditions::plan(crd, &others, &time(jiff::Timestamp::now()));
        self.install(planned.as_ref().unwrap_or(crd), shutdown).await;
        if planned.is_some() {
            let change = |old: &Value| {
                let mut new = conditions::plan(old, &others, &time(jiff::Timestamp::now()))
                    .unwrap_or_else(|| old.clone());
                object::set_resource_version(&mut new, "");
                Ok(new)
            };
            match self.amend(kind, "", of, "status", &change).await {
                Ok(written) => {
                    known.insert(of.to_owned(), written);
                }
                Err(error) if error.code == 404 => {}
                // The next look at it, which its author's next write or our restart brings, tries again.
                Err(error) => tracing::warn!(%error, definition = of, "write the status of a definition"),
            }
        }
        if let Some(crd) = known.get(of).filter(|c| deleting(c) && finalizers(c).contains(&FINALIZER)) {
            self.remove_instances(crd, shutdown);
        }
    }

    /// Serves what a definition says, once its objects are known.
    async fn install(&self, crd: &Value, shutdown: &CancellationToken) {
        let slot = self.custom.slot(name(crd));
        let present = slot.definition();
        let definition = match Definition::compile(crd) {
            Ok(definition) => definition,
            Err(reason) => {
                tracing::debug!(%reason, "a definition is not served");
                if present.is_some() {
                    slot.clear();
                    self.custom.changed();
                }
                return;
            }
        };
        let same = present.as_ref().is_some_and(|p| p.same_storage(&definition));
        let told = |d: &Definition| (d.established, d.terminating);
        if same && present.as_deref().is_some_and(|p| told(p) == told(&definition)) {
            return;
        }
        let storage = match same {
            true => None,
            false => match self.storage_of(&definition, shutdown).await {
                Some(storage) => Some(storage),
                None => return,
            },
        };
        slot.serve(definition, storage);
        self.custom.changed();
    }

    /// A watch cache of a definition's objects, filled.
    async fn storage_of(&self, definition: &Definition, shutdown: &CancellationToken) -> Option<Storage> {
        let resource: &'static Resource = definition.version(definition.storage)?.resource;
        let reader = Arc::new(definition.clone());
        let extract = move |entry: &store::Entry| storage::extract_custom(&reader, entry);
        let (cache, feed) = Cache::new(
            self.backend.clone(),
            resource.key_prefix.as_str(),
            extract,
            self.config.cache.clone(),
        );
        let replaced = self.tasks(shutdown).keep_alone(feed_task(&resource.key_prefix, feed));
        let storage = Storage::new(cache, replaced);
        storage.cache.ready().await;
        Some(storage)
    }

    fn forget(&self, name: &str) {
        let slot = self.custom.slot(name);
        if slot.definition().is_some() {
            slot.clear();
            self.custom.changed();
        }
    }
}

/// The refusal of a request whose definition went while it was on its way.
pub(in crate::registry) fn gone() -> Status {
    Status::failure(
        404,
        machinery::status::Reason::NotFound,
        "the server could not find the requested resource",
    )
}
