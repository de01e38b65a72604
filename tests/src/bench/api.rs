//! The API server's throughput. No upstream API server is at hand, so lists are held against the same bytes through a bare loopback
//! socket (no TLS, no HTTP), and writes that are watched against the same writes unwatched.

use super::cluster::Cluster;
use super::figure::Report;
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::pin::pin;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Objects in the listed namespace, each about a kilobyte.
const OBJECTS: usize = 2000;
const LISTS: usize = 15;
/// Watches open at once, and writes each of them sees.
const WATCHES: usize = 50;
const WRITES: usize = 200;
const ROUNDS: usize = 5;

/// Lists and watches of ConfigMaps.
///
/// # Errors
/// A request failed.
pub async fn measure(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-public");
    let created = futures::stream::iter(0..OBJECTS).map(|i| create(api.clone(), i)).buffer_unordered(16);
    created.try_collect::<Vec<()>>().await?;
    lists(cluster, report).await?;
    watches(&api, report).await?;
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("bench=api")).await?;
    Ok(())
}

async fn create(api: Api<ConfigMap>, index: usize) -> Result<()> {
    let map = json!({
        "metadata": {"name": format!("bench-{index}"), "labels": {"bench": "api"}},
        "data": {"text": "x".repeat(800)},
    });
    api.create(&PostParams::default(), &serde_json::from_value(map)?).await.context("create a ConfigMap")?;
    Ok(())
}

async fn lists(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let (mut listed, mut bare, mut writes_size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LISTS {
        let request = hyper::Request::get("/api/v1/namespaces/kube-public/configmaps?resourceVersion=0")
            .body(Vec::new())?;
        let began = Instant::now();
        let text = cluster.client.request_text(request).await.context("list ConfigMaps")?;
        listed.push(began.elapsed().as_secs_f64() * 1e3);
        writes_size = text.len();
        bare.push(loopback(text.into_bytes()).await?);
    }
    let name = format!("list {OBJECTS} ConfigMaps ({} KiB)", writes_size / 1024);
    report.against(name, "ms", &listed, ("bare loopback socket", &bare), None)
}

/// Milliseconds for the bytes through a socket.
async fn loopback(bytes: Vec<u8>) -> Result<f64> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    let send = async {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    let receive = async {
        let mut all = Vec::new();
        tokio::net::TcpStream::connect(address).await?.read_to_end(&mut all).await.map(|_| all)
    };
    let ((), received) = tokio::try_join!(send, receive)?;
    anyhow::ensure!(received.len() == bytes.len(), "the socket lost bytes");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

async fn watches(api: &Api<ConfigMap>, report: &mut Report) -> Result<()> {
    let (mut watched, mut unwatched) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        unwatched.push(writes(api, round * 2).await? / WRITES as f64);
        let since =
            api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..WATCHES {
            let (api, since) = (api.clone(), since.clone());
            #[allow(clippy::disallowed_methods, reason = "each is joined below")]
            tasks.spawn(async move { follow(&api, &since).await });
        }
        let began = Instant::now();
        writes(api, round * 2 + 1).await?;
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        watched.push(began.elapsed().as_secs_f64() * 1e3 / WRITES as f64);
    }
    let name = format!("write, until {WATCHES} watchers have seen it");
    report.against(name, "ms", &watched, ("unwatched write", &unwatched), None)
}

/// Milliseconds for all writes, one after another.
async fn writes(api: &Api<ConfigMap>, round: usize) -> Result<f64> {
    let began = Instant::now();
    for write in 0..WRITES {
        let patch = Patch::Merge(json!({"data": {"round": format!("{round}-{write}")}}));
        api.patch("bench-0", &PatchParams::default(), &patch).await.context("patch a ConfigMap")?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Watches until every write was seen.
async fn follow(api: &Api<ConfigMap>, since: &str) -> Result<()> {
    let mut events = pin!(api.watch(&WatchParams::default().timeout(60), since).await?);
    let mut seen = 0;
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Modified(_) => seen += 1,
            WatchEvent::Error(status) => anyhow::bail!("watch: {}", status.message),
            _ => {}
        }
        if seen == WRITES {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended after {seen} of {WRITES} events")
}
