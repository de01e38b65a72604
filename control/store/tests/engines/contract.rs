//! What every engine promises beside being its model.

use crate::rig::{Rig, soon, value};
use futures::StreamExt;
use futures::future::join_all;
use store::{Error, Event, Expect};

on_both!(
    one_of_many_creations_wins_and_the_rest_see_the_winner,
    watches_miss_nothing_however_slow_and_whenever_begun,
    a_watch_from_a_revision_ahead_begins_there,
    progress_comes_after_every_earlier_change,
    a_watch_ends_with_the_store,
    a_value_over_the_limit_is_refused,
    keys_expire_with_a_watch_event_and_a_write_without_a_life_keeps_one,
    compaction_takes_the_past_and_leaves_the_present,
    a_consistent_read_sees_what_another_wrote_before_it,
);

async fn one_of_many_creations_wins_and_the_rest_see_the_winner(rig: Rig) {
    let store = rig.store.clone();
    let results = join_all((0..50).map(|n| store.put("/registry/k", value(n), Expect::Absent, None))).await;
    let winner = results.iter().filter_map(|r| r.as_ref().ok()).collect::<Vec<_>>();
    assert_eq!(winner.len(), 1);
    for lost in results.iter().filter_map(|r| r.as_ref().err()) {
        let Error::Conflict { current: Some(current), .. } = lost else { panic!("{lost}") };
        assert_eq!(&**current, winner[0]);
    }
    assert_eq!(store.revision(), 1);
}

async fn watches_miss_nothing_however_slow_and_whenever_begun(rig: Rig) {
    let store = rig.store.clone();
    // Live from its first change, then not read until the end: its queue overflows, it must come back by the log.
    store.put("/registry/a/first", value(0), Expect::Absent, None).await.unwrap();
    let mut idle = store.watch("/registry/a/", 0).unwrap();
    assert_eq!(soon(idle.next()).await.unwrap().unwrap().revision(), 1);
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..60 {
                    let calls = (0..10).map(|i| {
                        let key = format!("/registry/{}/{w}/{n}/{i}", if i % 2 == 0 { "a" } else { "b" });
                        let store = store.clone();
                        async move { store.put(&key, value(n), Expect::Absent, None).await.unwrap() }
                    });
                    join_all(calls).await;
                }
            })
        })
        .collect();
    let watchers: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let from = store.revision() / 2;
                let seen = collect(store.watch("/registry/a/", from).unwrap(), 4801).await;
                (from, seen)
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.revision(), 4801);
    // Tells the watches, whose last change may be another prefix's, where the end is.
    let stop = store.put("/registry/a/end", value(0), Expect::Absent, None).await.unwrap().mod_revision;
    let mut all: Vec<_> = store
        .list("/registry/a/", None, 0, None)
        .await
        .unwrap()
        .entries
        .iter()
        .map(|e| e.mod_revision)
        .collect();
    all.sort_unstable();
    assert_eq!((all.len(), stop), (2402, 4802));
    assert_eq!(soon(collect(idle, 4801)).await, all[1..]);
    for watcher in watchers {
        let (from, seen) = soon(watcher).await.unwrap();
        assert_eq!(seen, all.iter().copied().filter(|&r| r > from).collect::<Vec<_>>());
    }
}

async fn a_watch_from_a_revision_ahead_begins_there(rig: Rig) {
    let store = rig.store.clone();
    let mut watch = store.watch("/registry/", 3).unwrap();
    // Polled once, so that what follows comes by the queue.
    assert!(futures::poll!(watch.next()).is_pending());
    for n in 0..5 {
        store.put(&format!("/registry/{n}"), value(n), Expect::Absent, None).await.unwrap();
    }
    assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), 4);
}

async fn progress_comes_after_every_earlier_change(rig: Rig) {
    let store = rig.store.clone();
    let mut watch = store.watch("/registry/a/", 0).unwrap();
    store.put("/registry/a/1", value(1), Expect::Absent, None).await.unwrap();
    store.put("/registry/b/1", value(1), Expect::Absent, None).await.unwrap();
    store.request_progress("/registry/a/");
    assert!(matches!(watch.next().await, Some(Ok(Event::Put { .. }))));
    assert_eq!(soon(watch.next()).await.unwrap().unwrap(), Event::Progress { revision: 2 });
}

/// Revisions until one is past `end`.
async fn collect(mut watch: futures::stream::BoxStream<'static, Result<Event, Error>>, end: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Some(event) = watch.next().await {
        seen.push(event.unwrap().revision());
        if seen.last().is_some_and(|&r| r > end) {
            break;
        }
    }
    seen
}

async fn a_watch_ends_with_the_store(rig: Rig) {
    let mut watch = rig.store.watch("/registry/", 0).unwrap();
    drop(rig);
    assert!(matches!(soon(watch.next()).await, Some(Err(Error::Closed { .. }))));
    assert!(watch.next().await.is_none());
}

async fn a_value_over_the_limit_is_refused(rig: Rig) {
    let over = bytes::Bytes::from(vec![b'x'; 3 << 19]);
    let refused = rig.store.put("/registry/k", over, Expect::Absent, None).await.unwrap_err();
    let Error::TooLarge { size, limit, .. } = refused else { panic!("{refused}") };
    assert_eq!((size, limit), ((3 << 19) + 11, 3 << 19));
    let large = bytes::Bytes::from(vec![b'x'; (3 << 19) - 1024]);
    rig.store.put("/registry/k", large, Expect::Absent, None).await.unwrap();
}

async fn keys_expire_with_a_watch_event_and_a_write_without_a_life_keeps_one(rig: Rig) {
    let store = &rig.store;
    let ttl = Some(rig.shortest_ttl());
    let kept = store.put("/registry/e/kept", value(0), Expect::Absent, ttl).await.unwrap();
    // Written again without a life span: the first one must not end it.
    store.put("/registry/e/kept", value(1), Expect::At(kept.mod_revision), None).await.unwrap();
    store.put("/registry/e/gone", value(2), Expect::Absent, ttl).await.unwrap();
    let mut watch = store.watch("/registry/e/", 3).unwrap();
    let Event::Delete { prev, revision } = soon(watch.next()).await.unwrap().unwrap() else {
        panic!("not deleted")
    };
    assert_eq!((&*prev.key, revision, prev.value), ("/registry/e/gone", 4, value(2)));
    assert_eq!(store.get("/registry/e/kept").await.unwrap().unwrap().value, value(1));
    assert!(store.get("/registry/e/gone").await.unwrap().is_none());
}

async fn compaction_takes_the_past_and_leaves_the_present(rig: Rig) {
    let store = &rig.store;
    let mut at = Expect::Absent;
    for n in 0..20 {
        at = Expect::At(store.put("/registry/k", value(n), at, None).await.unwrap().mod_revision);
    }
    store.delete("/registry/k", at).await.unwrap();
    store.put("/registry/other", value(7), Expect::Absent, None).await.unwrap();
    store.compact(15).await.unwrap();
    assert!(store.compacted() >= 15);
    assert!(matches!(
        store.list("/registry/", None, 0, Some(14)).await,
        Err(Error::Compacted { asked: 14, .. })
    ));
    assert_eq!(store.list("/registry/", None, 0, Some(15)).await.unwrap().entries[0].value, value(14));
    assert!(matches!(store.compact(5).await, Err(Error::Compacted { asked: 5, .. })));
    assert!(matches!(store.compact(99).await, Err(Error::Future { asked: 99, .. })));
    let mut late = store.watch("/registry/", 14).unwrap();
    assert!(matches!(soon(late.next()).await, Some(Err(Error::Compacted { asked: 14, .. }))));
    assert!(late.next().await.is_none());
    let mut watch = store.watch("/registry/", 15).unwrap();
    for revision in 16..=22 {
        assert_eq!(soon(watch.next()).await.unwrap().unwrap().revision(), revision);
    }
}

async fn a_consistent_read_sees_what_another_wrote_before_it(rig: Rig) {
    let revision = rig.store.put("/registry/a", value(1), Expect::Absent, None).await.unwrap().mod_revision;
    assert_eq!(rig.store.newest().await.unwrap(), revision);
}
