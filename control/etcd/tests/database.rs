//! A file made here is one that etcd serves: at the revisions it was given, to members that join later, too. Skipped where there is no etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

#[path = "database/member.rs"]
mod member;

use etcd::bolt;
use etcd::database::{Database, newest};
use etcd::v3::{KeyValue, RangeRequest, WatchCreateRequest};
use member::{Member, PROGRAM, put, serves, until};
use std::path::Path;

/// Keys, and the newest revision.
const KEYS: i64 = 5000;
const REVISION: i64 = 1_000_000_000;

/// Every key, of the member asked and nobody else.
fn all() -> RangeRequest {
    RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        serializable: true,
        ..RangeRequest::default()
    }
}

fn key(n: i64) -> KeyValue {
    // Each tenth revision is one that still stands; the others are history that is gone.
    KeyValue {
        key: format!("/registry/{n:06}").into(),
        value: vec![b'v'; if n == 7 { 1_000_000 } else { 200 }].into(),
        create_revision: 10 * n,
        mod_revision: 10 * n + 1,
        version: 2,
        lease: if n == 3 { 77 } else { 0 },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_made_here_must_be_what_etcd_serves_and_gives_to_others() {
    if !Path::new(PROGRAM).exists() {
        println!("skipped: there is no {PROGRAM}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut first = Member::new(dir.path(), "first");
    let alone = format!("first={}", first.peer);
    first.start(&alone, "new", 1);
    serves(&first).await;
    for _ in 0..8 {
        put(&first.client(), "seed").await;
    }
    first.stop();

    let file = first.data.join("member/snap/db");
    let made = dir.path().join("made");
    let mut database = Database::begin(&file, &made).unwrap();
    let filled = database.fill(|put| {
        (1..=KEYS).try_for_each(|n| put(&key(n)))?;
        Ok::<_, bolt::Error>(vec![(77, 600)])
    });
    filled.unwrap();
    database.finish(REVISION).unwrap();
    assert_eq!(newest(&made).unwrap(), REVISION);
    std::fs::rename(&made, &file).unwrap();

    first.start(&alone, "new", 10_000);
    serves(&first).await;
    let client = first.client();
    let found = client.range(all()).await.unwrap();
    assert_eq!(found.header.unwrap().revision, REVISION);
    assert_eq!(found.kvs.len() as i64, KEYS, "and none of the seed's");
    assert!(found.kvs.iter().zip(1..).all(|(kv, n)| *kv == key(n)));
    assert_eq!(put(&client, "/registry/new").await, REVISION + 1);
    let watch = |start_revision| WatchCreateRequest {
        key: "/registry/".into(),
        range_end: "/registry0".into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let mut goes_on = client.watch(watch(REVISION + 1)).await.unwrap();
    let event = loop {
        if let Some(event) = goes_on.next().await.unwrap().events.pop() {
            break event;
        }
    };
    assert_eq!(event.kv.unwrap().key, "/registry/new");
    let mut old = client.watch(watch(REVISION - 5)).await.unwrap();
    let told = loop {
        let response = old.next().await.unwrap();
        if response.canceled {
            break response;
        }
    };
    assert_eq!(told.compact_revision, REVISION);

    // Another member begins with nothing and must be given the file, since the log never had what is in it.
    let mut second = Member::new(dir.path(), "second");
    let id = until(&first, || async { client.member_add_learner(&second.peer).await.ok() }).await;
    second.start(&format!("{alone},second={}", second.peer), "existing", 10_000);
    until(&second, || async { client.member_promote(id).await.ok() }).await;
    let copy = until(&second, || async {
        let found = second.client().range(all()).await.ok()?;
        (found.kvs.len() as i64 == KEYS + 1).then_some(found)
    });
    let copy = copy.await;
    assert!(copy.kvs.iter().zip(1..=KEYS).all(|(kv, n)| *kv == key(n)), "the same revisions");
    assert_eq!(copy.header.unwrap().revision, REVISION + 1);

    // And a snapshot, taken while it serves, is such a file again.
    let snapshot = dir.path().join("snapshot");
    second.client().snapshot(&snapshot).await.unwrap();
    assert_eq!(newest(&snapshot).unwrap(), REVISION + 1);
    client.member_remove(id).await.unwrap();
    assert_eq!(client.member_list().await.unwrap().members.len(), 1);
}
