//! The audit log: what the server was asked, by whom, and what came of it. Upstream: `apiserver/pkg/audit`.
//!
//! The filters begin a [`Trail`] for each authenticated request that the [`policy`] means, and whoever learns something of the request writes
//! it there: impersonation, authorisation, the handler (objects, the answer), admission (annotations). At each stage an [`event`] goes to the
//! backends. Without a policy there is no trail: nothing is allocated or asked for.
//!
//! - [`policy`]: which requests, and how much of them ([`level`]); [`event`]: what is written of one; [`objects`]: the objects in it. All
//!   pure.
//! - [`trail`]: the event of a request as it comes to be; [`arrival`]: what is known of it when it comes; [`follow`]: bodies that outlive their
//!   request
//! - [`backend`]: where events go; [`delivery`] by [`buffer`] and [`truncate`]: what may stand before; [`log`] on [`file`](mod@file): lines of a file;
//!   [`webhook`]: lists that are posted; [`counters`]

mod arrival;
mod backend;
mod buffer;
mod counters;
mod delivery;
mod event;
mod file;
mod follow;
mod level;
mod log;
mod objects;
mod policy;
mod trail;
mod truncate;
mod webhook;

pub use arrival::Arrival;
pub use buffer::Batches;
pub use delivery::{Delivery, Mode};
pub use file::Rotation;
pub use level::Level;
pub use log::{Format, Log, Output};
pub use policy::Policy;
pub use trail::Trail;
pub(crate) use trail::{Layer, Logged};
pub use truncate::Truncate;
pub use webhook::{Receiver, Webhook};

use crate::facts::{RequestInfo, User};
use crate::metrics::Metrics;
use backend::{Backend, Union};
use counters::Counters;
use event::Event;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Work};

/// What is audited, and where it goes.
pub struct Config {
    /// Which requests.
    pub policy: Policy,
    /// A file.
    pub log: Option<Log>,
    /// A service.
    pub webhook: Option<Webhook>,
}

/// Audits requests.
pub struct Auditor {
    policy: Policy,
    backend: Union,
    counters: Arc<Counters>,
    /// Last events of requests that end with their body.
    endings: Work,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").finish_non_exhaustive()
    }
}

impl Auditor {
    /// Opens the backends; none without any. What they do in the background is counted by `supervisor`.
    ///
    /// # Errors
    /// The log file cannot be made or opened.
    pub fn start(
        config: Config,
        supervisor: &Supervisor,
        metrics: &Metrics,
    ) -> io::Result<Option<Arc<Self>>> {
        let counters = Arc::new(Counters::new(metrics));
        let mut backends: Vec<Box<dyn Backend>> = Vec::new();
        if let Some(log) = config.log {
            backends.push(log.open(supervisor, &counters)?);
        }
        if let Some(webhook) = config.webhook {
            backends.push(webhook.open(supervisor, &counters));
        }
        if backends.is_empty() {
            return Ok(None);
        }
        let endings = Work::new(supervisor, "apiserver/audit-ending");
        Ok(Some(Arc::new(Auditor { policy: config.policy, backend: Union(backends), counters, endings })))
    }

    /// The trail of a request; an empty one where the policy does not mean it. Nobody is authenticated without a `user`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        arrival: &Arrival<'_>,
        user: Option<&User>,
        info: &RequestInfo,
    ) -> Trail {
        let scope = self.policy.scope(user, info);
        self.counters.level(scope.level);
        if scope.level == Level::None {
            return Trail::default();
        }
        Trail::new(self.clone(), scope, arrival.event(scope.level, user, info), info)
    }

    /// Hands an event to every backend; false where one refuses the request for it.
    async fn send(&self, event: Arc<Event>) -> bool {
        self.counters.event();
        self.backend.process(vec![event]).await
    }

    /// Sends the last events of a request in the background.
    fn ends(self: &Arc<Self>, events: Vec<Arc<Event>>) {
        // Nobody is left to write them when the runtime is gone.
        if tokio::runtime::Handle::try_current().is_err() {
            return self.counters.lost("shutdown", "the server has ended", &events);
        }
        let auditor = self.clone();
        self.endings.spawn(async move {
            for event in events {
                auditor.send(event).await;
            }
        });
    }

    /// Notes a request that is refused since its event could not be kept.
    pub(crate) fn rejected(&self) {
        self.counters.rejected();
    }

    /// Waits until everything is written, for at most `patience` a step. What comes later is lost, and counted.
    pub async fn finish(&self, patience: Duration) {
        if !self.endings.finish(patience).await {
            tracing::warn!(left = self.endings.len(), "the last audit events of requests are not written");
        }
        self.backend.finish(patience).await;
    }
}

#[cfg(test)]
pub(crate) mod fake;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
