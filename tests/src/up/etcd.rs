//! An etcd beside the servers that is not theirs: a member on each server's machine, a service of its own.

use super::{node_address, node_name};
use crate::control;
use crate::init::{self, Service};
use crate::layout::Layout;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// The name of the service, and of its log.
pub const SERVICE: &str = "etcd";

/// What `--etcd-servers` of the servers says.
pub(super) fn urls(members: u8) -> String {
    let urls: Vec<String> = (1..=members).map(|n| format!("http://{}:2379", node_address(n))).collect();
    urls.join(",")
}

/// Starts a member on each of the first `members` machines.
///
/// # Errors
/// The program is missing, or a machine does not run.
pub(super) fn start(layout: &Layout, members: u8) -> Result<()> {
    let peer = |index| format!("{}=http://{}:2380", node_name(index), node_address(index));
    let all: Vec<String> = (1..=members).map(peer).collect();
    for index in 1..=members {
        let (node, address) = (node_name(index), node_address(index));
        let argv = vec![
            "etcd".to_owned(),
            format!("--name={node}"),
            "--data-dir=/var/lib/etcd".to_owned(),
            format!("--listen-client-urls=http://{address}:2379"),
            format!("--advertise-client-urls=http://{address}:2379"),
            format!("--listen-peer-urls=http://{address}:2380"),
            format!("--initial-advertise-peer-urls=http://{address}:2380"),
            format!("--initial-cluster={}", all.join(",")),
        ];
        let service = Service { name: SERVICE.into(), argv, env: BTreeMap::new() };
        control::ask_init(layout, &node, &init::Ask::Start(service))
            .with_context(|| format!("start etcd on {node} (package etcd-server)"))?;
    }
    Ok(())
}
