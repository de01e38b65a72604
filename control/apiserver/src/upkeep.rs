//! The server's tasks: they keep the objects that every cluster has, and those that say how this server works.
//!
//! - `bootstrap`: what a new cluster holds; `kubernetes_service`: our own Service
//! - `keeper`: follows definitions of custom resources; `removal`: their instances, deleted with them
//! - `reconcile`: objects brought to what they should be after every change, for `flow_objects`, `api_services`,
//!   `policy_status`, `legacy_tokens`

pub(crate) mod api_services;
mod bootstrap;
mod flow_objects;
mod keeper;
mod kubernetes_service;
mod legacy_tokens;
mod policy_status;
pub(crate) mod reconcile;
mod removal;

use crate::write::Writer;
use machinery::status::Status;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use supervise::Task;
use tokio_util::sync::CancellationToken;

/// How often stored Services are compared with what is taken (upstream: three minutes).
const AUDIT_EVERY: Duration = Duration::from_secs(180);
/// How often the `kubernetes` Service and its endpoints are looked at.
const ENDPOINTS_EVERY: Duration = Duration::from_secs(10);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error("read stored services")]
    Services(#[source] Status),
    /// An object every cluster has cannot be made.
    #[error("make {what}")]
    Bootstrap {
        /// Kind and name.
        what: String,
        /// Why.
        #[source]
        source: Status,
    },
    /// Stopped while starting.
    #[error("stopped while the watch caches were filled")]
    Stopped,
}

impl Writer {
    /// Fills the caches, takes stock of Services, makes what every cluster has, and leaves tasks behind that end with
    /// `shutdown`. Requests are answered once this has returned.
    pub async fn start(self: &Arc<Self>, shutdown: CancellationToken) -> Result<(), StartError> {
        tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            () = self.registry.fill(&shutdown) => {}
        }
        self.adopt_services().map_err(StartError::Services)?;
        for (kind, object) in bootstrap::objects(&self.registry.config.service_cidrs) {
            let what = format!("{} {}", kind.resource.kind, machinery::object::name(&object));
            self.ensure(&kind, object).await.map_err(|source| StartError::Bootstrap { what, source })?;
        }
        keeper::keep(self, &shutdown).await;
        kubernetes_service::reconcile(self).await.map_err(|source| StartError::Bootstrap {
            what: "Service default/kubernetes".to_owned(),
            source,
        })?;
        keep_objects(self, &shutdown);
        let writer = self.clone();
        self.registry.tasks(&shutdown).keep(Task::new("kubernetes-service", move |stop| {
            let writer = writer.clone();
            async move {
                keep_services(&writer, stop).await;
                Ok(())
            }
        }));
        Ok(())
    }
}

type Reconcile = fn(Arc<Writer>) -> reconcile::Round;

/// Keeps the objects that say how this server works.
fn keep_objects(writer: &Arc<Writer>, shutdown: &CancellationToken) {
    let kept: [(&'static str, Option<Vec<reconcile::Read>>, Duration, Reconcile); 4] = [
        ("flow-objects", flow_objects::reads(), flow_objects::EVERY, flow_objects::reconcile),
        ("policy-status", policy_status::reads(), policy_status::EVERY, policy_status::reconcile),
        ("api-services", api_services::reads(), api_services::EVERY, api_services::reconcile),
        ("legacy-tokens", legacy_tokens::reads(), legacy_tokens::EVERY, legacy_tokens::reconcile),
    ];
    for (name, reads, period, reconcile) in kept {
        let (Some(reads), of) = (reads, writer.clone()) else { continue };
        reconcile::keep_up(&writer.registry, name, reads, period, move || reconcile(of.clone()), shutdown);
    }
}

/// Keeps the `kubernetes` Service, and what Services hold.
async fn keep_services(writer: &Writer, shutdown: CancellationToken) {
    let mut audit = tokio::time::Instant::now() + AUDIT_EVERY;
    let mut suspects = BTreeSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(ENDPOINTS_EVERY) => {}
        }
        if let Err(error) = kubernetes_service::reconcile(writer).await {
            tracing::warn!(%error, "reconcile the kubernetes service");
        }
        if tokio::time::Instant::now() >= audit {
            audit = tokio::time::Instant::now() + AUDIT_EVERY;
            match writer.audit_services(&suspects) {
                Ok(found) => suspects = found,
                Err(error) => tracing::warn!(%error, "audit service numbers"),
            }
        }
    }
    if let Err(error) = kubernetes_service::withdraw(writer).await {
        tracing::warn!(%error, "withdraw from the kubernetes service");
    }
}
