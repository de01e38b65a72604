//! Custom resources: the definitions that are served. What keeps them so: [`crate::upkeep`].
//!
//! A custom object in flight is in the version its client speaks, as its rules are; at rest it is in the storage version.

use super::Registry;
use super::kind::Kind;
use super::slot::Slot;
use machinery::custom::Definition;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// All definitions ever served by this registry, by their names (`widgets.acme.com`).
#[derive(Default)]
pub(crate) struct Table {
    slots: RwLock<BTreeMap<String, &'static Slot>>,
    generation: AtomicU64,
}

impl Table {
    pub(crate) fn slot(&self, name: &str) -> &'static Slot {
        if let Some(slot) = self.slots.read().get(name) {
            return slot;
        }
        // A slot is a few words; the names that may have one are bounded by `machinery::custom::intern`.
        self.slots.write().entry(name.to_owned()).or_insert_with(|| Box::leak(Box::default()))
    }

    /// Grows whenever what is served changes.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Every definition served now.
    pub(crate) fn all(&self) -> Vec<Arc<Definition>> {
        self.slots.read().values().filter_map(|slot| slot.definition()).collect()
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
        let definition = slot.definition()?;
        let version = definition.served(version)?;
        Some(Kind { resource: version.resource, version: version.name, custom: Some(slot) })
    }

    /// The resource whose objects are of that kind, built in or custom.
    pub(crate) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Kind> {
        Kind::by_kind(group, version, kind).or_else(|| {
            let all = self.custom.all();
            let found = all.iter().filter(|d| d.group == group).find_map(|definition| {
                definition.served(version).map(|v| v.resource).filter(|resource| resource.kind == kind)
            })?;
            self.kind(group, version, found.plural)
        })
    }

    /// A resource by group and plural, in the version it is stored in.
    pub(crate) fn kind_of(&self, group: &str, plural: &str) -> Option<Kind> {
        Kind::of(group, plural).or_else(|| {
            let slot = *self.custom.slots.read().get(&format!("{plural}.{group}"))?;
            let definition = slot.definition()?;
            let version = definition.version(definition.storage)?;
            Some(Kind { resource: version.resource, version: version.name, custom: Some(slot) })
        })
    }
}
