//! The scheduler: with others in `windlass server`, or alone as kube-scheduler.

mod config;
mod extenders;

use super::alone::Alone;
use super::leading::{self, OnLoss};
use super::throttle::{Limit, limited};
use super::{election, kubeconfig};
use crate::flags::Flags;
use anyhow::Context as _;
use client::leader::Elector;
use std::path::Path;
use std::sync::Arc;
use supervise::{Supervisor, Task};

/// Upstream's names of its lease, and of who its events are of.
pub(crate) const LEASE: &str = "kube-scheduler";
pub(crate) const COMPONENT: &str = "default-scheduler";
/// Upstream's limit of its client, where one of the two is given.
pub(crate) const LIMIT: Limit = Limit { qps: 50.0, burst: 100 };
pub(crate) fn task(
    client: kube::Client,
    settings: scheduler::Config,
    supervisor: &Supervisor,
    elector: Option<Elector>,
    on_loss: OnLoss,
) -> Task {
    let (supervisor, settings) = (supervisor.clone(), Arc::new(settings));
    leading::task("scheduler", elector, on_loss, move |token| {
        let (client, supervisor, settings) = (client.clone(), supervisor.clone(), settings.clone());
        async move { Ok(scheduler::run(client, settings, &supervisor, token).await?) }
    })
}

/// Runs alone until a signal.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    super::refuse_once(&flags)?;
    let mut file = match flags.text("config") {
        Some(path) => config::load(Path::new(path)).context("--config")?,
        // With a file, what it says counts alone.
        None => config::Loaded { limit: Limit::of_flags(&flags, LIMIT)?, ..config::Loaded::default() },
    };
    if let Some(longest) = flags.duration("pod-max-in-unschedulable-pods-duration") {
        file.scheduler.waits.unschedulable = longest;
    }
    let (client, renewal) = kubeconfig::of_flags(&flags, file.kubeconfig.as_deref()).await?;
    let lease = election::settings(&flags, file.elect, file.leader)?;
    let alone =
        Alone::prepare(&flags, client, lease, COMPONENT, (LEASE, super::SCHEDULER_PORT, true)).await?;
    // Its lease is kept by a client that waits for nobody.
    let client = limited(alone.client.clone(), file.limit);
    let task = task(client, file.scheduler, &alone.supervisor, alone.elector.clone(), alone.on_loss());
    alone.run(std::iter::once(task).chain(renewal).collect()).await
}
