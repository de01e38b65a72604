//! The server's tasks: they keep the objects that every cluster has, and those that say how this server works.
//!
//! - `bootstrap`: what a new cluster holds; `service_cidr`: its service range; `repair`: what Services hold
//! - `kubernetes_service`: our own Service, and the servers behind it; `identity`: which servers there are
//! - `keeper`: follows definitions of custom resources; `removal`: their instances, deleted with them
//! - `reconcile`: objects brought to what they should be after every change, for `flow_objects`, `api_services`,
//!   `policy_status`, `legacy_tokens`

pub(crate) mod api_services;
mod bootstrap;
mod flow_objects;
mod identity;
mod keeper;
mod kubernetes_service;
mod legacy_tokens;
mod policy_status;
pub(crate) mod reconcile;
mod removal;
mod repair;
mod service_cidr;

use crate::write::Writer;
use machinery::status::Status;
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;
use tokio_util::sync::CancellationToken;

/// How long writes may take whose requests have ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read or written.
    #[error("repair what stored services hold")]
    Services(#[source] Status),
    /// An object every cluster has cannot be made.
    #[error("make {what}")]
    Bootstrap {
        what: String,
        #[source]
        source: Status,
    },
    #[error("stopped while the watch caches were filled")]
    Stopped,
}

/// When a server's tasks end.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The server serves on for a while, and others are to be asked from now on.
    pub leaving: CancellationToken,
    /// The server takes no more connections: what it does on its own ends.
    pub begun: CancellationToken,
    /// The last request has been answered: what requests are answered from ends. [`Writer::ended`] cancels it.
    pub drained: CancellationToken,
}

impl From<CancellationToken> for Stop {
    /// Of a server without requests to wait for.
    fn from(stop: CancellationToken) -> Self {
        Stop { leaving: stop.clone(), begun: stop.clone(), drained: stop }
    }
}

impl Writer {
    /// Fills the caches, takes stock of Services, makes what every cluster has, and leaves tasks behind that end with
    /// `stop`. Requests are answered once this has returned.
    pub async fn start(self: &Arc<Self>, stop: impl Into<Stop>) -> Result<(), StartError> {
        let stop = stop.into();
        let shutdown = &stop.begun;
        tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            () = self.registry.fill(&stop.drained) => {}
        }
        for (kind, object) in bootstrap::objects(&self.registry.config.service_cidrs) {
            let what = format!("{} {}", kind.resource.kind, machinery::object::name(&object));
            self.ensure(&kind, object).await.map_err(|source| StartError::Bootstrap { what, source })?;
        }
        repair::start(self, &stop).await?;
        keeper::keep(self, &stop).await;
        kubernetes_service::start(self).await;
        keep_objects(self, shutdown);
        let tasks = self.registry.tasks(shutdown);
        let (writer, leaving) = (self.clone(), stop.leaving.clone());
        tasks.keep(Task::new("kubernetes-service", move |stop| {
            let (writer, leaving) = (writer.clone(), leaving.clone());
            async move {
                kubernetes_service::keep(&writer, leaving).await;
                stop.cancelled().await;
                Ok(())
            }
        }));
        let writer = self.clone();
        tasks.keep(Task::new("identity-lease", move |stop| {
            let writer = writer.clone();
            async move {
                identity::keep(&writer, stop).await;
                Ok(())
            }
        }));
        let writer = self.clone();
        tasks.keep(Task::endless("default-service-range", move || {
            let writer = writer.clone();
            async move { service_cidr::keep(&writer).await }
        }));
        Ok(())
    }

    /// Waits until the tasks of [`Writer::start`] have ended: some have something to take back when the server stops. To be called once
    /// the last request has been answered.
    pub async fn ended(&self) {
        self.registry.tasks_ended().await;
        self.numbers_settled(PATIENCE).await;
        self.registry.end_serving().await;
    }
}

type Reconcile = fn(Arc<Writer>) -> reconcile::Round;

/// Keeps the objects that say how this server works.
fn keep_objects(writer: &Arc<Writer>, shutdown: &CancellationToken) {
    let kept: [(&'static str, Option<Vec<reconcile::Read>>, Duration, Reconcile); 4] = [
        ("flow-objects", flow_objects::reads(), flow_objects::EVERY, flow_objects::reconcile),
        ("policy-status", policy_status::reads(), policy_status::EVERY, policy_status::reconcile),
        (api_services::NAME, api_services::reads(), api_services::EVERY, api_services::reconcile),
        ("legacy-tokens", legacy_tokens::reads(), legacy_tokens::EVERY, legacy_tokens::reconcile),
    ];
    for (name, reads, period, reconcile) in kept {
        let (Some(reads), of) = (reads, writer.clone()) else { continue };
        let bell = reconcile::keep_up(
            &writer.registry,
            name,
            reads,
            period,
            move || reconcile(of.clone()),
            shutdown,
        );
        if name == api_services::NAME {
            reconcile::follow_definitions(&writer.registry, bell, shutdown);
        }
    }
}
