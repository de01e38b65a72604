//! The lab a bench runs on, and the time from a process's start until its node is Ready.

use super::figure::{Promise, Report};
use super::{Part, Plan};
use crate::control;
use crate::init::{self, Ask};
use crate::layout::{Family, Layout};
use crate::up::{self, Etcd, Plan as UpPlan};
use anyhow::{Context, Result, bail};
use cri_proto::client::{Deadlines, Runtime};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use std::pin::pin;
use std::time::{Duration, Instant};

/// How often each start is measured.
const ROUNDS: usize = 3;
/// Process start to node Ready.
const READY: Promise = Promise::AtMost(2000.0);
/// Anything here that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two nodes: `n1` is the server with an agent, `n2` an agent alone.
pub struct Cluster {
    pub layout: Layout,
    pub client: Client,
}

/// The node with nothing but an agent: pods are measured there.
pub const WORKER: &str = "n2";

impl Cluster {
    /// A node's container runtime, asked from outside the node.
    ///
    /// # Errors
    /// Its path is not one.
    pub fn runtime(&self, node: &str) -> Result<Runtime> {
        runtime(&self.layout, node)
    }
}

fn runtime(layout: &Layout, node: &str) -> Result<Runtime> {
    let socket = layout.node_path(node, "/run/containerd/containerd.sock");
    Ok(Runtime::connect(&socket.to_string_lossy(), Deadlines::default())?)
}

/// Brings the cluster up; as often as figures need samples when [`Part::Ready`] is wanted.
///
/// # Errors
/// A node does not get Ready.
pub async fn start(layout: &Layout, plan: &Plan, report: &mut Report) -> Result<Cluster> {
    let (mut servers, mut joins) = (Vec::new(), Vec::new());
    let up_plan = UpPlan {
        apart: 0,
        nodes: 2,
        servers: 1,
        etcd: Etcd::Stacked,
        balancer: false,
        family: Family::Ipv4,
        example: false,
        kubeconfig: layout.root().join("kubeconfig"),
        programs: plan.programs.clone(),
    };
    let rounds = if plan.wants(Part::Ready) { ROUNDS } else { 1 };
    loop {
        let answer = up::supervise(layout, Family::Ipv4)?;
        for node in ["n1", WORKER] {
            up::boot(layout, node)?;
            // containerd's own start is not ours to measure
            runtime(layout, node)?.wait_until_ready(PATIENCE).await?;
        }
        let began = Instant::now();
        up::start_server(layout, &up_plan, &up::token()?)?;
        let client = up::admin_client(layout, &up_plan, "n1", &answer.api).await?;
        up::await_ready(&client, "n1").await.context("wait for n1")?;
        servers.push(began.elapsed().as_secs_f64() * 1e3);
        let token = up::join_token(layout, &up_plan, "n1")?;
        let began = Instant::now();
        up::start_agent(layout, &up_plan, 2, &token)?;
        up::await_ready(&client, WORKER).await.context("wait for n2")?;
        joins.push(began.elapsed().as_secs_f64() * 1e3);
        if servers.len() == rounds {
            if plan.wants(Part::Ready) {
                report.plain("server cold: start to its node Ready", "ms", &servers, Some(READY))?;
                report.plain("agent joins: start to node Ready", "ms", &joins, Some(READY))?;
            }
            let client = up::client_without_retries(&up_plan.kubeconfig).await?;
            return Ok(Cluster { layout: layout.clone(), client });
        }
    }
}

/// Stops and starts each service, nothing else changing: from the start until the node's Lease is renewed by the new process, which
/// is what keeps the node Ready.
///
/// # Errors
/// It is not renewed.
pub async fn restarts(cluster: &Cluster, report: &mut Report) -> Result<()> {
    for (node, name) in
        [("n1", "server warm: start to Lease renewed"), (WORKER, "agent warm: start to Lease renewed")]
    {
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            samples
                .push(restart(cluster, node).await.with_context(|| format!("restart windlass on {node}"))?);
        }
        report.plain(name, "ms", &samples, Some(READY))?;
    }
    Ok(())
}

/// Milliseconds from the server's start until it says that it is ready.
///
/// # Errors
/// It does not.
pub async fn restart_until_ready(cluster: &Cluster) -> Result<f64> {
    let service = windlass(&cluster.layout, "n1")?;
    control::ask_init(&cluster.layout, "n1", &Ask::Stop { name: "windlass".into() })?;
    let began = Instant::now();
    control::ask_init(&cluster.layout, "n1", &Ask::Start(service))?;
    loop {
        let request = hyper::Request::get("/readyz").body(Vec::new())?;
        // Nobody listens at first: there is no event to wait for.
        if cluster.client.request_text(request).await.is_ok() {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        if began.elapsed() > PATIENCE {
            bail!("the server is not ready within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn restart(cluster: &Cluster, node: &str) -> Result<f64> {
    let service = windlass(&cluster.layout, node)?;
    control::ask_init(&cluster.layout, node, &Ask::Stop { name: "windlass".into() })?;
    let (began, clock) = (Instant::now(), Timestamp::now());
    control::ask_init(&cluster.layout, node, &Ask::Start(service))?;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let fresh = |lease: &Lease| {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        renewed.is_some_and(|time| time.0 > clock)
    };
    loop {
        // until the server is back a watch cannot be opened; afterwards one shows the renewal
        let config = watcher::Config::default().fields(&format!("metadata.name={node}")).timeout(30);
        let mut leases = pin!(watcher(leases.clone(), config).applied_objects());
        let seen = async {
            while let Some(lease) = leases.next().await {
                match lease {
                    Ok(lease) if fresh(&lease) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
            false
        };
        if tokio::time::timeout(PATIENCE, seen).await.unwrap_or(false) {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        if began.elapsed() > PATIENCE {
            bail!("the Lease is not renewed within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The service as it was started.
fn windlass(layout: &Layout, node: &str) -> Result<init::Service> {
    let nodes = control::ask(layout, &control::Ask::Status)?.nodes;
    let machine = nodes.get(node).with_context(|| format!("node {node} does not run"))?;
    let wanted = if node == WORKER { "agent" } else { "server" };
    let found = crate::machine::windlass(machine)?.into_iter().find(|(role, _)| role == wanted);
    let (_, pid) = found.with_context(|| format!("no {wanted} runs on {node}"))?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).context("read its command line")?;
    let argv = line.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    Ok(init::Service { name: "windlass".into(), argv, env: std::collections::BTreeMap::new() })
}

/// Waits until `count` of what a watch shows holds.
///
/// # Errors
/// The watch fails, or it takes too long.
pub async fn watch_until<K>(
    api: Api<K>,
    selector: &str,
    limit: Duration,
    mut done: impl FnMut(watcher::Event<K>) -> bool,
) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default().labels(selector)));
    let watch = async {
        while let Some(event) = events.try_next().await? {
            if done(event) {
                return anyhow::Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(limit, watch).await.with_context(|| format!("not within {limit:?}"))?
}
