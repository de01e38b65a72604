//! Writes: what lies between a decoded object and the store.
//!
//! - verbs: `create`, `update` (and patch), `delete`; who owns which field: `managed`; who may grant which right: `escalation`
//! - Services: `services` on `allocator`; what else the server fills in: `system`; how a definition goes: `definition`
//! - `own`: the server's own writes
//!
//! Reading is the [`Registry`]'s, deciding who may is admission's; a [`Writer`] holds both.

mod allocator;
pub(crate) mod create;
pub(crate) mod definition;
pub(crate) mod delete;
mod escalation;
pub(crate) mod managed;
mod own;
mod services;
mod system;
pub(crate) mod update;

use crate::admission::Admission;
use crate::registry::Registry;
use crate::registry::call::{Call, Change, Writes};
use crate::registry::kind::Kind;
use crate::registry::stored;
use futures::future::BoxFuture;
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use services::Numbers;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use store::Entry;

/// What a write left behind.
#[derive(Debug)]
pub(crate) struct Written {
    /// Built in: in the stored version; custom: in its client's.
    pub object: Value,
    /// As it is stored; none of a dry run, and of a change that was the object's last.
    pub entry: Option<Entry>,
    /// It did not exist before.
    pub created: bool,
}

/// Writes to a registry.
pub struct Writer {
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Admission,
    numbers: Mutex<Numbers>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer to `registry`. It answers once [`Writer::start`] has returned.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Arc<Self> {
        let numbers = Numbers::new(&registry.config.service_cidrs, registry.config.node_ports);
        Arc::new_cyclic(|own: &Weak<Writer>| Writer {
            registry,
            admission: Admission::new(own.clone()),
            numbers: Mutex::new(numbers),
        })
    }

    /// What was just written, as reading would give it: a built-in object is the one that was encoded.
    async fn written(
        &self,
        kind: &Kind,
        mut object: Value,
        entry: Entry,
        created: bool,
    ) -> Result<Written, Status> {
        if kind.is_custom() {
            object = self.registry.decode(kind, &entry).await?;
        } else {
            stored::set_revision(&mut object, entry.mod_revision);
        }
        Ok(Written { object, entry: Some(entry), created })
    }

    /// Takes what stored Services hold.
    pub(crate) fn adopt_services(&self) -> Result<(), Status> {
        let Some(kind) = Kind::of("", "services") else { return Ok(()) };
        let stored = self.registry.cached(&kind, "")?;
        let mut numbers = self.numbers.lock();
        stored.iter().for_each(|s| numbers.adopt(s));
        Ok(())
    }

    /// Compares what is taken with what stored Services hold, and gives the owners to suspect in the next audit.
    pub(crate) fn audit_services(&self, suspects: &BTreeSet<String>) -> Result<BTreeSet<String>, Status> {
        let Some(kind) = Kind::of("", "services") else { return Ok(BTreeSet::new()) };
        let stored = self.registry.cached(&kind, "")?;
        Ok(self.numbers.lock().audit(&stored, suspects))
    }
}

impl Writes for Writer {
    fn change<'a>(&'a self, call: &'a Call<'_>, change: &'a Change<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { self.update(call, change, None).await.map(drop) })
    }
}
