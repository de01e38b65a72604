//! Pod start: from the create request until a watcher sees Running, against [`super::floor`] in turns.

use super::cluster::{Cluster, WORKER, watch_until};
use super::figure::{Promise, Report};
use super::floor::{self, Floor};
use super::inside::Inside;
use super::process;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Pods asked for at once, and how often.
pub const SIZES: [(usize, usize); 2] = [(1, 15), (50, 3)];
/// How many pods a node must carry.
pub const FULL: usize = 110;
/// A pod's start by the floor.
const START: Promise = Promise::RatioAtMost(1.2);
/// The agent at [`FULL`] pods, in MiB.
pub const AGENT: f64 = 30.0;
const PATIENCE: Duration = Duration::from_secs(180);

/// The node that pods are measured on.
pub struct Ground {
    pub client: Client,
    pub node: String,
    pub bare: Bare,
    /// The longest that a batch of pods may take to start or to go.
    pub patience: Duration,
}

/// Who makes the floor's calls.
pub enum Bare {
    /// This process.
    Here(Floor),
    /// A process on the node, which is a machine.
    There(Inside),
}

impl Ground {
    /// The worker of the namespaces' lab.
    ///
    /// # Errors
    /// Its runtime does not pull the image.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let bare = Bare::Here(Floor::new(cluster).await?);
        Ok(Self { client: cluster.client.clone(), node: WORKER.to_owned(), bare, patience: PATIENCE })
    }

    async fn floor(&self, count: usize, round: usize) -> Result<Vec<f64>> {
        match &self.bare {
            Bare::Here(floor) => floor.start(count, round).await,
            Bare::There(inside) => inside.start(count, round).await,
        }
    }

    async fn quiet(&self) -> Result<()> {
        match &self.bare {
            Bare::Here(floor) => floor.quiet(self.patience).await,
            Bare::There(inside) => inside.quiet().await,
        }
    }
}

/// Pod start, so many at once and so often.
///
/// # Errors
/// A pod does not start or does not go away.
pub async fn starts(ground: &Ground, sizes: &[(usize, usize)], report: &mut Report) -> Result<()> {
    account(ground).await?;
    // whatever is done once a node (caches, first sandbox) is done before anything is measured
    ground.floor(1, 0).await?;
    batch(ground, "warm", 1).await?;
    clear(ground).await?;
    for &(size, rounds) in sizes {
        let (mut pods, mut bare, mut last, mut bare_last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let floor_times = ground.floor(size, size * 1000 + round).await?;
            ground.quiet().await?;
            let pod_times = batch(ground, &format!("b{size}-{round}"), size).await?;
            clear(ground).await?;
            last.push(pod_times.iter().copied().fold(0.0, f64::max));
            bare_last.push(floor_times.iter().copied().fold(0.0, f64::max));
            pods.extend(pod_times);
            bare.extend(floor_times);
        }
        let name = if size == 1 {
            "pod start, 1 pod".to_owned()
        } else {
            format!("pod start, each of {size} at once")
        };
        report.against(name, "ms", &pods, ("CRI floor", &bare), Some(START))?;
        if size > 1 {
            let name = format!("pod start, the last of {size} at once");
            report.against(name, "ms", &last, ("CRI floor", &bare_last), Some(START))?;
        }
    }
    Ok(())
}

/// Our processes with many pods on one node.
///
/// # Errors
/// The pods do not start.
pub async fn footprint(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let ground = Ground::of(cluster).await?;
    account(&ground).await?;
    let (_, at_once) = (SIZES[1].1, SIZES[1].0);
    batch(&ground, "f1", at_once).await?;
    process::under(cluster, report, &format!("{at_once} pods:"), None).await?;
    batch(&ground, "f2", FULL - at_once).await?;
    process::under(cluster, report, &format!("{FULL} pods:"), Some(AGENT)).await?;
    clear(&ground).await
}

/// Fills the node, so many pods at once; seconds from the first request until the last pod runs.
///
/// # Errors
/// The pods do not start.
pub async fn fill(ground: &Ground, at_once: usize) -> Result<f64> {
    let (began, mut there) = (Instant::now(), 0);
    while there < FULL {
        let more = at_once.min(FULL - there);
        batch(ground, &format!("f{there}"), more).await?;
        there += more;
    }
    Ok(began.elapsed().as_secs_f64())
}

fn api(ground: &Ground) -> Api<Pod> {
    Api::namespaced(ground.client.clone(), "default")
}

/// Pods cannot be made before their service account is.
async fn account(ground: &Ground) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(ground.client.clone(), "default");
    let there = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    tokio::time::timeout(ground.patience, there).await.context("wait for the default service account")??;
    Ok(())
}

/// Asks for `count` pods at once on the node; milliseconds from each one's request until a watch shows it Running.
async fn batch(ground: &Ground, prefix: &str, count: usize) -> Result<Vec<f64>> {
    let pods = api(ground);
    let (ready, opened) = tokio::sync::oneshot::channel();
    let (mut ready, mut seen) = (Some(ready), HashMap::new());
    let selector = format!("bench={prefix}");
    let watch = watch_until(pods.clone(), &selector, ground.patience, |event| {
        match event {
            Event::InitDone => {
                let _ = ready.take().map(|ready| ready.send(()));
            }
            Event::Apply(pod) | Event::InitApply(pod) => {
                let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
                if let (true, Some(name)) = (running, pod.metadata.name) {
                    seen.entry(name).or_insert_with(Instant::now);
                }
            }
            Event::Init | Event::Delete(_) => {}
        }
        seen.len() == count
    });
    let create = async {
        opened.await.context("open the watch")?;
        let all = (0..count).map(|i| {
            let (pods, name) = (pods.clone(), format!("{prefix}-{i}"));
            async move {
                let pod = pod(&ground.node, &name, prefix)?;
                let began = Instant::now();
                pods.create(&PostParams::default(), &pod)
                    .await
                    .with_context(|| format!("create pod {name}"))?;
                anyhow::Ok((name, began))
            }
        });
        futures::future::join_all(all).await.into_iter().collect::<Result<HashMap<String, Instant>>>()
    };
    let ((), began) = tokio::try_join!(Box::pin(watch), Box::pin(create)).context("start pods")?;
    Ok(began
        .iter()
        .filter_map(|(name, began)| Some((*seen.get(name)? - *began).as_secs_f64() * 1e3))
        .collect())
}

fn pod(node: &str, name: &str, group: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": group, "app": "bench"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "echo", "image": floor::image(), "imagePullPolicy": "IfNotPresent"}],
        },
    }))?)
}

/// Deletes every pod and waits until the node is bare again.
///
/// # Errors
/// A pod stays.
pub async fn clear(ground: &Ground) -> Result<()> {
    let pods = api(ground);
    let selected = ListParams::default().labels("app=bench");
    pods.delete_collection(&DeleteParams::default(), &selected).await.context("delete the pods")?;
    let mut left: HashMap<String, ()> = HashMap::new();
    watch_until(pods, "app=bench", ground.patience, |event| {
        let mut complete = true;
        match event {
            Event::Init => complete = false,
            Event::InitApply(pod) => {
                left.insert(pod.metadata.name.unwrap_or_default(), ());
                complete = false;
            }
            Event::Delete(pod) => {
                left.remove(&pod.metadata.name.unwrap_or_default());
            }
            Event::Apply(_) | Event::InitDone => {}
        }
        complete && left.is_empty()
    })
    .await
    .context("wait until the pods are gone")?;
    ground.quiet().await
}
