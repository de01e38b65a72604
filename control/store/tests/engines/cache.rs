//! The watch cache over a store.

use crate::rig::{Rig as Ground, soon};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::cache::{Cache, Change, ChangeKind, Error, Indexed, Options, Scope};
use store::{Backend, Entry, Expect};

const PODS: &str = "/registry/pods/";

/// The value is the node's name.
fn extract(entry: &Entry) -> Indexed {
    let node = String::from_utf8_lossy(&entry.value).into_owned();
    let bytes = Bytes::from(format!("{node}@{}", entry.mod_revision));
    Indexed { bytes, labels: BTreeMap::new(), fields: BTreeMap::from([("spec.nodeName".to_owned(), node)]) }
}

on_both!(
    a_watch_sees_additions_changes_and_deletions_with_what_was_before,
    a_pod_that_moves_is_news_for_both_nodes,
    a_slow_watcher_is_ended_and_the_others_are_not,
    history_is_bounded_and_says_so,
    freshness_is_waited_for_and_bounded,
    pages_show_one_moment,
    a_watch_that_stands_still_must_not_hide_what_is_newer,
);

struct Rig {
    store: Arc<dyn Backend>,
    cache: Cache,
    feed: tokio::task::JoinHandle<()>,
    _ground: Ground,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

async fn rig(ground: Ground, options: Options) -> Rig {
    let store = ground.store.clone();
    store.put("/registry/pods/old/a", Bytes::from("n1"), Expect::Absent, None).await.unwrap();
    let (cache, feed) = Cache::new(store.clone(), PODS, extract, options);
    assert!(matches!(cache.snapshot(), Err(Error::NotReady { .. })));
    let feed = tokio::spawn(feed.run());
    cache.ready().await;
    Rig { store, cache, feed, _ground: ground }
}

async fn write(store: &Arc<dyn Backend>, key: &str, node: &str) -> u64 {
    let at = store.get(key).await.unwrap().map_or(Expect::Absent, |e| Expect::At(e.mod_revision));
    store.put(key, Bytes::from(node.to_owned()), at, None).await.unwrap().mod_revision
}

fn brief(change: &Change) -> (ChangeKind, String, Option<String>, u64) {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    (change.kind, text(&change.object.bytes), change.prev.as_ref().map(|p| text(&p.bytes)), change.revision)
}

async fn a_watch_sees_additions_changes_and_deletions_with_what_was_before(ground: Ground) {
    let rig = rig(ground, Options::default()).await;
    let mut watch = rig.cache.watch(&Scope::Namespace("x".into()), 1).unwrap();
    write(&rig.store, "/registry/pods/x/a", "n1").await;
    write(&rig.store, "/registry/pods/y/a", "n1").await;
    write(&rig.store, "/registry/pods/x/a", "n2").await;
    rig.store.delete("/registry/pods/x/a", Expect::At(4)).await.unwrap();
    use ChangeKind::{Added, Deleted, Modified};
    for want in [
        (Added, "n1@2", None, 2),
        (Modified, "n2@4", Some("n1@2"), 4),
        // The last state, with the deletion's own resourceVersion.
        (Deleted, "n2@5", Some("n2@4"), 5),
    ] {
        let got = brief(&soon(watch.next()).await.unwrap());
        assert_eq!(got, (want.0, want.1.to_owned(), want.2.map(str::to_owned), want.3));
    }
    assert_eq!(watch.progress().await, Some(5));
}

async fn a_watch_that_stands_still_must_not_hide_what_is_newer(ground: Ground) {
    let options = Options { fresh_timeout: Duration::from_millis(200), ..Options::default() };
    let mut rig = rig(ground, options).await;
    // Nobody brings what happens from here on.
    rig.feed.abort();
    assert!((&mut rig.feed).await.unwrap_err().is_cancelled());
    let at = write(&rig.store, "/registry/pods/x/a", "n1").await;
    rig.store.delete("/registry/pods/old/a", Expect::At(1)).await.unwrap();
    assert!(matches!(rig.cache.refresh().await, Err(Error::NotFresh { .. })));
    let newest = soon(rig.cache.newest()).await.unwrap();
    assert_eq!((newest.revision(), newest.count(PODS, None)), (at + 1, 1));
    assert_eq!(newest.get("/registry/pods/x/a").unwrap().bytes, format!("n1@{at}"));
}

async fn a_pod_that_moves_is_news_for_both_nodes(ground: Ground) {
    let rig = rig(ground, Options::default()).await;
    let node = |n: &str| Scope::Field { name: "spec.nodeName".into(), value: n.into() };
    let (mut one, mut two) =
        (rig.cache.watch(&node("n1"), 1).unwrap(), rig.cache.watch(&node("n2"), 1).unwrap());
    write(&rig.store, "/registry/pods/old/a", "n2").await;
    write(&rig.store, "/registry/pods/old/a", "n3").await;
    assert_eq!(soon(one.next()).await.unwrap().revision, 2);
    assert_eq!(soon(two.next()).await.unwrap().revision, 2);
    assert_eq!(soon(two.next()).await.unwrap().revision, 3);
    assert_eq!(one.progress().await, Some(3));
    // The same from history.
    let mut late = rig.cache.watch(&node("n2"), 1).unwrap();
    assert_eq!(late.next().await.unwrap().revision, 2);
    assert_eq!(late.next().await.unwrap().revision, 3);
}

async fn a_slow_watcher_is_ended_and_the_others_are_not(ground: Ground) {
    let rig = rig(ground, Options { watch_queue: 10, ..Options::default() }).await;
    let mut slow = rig.cache.watch(&Scope::All, 1).unwrap();
    let mut quiet = rig.cache.watch(&Scope::Namespace("quiet".into()), 1).unwrap();
    for n in 0..40 {
        write(&rig.store, &format!("/registry/pods/x/{n}"), "n1").await;
    }
    write(&rig.store, "/registry/pods/quiet/a", "n1").await;
    rig.cache.refresh().await.unwrap();
    let mut seen = Vec::new();
    while let Some(change) = soon(slow.next()).await {
        seen.push(change.revision);
    }
    assert_eq!(seen, (2..=11).collect::<Vec<_>>());
    assert_eq!(slow.progress().await, None, "an ended watch must not send bookmarks");
    assert_eq!(soon(quiet.next()).await.unwrap().revision, 42);
}

async fn history_is_bounded_and_says_so(ground: Ground) {
    let rig = rig(ground, Options { history: 5, ..Options::default() }).await;
    for n in 0..20 {
        write(&rig.store, &format!("/registry/pods/x/{n}"), "n1").await;
    }
    rig.cache.refresh().await.unwrap();
    let e = rig.cache.watch(&Scope::All, 15).err().unwrap();
    assert_eq!(e, Error::TooOld { asked: 15, oldest: 16 });
    assert_eq!(e.to_string(), "too old resource version: 15 (16)");
    let mut watch = rig.cache.watch(&Scope::All, 16).unwrap();
    for revision in 17..=21 {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    // From a revision still ahead: nothing at or before it.
    let mut ahead = rig.cache.watch(&Scope::All, 23).unwrap();
    for n in 0..3 {
        write(&rig.store, &format!("/registry/pods/z/{n}"), "n1").await;
    }
    assert_eq!(soon(ahead.next()).await.unwrap().revision, 24);
}

async fn freshness_is_waited_for_and_bounded(ground: Ground) {
    let rig = rig(ground, Options { fresh_timeout: Duration::from_millis(300), ..Options::default() }).await;
    // Another resource's write moves the revision; the pods' cache must learn that it passed.
    for n in 0..5 {
        let revision = write(&rig.store, &format!("/registry/nodes/{n}"), "x").await;
        assert_eq!(rig.cache.refresh().await.unwrap(), revision);
        assert!(rig.cache.revision().unwrap() >= revision);
    }
    let e = rig.cache.wait_until_fresh(99).await.unwrap_err();
    assert_eq!(e, Error::NotFresh { asked: 99, current: 6 });
    let (cache, store) = (rig.cache.clone(), rig.store.clone());
    let waiting = tokio::spawn(async move { cache.wait_until_fresh(7).await });
    write(&store, "/registry/nodes/late", "x").await;
    soon(waiting).await.unwrap().unwrap();
}

async fn pages_show_one_moment(ground: Ground) {
    let rig = rig(ground, Options::default()).await;
    for n in 0..10 {
        write(&rig.store, &format!("/registry/pods/x/{n}"), "n1").await;
    }
    rig.cache.refresh().await.unwrap();
    let x = Scope::Namespace("x".into());
    let first = rig.cache.list(&x, None, 4, None).unwrap().unwrap();
    assert_eq!((first.objects.len(), first.remaining, first.revision), (4, 6, 11));
    write(&rig.store, "/registry/pods/x/5", "n2").await;
    write(&rig.store, "/registry/pods/x/55", "n2").await;
    rig.cache.refresh().await.unwrap();
    let after = first.objects[3].key.clone();
    let second = rig.cache.list(&x, Some(&after), 0, Some(first.revision)).unwrap().unwrap();
    let names: Vec<_> = second.objects.iter().map(|o| &*o.bytes).collect();
    assert_eq!(names, [&b"n1@6"[..], b"n1@7", b"n1@8", b"n1@9", b"n1@10", b"n1@11"]);
    assert_eq!(rig.cache.list(&x, None, 0, Some(7)).unwrap().map(|l| l.revision), None);
    let field = Scope::Field { name: "spec.nodeName".into(), value: "n2".into() };
    let page = rig.cache.list(&field, None, 1, None).unwrap().unwrap();
    assert_eq!((page.objects.len(), page.remaining), (1, 1));
}

#[derive(Clone, Debug)]
enum Op {
    Write(u8, u8, u8),
    Delete(u8, u8),
    Watch(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u8, 0..5u8, 0..3u8).prop_map(|(s, n, v)| Op::Write(s, n, v)),
        3 => (0..3u8, 0..5u8).prop_map(|(s, n)| Op::Delete(s, n)),
        2 => (0..6u8, any::<u8>()).prop_map(|(s, f)| Op::Watch(s, f)),
    ]
}

fn scope(n: u8) -> Scope {
    match n {
        0 => Scope::All,
        1 => Scope::Namespace("s1".into()),
        2 => Scope::Object { namespace: Some("s1".into()), name: "p2".into() },
        n => Scope::Field { name: "spec.nodeName".into(), value: format!("n{}", n - 3) },
    }
}

async fn replay(ground: Ground, ops: Vec<Op>) {
    let rig = rig(ground, Options::default()).await;
    let mut watches = Vec::new();
    for op in ops {
        match op {
            Op::Write(s, n, v) => {
                write(&rig.store, &format!("/registry/pods/s{s}/p{n}"), &format!("n{v}")).await;
            }
            Op::Delete(s, n) => {
                let key = format!("/registry/pods/s{s}/p{n}");
                if let Some(e) = rig.store.get(&key).await.unwrap() {
                    rig.store.delete(&key, Expect::At(e.mod_revision)).await.unwrap();
                }
            }
            Op::Watch(s, share) => {
                let from = 1 + (rig.store.revision() - 1) * u64::from(share) / 255;
                let start = rig.store.list(PODS, None, 0, Some(from)).await.unwrap();
                watches.push((scope(s), start, rig.cache.watch(&scope(s), from).unwrap()));
            }
        }
    }
    let revision = rig.cache.refresh().await.unwrap();
    let end = rig.store.list(PODS, None, 0, None).await.unwrap();
    let held = |scope: &Scope, entries: &[Entry]| -> BTreeMap<String, Bytes> {
        let snapshot = entries.iter().map(|e| (e, extract(e)));
        snapshot
            .filter(|(e, i)| match scope {
                Scope::All => true,
                Scope::Namespace(n) => e.key.starts_with(&format!("{PODS}{n}/")),
                Scope::Object { .. } => &*e.key == "/registry/pods/s1/p2",
                Scope::Field { value, .. } => &i.fields["spec.nodeName"] == value,
            })
            .map(|(e, i)| (e.key.to_string(), i.bytes))
            .collect()
    };
    for (scope, start, mut watch) in watches {
        let mut state = held(&scope, &start.entries);
        let mut last = start.revision;
        while watch.progress().await.is_none() {
            let change = watch.next().await.unwrap();
            assert!(change.revision > last, "out of order");
            last = change.revision;
            let key = change.object.key.to_string();
            let before = change.prev.as_ref().filter(|p| scope.holds(p)).map(|p| p.bytes.clone());
            assert_eq!(state.remove(&key), before);
            if change.kind != ChangeKind::Deleted && scope.holds(&change.object) {
                state.insert(key, change.object.bytes.clone());
            }
        }
        assert_eq!(state, held(&scope, &end.entries));
        assert_eq!(watch.progress().await, Some(revision));
        let listed = rig.cache.list(&scope, None, 0, None).unwrap().unwrap();
        let listed: BTreeMap<_, _> =
            listed.objects.iter().map(|o| (o.key.to_string(), o.bytes.clone())).collect();
        assert_eq!(listed, held(&scope, &end.entries));
    }
}

/// Whatever is written, replaying a watch from its start gives the state the store has in that scope.
fn state_plus_changes_is_the_later_state(ground: impl AsyncFnOnce() -> Option<Ground>, ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(ground) = ground().await {
            replay(ground, ops).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn state_plus_changes_is_the_later_state_on_the_embedded_store(ops in prop::collection::vec(op(), 1..50)) {
        state_plus_changes_is_the_later_state(async || Some(Ground::embedded()), ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn state_plus_changes_is_the_later_state_on_etcd(ops in prop::collection::vec(op(), 1..50)) {
        state_plus_changes_is_the_later_state(Ground::etcd, ops);
    }
}
