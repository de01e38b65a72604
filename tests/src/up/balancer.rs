//! HAProxy before the servers, on a machine of its own.

use super::{node_address, node_name};
use crate::control;
use crate::init::{self, Service};
use crate::layout::Layout;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

/// Where the machine finds its configuration.
const CONFIG: &str = "/run/haproxy.cfg";

/// HAProxy's configuration: streams of bytes, to servers that say they are ready; those of one that stops saying so are ended.
fn config(address: &str, servers: u8) -> String {
    let mut text = format!(
        "global
    maxconn 4096
defaults
    mode tcp
    timeout connect 2s
    timeout check 1s
    timeout client 1h
    timeout server 1h
    retries 3
    option redispatch
frontend kubernetes
    bind {address}:6443
    default_backend servers
backend servers
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify none inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
"
    );
    for index in 1..=servers {
        let _ = writeln!(text, "    server {} {}:6443", node_name(index), node_address(index));
    }
    text
}

/// Starts it on the `index`-th machine.
///
/// # Errors
/// The program is missing, or the machine does not run.
pub(super) fn start(layout: &Layout, index: u8, servers: u8) -> Result<()> {
    let node = node_name(index);
    let path = layout.node_path(&node, CONFIG);
    fs::write(&path, config(&node_address(index), servers))
        .with_context(|| format!("write {}", path.display()))?;
    let argv = ["haproxy", "-db", "-f", CONFIG].map(str::to_owned).into();
    let service = Service { name: "haproxy".into(), argv, env: BTreeMap::new() };
    control::ask_init(layout, &node, &init::Ask::Start(service))
        .with_context(|| format!("start HAProxy on {node} (package haproxy)"))?;
    Ok(())
}
