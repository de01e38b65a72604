//! What a snapshot of the embedded store promises: all that was acknowledged before it began, nothing half, and after it
//! has been put in place no revision twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::embedded::{Options, Store, advance};
use store::{Backend, Entry, Error, Event, Expect};

fn open(path: &Path) -> Store {
    Store::open(path, Options { cache_bytes: 1 << 20, ..Options::default() }).unwrap()
}

async fn all(store: &Store) -> Vec<Entry> {
    store.list("/", None, 0, None).await.unwrap().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_acknowledged_before_a_snapshot_began_is_in_it_and_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir.path().join("s")));
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (store, acknowledged, stop) = (store.clone(), acknowledged.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                let value = Bytes::from(n.to_string());
                store.put(&format!("/k/{n}"), value, Expect::Absent, None).await.unwrap();
                acknowledged.store(n, Ordering::SeqCst);
            }
            n
        })
    };
    for round in 0..5 {
        while acknowledged.load(Ordering::SeqCst) < (round + 1) * 50 {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(Ordering::SeqCst);
        let path = dir.path().join(format!("snapshot-{round}"));
        let revision = store.snapshot(&path).await.unwrap();
        assert!(revision >= before, "{before} writes were acknowledged, the snapshot shows {revision}");
        let copy = open(&path);
        assert_eq!(copy.revision(), revision);
        let found: BTreeMap<u64, u64> = all(&copy)
            .await
            .iter()
            .map(|e| (std::str::from_utf8(&e.value).unwrap().parse().unwrap(), e.mod_revision))
            .collect();
        let expected: BTreeMap<u64, u64> = (1..=revision).map(|n| (n, n)).collect();
        assert_eq!(found, expected);
    }
    stop.store(true, Ordering::SeqCst);
    assert!(writer.await.unwrap() >= 250, "the writer was held up");
}

#[tokio::test]
async fn a_snapshot_holds_what_is_and_not_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("s"));
    let put = async |key: &str, value: &'static str, expect| {
        store.put(key, Bytes::from_static(value.as_bytes()), expect, None).await.unwrap()
    };
    let first = put("/a", "1", Expect::Absent).await;
    put("/b", "1", Expect::Absent).await;
    put("/a", "2", Expect::At(first.mod_revision)).await;
    store.delete("/b", Expect::At(2)).await.unwrap();
    let path = dir.path().join("copy");
    assert_eq!(store.snapshot(&path).await.unwrap(), 4);
    let copy = open(&path);
    assert_eq!(all(&copy).await, all(&store).await);
    assert!(matches!(copy.list("/", None, 0, Some(3)).await, Err(Error::Compacted { asked: 3, oldest: 4 })));
    // it goes on as a store does
    let next = copy.put("/a", Bytes::from_static(b"3"), Expect::At(3), None).await.unwrap();
    assert_eq!((next.create_revision, next.mod_revision), (1, 5));
    assert_eq!(copy.put("/b", Bytes::new(), Expect::Absent, None).await.unwrap().create_revision, 6);
}

#[tokio::test]
async fn lives_of_keys_go_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("s"));
    let ttl = Some(Duration::from_secs(1));
    store.put("/event", Bytes::new(), Expect::Absent, ttl).await.unwrap();
    let path = dir.path().join("copy");
    store.snapshot(&path).await.unwrap();
    let copy = open(&path);
    let mut watch = copy.watch("/", 1).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, Event::Delete { ref prev, revision: 2 } if &*prev.key == "/event"), "{event:?}");
}

#[tokio::test]
async fn a_revision_that_clients_have_seen_must_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("s"), dir.path().join("copy"));
    let store = open(&path);
    store.put("/a", Bytes::new(), Expect::Absent, None).await.unwrap();
    store.snapshot(&copy).await.unwrap();
    assert_eq!(advance(&copy, 1000).unwrap(), 1001);
    let restored = open(&copy);
    assert_eq!((restored.revision(), all(&restored).await), (1001, all(&store).await));
    // a client of before, which saw more than the snapshot holds, must list afresh
    let ended = restored.watch("/", 7).unwrap().next().await.unwrap();
    assert!(matches!(ended, Err(Error::Compacted { asked: 7, .. })), "{ended:?}");
    assert_eq!(restored.put("/b", Bytes::new(), Expect::Absent, None).await.unwrap().mod_revision, 1002);
}

#[tokio::test]
async fn a_snapshot_is_never_written_over_something() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("s"));
    let path = dir.path().join("copy");
    store.snapshot(&path).await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = store.snapshot(&path).await.unwrap_err();
    assert!(error.to_string().starts_with("write snapshot"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
