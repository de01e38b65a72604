//! What only etcd has: prefixes, leases, other writers, agreement on compaction.

use crate::member::Cluster;
use crate::rig::{open_etcd, open_with, options, soon, value};
use ::etcd::v3::{KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request};
use ::etcd::{Client, Repeat};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use store::cache::{Cache, Indexed, Scope};
use store::encoding::{Decoded, Encoding, Source, Unreadable};
use store::etcd::{Etcd, Options};
use store::{Backend, Error, Event, Expect};

async fn raw(client: &Client, key: &str) -> Option<KeyValue> {
    let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
    client.range(request).await.unwrap().kvs.into_iter().next()
}

/// Writes several keys in one transaction, which our engine never does.
async fn at_once(client: &Client, writes: &[(&str, Bytes)]) {
    let put = |(key, value): &(&str, Bytes)| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.clone(),
            lease: 0,
        })),
    };
    let txn = TxnRequest { success: writes.iter().map(put).collect(), ..TxnRequest::default() };
    client.txn(txn, Repeat::Unseen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_lie_under_the_prefix_and_another_prefix_is_another_store() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (one, _tasks) = open_etcd(&cluster, "/registry").await;
    let (two, _more) = open_etcd(&cluster, "cluster-b/").await;
    one.put("/registry/pods/d/a", value(1), Expect::Absent, None).await.unwrap();
    let mut watch = two.watch("/registry/pods/", one.revision() - 1).unwrap();
    two.put("/registry/pods/d/a", value(2), Expect::Absent, None).await.unwrap();
    assert_eq!(raw(&client, "/registry/pods/d/a").await.unwrap().value, value(1));
    assert_eq!(raw(&client, "/cluster-b/pods/d/a").await.unwrap().value, value(2));
    let Event::Put { entry, prev: None } = soon(watch.next()).await.unwrap().unwrap() else { panic!() };
    assert_eq!((&*entry.key, entry.value), ("/registry/pods/d/a", value(2)));
    let page = two.list("/registry/", None, 0, None).await.unwrap();
    assert_eq!(page.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_with_a_life_share_a_lease() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    let hour = Some(Duration::from_secs(3600));
    for name in ["a", "b"] {
        store.put(&format!("/registry/events/d/{name}"), value(1), Expect::Absent, hour).await.unwrap();
    }
    store.put("/registry/events/d/c", value(1), Expect::Absent, Some(Duration::from_secs(60))).await.unwrap();
    let mut leases = Vec::new();
    for name in ["a", "b", "c"] {
        leases.push(raw(&client, &format!("/registry/events/d/{name}")).await.unwrap().lease);
    }
    assert!(leases[0] != 0 && leases[0] == leases[1] && leases[2] != leases[0], "{leases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_revision_must_not_hide_each_other() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    let store: Arc<dyn Backend> = Arc::new(store);
    let extract = |e: &store::Entry| Indexed { bytes: e.value.clone(), ..Indexed::default() };
    let (cache, feed) = Cache::new(store.clone(), "/registry/events/", extract, Default::default());
    let feed = tokio::spawn(feed.run());
    cache.ready().await;
    let from = cache.revision().unwrap();
    let mut watch = cache.watch(&Scope::All, from).unwrap();
    // As keys of one lease go.
    let keys = ["/registry/events/d/a", "/registry/pods/d/x", "/registry/events/d/b"];
    at_once(&client, &keys.map(|key| (key, value(1)))).await;
    for name in ["a", "b"] {
        let change = soon(watch.next()).await.unwrap();
        assert_eq!((&*change.object.name, change.revision), (name, from + 1));
    }
    cache.refresh().await.unwrap();
    assert_eq!(cache.snapshot().unwrap().count("/registry/events/", None), 2);
    feed.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_must_see_half_of_a_revision() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    let store: Arc<dyn Backend> = Arc::new(store);
    let extract = |e: &store::Entry| Indexed { bytes: e.value.clone(), ..Indexed::default() };
    let (cache, feed) = Cache::new(store.clone(), "/registry/events/", extract, Default::default());
    let feed = tokio::spawn(feed.run());
    cache.ready().await;
    for round in 1..=10 {
        // As keys of one lease go.
        let keys: Vec<String> = (0..100).map(|n| format!("/registry/events/d/{round}-{n}")).collect();
        let writes: Vec<(&str, Bytes)> = keys.iter().map(|key| (key.as_str(), value(1))).collect();
        let looking = async {
            loop {
                let seen = cache.snapshot().unwrap().count("/registry/events/", None);
                assert_eq!(seen % 100, 0, "half of it is there");
                if seen == round * 100 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(at_once(&client, &writes), soon(looking));
    }
    feed.abort();
}

/// Refuses one value.
struct Picky;

impl Encoding for Picky {
    fn encode(&self, _key: &str, value: Bytes) -> Result<Bytes, Source> {
        Ok(value)
    }

    fn decode(&self, _key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        match &*stored {
            b"unreadable" => Err(Unreadable::Damaged("it is unreadable".into())),
            _ => Ok(Decoded { value: stored, stale: false }),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_change_beside_a_readable_one_must_not_be_read_for_ever() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let encoding = Arc::new(Picky);
    let (store, _tasks) = open_with(Options { encoding, ..options(&cluster) }).await;
    let from = store.revision();
    let mut live = store.watch("/registry/pods/", from).unwrap();
    let first = ("/registry/pods/d/a", value(1));
    at_once(&client, std::slice::from_ref(&first)).await;
    at_once(&client, &[("/registry/pods/d/b", value(2)), ("/registry/pods/d/c", "unreadable".into())]).await;
    at_once(&client, &[("/registry/pods/d/d", value(3))]).await;
    // One that follows, one that reads the past from before what is readable, and one from right before what is not.
    let past = store.watch("/registry/pods/", from).unwrap();
    let right_before = store.watch("/registry/pods/", from + 1).unwrap();
    let Event::Put { entry, .. } = soon(live.next()).await.unwrap().unwrap() else { panic!() };
    assert_eq!((&*entry.key, &entry.value), (first.0, &first.1));
    for (mut watch, readable) in [(live, 0), (past, 1), (right_before, 0)] {
        for _ in 0..readable {
            assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), from + 1);
        }
        assert!(soon(watch.next()).await.unwrap().is_err());
    }
}

/// What opens one value does not answer.
struct Hung;

impl Encoding for Hung {
    fn encode(&self, _key: &str, value: Bytes) -> Result<Bytes, Source> {
        Ok(value)
    }

    fn decode(&self, _key: &str, stored: Bytes) -> Result<Decoded, Unreadable> {
        match &*stored {
            b"sealed" => Err(Unreadable::Yet(Box::pin(std::future::pending()))),
            _ => Ok(Decoded { value: stored, stale: false }),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_must_not_hold_up_other_kinds() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (store, _tasks) = open_with(Options { encoding: Arc::new(Hung), ..options(&cluster) }).await;
    let from = store.revision();
    let mut pods = store.watch("/registry/pods/", from).unwrap();
    let mut secrets = store.watch("/registry/secrets/", from).unwrap();
    at_once(&client, &[("/registry/secrets/d/a", value(1)), ("/registry/pods/d/a", value(1))]).await;
    // Both follow by now.
    for watch in [&mut pods, &mut secrets] {
        assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), from + 1);
    }
    at_once(&client, &[("/registry/secrets/d/b", "sealed".into())]).await;
    at_once(&client, &[("/registry/pods/d/b", value(2))]).await;
    assert_eq!(soon(pods.next()).await.unwrap().unwrap().revision(), from + 3);
    let told = tokio::time::timeout(Duration::from_millis(100), secrets.next()).await;
    assert!(told.is_err(), "it waits, and passes nothing over: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_parts_are_put_together() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    let from = store.revision();
    // Each revision has several values, and all together many times what etcd sends in one part.
    for round in 0..12u8 {
        let big = |n: u8| Bytes::from(vec![round * 3 + n; 400_000]);
        let keys = ["/registry/a", "/registry/b", "/registry/c"];
        let writes: Vec<_> = keys.iter().zip(0..).map(|(key, n)| (*key, big(n))).collect();
        at_once(&client, &writes).await;
    }
    let mut watch = store.watch("/registry/", from).unwrap();
    for n in 0..36u8 {
        let Event::Put { entry, .. } = soon(watch.next()).await.unwrap().unwrap() else { panic!() };
        assert_eq!((entry.value[0], entry.mod_revision), (n, from + 1 + u64::from(n) / 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_agree_on_who_compacts() {
    let Some(cluster) = Cluster::start(1) else { return };
    let client = Client::new(&cluster.config()).unwrap();
    let often = || Options { compaction_interval: Duration::from_millis(400), ..options(&cluster) };
    let (one, _tasks) = open_with(often()).await;
    let (two, _more) = open_with(often()).await;
    let first = one.put("/registry/a", value(0), Expect::Absent, None).await.unwrap().mod_revision;
    let mut at = first;
    let gone = async {
        while !matches!(two.list("/registry/", None, 0, Some(first)).await, Err(Error::Compacted { .. })) {
            at = one.put("/registry/a", value(1), Expect::At(at), None).await.unwrap().mod_revision;
        }
    };
    soon(gone).await;
    let key = raw(&client, "compact_rev_key").await.unwrap();
    let told: u64 = std::str::from_utf8(&key.value).unwrap().parse().unwrap();
    // The first round notes, the second compacts to it: whoever's they are.
    assert!(key.version >= 2 && told > first && told < at, "{key:?}");
    let know = async {
        while one.compacted() < told || two.compacted() < told {
            tokio::task::yield_now().await;
        }
    };
    soon(know).await;
    assert!(matches!(one.list("/registry/", None, 0, Some(told)).await, Ok(page) if page.entries.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_spoken_to_by_tls_with_a_certificate_of_ours_and_by_nothing_less() {
    let Some(cluster) = Cluster::start_tls() else { return };
    let (store, _tasks) = open_etcd(&cluster, "/registry").await;
    let revision = store.put("/registry/a", value(1), Expect::Absent, None).await.unwrap().mod_revision;
    let mut watch = store.watch("/registry/", revision - 1).unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), revision);
    let without = ::etcd::Config { identity: None, ..cluster.config() };
    let refused = Etcd::open(Options { client: without, ..options(&cluster) });
    assert!(matches!(soon(refused).await, Err(Error::Unavailable { .. })));
    let stranger = ::etcd::Config { authorities: None, ..cluster.config() };
    let refused = Etcd::open(Options { client: stranger, ..options(&cluster) });
    assert!(matches!(soon(refused).await, Err(Error::Unavailable { .. })));
}
