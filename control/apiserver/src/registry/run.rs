//! The registry's tasks: the feeds of the watch caches, the audit of service numbers, our own endpoints.

use super::kind::Kind;
use super::{Registry, api_services, flow_objects, kubernetes_service, policy_status};
use futures::future::join_all;
use machinery::status::Status;
use std::sync::Arc;
use std::time::Duration;
use store::cache::Feed;
use supervise::{Scope, Task};
use tokio_util::sync::CancellationToken;

/// How often stored Services are compared with what is taken (upstream: three minutes).
const AUDIT_EVERY: Duration = Duration::from_secs(180);
/// How often the `kubernetes` Service and its endpoints are looked at.
const ENDPOINTS_EVERY: Duration = Duration::from_secs(10);

/// Why the registry does not start.
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

/// The task that fills the watch cache of a key prefix, `/registry/pods/`: one a cache, so that none ends with another. A new life
/// lists again and ends the watches of the one before.
pub(super) fn feed_task(prefix: &str, feed: Feed) -> Task {
    let resource = prefix.trim_start_matches("/registry/").trim_end_matches('/');
    Task::endless(format!("feed/{resource}"), move || feed.clone().run())
}

impl Registry {
    /// Fills the caches, takes stock of Services, makes what every cluster has, and leaves tasks behind that end with
    /// `shutdown`. The registry answers once this has returned.
    pub async fn start(self: &Arc<Self>, shutdown: CancellationToken) -> Result<(), StartError> {
        let feeds = std::mem::take(&mut *self.feeds.lock());
        let tasks = self.tasks(&shutdown);
        feeds.into_iter().for_each(|feed| tasks.keep(feed));
        let ready = join_all(self.caches.values().map(store::cache::Cache::ready));
        tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            _ = ready => {}
        }
        self.adopt_services().map_err(StartError::Services)?;
        self.bootstrap().await?;
        self.keep_definitions(&shutdown).await;
        kubernetes_service::reconcile(self).await.map_err(|source| StartError::Bootstrap {
            what: "Service default/kubernetes".to_owned(),
            source,
        })?;
        self.keep_objects(&shutdown);
        let registry = self.clone();
        tasks.keep(Task::new("kubernetes-service", move |stop| {
            let registry = registry.clone();
            async move {
                registry.keep(stop).await;
                Ok(())
            }
        }));
        Ok(())
    }

    /// The registry's tasks; they end with `shutdown`, and so does everything the first call was for.
    pub(crate) fn tasks(&self, shutdown: &CancellationToken) -> &Scope {
        self.tasks.get_or_init(|| Scope::new(&self.config.supervisor, "", shutdown))
    }

    /// Keeps the objects that say how this server works.
    fn keep_objects(self: &Arc<Self>, shutdown: &CancellationToken) {
        if let Some((schemas, levels)) = flow_objects::kinds() {
            let kinds = vec![schemas, levels];
            self.keep_up("flow-objects", kinds, flow_objects::EVERY, flow_objects::reconcile, shutdown);
        }
        if let Some(policies) = policy_status::kind() {
            self.keep_up(
                "policy-status",
                vec![policies],
                policy_status::EVERY,
                policy_status::reconcile,
                shutdown,
            );
        }
        if let Some((services, definitions)) = api_services::kinds() {
            let kinds = vec![services, definitions];
            self.keep_up("api-services", kinds, api_services::EVERY, api_services::reconcile, shutdown);
        }
    }

    /// Takes what stored Services hold.
    fn adopt_services(&self) -> Result<(), Status> {
        let Some(kind) = Kind::of("", "services") else { return Ok(()) };
        let stored = self.cached(&kind, "")?;
        let mut numbers = self.numbers.lock();
        stored.iter().for_each(|s| numbers.adopt(s));
        Ok(())
    }

    async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut audit = tokio::time::Instant::now() + AUDIT_EVERY;
        let mut suspects = std::collections::BTreeSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(ENDPOINTS_EVERY) => {}
            }
            if let Err(error) = kubernetes_service::reconcile(&self).await {
                tracing::warn!(%error, "reconcile the kubernetes service");
            }
            if tokio::time::Instant::now() >= audit {
                audit = tokio::time::Instant::now() + AUDIT_EVERY;
                match Kind::of("", "services").map(|kind| self.cached(&kind, "")) {
                    Some(Ok(stored)) => suspects = self.numbers.lock().audit(&stored, &suspects),
                    Some(Err(error)) => tracing::warn!(%error, "audit service numbers"),
                    None => {}
                }
            }
        }
        if let Err(error) = kubernetes_service::withdraw(&self).await {
            tracing::warn!(%error, "withdraw from the kubernetes service");
        }
    }
}
