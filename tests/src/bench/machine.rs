//! `vagrant/lab bench`: a node that is a virtual machine. Pods are asked for from here; the CRI floor runs on the machine, by a copy of this program, which
//! looks at its agent there, too. Emulated machines are slow: their figures are ratios, and the agent's memory.

use super::figure::Report;
use super::floor::Floor;
use super::pods::{self, Bare, Ground};
use super::process::{self, Usage};
use crate::up;
use crate::vm::{self, Vm};
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;

/// Where the lab's command puts a copy of this program.
const PROGRAM: &str = "/home/vagrant/lab";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Pods asked for at once, and how often.
const SIZES: [(usize, usize); 2] = [(1, 7), (20, 2)];
/// Pods asked for at once until the node is full.
const AT_ONCE: usize = 22;
/// The longest that pods may take to start or to go, emulated.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Less than a command on a machine may take.
const QUIET: Duration = Duration::from_secs(240);

/// What a copy of this program does on the machine; each prints JSON.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Within {
    /// Starts pods by CRI alone, and takes them away
    Floor {
        /// How many at once
        count: usize,
        /// What tells their names from those of other rounds
        round: usize,
    },
    /// Waits until the runtime has no sandbox
    Quiet,
    /// Looks at the agent
    Usage {
        /// Its node
        node: String,
        /// Its process
        pid: i32,
    },
}

/// Does one of these.
///
/// # Errors
/// The runtime refuses it, or the process is not there.
pub fn within(what: &Within) -> Result<()> {
    fn print(value: &impl Serialize) -> Result<()> {
        println!("{}", serde_json::to_string(value)?);
        Ok(())
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let floor = Floor::of_machine(SOCKET)?;
        match what {
            Within::Floor { count, round } => print(&Box::pin(floor.start(*count, *round)).await?),
            Within::Quiet => print(&floor.quiet(QUIET).await?),
            Within::Usage { node, pid } => print(&process::of_machine(node, "agent", *pid).await?),
        }
    })
}

/// The machine, as seen from here.
pub struct Inside(Vm);

impl Inside {
    async fn ask<T: DeserializeOwned>(&self, words: &str) -> Result<T> {
        let said = self.0.run(&format!("{PROGRAM} within {words}")).await?;
        serde_json::from_str(&said).with_context(|| format!("within {words}: {said}"))
    }

    /// As [`Floor::start`].
    ///
    /// # Errors
    /// The machine or its runtime does not answer.
    pub async fn start(&self, count: usize, round: usize) -> Result<Vec<f64>> {
        self.ask(&format!("floor {count} {round}")).await
    }

    /// As [`Floor::quiet`].
    ///
    /// # Errors
    /// As [`Self::start`], or a sandbox stays.
    pub async fn quiet(&self) -> Result<()> {
        self.ask("quiet").await
    }

    /// What its agent uses.
    ///
    /// # Errors
    /// As [`Self::start`], or no agent runs.
    async fn agent(&self) -> Result<Usage> {
        let pid = self.0.run("systemctl show -P MainPID windlass-agent.service").await?;
        self.ask(&format!("usage {} {}", self.0.name, pid.trim())).await
    }
}

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
