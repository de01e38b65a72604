//! `lab bench`: the figures SPECIFICATION.md promises, measured on a lab of their own.
//!
//! Every figure is a median with its least and greatest value. Where something else does the same work (containerd asked directly, `nft`
//! fed directly, bytes through a bare socket), that reference runs in the same breath, alternating, and the ratio is the figure. There
//! is no upstream Kubernetes on the machine to compare with, so no figure claims to be a ratio to it.
//!
//! - [`figure`]: samples, their reference, and how they are shown
//! - [`cluster`]: the lab a bench runs on, and how long its parts take to be ready
//! - [`process`]: memory and processor time of our processes
//! - [`pods`]: pod start against the same CRI calls made directly
//! - [`floor`]: those calls
//! - [`services`]: the proxy's applier against bare `nft`, in a network namespace of its own
//! - [`machine`]: a node that is a virtual machine; [`inside`]: a copy of this program on it
//! - [`api`]: lists and watches; [`definitions`]: custom resources by the hundred

mod api;
mod cluster;
mod definitions;
mod figure;
mod floor;
pub mod inside;
pub mod machine;
mod pods;
mod process;
mod services;

use crate::layout::Layout;
use crate::reap;
use anyhow::Result;
use figure::Report;
use std::path::PathBuf;

/// What is measured; all of it when nothing is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Process start to node Ready.
    Ready,
    /// Memory and processor time at rest and under pods.
    Footprint,
    /// Pod start against the CRI floor.
    Pods,
    /// The service proxy at 10,000 services.
    Services,
    /// API lists and watches.
    Api,
    /// 700 custom resource definitions.
    Definitions,
}

/// Which figures are measured, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Folder of the programs `windlass` and `windlass-cni`.
    pub programs: PathBuf,
    /// Parts to measure; empty for all.
    pub parts: Vec<Part>,
    /// Prints one JSON document instead of a table.
    pub json: bool,
}

impl Plan {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// Measures, prints, and takes the lab away, also after a failure.
///
/// # Errors
/// A step of the lab or of a measurement failed; nothing is printed for the parts after it.
pub fn run(layout: &Layout, plan: &Plan) -> Result<()> {
    let mut report = Report::default();
    if plan.wants(Part::Services) {
        services::measure(&mut report)?;
    }
    let on_a_cluster = [Part::Ready, Part::Footprint, Part::Pods, Part::Api, Part::Definitions];
    if on_a_cluster.into_iter().any(|part| plan.wants(part)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let measured = runtime.block_on(on_cluster(layout, plan, &mut report));
        runtime.shutdown_background();
        measured.and(reap::lab(layout))?;
    }
    report.print(plan.json)
}

async fn on_cluster(layout: &Layout, plan: &Plan, report: &mut Report) -> Result<()> {
    let cluster = Box::pin(cluster::start(layout, plan, report)).await?;
    if plan.wants(Part::Footprint) {
        Box::pin(process::at_rest(&cluster, report)).await?;
    }
    if plan.wants(Part::Ready) {
        Box::pin(cluster::restarts(&cluster, report)).await?;
    }
    if plan.wants(Part::Pods) {
        let ground = pods::Ground::of(&cluster).await?;
        Box::pin(pods::starts(&ground, &pods::SIZES, report)).await?;
    }
    if plan.wants(Part::Footprint) {
        Box::pin(pods::footprint(&cluster, report)).await?;
    }
    if plan.wants(Part::Api) {
        Box::pin(api::measure(&cluster, report)).await?;
    }
    if plan.wants(Part::Definitions) {
        Box::pin(definitions::measure(&cluster, report)).await?;
    }
    Ok(())
}
