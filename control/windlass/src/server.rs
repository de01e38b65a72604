//! `windlass server`: the control plane of a cluster.
//!
//! In order: the data directory's lock; keys and certificates; the store and the API server on it, reachable in the
//! process and on its port; what machines need to join; scheduler and controllers; this machine's own agent, as a child.
//! Each step waits for what it needs to be ready, and for nothing else. Shutdown goes the other way round.

mod child;
mod identity;
mod tasks;

use crate::cli::{AgentFlags, ServerFlags};
use crate::parts::apiserver::{self, Limits, Settings, publish, storage};
use crate::settings::{self, nth_address};
use crate::signals::Signals;
use crate::snapshot;
use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use pki::bootstrap::BootstrapToken;
use pki::{ClusterNames, Pki};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A server's settings, checked.
#[derive(Debug)]
struct Plan {
    /// Where the API server listens.
    listen: SocketAddr,
    /// Where others reach it.
    advertise: IpAddr,
    /// Names and addresses of its certificate.
    names: ClusterNames,
    /// A token to join with.
    token: Option<BootstrapToken>,
    /// Our part of the data directory.
    dir: PathBuf,
    snapshots: snapshot::keeper::Plan,
    /// This machine's node.
    node: node::Config,
    flags: ServerFlags,
}

impl Plan {
    fn new(flags: ServerFlags) -> anyhow::Result<Self> {
        let node = flags.node.config(None)?;
        let advertise = flags.advertise_address.or(node.node_ips.first().copied());
        let advertise = advertise.context("no address to advertise: give --advertise-address")?;
        let bind = flags.bind_address.unwrap_or(if advertise.is_ipv6() {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        });
        let ranges = flags.node.service_cidrs();
        let first = ranges.first().context("no service range")?;
        let service_ip = nth_address(first, 1)?;
        let mut extra: Vec<String> = flags.tls_san.clone();
        extra.extend(node.node_ips.iter().chain([&advertise]).map(ToString::to_string));
        extra.extend(ranges.iter().skip(1).filter_map(|r| nth_address(r, 1).ok()).map(|ip| ip.to_string()));
        extra.push(node.node_name.clone());
        if !bind.is_unspecified() {
            extra.push(bind.to_string());
        }
        let snapshots = snapshot::keeper::Plan::new(
            flags.snapshot_schedule.as_deref().unwrap_or(snapshot::keeper::Plan::SCHEDULE),
            flags.snapshot_retention.unwrap_or(snapshot::keeper::Plan::KEEP),
            flags.snapshot_dir.clone().unwrap_or_else(|| settings::snapshot_dir(&node.data_dir)),
        )?;
        Ok(Self {
            snapshots,
            listen: SocketAddr::new(bind, flags.port.unwrap_or(6443)),
            advertise,
            names: ClusterNames::of(&flags.node.cluster_domain(), service_ip, &extra),
            token: flags.token.as_deref().map(str::parse).transpose().context("--token")?,
            dir: settings::server_dir(&node.data_dir),
            node,
            flags,
        })
    }

    /// What the API server is made of.
    fn api_server(&self, pki: &Pki) -> anyhow::Result<Settings> {
        Ok(Settings {
            listen: self.listen,
            advertise: self.advertise,
            storage: storage::Settings::new(&self.flags.storage, settings::store_file(&self.dir))?,
            service_cidrs: self.node.service_cidrs.clone(),
            issuers: vec![format!("https://kubernetes.default.svc.{}", self.node.cluster_domain)],
            audiences: Vec::new(),
            signing_key: Some(pki.service_account.clone()),
            verifying_keys: pki.service_account_keys.clone(),
            certificates: tasks::certificates(pki),
            front_proxies: None,
            limits: Limits::default(),
        })
    }

    /// The API server as this machine reaches it.
    fn local_url(&self) -> String {
        let ip = match self.listen.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        format!("https://{}", SocketAddr::new(ip, self.listen.port()))
    }

    /// The API server as other machines reach it.
    fn public_url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.advertise, self.listen.port()))
    }

    /// The arguments of this machine's agent.
    fn agent_arguments(&self) -> anyhow::Result<Vec<String>> {
        let mut node = self.flags.node.clone();
        // The agent must not choose otherwise.
        node.node_name = Some(self.node.node_name.clone());
        node.node_ip.clone_from(&self.node.node_ips);
        let flags = AgentFlags { server: Some(self.local_url()), node, ..AgentFlags::default() };
        // No file: what it says is in the arguments already.
        let mut arguments = vec!["--config=".to_owned(), "agent".to_owned()];
        arguments.extend(settings::to_arguments(&flags)?);
        Ok(arguments)
    }
}

/// Runs until a signal.
pub(crate) async fn run(flags: ServerFlags) -> anyhow::Result<()> {
    let signals = Signals::take().context("take over signals")?;
    let plan = Arc::new(Plan::new(flags)?);
    let shutdown = CancellationToken::new();
    let work = Box::pin(serve(&plan, &shutdown));
    signals.until_done(&shutdown, work).await
}

async fn serve(plan: &Arc<Plan>, shutdown: &CancellationToken) -> anyhow::Result<()> {
    pki::files::create_private_dir(&plan.dir)?;
    let _lock = crate::lock::take(&plan.dir, "windlass server")?;
    let pki = Pki::load_or_create(&plan.dir.join("pki"), &plan.names, Timestamp::now())
        .context("prepare keys and certificates")?;
    let api = Arc::new(apiserver::start(plan.api_server(&pki)?).await?);
    tracing::info!(listen = %plan.listen, url = plan.public_url(), "the API server listens");
    identity::write_admin(plan, &pki)?;
    let api_stop = CancellationToken::new();
    let main = async {
        api.ready().await?;
        let client = api.client("system:apiserver", &["system:masters"]);
        publish::publish(&client, &plan.public_url(), &pki.ca.cert_pem(), plan.token.as_ref())
            .await
            .context("publish what machines need to join")?;
        publish::request_headers(&client, &pki.ca.cert_pem(), &pki.front_proxy_ca.cert_pem())
            .await
            .context("publish what other API servers need")?;
        tracing::info!("the cluster is ready");
        let tasks = tasks::of(plan, &pki, &api)?;
        tokio::join!(Box::pin(api.supervisor().run(tasks, shutdown)), agent(plan, &pki, shutdown));
        anyhow::Ok(())
    };
    let main = async {
        let done = tokio::select! {
            done = Box::pin(main) => done,
            // Not while it is ready: the parts above have an order of their own.
            () = async { shutdown.cancelled().await; if api.is_ready() { std::future::pending::<()>().await } } => Ok(()),
        };
        api_stop.cancel();
        done
    };
    let (served, done) = tokio::join!(Box::pin(api.serve(&api_stop)), main);
    done.and(served)
}

/// This machine's agent, unless there is to be none.
async fn agent(plan: &Plan, pki: &Pki, shutdown: &CancellationToken) {
    if plan.flags.no_agent {
        return;
    }
    let prepared = identity::write_node(plan, pki)
        .and_then(|()| plan.agent_arguments())
        .and_then(child::Program::ourselves)
        .map_err(|e| anyhow!(e).context("prepare this machine's agent"));
    match prepared {
        Ok(program) => child::keep(&program, shutdown).await,
        Err(error) => tracing::error!(error = format!("{error:#}"), "no agent on this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::NodeFlags;

    fn flags() -> ServerFlags {
        let node = NodeFlags {
            node_name: Some("n1".into()),
            node_ip: vec!["192.0.2.1".parse().unwrap()],
            ..NodeFlags::default()
        };
        ServerFlags { node, tls_san: vec!["api.example".into()], ..ServerFlags::default() }
    }

    #[test]
    fn the_certificate_names_every_way_to_the_server() {
        let plan = Plan::new(flags()).unwrap();
        for name in ["kubernetes.default.svc.cluster.local", "api.example", "n1", "localhost"] {
            assert!(plan.names.dns_names.iter().any(|n| n == name), "{name}");
        }
        for ip in ["192.0.2.1", "10.96.0.1", "127.0.0.1"] {
            assert!(plan.names.ips.contains(&ip.parse().unwrap()), "{ip}");
        }
        assert_eq!(plan.local_url(), "https://127.0.0.1:6443");
        assert_eq!(plan.public_url(), "https://192.0.2.1:6443");
    }

    #[test]
    fn the_agent_is_told_all_and_nothing_secret() {
        let flags = ServerFlags { token: Some("abcdef.0123456789abcdef".into()), ..flags() };
        let arguments = Plan::new(flags).unwrap().agent_arguments().unwrap();
        assert_eq!(arguments[..2], ["--config=", "agent"]);
        assert!(arguments.contains(&"--server=https://127.0.0.1:6443".to_owned()));
        assert!(arguments.contains(&"--node-ip=192.0.2.1".to_owned()));
        assert!(arguments.iter().all(|a| !a.contains("0123456789abcdef")));
    }

    #[test]
    fn a_malformed_token_is_refused_before_anything_starts() {
        let flags = ServerFlags { token: Some("secret".into()), ..flags() };
        let error = format!("{:#}", Plan::new(flags).unwrap_err());
        assert!(error.starts_with("--token: parse token") && !error.contains("\"secret\""), "{error}");
    }
}
