//! Writes: what lies between a decoded object and the store.
//!
//! - verbs: `create`, `update` (and patch), `delete`; who owns which field: `managed`; who may grant which right: `escalation`;
//!   who may have which device: `devices`
//! - what Services are given: `service`; what else the server fills in: `system`; how a definition goes: `definition`
//! - `own`: the server's own writes
//!
//! Reading is the [`Registry`]'s, deciding who may is admission's; a [`Writer`] holds both.

pub(crate) mod create;
pub(crate) mod definition;
pub(crate) mod delete;
mod devices;
mod escalation;
pub(crate) mod managed;
mod own;
mod privileged;
pub(crate) mod service;
mod system;
pub(crate) mod update;

use crate::admission::Admission;
use crate::registry::Registry;
use crate::registry::call::{Call, Change, Writes};
use crate::registry::hooks::Record;
use crate::registry::kind::Kind;
use crate::registry::stored;
use futures::future::BoxFuture;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use service::Leftovers;
use service::allocation::PortRange;
use service::ports::NodePorts;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use store::Entry;
use supervise::Work;

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
    own: Weak<Writer>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Admission,
    pub(crate) ports: NodePorts,
    leftovers: Leftovers,
    /// What goes on with a Service's numbers when the request that began it ends.
    services: Work,
    events: OnceLock<Arc<dyn Record>>,
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
        let (first, last) = registry.config.node_ports;
        let services = Work::new(&registry.config.supervisor, "apiserver/service-numbers");
        Arc::new_cyclic(|own: &Weak<Writer>| Writer {
            own: own.clone(),
            services,
            registry,
            admission: Admission::new(own.clone()),
            ports: NodePorts::new(PortRange { first, last }),
            leftovers: Leftovers::default(),
            events: OnceLock::new(),
        })
    }

    /// Itself, for what outlives a call.
    fn own(&self) -> Result<Arc<Self>, Status> {
        self.own.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))
    }

    /// Waits until what goes on without its request has ended, for at most `patience`.
    pub(crate) async fn numbers_settled(&self, patience: Duration) {
        if !self.services.finish(patience).await {
            tracing::warn!(left = self.services.len(), "writes of Services did not end in time");
        }
    }

    /// Has the server's own tasks record events; the first one given stays.
    pub fn record_with(&self, events: Arc<dyn Record>) {
        if self.events.set(events).is_err() {
            tracing::warn!("events are recorded already");
        }
    }

    /// Records that something is wrong with an object.
    pub(crate) fn warn_of(
        &self,
        component: &'static str,
        about: &Value,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        tracing::warn!(name = object::name(about), namespace = object::namespace(about), reason, note);
        if let Some(events) = self.events.get() {
            events.warn(component, about, reason, action, note);
        }
    }

    /// What was just written, as reading would give it: a built-in object is the one that was encoded.
    async fn written(
        &self,
        kind: &Kind,
        mut object: Value,
        entry: Entry,
        created: bool,
    ) -> Result<Written, Status> {
        if kind.reads_as_stored() {
            stored::set_revision(&mut object, entry.mod_revision);
        } else {
            object = self.registry.decode(kind, &entry).await?;
        }
        Ok(Written { object, entry: Some(entry), created })
    }

    /// What a dry run would have left behind, as reading would give it (upstream: `DryRunnableStorage`).
    async fn unwritten(&self, kind: &Kind, mut object: Value, created: bool) -> Result<Written, Status> {
        if !kind.reads_as_stored() {
            let revision = object::resource_version(&object).to_owned();
            let value = self.registry.encode(kind, &object).await?;
            let key = kind.key_of(&object).into();
            let entry = Entry { key, value, create_revision: 0, mod_revision: 0, stale: false };
            object = self.registry.decode(kind, &entry).await?;
            object::set_resource_version(&mut object, &revision);
        }
        Ok(Written { object, entry: None, created })
    }
}

impl Writes for Writer {
    fn change<'a>(&'a self, call: &'a Call<'_>, change: &'a dyn Change) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { self.update(call, change, None).await.map(drop) })
    }
}
