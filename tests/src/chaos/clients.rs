//! Writers and watchers. Each begins at a server of its own and goes on at the next when that one does not answer, as an agent does.

use super::servers::{PAUSE, SETTLE, SILENCE, Seen, Servers};
use super::verdict::Watched;
use super::workload;
use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What the clients' objects are told by.
const LABEL: &str = "windlass.dev/chaos";
/// The lease whose holder leads.
const LEASE: &str = "kube-controller-manager";

/// Writes, watches and looks until `stop`; then waits until every watcher has seen what was acknowledged, and reads it all once more.
pub(super) async fn run(servers: Vec<Client>, seen: &Seen, stop: &CancellationToken) -> Result<()> {
    let count = servers.len();
    let each = |at| Servers::new(servers.clone(), at);
    let finished = CancellationToken::new();
    // Before the first object: what comes is seen as it comes, by all.
    let from = newest(each(0)).await.context("no server says what is newest")?;
    let writers = join_all((0..count).map(|at| write(each(at), at, seen, stop)));
    let watchers = join_all((0..count).map(|at| watch(each(at), at, from.clone(), seen, &finished)));
    let working = workload::run(each(0), each(1), seen, stop);
    let writing = async {
        tokio::join!(writers, working);
        let until = Instant::now() + SETTLE;
        while Instant::now() < until && !seen.is_settled(count) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for at in 0..count {
            let held = list(each(at)).await;
            seen.note(|facts| facts.held.push(held));
        }
        finished.cancel();
    };
    let leading = async { finished.run_until_cancelled(lead(each(0), seen)).await };
    let _ = tokio::join!(writing, watchers, leading);
    Ok(())
}

/// Creates one object after another, each until it is acknowledged.
async fn write(mut servers: Servers, writer: usize, seen: &Seen, stop: &CancellationToken) {
    for n in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let metadata = ObjectMeta {
            name: Some(format!("w{writer}-{n}")),
            labels: Some([(LABEL.to_owned(), "yes".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let (mut doubt, began) = (false, Instant::now());
        loop {
            let answer =
                tokio::time::timeout(2 * SILENCE, servers.maps().create(&PostParams::default(), &map)).await;
            match answer {
                Ok(Ok(made)) => {
                    seen.note(|facts| facts.acknowledged.push(made.name_any()));
                    break;
                }
                // What an answer that was lost had told.
                Ok(Err(kube::Error::Api(status))) if doubt && status.is_already_exists() => {
                    seen.note(|facts| facts.acknowledged.push(map.name_any()));
                    break;
                }
                Ok(Err(kube::Error::Api(status))) => {
                    doubt = true;
                    if status.code < 500 && status.code != 429 {
                        seen.note(|facts| {
                            facts.refused.push(format!("create {}: {status:?}", map.name_any()))
                        });
                        break;
                    }
                    servers.next();
                }
                _ => {
                    doubt = true;
                    servers.next();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        seen.note(|facts| facts.longest_write = facts.longest_write.max(began.elapsed()));
        tokio::time::sleep(PAUSE).await;
    }
}

/// The newest revision that a server knows.
async fn newest(mut servers: Servers) -> Option<String> {
    let until = Instant::now() + SETTLE;
    loop {
        let params = ListParams::default().labels(LABEL).limit(1);
        match tokio::time::timeout(2 * SILENCE, servers.maps().list(&params)).await {
            Ok(Ok(list)) => return list.metadata.resource_version,
            _ if Instant::now() > until => return None,
            _ => servers.next(),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Watches from a revision on, resuming where it was.
async fn watch(
    mut servers: Servers,
    watcher: usize,
    mut from: String,
    seen: &Seen,
    finished: &CancellationToken,
) {
    seen.note(|facts| facts.watched.resize_with(facts.watched.len().max(watcher + 1), Watched::default));
    while !finished.is_cancelled() {
        let round = finished.run_until_cancelled(follow(&servers, &mut from, watcher, seen)).await;
        if let Some(Err(())) = round {
            servers.next();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One watch; an error where another server should be asked.
async fn follow(servers: &Servers, from: &mut String, watcher: usize, seen: &Seen) -> Result<(), ()> {
    // Shorter than what a silent server is given: one that is quiet ends its watch by itself.
    let params = WatchParams::default().labels(LABEL).timeout(3);
    let opened = tokio::time::timeout(SILENCE, servers.maps().watch(&params, from)).await;
    let mut events = pin!(opened.map_err(drop)?.map_err(drop)?);
    loop {
        let event = tokio::time::timeout(SILENCE, events.try_next()).await.map_err(drop)?;
        match event.map_err(drop)? {
            None => return Ok(()),
            Some(WatchEvent::Bookmark(mark)) => *from = mark.metadata.resource_version,
            Some(WatchEvent::Added(map)) => {
                *from = map.resource_version().unwrap_or_default();
                let event = (from.parse().unwrap_or(0), map.name_any());
                seen.note(|facts| facts.watched[watcher].events.push(event));
            }
            Some(WatchEvent::Error(status)) if status.code < 500 => {
                seen.note(|facts| facts.refused.push(format!("watch from {from}: {status:?}")));
                return Err(());
            }
            Some(WatchEvent::Error(_)) => return Err(()),
            Some(other) => {
                seen.note(|facts| facts.refused.push(format!("an event nobody caused: {other:?}")))
            }
        }
    }
}

/// Looks at who leads.
async fn lead(mut servers: Servers, seen: &Seen) {
    let (mut renewed, mut changed) = (None, Instant::now());
    loop {
        let leases: Api<Lease> = Api::namespaced(servers.client(), "kube-system");
        match tokio::time::timeout(SILENCE, leases.get(LEASE)).await {
            Ok(Ok(lease)) => {
                let spec = lease.spec.unwrap_or_default();
                if renewed != spec.renew_time {
                    let gap = changed.elapsed();
                    // The first is how long we have been here.
                    if renewed.is_some() {
                        seen.note(|facts| facts.leaderless = facts.leaderless.max(gap));
                    }
                    (renewed, changed) = (spec.renew_time, Instant::now());
                }
                let host = spec.holder_identity.unwrap_or_default();
                let index = host.split('_').next().and_then(|name| name.strip_prefix('n')?.parse().ok());
                seen.set_leader(index);
            }
            _ => servers.next(),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every object there is, at one server or the next that answers.
async fn list(mut servers: Servers) -> Vec<String> {
    let until = Instant::now() + SETTLE;
    loop {
        let params = ListParams::default().labels(LABEL);
        match tokio::time::timeout(2 * SILENCE, servers.maps().list(&params)).await {
            Ok(Ok(list)) => return list.items.iter().map(ResourceExt::name_any).collect(),
            _ if Instant::now() > until => return Vec::new(),
            _ => servers.next(),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
