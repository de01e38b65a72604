//! A server is saved while it is written to; its machine is lost; another takes its place, with the snapshot and nothing else.
//!
//! What is promised: every write that was acknowledged before the snapshot began is there, and pods on a machine that was not lost go on as they
//! were: the same containers, the same processes, no restart. Afterwards the cluster works: the same Deployment grows.

use crate::control::{self, Ask};
use crate::layout::{Family, Layout, node_address};
use crate::patience::eventually;
use crate::{network, reap, shell, up};
use anyhow::{Context as _, Result, anyhow, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The machine of the server, which is lost, and the one of the pods, which is not.
const MACHINES: [u8; 2] = [1, 2];
const NAMESPACE: &str = "default";
const NAME: &str = "adopted";
const PODS: i32 = 4;
/// Where the new machine gets the snapshot.
const BROUGHT: &str = "/var/snapshot";
/// Writers at once, who share the rate.
const WRITERS: u32 = 32;
/// For how long is written before the snapshot begins.
const BEFORE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be done.
pub struct Plan {
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Objects are in etcd, not in the embedded store.
    pub etcd: bool,
    /// Writes per second while the snapshot is made.
    pub rate: u32,
}

/// Brings a lab up, loses the server's machine, restores, judges, and takes the lab down.
///
/// # Errors
/// A promise is not kept: which, and by what it shows.
pub fn run(layout: &Layout, plan: &Plan) -> Result<()> {
    let up = up::Plan {
        apart: 0,
        nodes: 2,
        servers: 1,
        etcd: if plan.etcd { up::Etcd::Alone } else { up::Etcd::Stacked },
        balancer: false,
        family: Family::Ipv4,
        example: false,
        kubeconfig: std::env::temp_dir().join(format!("windlass-{}-kubeconfig", layout.name())),
        programs: plan.programs.clone(),
    };
    reap::after(layout, during(layout, plan, &up))
}

fn during(layout: &Layout, plan: &Plan, up: &up::Plan) -> Result<()> {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime()?.block_on(up::cluster(layout, up))?;
    let inside = control::ask(layout, &Ask::Status)?.pid;
    let work = || {
        network::enter(inside)?;
        runtime()?.block_on(lose_and_restore(layout, plan, up))
    };
    std::thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("the thread panicked"))?
}

async fn lose_and_restore(layout: &Layout, plan: &Plan, up: &up::Plan) -> Result<()> {
    let [server, other] = MACHINES.map(up::node_name);
    let mut config =
        up::config_for(&up.kubeconfig, &format!("https://{}:6443", node_address(MACHINES[0]))).await?;
    config.read_timeout = Some(Duration::from_secs(10));
    let client = Client::try_from(config)?;
    deploy(&client, PODS).await?;
    let before = Running::look(layout, &client, &other).await?;
    let (written, stop) = (Written::default(), CancellationToken::new());
    let saving = async {
        let saved = save(layout, up, &server, &written).await;
        stop.cancel();
        saved
    };
    let (saved, wrote) = tokio::join!(saving, write_all(&client, plan.rate, &written, &stop));
    wrote.context("write")?;
    let saved = saved.context("save a snapshot")?;
    println!(
        "{} writes/s before the snapshot, {} while it was made in {:?}",
        saved.rates[0], saved.rates[1], saved.took
    );
    let enough = plan.rate - plan.rate / 10;
    ensure!(saved.rates[0] >= enough, "not {} writes/s: this machine is too slow, or too busy", plan.rate);

    let kept = layout.root().join("snapshot");
    fs::copy(layout.node_path(&server, &saved.path), &kept)
        .with_context(|| format!("keep {}", saved.path))?;
    control::ask(layout, &Ask::PowerOff { node: server.clone() })?;
    forget(&layout.node(&server)).await?;
    up::boot(layout, &server)?;
    let program = up.programs.join("windlass").to_string_lossy().into_owned();
    fs::copy(&kept, layout.node_path(&server, BROUGHT)).context("bring the snapshot")?;
    let mut restore = up::inside_node(layout, &server, &program)?;
    shell::output(restore.args(["snapshot", "restore", BROUGHT]))?;
    up::start_server(layout, up, &up::token()?)?;
    let began = Instant::now();
    eventually("the restored server", PATIENCE, async || up::is_ready(&client).await)
        .await
        .map_err(|e| anyhow!(e))?;
    follows(&client, &other).await?;
    println!("a new machine serves it, and {other} follows, after {:?}", began.elapsed());

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let held: BTreeSet<String> =
        maps.list(&ListParams::default()).await?.items.iter().map(|map| map.name_any()).collect();
    let lost: Vec<&String> = saved.promised.difference(&held).collect();
    ensure!(lost.is_empty(), "{} of {} writes are lost: {lost:?}", lost.len(), saved.promised.len());
    let after = Running::look(layout, &client, &other).await?;
    ensure!(after == before, "pods were not adopted as they were:\n{before:#?}\n{after:#?}");
    deploy(&client, PODS + 1).await?;
    let grown = Running::look(layout, &client, &other).await?;
    ensure!(grown.holds(&before), "pods of before did not stay:\n{before:#?}\n{grown:#?}");
    println!("all {} acknowledged writes are there; {PODS} pods run as they did", saved.promised.len());
    Ok(())
}

/// Names in the order in which they were acknowledged.
#[derive(Default)]
struct Written(Mutex<Vec<String>>);

impl Written {
    fn note(&self, name: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Creates objects until `stop`, `rate` a second if the server keeps up.
async fn write_all(client: &Client, rate: u32, written: &Written, stop: &CancellationToken) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let pause = Duration::from_secs(1) * WRITERS / rate.max(1);
    let write = |writer: u32| {
        let api = api.clone();
        async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now(), pause);
            // what a stall cost is caught up: so many a second in the mean
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for n in 0_u64.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => break,
                }
                let name = format!("w{writer}-{n}");
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                let map = ConfigMap { metadata, ..ConfigMap::default() };
                api.create(&PostParams::default(), &map).await.with_context(|| format!("create {name}"))?;
                written.note(name);
            }
            anyhow::Ok(())
        }
    };
    try_join_all((0..WRITERS).map(write)).await.map(drop)
}

/// A snapshot, and what was written around it.
struct Saved {
    /// Where it is on its machine.
    path: String,
    /// What was acknowledged before it began.
    promised: BTreeSet<String>,
    took: Duration,
    /// Writes per second before it began, and while it was made.
    rates: [u32; 2],
}

async fn save(layout: &Layout, up: &up::Plan, server: &str, written: &Written) -> Result<Saved> {
    let program = up.programs.join("windlass").to_string_lossy().into_owned();
    let mut command = up::inside_node(layout, server, &program)?;
    command.args(["snapshot", "save", "--name", "under-load"]);
    tokio::time::sleep(BEFORE).await;
    let promised = written.names();
    let began = Instant::now();
    let path = tokio::task::spawn_blocking(move || shell::output(&mut command)).await??;
    let took = began.elapsed();
    let meanwhile = written.names().len() - promised.len();
    let rate = |count: usize, time: Duration| (count as f64 / time.as_secs_f64()).round() as u32;
    let rates = [rate(promised.len(), BEFORE), rate(meanwhile, took)];
    Ok(Saved { path: path.trim().to_owned(), promised: promised.into_iter().collect(), took, rates })
}

/// Removes what a machine had: its mounts go a moment after its last process.
async fn forget(files: &Path) -> Result<()> {
    let removed = eventually("remove a machine's files", PATIENCE, async || fs::remove_dir_all(files)).await;
    removed.map_err(|e| anyhow!(e))
}

/// The Deployment with so many pods, all ready, on the machine that is not lost.
async fn deploy(client: &Client, pods: i32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let params = PatchParams::apply(NAME).force();
    api.patch(NAME, &params, &Patch::Apply(deployment(pods))).await.context("apply the deployment")?;
    let ready = async || {
        let found = api.get(NAME).await.map_err(|e| e.to_string())?;
        let status = found.status.unwrap_or_default();
        let is_ready = status.observed_generation == found.metadata.generation
            && [status.replicas, status.ready_replicas] == [Some(pods); 2];
        if is_ready { Ok(()) } else { Err(format!("{:?} of {pods} are ready", status.ready_replicas)) }
    };
    eventually("the deployment's pods", PATIENCE, ready).await.map_err(|e| anyhow!(e))
}

fn deployment(pods: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": up::node_name(MACHINES[1])},
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "echo", "image": "lab.local/echo:1",
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

/// Waits until a node's kubelet speaks to the server that there is now.
async fn follows(client: &Client, node: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let renewed = async || {
        let lease = leases.get(node).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(lease.spec.and_then(|spec| spec.renew_time))
    };
    let first = eventually("the node's lease", PATIENCE, &renewed).await.map_err(|e| anyhow!(e))?;
    let again = async || if renewed().await? == first { Err("nobody renews it".to_owned()) } else { Ok(()) };
    eventually("the node's lease", PATIENCE, again).await.map_err(|e| anyhow!(e))?;
    up::await_ready(client, node).await
}

/// What runs of the Deployment.
#[derive(Debug, PartialEq, Eq)]
struct Running {
    /// By pod: its id, its container's, since when that runs, and how often it was restarted.
    pods: BTreeMap<String, String>,
    /// Every container of the machine, with its process.
    tasks: BTreeSet<String>,
}

impl Running {
    async fn look(layout: &Layout, client: &Client, node: &str) -> Result<Self> {
        let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let list = api.list(&ListParams::default().labels(&format!("app={NAME}"))).await?;
        let describe = |pod: Pod| {
            let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
            let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            let of = statuses.into_iter().map(|status| {
                let state = json!(status.state);
                format!(
                    "{} since {}, restarted {} times",
                    status.container_id.unwrap_or_default(),
                    state["running"]["startedAt"],
                    status.restart_count
                )
            });
            (name, format!("{uid}: {}", of.collect::<Vec<_>>().join(", ")))
        };
        let tasks =
            shell::output(up::inside_node(layout, node, "ctr")?.args(["-n", "k8s.io", "tasks", "ls"]))?;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self {
            pods: list.items.into_iter().map(describe).collect(),
            tasks: tasks.lines().skip(1).map(words).collect(),
        })
    }

    /// Whether everything of `other` is here, too.
    fn holds(&self, other: &Self) -> bool {
        other.pods.iter().all(|(name, what)| self.pods.get(name) == Some(what))
            && other.tasks.is_subset(&self.tasks)
    }
}
