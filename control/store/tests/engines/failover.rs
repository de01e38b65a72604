//! Members die and freeze while a writer writes and watchers watch: each acknowledged write is there, each watcher sees each change once
//! and in order.

use crate::member::Cluster;
use crate::rig::{open_etcd, soon};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{Backend, Error, Event, Expect};

/// What a writer was told.
#[derive(Default)]
struct Told {
    /// Acknowledged writes by revision.
    written: BTreeMap<u64, (String, Bytes)>,
    undecided: usize,
    refused: usize,
}

/// Creates, rewrites and deletes keys of its own until `stop`.
async fn write(store: Arc<dyn Backend>, writer: usize, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let own = format!("/registry/w/{writer}");
    let mut at = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = Bytes::from(format!("{writer}.{n}"));
        let fresh = format!("/registry/f/{writer}/{n}");
        for (key, expect) in [(&own, at.map_or(Expect::Absent, Expect::At)), (&fresh, Expect::Absent)] {
            match store.put(key, value.clone(), expect, None).await {
                Ok(entry) => {
                    assert!(told.written.insert(entry.mod_revision, (key.clone(), value.clone())).is_none());
                    if key == &own {
                        at = Some(entry.mod_revision);
                    }
                }
                Err(Error::Undecided { .. }) => {
                    told.undecided += 1;
                    if key == &own {
                        at = store.get(&own).await.unwrap().map(|e| e.mod_revision);
                    }
                }
                Err(Error::Unavailable { .. }) => told.refused += 1,
                // Nobody else writes: a conflict would be a write reported wrong.
                Err(error) => panic!("{key}: {error}"),
            }
        }
    }
    told
}

/// Every change until the key that ends it.
async fn watch(store: Arc<dyn Backend>, from: u64) -> Vec<(u64, String, Bytes)> {
    let mut seen = Vec::new();
    let mut watch = store.watch("/registry/", from).unwrap();
    loop {
        match watch.next().await.unwrap().unwrap() {
            Event::Put { entry, .. } if &*entry.key == "/registry/end" => return seen,
            Event::Put { entry, .. } => seen.push((entry.mod_revision, entry.key.to_string(), entry.value)),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs `harm` on a cluster of three under load, and compares what was acknowledged, what was seen, and what is there.
async fn under_load(harm: impl AsyncFnOnce(&mut Cluster)) {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let mut servers: Vec<(Arc<dyn Backend>, _)> = Vec::new();
    for _ in 0..2 {
        let (etcd, tasks) = open_etcd(&cluster, "/registry").await;
        servers.push((Arc::new(etcd), tasks));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let from = servers[0].0.revision();
    let watchers: Vec<_> = servers.iter().map(|(s, _)| tokio::spawn(watch(s.clone(), from))).collect();
    let writers: Vec<_> =
        (0..4).map(|n| tokio::spawn(write(servers[n % 2].0.clone(), n, stop.clone()))).collect();
    harm(&mut cluster).await;
    stop.store(true, Ordering::Relaxed);
    let (mut written, mut undecided, mut refused) = (BTreeMap::new(), 0, 0);
    for writer in writers {
        let told = soon(writer).await.unwrap();
        undecided += told.undecided;
        refused += told.refused;
        written.extend(told.written);
    }
    let store = &servers[0].0;
    store.put("/registry/end", Bytes::new(), Expect::Absent, None).await.unwrap();
    println!("{} acknowledged, {undecided} undecided, {refused} refused", written.len());
    assert!(written.len() > 100 && refused == 0 && undecided < 100);
    for watcher in watchers {
        let seen = soon(watcher).await.unwrap();
        assert!(seen.windows(2).all(|w| w[0].0 < w[1].0), "a change came twice or out of order");
        let seen: BTreeMap<_, _> = seen.into_iter().map(|(at, key, value)| (at, (key, value))).collect();
        for (at, change) in &written {
            assert_eq!(seen.get(at), Some(change), "the write acknowledged at {at}");
        }
        // What nobody was told of may have happened, but no more than that.
        assert!(seen.len() <= written.len() + undecided);
    }
    let page = store.list("/registry/f/", None, 0, None).await.unwrap();
    let there: BTreeMap<_, _> =
        page.entries.into_iter().map(|e| (e.mod_revision, e.key.to_string())).collect();
    for (at, (key, _)) in written.iter().filter(|(_, (key, _))| key.starts_with("/registry/f/")) {
        assert_eq!(there.get(at), Some(key));
    }
}

async fn healthy(cluster: &Cluster, n: usize) {
    let up = async {
        while !cluster.is_healthy(n) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_die_in_turn_cost_no_acknowledged_write_and_no_event() {
    under_load(async |cluster| {
        for n in 0..3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.kill(n);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.run(n);
            healthy(cluster, n).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_freeze_in_turn_cost_no_acknowledged_write_and_no_event() {
    under_load(async |cluster| {
        for n in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.freeze(n, true);
            tokio::time::sleep(Duration::from_secs(8)).await;
            cluster.freeze(n, false);
            healthy(cluster, n).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_a_quorum_says_so_and_comes_back() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    store.put("/registry/a", Bytes::from("1"), Expect::Absent, None).await.unwrap();
    let mut watch = store.watch("/registry/", store.revision()).unwrap();
    assert!(futures::poll!(watch.next()).is_pending());
    cluster.kill(0);
    let ails = async {
        while store.health().is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(ails).await;
    let refused = soon(store.put("/registry/b", Bytes::new(), Expect::Absent, None)).await.unwrap_err();
    assert!(
        matches!(refused, Error::Unavailable { .. }),
        "nothing was sent, so nothing is undecided: {refused}"
    );
    cluster.run(0);
    let back = async {
        while store.health().is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(back).await;
    let revision = store.put("/registry/b", Bytes::new(), Expect::Absent, None).await.unwrap().mod_revision;
    assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frozen_member_must_not_make_an_idle_server_unready() {
    let Some(cluster) = Cluster::start(3) else { return };
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    // Whichever it uses.
    for n in 0..3 {
        cluster.freeze(n, true);
        let (began, mut ailed) = (std::time::Instant::now(), Duration::ZERO);
        while began.elapsed() < Duration::from_secs(9) {
            let looked = std::time::Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
            ailed += if store.health().is_err() { looked.elapsed() } else { Duration::ZERO };
        }
        cluster.freeze(n, false);
        healthy(&cluster, n).await;
        assert!(ailed < Duration::from_secs(3), "member {n}: {ailed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_must_not_fail_for_one_frozen_member() {
    let Some(cluster) = Cluster::start(3) else { return };
    let dir = tempfile::tempdir().unwrap();
    cluster.freeze(0, true);
    // Clients begin with different members.
    for n in 0..6 {
        let client = ::etcd::Client::new(&cluster.config()).unwrap();
        soon(client.snapshot(&dir.path().join(n.to_string()))).await.unwrap();
    }
    cluster.freeze(0, false);
}
