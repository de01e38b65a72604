//! What the embedded store promises beyond what every engine does (`engines`): groups, bounds, damage, expiry across restarts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use std::fs;
use std::path::Path;
use std::time::Duration;
use store::embedded::{Options, Store};
use store::{Backend, Error, Event, Expect};

fn value(n: usize) -> Bytes {
    Bytes::from(format!("{{\"n\":{n}}}"))
}

fn small() -> Options {
    Options { cache_bytes: 1 << 20, ..Options::default() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("took longer than 20 s")
}

#[tokio::test]
async fn concurrent_writes_share_a_commit_and_keep_their_own_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("s"), small()).unwrap();
    let writes = (0..600).map(|n| {
        let (store, key) = (&store, format!("/k/{n}"));
        async move { store.put(&key, value(n), Expect::Absent, None).await.unwrap().mod_revision }
    });
    let mut revisions = join_all(writes).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=600).collect::<Vec<_>>());
    assert!(store.commits() <= 60, "600 writes took {} commits", store.commits());
}

#[tokio::test]
async fn a_watch_ends_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("s"), small()).unwrap();
    let mut watch = store.watch("/", 0).unwrap();
    drop(store);
    assert!(matches!(soon(watch.next()).await, Some(Err(Error::Closed { .. }))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("s"), small()).unwrap();
    let limit = Options::default().max_value;
    let e = store.put("/k", Bytes::from(vec![0; limit]), Expect::Absent, None).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("write /k: request is too large: {} bytes, the limit is {limit}", limit + 2)
    );
    store.put("/k", Bytes::from(vec![0; limit - 2]), Expect::Absent, None).await.unwrap();
}

#[tokio::test]
async fn keys_expire_with_a_watch_event_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Store::open(&path, small()).unwrap();
    let ttl = Some(Duration::from_millis(150));
    let kept = store.put("/e/kept", value(0), Expect::Absent, ttl).await.unwrap();
    // Written again without a life span: the first one must not end it.
    store.put("/e/kept", value(1), Expect::At(kept.mod_revision), None).await.unwrap();
    store.put("/e/gone", value(2), Expect::Absent, ttl).await.unwrap();
    let mut watch = store.watch("/e/", 3).unwrap();
    let Event::Delete { prev, revision } = soon(watch.next()).await.unwrap().unwrap() else {
        panic!("not deleted")
    };
    assert_eq!((&*prev.key, revision), ("/e/gone", 4));
    store.put("/e/later", value(3), Expect::Absent, ttl).await.unwrap();
    drop((watch, store));

    let store = Store::open(&path, small()).unwrap();
    let mut watch = store.watch("/e/", 5).unwrap();
    let Event::Delete { prev, revision } = soon(watch.next()).await.unwrap().unwrap() else {
        panic!("not deleted")
    };
    assert_eq!((&*prev.key, revision), ("/e/later", 6));
    assert_eq!(store.get("/e/kept").await.unwrap().unwrap().value, value(1));
}

#[tokio::test]
async fn history_is_let_go_by_count_and_by_age_and_the_present_stays() {
    let dir = tempfile::tempdir().unwrap();
    for (name, options) in [
        ("count", Options { max_revisions: 64, ..small() }),
        ("age", Options { history: Duration::from_millis(40), ..small() }),
    ] {
        let store = Store::open(dir.path().join(name), options).unwrap();
        let mut at = Expect::Absent;
        for n in 0..200 {
            at = Expect::At(store.put("/k", value(n), at, None).await.unwrap().mod_revision);
        }
        store.put("/other", value(7), Expect::Absent, None).await.unwrap();
        let forgotten = async {
            while !matches!(store.list("/", None, 0, Some(1)).await, Err(Error::Compacted { .. })) {
                tokio::task::yield_now().await;
            }
        };
        soon(forgotten).await;
        assert!(matches!(store.watch("/", 0).unwrap().next().await, Some(Err(Error::Compacted { .. }))));
        let page = store.list("/", None, 0, None).await.unwrap();
        assert_eq!(page.entries.iter().map(|e| e.value.clone()).collect::<Vec<_>>(), [value(199), value(7)]);
    }
}

#[tokio::test]
async fn compaction_frees_what_it_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Store::open(&path, small()).unwrap();
    let mut at = Expect::Absent;
    let mut sizes = Vec::new();
    for round in 0..4 {
        for _ in 0..100 {
            let big = Bytes::from(vec![round; 20_000]);
            at = Expect::At(store.put("/k", big, at, None).await.unwrap().mod_revision);
        }
        store.compact(store.revision()).await.unwrap();
        sizes.push(fs::metadata(&path).unwrap().len());
    }
    assert!(sizes[3] <= sizes[1] * 3 / 2, "the file grows although history is compacted: {sizes:?}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let store = Store::open(&whole, small()).unwrap();
    join_all(
        (0..300).map(|n| store.put(&format!("/k/{n}"), value(n), Expect::Absent, None)).collect::<Vec<_>>(),
    )
    .await;
    let busy = Store::open(&whole, small()).err().expect("two stores on one file");
    assert!(busy.to_string().contains(whole.to_str().unwrap()), "{busy}");
    drop(store);

    let bytes = fs::read(&whole).unwrap();
    for length in [0, 1, 63, 64, 320, 4095, 4096, 8192, 20_000, bytes.len() / 2] {
        let path = dir.path().join(format!("cut-{length}"));
        fs::write(&path, &bytes[..length]).unwrap();
        let e = Store::open(&path, small()).err().unwrap_or_else(|| panic!("opened {length} bytes of it"));
        assert!(e.to_string().contains(path.to_str().unwrap()), "{e}");
    }
    let junk = dir.path().join("junk");
    fs::write(&junk, "not a store at all, but a text file somebody put here by mistake").unwrap();
    assert!(Store::open(&junk, small()).err().unwrap().to_string().contains("junk"));
    assert!(
        Store::open(dir.path(), small()).err().unwrap().to_string().contains(dir.path().to_str().unwrap())
    );
}

#[tokio::test]
async fn a_flipped_bit_never_panics_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let store = Store::open(&whole, small()).unwrap();
    join_all(
        (0..300).map(|n| store.put(&format!("/k/{n}"), value(n), Expect::Absent, None)).collect::<Vec<_>>(),
    )
    .await;
    drop(store);
    let bytes = fs::read(&whole).unwrap();
    for n in 0..60 {
        let path = dir.path().join("flipped");
        let mut broken = bytes.clone();
        // The header whole, then spread over the rest.
        let at = if n < 30 { n * 10 } else { (n - 29) * (bytes.len() / 32) };
        broken[at] ^= 0xff;
        fs::write(&path, broken).unwrap();
        exercise(&path).await;
    }
}

/// Every answer is fine, but it must be an answer.
async fn exercise(path: &Path) {
    match Store::open(path, small()) {
        Err(e) => assert!(e.to_string().contains(path.to_str().unwrap()), "{e}"),
        Ok(store) => {
            let _ = soon(store.list("/", None, 0, None)).await;
            let _ = soon(store.get("/k/7")).await;
            let _ = soon(store.put("/new", value(1), Expect::Absent, None)).await;
            let _ = soon(store.delete("/k/7", Expect::At(8))).await;
        }
    }
}
