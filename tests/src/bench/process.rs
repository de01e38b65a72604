//! Resident memory and processor time of our processes, read from `/proc`.

use super::cluster::{Cluster, WORKER};
use super::figure::{Promise, Report};
use crate::control::{self, Ask};
use crate::machine;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::{Duration, Instant};

/// How long nothing is done before a measurement, and how long it takes.
const REST: Duration = Duration::from_secs(30);
/// Longer than anything that nobody uses is kept.
const SETTLE: Duration = Duration::from_secs(400);
/// Looks a measurement consists of.
const LOOKS: u32 = 6;

/// What a process uses.
#[derive(Debug, Serialize, Deserialize)]
pub struct Usage {
    node: String,
    role: String,
    pid: i32,
    /// MiB.
    rss: Vec<f64>,
    /// MiB.
    pss: Vec<f64>,
    /// Of one core.
    percent: Vec<f64>,
}

impl Usage {
    fn new(node: String, role: String, pid: i32) -> Self {
        Self { node, role, pid, rss: Vec::new(), pss: Vec::new(), percent: Vec::new() }
    }
}

/// What a process of this machine uses, at the moment of the call and for half a minute after it.
///
/// # Errors
/// It is not there, or ended meanwhile.
pub async fn of_machine(node: &str, role: &str, pid: i32) -> Result<Usage> {
    let mut all = [Usage::new(node.to_owned(), role.to_owned(), pid)];
    sample(&mut all).await?;
    let [usage] = all;
    Ok(usage)
}

/// With no pods, after a rest.
///
/// # Errors
/// A process ended meanwhile.
pub async fn at_rest(cluster: &Cluster, report: &mut Report) -> Result<()> {
    tokio::time::sleep(REST).await;
    let all = watch(cluster).await?;
    show(report, "idle", &all, None)?;
    // the server and the agent beside it are promised together
    let first: Vec<&Usage> = all.iter().filter(|usage| usage.node == "n1").collect();
    let total = |pick: fn(&Usage) -> &Vec<f64>| -> Vec<f64> {
        (0..LOOKS as usize).map(|i| first.iter().filter_map(|u| pick(u).get(i)).sum()).collect()
    };
    report.plain("idle n1 server + agent RSS", "MiB", &total(|u| &u.rss), Some(Promise::AtMost(60.0)))?;
    report.plain(
        "idle n1 server + agent CPU",
        "% of a core",
        &total(|u| &u.percent),
        Some(Promise::AtMost(1.0)),
    )
}

/// With pods, at the moment of the call and for [`REST`] after it; `agent_limit` is for the worker's agent, in MiB.
///
/// # Errors
/// A process ended meanwhile.
pub async fn under(
    cluster: &Cluster,
    report: &mut Report,
    situation: &str,
    agent_limit: Option<f64>,
) -> Result<()> {
    let all = watch(cluster).await?;
    show(report, situation, &all, agent_limit)
}

/// Adds what was sampled; `agent_limit` is for the worker of the namespaces' lab.
///
/// # Errors
/// There are no samples.
pub fn show(report: &mut Report, situation: &str, all: &[Usage], agent_limit: Option<f64>) -> Result<()> {
    for usage in all {
        let limit = agent_limit.filter(|_| usage.node == WORKER).map(Promise::AtMost);
        let name = format!("{situation} {} {}", usage.node, usage.role);
        report.plain(format!("{name} RSS"), "MiB", &usage.rss, limit)?;
        report.plain(format!("{name} PSS"), "MiB", &usage.pss, None)?;
        report.plain(format!("{name} CPU"), "% of a core", &usage.percent, None)?;
    }
    Ok(())
}

async fn watch(cluster: &Cluster) -> Result<Vec<Usage>> {
    let mut all = Vec::new();
    for (node, machine) in control::ask(&cluster.layout, &Ask::Status)?.nodes {
        for (role, pid) in machine::windlass(&machine)? {
            all.push(Usage::new(node.clone(), role, pid));
        }
    }
    all.sort_by(|a, b| (&a.node, &b.role).cmp(&(&b.node, &a.role)));
    sample(&mut all).await?;
    Ok(all)
}

async fn sample(all: &mut [Usage]) -> Result<()> {
    for _ in 0..LOOKS {
        let began = Instant::now();
        let before: Vec<f64> = all.iter().map(|usage| cpu_seconds(usage.pid)).collect::<Result<_>>()?;
        tokio::time::sleep(REST / LOOKS).await;
        for (usage, before) in all.iter_mut().zip(before) {
            let used = cpu_seconds(usage.pid)? - before;
            usage.percent.push(used / began.elapsed().as_secs_f64() * 100.0);
            let (rss, pss) = memory(usage.pid)?;
            usage.rss.push(rss);
            usage.pss.push(pss);
        }
    }
    Ok(())
}

/// MiB that the first node's process of a role has now.
///
/// # Errors
/// There is none.
pub fn resident(cluster: &Cluster, role: &str) -> Result<f64> {
    let nodes = control::ask(&cluster.layout, &Ask::Status)?.nodes;
    let found = machine::windlass(nodes.get("n1").context("node n1 does not run")?)?;
    let (_, pid) =
        found.into_iter().find(|(of, _)| of == role).with_context(|| format!("no {role} runs on n1"))?;
    memory(pid).map(|(rss, _)| rss)
}

/// The same after so long that what is kept for a while only is given back.
///
/// # Errors
/// As [`resident`].
pub async fn settled(cluster: &Cluster, role: &str) -> Result<f64> {
    tokio::time::sleep(SETTLE).await;
    resident(cluster, role)
}

/// Processor time of a process, its ended threads included. The kernel tells it in hundredths of a second: 0.2% of a look.
fn cpu_seconds(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // the program's name, in parentheses, may hold spaces; the state follows it, and user and system time are 12th and 13th then
    let (_, rest) = text.rsplit_once(") ").with_context(|| format!("{path} is malformed"))?;
    let ticks: Vec<f64> = rest.split(' ').skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "{path} is malformed");
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// Resident and proportional set size, in MiB.
fn memory(pid: i32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("{path}: {name}"))?;
        let number = line.split_whitespace().next().with_context(|| format!("{path}: {name}"))?;
        Ok(number.parse::<f64>()? / 1024.0)
    };
    Ok((field("Rss:")?, field("Pss:")?))
}
