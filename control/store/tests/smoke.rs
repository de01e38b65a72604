use bytes::Bytes;
use std::sync::Arc;
use store::cache::{Cache, Indexed, Options as CacheOptions, Scope};
use store::embedded::{Options, Store};
use store::{Backend, Expect};

#[tokio::test]
async fn a_write_reaches_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Backend> =
        Arc::new(Store::open(dir.path().join("s.redb"), Options::default()).unwrap());
    let (cache, feed) = Cache::new(
        store.clone(),
        "/registry/pods/",
        |e| Indexed { bytes: e.value.clone(), ..Default::default() },
        CacheOptions::default(),
    );
    let feed = tokio::spawn(feed.run());
    cache.ready().await;
    let (_, mut watch) = cache.snapshot_and_watch(&Scope::All).unwrap();
    let e =
        store.put("/registry/pods/default/a", Bytes::from_static(b"x"), Expect::Absent, None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, e.mod_revision);
    store.put("/registry/nodes/a", Bytes::from_static(b"x"), Expect::Absent, None).await.unwrap();
    assert_eq!(cache.refresh().await.unwrap(), 2);
    assert_eq!(watch.progress().await, Some(2));
    feed.abort();
}
