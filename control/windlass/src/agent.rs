//! `windlass agent`: this machine as a node.

use crate::cli::AgentFlags;
use crate::notify;
use crate::signals::Signals;
use anyhow::{Context as _, anyhow, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use pki::bootstrap::{AuthorityHash, JoinToken};
use std::net::IpAddr;
use supervise::{Scope, Supervisor, Task};
use tokio_util::sync::CancellationToken;

/// Set by a server for its child: the server's process id, with which the child dies.
pub(crate) const PARENT: &str = "WINDLASS_PARENT";

/// Runs until a signal.
pub(crate) async fn run(flags: AgentFlags) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    follow_parent(Signal::SIGTERM)?;
    let flags = flags.normalised();
    let config = config(&flags)?;
    let dir = config.agent_dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let shutdown = CancellationToken::new();
    let work = async {
        // pods have one owner: an agent that is still stopping goes first
        let lock = crate::lock::wait(&dir, "windlass agent", &shutdown).await?;
        let Some(_lock) = lock else { return Ok(()) };
        tracing::info!(node = config.node_name, ips = ?config.node_ips, server = config.server, "agent starts");
        let supervisor = Supervisor::default();
        let progress = node::Progress::default();
        // It tells what is waited for while there is nothing else yet.
        let told = Scope::new(&supervisor, "", &shutdown);
        if let Some(task) = notify::task(&supervisor, &progress) {
            told.keep(task);
        }
        let mut beside: Vec<Task> = Vec::new();
        if flags.node.node_ip.is_empty() {
            beside.extend(config.node_ips.first().map(|had| address(*had, &config, &shutdown)));
        }
        Ok(Box::pin(node::run(config, &supervisor, beside, progress, shutdown.clone())).await?)
    };
    signals.until_done(&shutdown, work).await
}

/// Ends the agent where the machine has moved to another address, which all of its parts are to have: whoever started it starts it again, and pods go on.
fn address(had: IpAddr, config: &node::Config, shutdown: &CancellationToken) -> Task {
    let server = config.server.as_deref().and_then(|server| node::cluster_info::parse_server(server).ok());
    let shutdown = shutdown.clone();
    Task::endless("address", move || {
        let (server, shutdown) = (server.clone(), shutdown.clone());
        async move {
            let now = node::address::moved(had, server).await;
            tracing::warn!(%had, %now, "this machine has another address; starting again with it");
            shutdown.cancel();
            std::future::pending().await
        }
    })
}

/// A server's child gets `signal` when the server dies, however it dies. (An agent's pods go on.)
pub(crate) fn follow_parent(signal: Signal) -> anyhow::Result<()> {
    let Ok(parent) = std::env::var(PARENT) else { return Ok(()) };
    set_pdeathsig(signal).context("ask for a signal at the server's death")?;
    // It may have died before the line above.
    if getppid().to_string() != parent {
        bail!("the server that started this agent is gone");
    }
    Ok(())
}

fn config(flags: &AgentFlags) -> anyhow::Result<node::Config> {
    let server = flags.server.as_deref().map(node::cluster_info::parse_server).transpose()?;
    let mut config = flags.node.config(server.as_ref())?;
    config.server = flags.server.as_ref().map(|s| s.trim_end_matches('/').to_owned());
    config.token = token(flags)?;
    config.pod_cidrs.clone_from(&flags.pod_cidr);
    if config.server.is_some() && !config.pod_cidrs.is_empty() {
        bail!("--pod-cidr is for a node without --server; a cluster assigns the range");
    }
    Ok(config)
}

fn token(flags: &AgentFlags) -> anyhow::Result<Option<JoinToken>> {
    let text = match (&flags.token, &flags.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("read token file {}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    let mut token: JoinToken = text.parse()?;
    if let Some(hash) = &flags.ca_cert_hash {
        let hash = AuthorityHash::parse_public_key(hash)?;
        match token.authority {
            None => token.authority = Some(hash),
            Some(_) => {
                return Err(anyhow!("--ca-cert-hash is given, but the token names the authority itself"));
            }
        }
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_a_flag_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "abcdef.0123456789abcdef\n").unwrap();
        let mut flags = AgentFlags { token_file: Some(path), ..AgentFlags::default() };
        assert_eq!(token(&flags).unwrap().unwrap().token.id(), "abcdef");
        assert!(token(&flags).unwrap().unwrap().authority.is_none());
        flags.ca_cert_hash = Some(format!("sha256:{}", "0".repeat(64)));
        assert!(token(&flags).unwrap().unwrap().authority.is_some());
        flags.ca_cert_hash = Some("md5:00".into());
        assert!(token(&flags).is_err());
        assert!(token(&AgentFlags::default()).unwrap().is_none());
    }

    #[test]
    fn a_cluster_assigns_the_pods_range() {
        let flags = AgentFlags {
            server: Some("https://127.0.0.1:6443/".into()),
            pod_cidr: vec!["10.1.0.0/24".parse().unwrap()],
            ..AgentFlags::default()
        };
        assert!(config(&flags).unwrap_err().to_string().contains("--pod-cidr"));
        let flags = AgentFlags { pod_cidr: vec![], ..flags };
        assert_eq!(config(&flags).unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));
        let flags = AgentFlags { server: Some("http://x".into()), ..flags };
        assert!(config(&flags).is_err());
    }
}
