//! Custom resources: the definitions that are served. What keeps them so: [`crate::upkeep`].
//!
//! A custom object in flight is in the version its client speaks, as its rules are; at rest it is in the storage version.

use super::Registry;
use super::kind::Kind;
use super::serving::Serving;
use super::slot::{Slot, gone};
use super::storage::{extract_custom, feed_task};
use bytes::Bytes;
use machinery::custom::Outline;
use machinery::status::Status;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use store::cache::Cache;
use tokio::sync::watch;

/// All definitions ever served by this registry, by their names (`widgets.acme.com`).
pub(crate) struct Table {
    slots: RwLock<BTreeMap<String, &'static Slot>>,
    generation: watch::Sender<u64>,
    /// How often a definition was compiled.
    compilations: Arc<AtomicU64>,
}

impl Default for Table {
    fn default() -> Self {
        Table { slots: RwLock::default(), generation: watch::Sender::new(0), compilations: Arc::default() }
    }
}

impl Table {
    pub(crate) fn slot(&self, name: &str) -> &'static Slot {
        if let Some(slot) = self.slots.read().get(name) {
            return slot;
        }
        // A slot is a few words; the names that may have one are bounded by `machinery::custom::intern`.
        self.slots.write().entry(name.to_owned()).or_insert_with(|| Box::leak(Box::default()))
    }

    /// Serves a definition from now on: `source` is its JSON.
    pub(crate) fn serve(&self, outline: Outline, source: Bytes) {
        let slot = self.slot(&outline.name);
        let published = |o: &Outline| (o.established, o.terminating);
        let present = slot.serving();
        let shown = present.is_some_and(|p| {
            p.outline.same_storage(&outline) && published(&p.outline) == published(&outline)
        });
        // Where nothing that clients see changes, the new bytes still take the place of the old ones, which nobody else holds.
        slot.serve(Serving::new(outline, source, self.compilations.clone()));
        if !shown {
            self.changed();
        }
    }

    /// Serves the definition of this name no longer.
    pub(crate) fn forget(&self, name: &str) {
        let Some(slot) = self.slots.read().get(name).copied() else { return };
        if slot.serving().is_some() {
            slot.clear();
            self.changed();
        }
    }

    /// Grows whenever what is served changes.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Tells of every change of [`Table::generation`].
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Every definition served now.
    pub(crate) fn all(&self) -> Vec<Arc<Serving>> {
        self.slots.read().values().filter_map(|slot| slot.serving()).collect()
    }

    /// Gives back what was compiled of definitions that nobody has used for so long.
    pub(crate) fn rest(&self, idle: Duration) {
        self.all().iter().for_each(|serving| serving.rest(idle));
        machinery::custom::sweep_schemas();
    }

    /// Has the watch caches of custom objects let go of what is old.
    pub(super) fn forget_old(&self) {
        for storage in self.slots.read().values().filter_map(|slot| slot.storage()) {
            storage.fed().into_iter().for_each(Cache::forget_old);
        }
    }

    /// How often a definition was compiled.
    #[cfg(test)]
    pub(crate) fn compilations(&self) -> u64 {
        self.compilations.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Registry {
    /// The resource that a path names, built in or custom.
    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let builtin = Kind::find(group, version, plural);
        if builtin.is_some() {
            return builtin.filter(|_| self.config.served.serves(group, version, plural));
        }
        let slot = *self.custom.slots.read().get(&format!("{plural}.{group}"))?;
        let serving = slot.serving()?;
        let version = serving.outline.served(version)?;
        Some(Kind { resource: version.resource, version: version.name, custom: Some(slot) })
    }

    /// The resource whose objects are of that kind, built in or custom.
    pub(crate) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Kind> {
        Kind::by_kind(group, version, kind).or_else(|| {
            let all = self.custom.all();
            let found = all.iter().filter(|s| s.outline.group == group).find_map(|serving| {
                serving.outline.served(version).map(|v| v.resource).filter(|resource| resource.kind == kind)
            })?;
            self.kind(group, version, found.plural)
        })
    }

    /// A resource by group and plural, in the version it is stored in.
    pub(crate) fn kind_of(&self, group: &str, plural: &str) -> Option<Kind> {
        Kind::of(group, plural).or_else(|| {
            let slot = *self.custom.slots.read().get(&format!("{plural}.{group}"))?;
            let serving = slot.serving()?;
            let version = serving.outline.version(serving.outline.storage)?;
            Some(Kind { resource: version.resource, version: version.name, custom: Some(slot) })
        })
    }

    /// The watch cache of a definition's objects. Nothing is read for one that nobody has asked for.
    pub(super) fn custom_cache(&self, slot: &'static Slot) -> Result<Cache, Status> {
        let (serving, storage) = slot.serving().zip(slot.storage()).ok_or_else(gone)?;
        let outline = &serving.outline;
        let stored = outline.version(outline.storage).ok_or_else(gone)?;
        let tasks =
            self.serving.get().ok_or_else(|| Status::service_unavailable("the server is starting"))?;
        Ok(storage.cache(|| {
            let prefix = stored.resource.key_prefix.as_str();
            let extract = move |entry: &store::Entry| extract_custom(slot, entry);
            let (cache, feed) = Cache::new(self.backend.clone(), prefix, extract, self.config.cache.clone());
            (cache, tasks.keep_alone(feed_task(prefix, feed)))
        }))
    }
}
