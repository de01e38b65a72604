//! What a copy of this program does on a machine that is measured, and asking it from outside.

use super::floor::Floor;
use super::process::{self, Usage};
use crate::vm::Vm;
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Where the lab's command puts a copy of this program.
const PROGRAM: &str = "/home/vagrant/lab";
const SOCKET: &str = "/run/containerd/containerd.sock";
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
pub struct Inside(pub Vm);

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
    pub async fn agent(&self) -> Result<Usage> {
        let pid = self.0.run("systemctl show -P MainPID windlass-agent.service").await?;
        self.ask(&format!("usage {} {}", self.0.name, pid.trim())).await
    }
}
