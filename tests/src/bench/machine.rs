//! `vagrant/lab bench`: a node that is a virtual machine. Pods are asked for from here; the CRI floor runs on the machine, by a copy of this program, which
//! looks at its agent there, too. Emulated machines are slow: their figures are ratios, and the agent's memory.

use super::figure::Report;
use super::inside::Inside;
use super::pods::{self, Bare, Ground};
use super::process;
use crate::up;
use crate::vm::{self, Vm};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

/// Pods asked for at once, and how often.
const SIZES: [(usize, usize); 2] = [(1, 7), (20, 2)];
/// Pods asked for at once until the node is full.
const AT_ONCE: usize = 22;
/// The longest that pods may take to start or to go, emulated.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Measures a worker: its agent at rest, pod start, and its agent with as many pods as a node must carry; prints it all.
///
/// # Errors
/// A step failed; nothing is printed then.
pub fn run(node: &str, kubeconfig: &Path, json: bool) -> Result<()> {
    let folder = vm::folder().context("no lab of virtual machines: `vagrant/lab bench` has one")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::default();
    runtime.block_on(Box::pin(measure(Vm::new(&folder, node), kubeconfig, &mut report)))?;
    runtime.shutdown_background();
    report.print(json)
}

async fn measure(vm: Vm, kubeconfig: &Path, report: &mut Report) -> Result<()> {
    let client = up::client_without_retries(kubeconfig).await?;
    let agent = Inside(vm.clone());
    process::show(report, "idle", &[agent.agent().await?], None)?;
    let (node, bare) = (vm.name.clone(), Bare::There(Inside(vm)));
    let ground = Ground { client, node, bare, patience: PATIENCE };
    pods::starts(&ground, &SIZES, report).await?;
    let seconds = pods::fill(&ground, AT_ONCE).await?;
    report.plain(format!("{} pods, {AT_ONCE} at once: all running", pods::FULL), "s", &[seconds], None)?;
    process::show(report, &format!("{} pods:", pods::FULL), &[agent.agent().await?], None)?;
    pods::clear(&ground).await
}
