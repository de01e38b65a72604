//! Keeps the Node's status true.
//!
//! Woken by a change of the runtime's health or of what the kubelet reports, and every `check_period`. Reads the machine,
//! the runtime's images, and the Node (from the API server's cache). Writes `status` by a strategic merge patch of what
//! differs, when something differs or `report_period` is over, and then the events that go with it; and tells the runtime the ranges of the
//! node's pods. Promises: other writers' conditions, resources and fields survive; a failed write is tried again at the next wake-up; a burst of
//! changes becomes one write; a Node that was removed while the API could not be reached is noticed.

use super::status::{self, Observed, Outcome};
use super::{Config, Reported, machine, patch, runtime};
use crate::recorder::{Kind, Recorder, Subject};
use cri_proto::client::Runtime;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The runtime's images are listed this often.
const IMAGES_PERIOD: Duration = Duration::from_secs(30);
/// Attempts to write a status before the next wake-up, as upstream's.
const ATTEMPTS: usize = 5;
/// An API call that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a status could not be reported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Node could not be read.
    #[error("read node {node}")]
    Read {
        node: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The status could not be written.
    #[error("patch status of node {node}")]
    Patch {
        node: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The status does not serialise.
    #[error("encode status of node {node}")]
    Encode {
        node: String,
        #[source]
        source: serde_json::Error,
    },
    /// No answer in time.
    #[error("report status of node {node}: no answer within {}s", PATIENCE.as_secs())]
    Silence { node: String },
}

/// What a node's status is made of, and who is told what changed.
#[derive(Clone)]
pub struct Sources {
    /// Lists images for the status.
    pub runtime: Runtime,
    /// What it says of itself.
    pub health: watch::Receiver<runtime::Health>,
    /// What the kubelet says.
    pub reported: watch::Receiver<Reported>,
    /// Recorder of node events (`NodeReady`).
    pub events: Recorder,
}

/// The state of the status loop.
pub struct Reporter {
    pub(super) config: Arc<Config>,
    pub(super) nodes: Api<Node>,
    runtime: Runtime,
    health: watch::Receiver<runtime::Health>,
    reported: watch::Receiver<Reported>,
    events: Recorder,
    images: Option<(Instant, Vec<ContainerImage>)>,
    last_report: Option<Instant>,
    enforced_told: bool,
    /// The ranges of the node's pods, as the Node had them last, and as the runtime was told them.
    ranges: String,
    ranges_told: String,
    /// The API server answered when it was asked for the Node last: what fails after that is no outage of its.
    heard: bool,
    /// Whether the scheduler was kept from the node when it was looked at last.
    unschedulable: bool,
}

impl Reporter {
    /// A reporter that has not reported yet.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        client: kube::Client,
        Sources { runtime, health, reported, events }: Sources,
    ) -> Self {
        Self {
            config,
            nodes: Api::all(client),
            runtime,
            health,
            reported,
            events,
            images: None,
            last_report: None,
            enforced_told: false,
            ranges: String::new(),
            ranges_told: String::new(),
            heard: false,
            unschedulable: false,
        }
    }

    /// Reports until `shutdown`, or until the Node turns out to have been removed while the API could not be reached: nobody was there to see it go,
    /// and this machine is back. One that is removed while the API can be reached is removed for good, until the kubelet is started again: as
    /// upstream's.
    pub async fn run(&mut self, shutdown: &CancellationToken) {
        let mut away = false;
        loop {
            self.tell_enforced();
            match self.report_with_retries().await {
                Ok(()) => away = false,
                Err(error) if error.is_absent() && away => {
                    tracing::warn!(node = %self.config.name, "the node was removed while the API could not be reached");
                    return;
                }
                Err(error) => {
                    away = !self.heard && error.is_unanswered();
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(error = %error, cause, "report node status; will try again");
                }
            }
            self.tell_ranges().await;
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = self.health.changed() => {}
                Ok(()) = self.reported.changed() => {}
                () = tokio::time::sleep(self.config.check_period) => {}
            }
        }
    }

    /// Tells the runtime the ranges of the node's pods, where they are others than it was told. Upstream: `updatePodCIDR`.
    async fn tell_ranges(&mut self) {
        if self.ranges.is_empty() || self.ranges == self.ranges_told {
            return;
        }
        // A runtime that hangs must not keep the status from being reported.
        let telling = tokio::time::timeout(PATIENCE, self.runtime.update_runtime_config(&self.ranges));
        match telling.await {
            Ok(Ok(())) => {
                tracing::info!(before = self.ranges_told, now = self.ranges, "the ranges of the node's pods");
                self.ranges_told.clone_from(&self.ranges);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, ranges = self.ranges, "tell the runtime the ranges of pods");
            }
            Err(_) => tracing::warn!(ranges = self.ranges, "tell the runtime the ranges of pods: no answer"),
        }
    }

    async fn report_with_retries(&mut self) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let done = tokio::time::timeout(PATIENCE, self.report(attempt == 1)).await;
            match done.unwrap_or_else(|_| Err(Error::Silence { node: self.config.name.clone() })) {
                Err(error) if attempt < ATTEMPTS && is_conflict(&error) => attempt += 1,
                done => return done,
            }
        }
    }

    async fn report(&mut self, from_cache: bool) -> Result<(), Error> {
        let name = self.config.name.clone();
        // Resource version 0 allows the API server to answer from its cache; a retry asks for the truth.
        self.heard = false;
        let mut found = self.read(from_cache).await?;
        self.heard = true;
        self.tell_schedulable(&found);
        self.ranges = found
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_cidrs.as_ref())
            .map(|all| all.join(","))
            .unwrap_or_default();
        let old = found.status.take().unwrap_or_default();
        let outcome = self.compute(&old).await;
        let due = self.last_report.is_none_or(|at| at.elapsed() >= self.config.report_period);
        if !due && !status::has_changed(&old, &outcome.status) {
            return Ok(());
        }
        let patch = patch::status_patch(&old, &outcome.status)
            .map_err(|source| Error::Encode { node: name.clone(), source })?;
        if let Some(patch) = patch {
            self.nodes
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
                .map_err(|source| Error::Patch { node: name.clone(), source: Box::new(source) })?;
        }
        self.last_report = Some(Instant::now());
        self.announce(&outcome);
        Ok(())
    }

    async fn read(&self, from_cache: bool) -> Result<Node, Error> {
        let name = &self.config.name;
        let found = if from_cache {
            self.nodes.get_with(name, &kube::api::GetParams::any()).await
        } else {
            self.nodes.get(name).await
        };
        found.map_err(|source| Error::Read { node: name.clone(), source: Box::new(source) })
    }

    /// The status as the world is now.
    pub(super) async fn compute(&mut self, old: &NodeStatus) -> Outcome {
        let images = self.images().await;
        let health = self.health.borrow_and_update().clone();
        let reported = self.reported.borrow_and_update().clone();
        let machine = self.machine();
        let observed = Observed { machine, health, reported, images };
        status::status(&self.config, &observed, old, Timestamp::now())
    }

    fn machine(&self) -> machine::Machine {
        let config = &self.config;
        let mut machine = machine::read(&config.root_dir);
        machine.storage = machine.storage.filter(|_| config.local_storage);
        for (files, id) in [
            (&config.machine_id_files, &mut machine.machine_id),
            (&config.boot_id_files, &mut machine.boot_id),
        ] {
            let named = machine::first_line(files);
            if !named.is_empty() {
                *id = named;
            }
        }
        machine
    }

    /// The runtime's images, listed again when the last list is old.
    async fn images(&mut self) -> Option<Vec<ContainerImage>> {
        if self.images.as_ref().is_none_or(|(at, _)| at.elapsed() >= IMAGES_PERIOD) {
            match self.runtime.list_images().await {
                Ok(list) => {
                    self.images = Some((Instant::now(), status::images(list, self.config.max_images)));
                }
                Err(error) => tracing::debug!(error = %error, "list images for the node status"),
            }
        }
        self.images.as_ref().map(|(_, list)| list.clone())
    }

    /// Writes the events of a status that was stored.
    pub(super) fn announce(&self, outcome: &Outcome) {
        let name = &self.config.name;
        if outcome.rebooted {
            let boot = outcome.status.node_info.as_ref().map_or("", |info| info.boot_id.as_str());
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            self.events.record(Subject::node(name), Kind::Warning, "Rebooted", message);
        }
        for reason in &outcome.events {
            let message = format!("Node {name} status is now: {reason}");
            self.events.record(Subject::node(name), Kind::Normal, *reason, message);
        }
    }

    /// Tells when somebody keeps the scheduler from the node, or no longer does.
    fn tell_schedulable(&mut self, node: &Node) {
        let now = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if std::mem::replace(&mut self.unschedulable, now) != now {
            let (name, reason) =
                (&self.config.name, if now { "NodeNotSchedulable" } else { "NodeSchedulable" });
            let message = format!("Node {name} status is now: {reason}");
            self.events.record(Subject::node(name), Kind::Normal, reason, message);
        }
    }

    fn tell_enforced(&mut self) {
        let enforced = self.reported.borrow().allocatable_enforced;
        if enforced && !self.enforced_told {
            self.enforced_told = true;
            let message = "Updated Node Allocatable limit across pods";
            let node = Subject::node(&self.config.name);
            self.events.record(node, Kind::Normal, "NodeAllocatableEnforced", message);
        }
    }
}

impl Error {
    /// There is no such Node.
    fn is_absent(&self) -> bool {
        matches!(self.answer(), Some(status) if status.is_not_found())
    }

    /// The API server could not be reached, or had no answer.
    fn is_unanswered(&self) -> bool {
        !matches!(self, Self::Encode { .. }) && self.answer().is_none_or(|status| status.code >= 500)
    }

    /// What the API server said.
    fn answer(&self) -> Option<&Status> {
        let (Self::Read { source, .. } | Self::Patch { source, .. }) = self else { return None };
        match &**source {
            kube::Error::Api(status) => Some(&**status),
            _ => None,
        }
    }
}

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Patch { .. }) && error.answer().is_some_and(Status::is_conflict)
}

#[cfg(test)]
mod tests;
