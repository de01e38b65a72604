//! The scheduler: with others in `windlass server`, or alone as kube-scheduler.

mod config;
mod extenders;

use super::alone::Alone;
use super::leading::{self, OnLoss};
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
const PORT: u16 = 10259;

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
    let file = match flags.text("config") {
        Some(path) => config::load(Path::new(path)).context("--config")?,
        None => config::Loaded::default(),
    };
    let client = kubeconfig::of_flags(&flags, file.kubeconfig.as_deref()).await?;
    let lease = election::settings(&flags, file.elect, file.leader)?;
    let alone = Alone::prepare(&flags, client, lease, COMPONENT, (LEASE, PORT)).await?;
    let task =
        task(alone.client.clone(), file.scheduler, &alone.supervisor, alone.elector.clone(), alone.on_loss());
    alone.run(vec![task]).await
}
