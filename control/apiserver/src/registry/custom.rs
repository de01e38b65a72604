//! Custom resources: the definitions that are served, and what keeps them so.
//!
//! - [`slot`]: one definition's place: what it says now, and its watch cache
//! - `keeper`: the task that follows CustomResourceDefinitions; `removal`: their instances, deleted with them
//! - `catalog`: what discovery and OpenAPI tell of them; `convert`: from one version to another
//!
//! A custom object in flight is in the version its client speaks, as its rules are; at rest it is in the storage version.

mod catalog;
mod convert;
mod keeper;
mod removal;
pub(crate) mod slot;

pub use catalog::CustomResources;
pub(super) use keeper::gone;
pub(super) use removal::mark;

use super::Registry;
use super::kind::Kind;
use machinery::custom::Definition;
use parking_lot::{Mutex, RwLock};
use slot::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// All definitions ever served by this registry, by their names (`widgets.acme.com`).
#[derive(Default)]
pub(crate) struct Table {
    slots: RwLock<BTreeMap<String, &'static Slot>>,
    generation: AtomicU64,
    /// The registry this is a part of, for watches, which outlive a call.
    own: OnceLock<Weak<Registry>>,
    /// Definitions whose instances are being deleted.
    leaving: Mutex<BTreeSet<String>>,
}

impl Table {
    fn slot(&self, name: &str) -> &'static Slot {
        if let Some(slot) = self.slots.read().get(name) {
            return slot;
        }
        // A slot is a few words; the names that may have one are bounded by `machinery::custom::intern`.
        self.slots.write().entry(name.to_owned()).or_insert_with(|| Box::leak(Box::default()))
    }

    /// The registry this is a part of.
    pub(super) fn own(&self) -> Weak<Registry> {
        self.own.get().cloned().unwrap_or_default()
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Every definition served now.
    fn all(&self) -> Vec<Arc<Definition>> {
        self.slots.read().values().filter_map(|slot| slot.definition()).collect()
    }
}

impl Registry {
    /// The resource that a path names, built in or custom.
    pub(crate) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        Kind::find(group, version, plural).or_else(|| {
            let slot = *self.custom.slots.read().get(&format!("{plural}.{group}"))?;
            let definition = slot.definition()?;
            let version = definition.served(version)?;
            Some(Kind { resource: version.resource, version: version.name, custom: Some(slot) })
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
