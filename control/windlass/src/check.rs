//! `windlass check`: looks at this machine for what keeps a node or a server from working, and names a remedy for each finding.
//!
//! - `facts`: what is looked at; `gather`: how, with nothing decided; `judge`: what the facts mean, pure
//!
//! A finding's `id` is its stable name, and its `commands` are lines that can be copied into a root shell of this machine.

mod facts;
mod gather;
mod judge;

use crate::cli::{AgentFlags, CheckFlags, CheckRole, NodeFlags, ServerFlags};
use crate::{output, settings};
use anyhow::bail;
use facts::Wanted;
use judge::{Finding, Level};
use serde::Serialize;
use std::path::PathBuf;

/// The port a server listens on unless told otherwise.
const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;

/// A look and what came of it.
#[derive(Debug, PartialEq, Serialize)]
struct Look {
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

pub(crate) async fn run(flags: &CheckFlags, file: &Option<PathBuf>) -> anyhow::Result<()> {
    let wanted = wanted(flags, file)?;
    let facts = gather::all(&wanted).await;
    let looks = looks(&facts, &wanted);
    output::print(flags.output, &text(&looks), &looks)?;
    match looks.iter().filter(|look| look.finding.level == Level::Error).count() {
        0 => Ok(()),
        1 => bail!("one finding keeps this machine from working"),
        errors => bail!("{errors} findings keep this machine from working"),
    }
}

/// What this machine is to be, by flags and the configuration file.
fn wanted(flags: &CheckFlags, file: &Option<PathBuf>) -> anyhow::Result<Wanted> {
    let of_node = |node: &NodeFlags, server: Option<String>| -> anyhow::Result<Wanted> {
        Ok(Wanted {
            server,
            data_dir: node.data_dir(),
            kubelet_root: node.kubelet_root.clone().unwrap_or_else(|| "/var/lib/kubelet".into()),
            kubelet_config: node.kubelet_config.clone(),
            cni_conf_dir: node.cni_conf_dir.clone().unwrap_or_else(|| "/etc/cni/net.d".into()),
            cni_bin_dir: node.cni_bin_dir.clone().unwrap_or_else(|| "/opt/cni/bin".into()),
            pod_ranges: node.cluster_cidrs().iter().map(ToString::to_string).collect(),
            node_name: node.node_name.clone(),
            cluster_dns: node.cluster_dns()?,
            is_other_runtime: node
                .container_runtime_endpoint
                .as_ref()
                .is_some_and(|socket| !socket.contains("containerd")),
            ports: vec![KUBELET_PORT],
            is_server: false,
            is_running: flags.running,
        })
    };
    match flags.role {
        CheckRole::Agent => {
            let agent = settings::merge(AgentFlags::default(), file)?;
            of_node(&agent.node, agent.server.clone())
        }
        CheckRole::Server => {
            let server = settings::merge(ServerFlags::default(), file)?;
            let mut wanted = of_node(&server.node, server.member.server.clone())?;
            wanted.is_server = true;
            wanted.ports.push(server.port.unwrap_or(API_PORT));
            if server.member.cluster_init || server.member.server.is_some() {
                wanted.ports.extend([2379, 2380]);
            }
            if server.no_agent {
                wanted.ports.retain(|port| *port != KUBELET_PORT);
            }
            Ok(wanted)
        }
    }
}

fn looks(facts: &facts::Facts, wanted: &Wanted) -> Vec<Look> {
    let mut looks = Vec::new();
    for (check, judge) in judge::LOOKS {
        let found = judge(facts, wanted);
        let well = found.is_empty().then(Finding::ok);
        looks.extend(found.into_iter().chain(well).map(|finding| Look { check, finding }));
    }
    looks
}

fn text(looks: &[Look]) -> String {
    let mut out = String::new();
    for Look { check, finding } in looks {
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        let name = finding.id.unwrap_or(check);
        out.push_str(format!("{word:<9}{name:<24}{}", finding.found).trim_end());
        out.push('\n');
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("{:<33}remedy: {remedy}\n", ""));
        }
        for command in &finding.commands {
            out.push_str(&format!("{:<33}    {command}\n", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests;
