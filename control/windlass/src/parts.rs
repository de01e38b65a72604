//! The parts of a cluster: one way to build each, whether `windlass server` assembles them or one is a program of its own.
//!
//! - [`component`]: parts as programs, with upstream's flags (`crate::flags`); [`alone`]: what each has that is the only one of its process;
//!   [`serving`]: its port, with proxies in [`front`] and handshakes by [`tls`]; [`gates`]: features and versions; [`kubeconfig`]: its way to the API server, [`throttle`]: how often
//! - [`leading`]: a part of which only one works at a time; [`election`]: upstream's flags about that
//! - [`apiserver`]
//! - a node's: [`kubelet`], [`proxy`], [`dns`], [`network`]
//! - [`scheduler`], with the file it may be told by; [`controllers`], with clients of their own ([`accounts`])

mod accounts;
mod alone;
pub(crate) mod apiserver;
pub(crate) mod component;
pub(crate) mod controllers;
mod dns;
mod election;
mod front;
mod gates;
pub(crate) mod kubeconfig;
mod kubelet;
pub(crate) mod leading;
mod network;
mod proxy;
pub(crate) mod scheduler;
mod serving;
mod throttle;
mod tls;

use crate::flags::Flags;
use anyhow::{Context as _, anyhow, bail};

/// Where controllers that are a program of their own answer, unless a flag says otherwise.
const CONTROLLERS_PORT: u16 = 10257;
/// The same of a scheduler.
const SCHEDULER_PORT: u16 = 10259;

/// Refuses flags that make upstream's programs do one thing and end: ours would not end.
fn refuse_once(flags: &Flags) -> anyhow::Result<()> {
    for name in ["cleanup", "init-only", "write-config-to"] {
        if flags.text(name).is_some() && flags.bool(name) != Some(false) {
            bail!("--{name} is not served here");
        }
    }
    Ok(())
}

/// The node's name: the flag, or the host's, in lower case as upstream.
fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name.trim().to_lowercase(),
        None => node::config::host_name().context("read the host name; give --hostname-override")?,
    };
    node::config::check_node_name(&name).map_err(|e| anyhow!(e))?;
    Ok(name)
}
