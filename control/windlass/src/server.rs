//! `windlass server`: the control plane of a cluster.
//!
//! In order: the data directory's lock; what other servers share with this one, where it joins them; keys and certificates; the etcd member
//! beside it, where it has one, as a child; the store and the API server on it, reachable in the process and on its port; what machines need
//! to join; scheduler and controllers; this machine's own agent, as a child.
//! Each step waits for what it needs to be ready, and for nothing else. Shutdown goes the other way round.

pub(crate) mod endpoint;
mod identity;
mod published;
mod tasks;
mod upstream;

use crate::child;
use crate::cli::{AgentFlags, ServerFlags};
use crate::member::announced::Common;
use crate::member::objects::{self, Objects};
use crate::member::stacked::Surroundings;
use crate::member::token::Invitation;
use crate::member::{self, Stacked, Start};
use crate::parts::apiserver::trust::Front;
use crate::parts::apiserver::{self, Flagged, Limits, Settings, publish, storage};
use crate::parts::component::Component;
use crate::ranges;
use crate::settings::{self, nth_address};
use crate::signals::Signals;
use crate::snapshot;
use ::apiserver::health::Health;
use anyhow::{Context as _, anyhow, bail};
use endpoint::Endpoint;
use jiff::Timestamp;
use pki::bootstrap::BootstrapToken;
use pki::{ClusterNames, Pki};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The health check that fails until machines may join: who waits for a ready server makes tokens next.
const PUBLISHED: &str = "poststarthook/publish-cluster-info";

/// A server's settings, checked.
#[derive(Clone, Debug)]
struct Plan {
    /// Where the API server listens.
    listen: SocketAddr,
    /// Where others reach it.
    advertise: IpAddr,
    /// What others are told in its place.
    endpoint: Option<Endpoint>,
    /// What they were told by the last start, and are not any more.
    withdrawn: Option<String>,
    /// Names and addresses of its certificate.
    names: ClusterNames,
    /// A token that machines may join with.
    token: Option<BootstrapToken>,
    /// The server to join, and what it is joined with.
    join: Option<(String, Option<Invitation>)>,
    /// Our part of the data directory.
    dir: PathBuf,
    snapshots: snapshot::keeper::Plan,
    /// Where LoadBalancer Services get addresses.
    balancing: controllers::LoadBalancing,
    /// This machine's node.
    node: node::Config,
    flags: ServerFlags,
}

impl Plan {
    fn new(flags: ServerFlags) -> anyhow::Result<Self> {
        let node = flags.node.config(None)?;
        ranges::check_both(&node.cluster_cidrs, &node.service_cidrs)?;
        ranges::check_nodes(&node.cluster_cidrs, flags.node_prefixes())?;
        let advertise = ranges::advertised(flags.advertise_address, &node.node_ips, &node.service_cidrs)?;
        let advertise = advertise.context("no address to advertise: give --advertise-address")?;
        let bind = flags.bind_address.unwrap_or(if advertise.is_ipv6() {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        });
        let ranges = flags.node.service_cidrs();
        let first = ranges.first().context("no service range")?;
        let service_ip = nth_address(first, 1)?;
        let port = flags.port.unwrap_or(6443);
        let endpoint = flags.control_plane_endpoint.as_deref();
        let endpoint = endpoint.map(|text| Endpoint::parse(text, port)).transpose()?;
        let mut extra: Vec<String> = flags.tls_san.clone();
        extra.extend(endpoint.iter().map(|endpoint| endpoint.host.clone()));
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
        let given = flags.token.as_deref();
        let (token, join) = match &flags.member.server {
            Some(server) => {
                node::cluster_info::parse_server(server)?;
                let invitation = given.map(|text| Invitation::parse(text, &flags.member)).transpose()?;
                (None, Some((server.trim_end_matches('/').to_owned(), invitation)))
            }
            None => (given.map(str::parse).transpose().context("--token")?, None),
        };
        Ok(Self {
            snapshots,
            balancing: flags.balancing.settings()?,
            listen: SocketAddr::new(bind, port),
            advertise,
            endpoint,
            withdrawn: None,
            names: ClusterNames::of(&flags.node.cluster_domain(), service_ip, &extra),
            token,
            join,
            dir: settings::server_dir(&node.data_dir),
            node,
            flags,
        })
    }

    /// What the API server is made of.
    fn api_server(&self, pki: &Pki, storage: storage::Settings) -> anyhow::Result<Settings> {
        let mut given = self.flags.kube_apiserver_arg.clone();
        given.extend(upstream::arguments(&self.flags.api_server)?);
        let component = Component::named("kube-apiserver").context("there is no kube-apiserver")?;
        let flags = apiserver::settings::of_arguments(&component.table(), &given)?;
        let flagged = Flagged::of_flags(&flags, &::apiserver::registry::Config::default())?;
        let limits = Limits::of_flags(&flags, &flagged, Limits::default())?;
        Ok(Settings {
            listen: self.listen,
            advertise: self.advertise,
            storage,
            service_cidrs: self.node.service_cidrs.clone(),
            issuers: vec![format!("https://kubernetes.default.svc.{}", self.node.cluster_domain)],
            audiences: flags.list("api-audiences").map(<[String]>::to_vec).unwrap_or_default(),
            signing_key: Some(pki.service_account.clone()),
            verifying_keys: pki.service_account_keys.clone(),
            certificates: tasks::certificates(pki),
            front: Front::ourselves(),
            flagged,
            limits,
        })
    }

    /// Where objects are kept.
    fn storage(&self, stacked: Option<&Stacked>) -> anyhow::Result<storage::Settings> {
        match stacked {
            Some(stacked) => Ok(storage::Settings::Etcd(stacked.storage()?)),
            None => storage::Settings::new(&self.flags.storage, settings::store_file(&self.dir)),
        }
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
        if let Some(endpoint) = &self.endpoint {
            return endpoint.to_string();
        }
        format!("https://{}", SocketAddr::new(self.advertise, self.listen.port()))
    }

    /// What keys in etcd begin with.
    fn prefix(&self) -> &str {
        self.flags.storage.etcd_prefix.as_deref().unwrap_or(storage::PREFIX)
    }

    /// What must be the same at every server.
    fn common(&self) -> Common {
        let ranges = |ranges: &[ipnet::IpNet]| {
            let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        Common::new([
            ("service-cidr", ranges(&self.node.service_cidrs)),
            ("cluster-cidr", ranges(&self.node.cluster_cidrs)),
            ("cluster-domain", self.node.cluster_domain.clone()),
            ("etcd-prefix", store::etcd::rooted(self.prefix())),
        ])
    }

    /// What machines are told of the cluster.
    fn facts<'a>(
        &'a self,
        server: &'a str,
        ca_pem: &'a str,
        etcd: Option<&'a storage::SharedEtcd>,
    ) -> publish::Facts<'a> {
        publish::Facts {
            server,
            several: etcd.is_some(),
            chosen: self.endpoint.is_some(),
            gone: self.withdrawn.as_deref(),
            ca_pem,
            domain: &self.node.cluster_domain,
            dns: &self.node.cluster_dns,
            pod_ranges: &self.node.cluster_cidrs,
            service_ranges: &self.node.service_cidrs,
            names: &self.flags.tls_san,
            etcd,
        }
    }

    /// The arguments of this machine's agent.
    fn agent_arguments(&self) -> anyhow::Result<Vec<String>> {
        let mut node = self.flags.node.clone();
        // The agent must not choose otherwise.
        node.node_name = Some(self.node.node_name.clone());
        node.node_ip.clone_from(&self.node.node_ips);
        node.cluster_cidr.clone_from(&self.node.cluster_cidrs);
        node.service_cidr.clone_from(&self.node.service_cidrs);
        node.cluster_dns.clone_from(&self.node.cluster_dns);
        node.cluster_domain = Some(self.node.cluster_domain.clone());
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
    let mut plan = Plan::new(flags)?;
    let shutdown = CancellationToken::new();
    let work = Box::pin(serve(&mut plan, &shutdown));
    signals.until_done(&shutdown, work).await
}

async fn serve(plan: &mut Plan, shutdown: &CancellationToken) -> anyhow::Result<()> {
    pki::files::create_private_dir(&plan.dir)?;
    let _lock = crate::lock::take(&plan.dir, "windlass server")?;
    plan.withdrawn = endpoint::remembered(&plan.dir)?.filter(|_| plan.endpoint.is_none());
    let prepared = Box::pin(prepare(plan));
    let Some(prepared) = shutdown.run_until_cancelled(prepared).await else { return Ok(()) };
    let (pki, stacked) = prepared?;
    let plan = Arc::new(plan.clone());
    let Some(stacked) = stacked.map(Arc::new) else {
        return Box::pin(control_plane(&plan, pki, None, shutdown)).await;
    };
    let etcd_stop = CancellationToken::new();
    let work = async {
        let done = async {
            match shutdown.run_until_cancelled(Box::pin(stacked.settle())).await {
                None => Ok(()),
                Some(settled) => {
                    settled?;
                    Box::pin(control_plane(&plan, pki, Some(&stacked), shutdown)).await
                }
            }
        };
        let done = done.await;
        etcd_stop.cancel();
        done
    };
    // Both here, on the main thread: children live with the thread that starts them.
    let kept = child::keep("etcd", || stacked.program(), stacked.life(), stacked.again(), &etcd_stop);
    tokio::join!(kept, work).1
}

/// What everything else needs: keys and certificates, and a member of etcd to start.
async fn prepare(plan: &mut Plan) -> anyhow::Result<(Pki, Option<Stacked>)> {
    let start = Start::of(&plan.flags, &plan.dir)?;
    if let Some((server, invitation)) = &plan.join
        && matches!(start, Start::Join(_) | Start::External)
    {
        let joined = async {
            match invitation {
                Some(invitation) => {
                    let stacked = start != Start::External;
                    member::shared::wait(server, invitation, &plan.dir, stacked).await
                }
                // With an authority of its own it would be a stranger to the others.
                None if !plan.dir.join("pki/ca.key").exists() => bail!("give --token"),
                None => Ok(()),
            }
        };
        joined.await.with_context(|| format!("join {server}"))?;
    }
    member::shared::settle(&mut plan.flags.storage, &plan.dir)?;
    if start != Start::Embedded {
        Objects::read(&plan.dir)?.settle(&mut plan.flags.storage, &plan.dir)?;
    }
    if start == Start::External
        && let storage::Settings::Etcd(cluster) =
            storage::Settings::new(&plan.flags.storage, settings::store_file(&plan.dir))?
    {
        objects::check(&etcd::Client::new(&cluster.client()?)?, &plan.dir, cluster.prefix()).await?;
    }
    let pki = Pki::load_or_create(&plan.dir.join("pki"), &plan.names, Timestamp::now())
        .context("prepare keys and certificates")?;
    let surroundings = Surroundings {
        flags: &plan.flags,
        name: &plan.node.node_name,
        ips: &plan.node.node_ips,
        dir: &plan.dir,
        pki: &pki,
        common: plan.common(),
    };
    let stacked = Stacked::prepare(start, surroundings).await?;
    Ok((pki, stacked))
}

async fn control_plane(
    plan: &Arc<Plan>,
    pki: Pki,
    stacked: Option<&Arc<Stacked>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let storage = plan.storage(stacked.map(|s| &**s))?;
    let api = Arc::new(apiserver::start(plan.api_server(&pki, storage)?).await?);
    tracing::info!(listen = %plan.listen, url = plan.public_url(), "the API server listens");
    identity::write_admin(plan, &pki)?;
    let published = Arc::new(AtomicBool::new(false));
    ready_once(api.health(), &published);
    if let Some(life) = stacked.map(|stacked| stacked.life().clone()) {
        // The store goes on with the other members, and nobody would see that a majority hangs on fewer of them.
        api.health().add("etcd-member", false, move || life.check(Instant::now()));
    }
    let api_stop = CancellationToken::new();
    let main = async {
        api.ready().await?;
        let client = api.client("system:apiserver", &["system:masters"]);
        published::publish_all(plan, &client, &pki, api.shared_etcd()).await?;
        if let (None, Some(etcd)) = (stacked, api.etcd())
            && let Err(error) = objects::note_external(etcd, &plan.dir, plan.prefix()).await
        {
            tracing::warn!(error = format!("{error:#}"), "note where the objects are");
        }
        published.store(true, Ordering::Release);
        tracing::info!("the cluster is ready");
        let tasks = tasks::of(plan, &pki, &api, stacked)?;
        // Before the tasks, one of which renews what this writes.
        let agent = agent(plan, &pki);
        tokio::join!(Box::pin(api.supervisor().run(tasks, shutdown)), keep_agent(agent, shutdown));
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

/// Has the server called ready only once what machines need to join is there.
fn ready_once(health: &Health, published: &Arc<AtomicBool>) {
    let seen = published.clone();
    health.add(PUBLISHED, false, move || match seen.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err("what machines need to join is not published yet".to_owned()),
    });
}

/// Tells machines of the authorities there are now; other API servers hear of them by [`apiserver::trust`].
async fn publish_authorities(plan: &Plan, api: &apiserver::Api, pki: &Pki) -> anyhow::Result<()> {
    let client = api.client("system:apiserver", &["system:masters"]);
    let url = plan.public_url();
    publish::cluster_info(&client, &plan.facts(&url, &pki.trusted, api.shared_etcd())).await.map(drop)
}

/// How this machine's agent is started, unless there is to be none.
fn agent(plan: &Plan, pki: &Pki) -> Option<child::Program> {
    if plan.flags.no_agent {
        return None;
    }
    let prepared = identity::write_node(plan, pki)
        .and_then(|()| plan.agent_arguments())
        .and_then(child::Program::agent)
        .map_err(|e| anyhow!(e).context("prepare this machine's agent"));
    prepared
        .inspect_err(|error| tracing::error!(error = format!("{error:#}"), "no agent on this machine"))
        .ok()
}

async fn keep_agent(program: Option<child::Program>, shutdown: &CancellationToken) {
    if let Some(program) = program {
        let life = child::Life::default();
        child::keep("the agent", async || Ok(program.clone()), &life, &Notify::new(), shutdown).await;
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
    fn a_server_must_not_be_called_ready_before_tokens_can_be_made() {
        use ::apiserver::health::Endpoint;
        let (health, published) = (Health::default(), Arc::new(AtomicBool::new(false)));
        ready_once(&health, &published);
        let code = |endpoint| health.answer(endpoint, "", &[]).status().as_u16();
        assert_eq!((code(Endpoint::Ready), code(Endpoint::Live)), (500, 200));
        published.store(true, Ordering::Release);
        assert_eq!(code(Endpoint::Ready), 200);
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
    fn whoever_comes_by_the_endpoint_must_not_meet_a_certificate_without_its_name() {
        let of = |endpoint: &str| {
            Plan::new(ServerFlags { control_plane_endpoint: Some(endpoint.into()), ..flags() }).unwrap()
        };
        let plan = of("lb.example:443");
        assert!(plan.names.dns_names.contains(&"lb.example".to_owned()));
        assert_eq!(
            (plan.public_url().as_str(), plan.local_url().as_str()),
            ("https://lb.example:443", "https://127.0.0.1:6443")
        );
        let plan = of("192.0.2.100");
        assert!(plan.names.ips.contains(&"192.0.2.100".parse().unwrap()));
        assert_eq!(plan.public_url(), "https://192.0.2.100:6443");
        assert_eq!(plan.advertise, IpAddr::from([192, 0, 2, 1]), "where this server itself is");
        let wrong = ServerFlags { control_plane_endpoint: Some("no one".into()), ..flags() };
        assert!(Plan::new(wrong).is_err());
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
