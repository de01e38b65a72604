//! What group commit saves, what a list from the cache costs over copying its bytes, and what other people's watches cost: ratios against a reference run in
//! the same breath. `cargo run --release -p store --example store_bench`

use bytes::Bytes;
use futures::future::join_all;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::cache::{Cache, Indexed, Options as CacheOptions, Scope};
use store::embedded::{Options, Store};
use store::{Backend, Expect};

const WRITES: usize = 2000;
const OBJECT: usize = 2000;
const WATCHERS: usize = 5000;
const CHANGES: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("store-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let done = bench(&dir).await;
    std::fs::remove_dir_all(&dir)?;
    done
}

async fn bench(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let single = Store::open(dir.join("single"), Options { max_group: 1, ..Options::default() })?;
    let one_by_one = write_all(&single).await?;
    let grouped = Arc::new(Store::open(dir.join("grouped"), Options::default())?);
    let together = write_all(&grouped).await?;
    println!(
        "group commit: {WRITES} concurrent writes in {} commits, {:.1} times as fast as one commit each ({:.2?} and {:.2?})",
        grouped.commits(),
        one_by_one.as_secs_f64() / together.as_secs_f64(),
        together,
        one_by_one,
    );

    let extract = |e: &store::Entry| Indexed { bytes: e.value.clone(), ..Indexed::default() };
    let (cache, feed) = Cache::new(grouped.clone(), "/registry/pods/", extract, CacheOptions::default());
    #[allow(clippy::disallowed_methods, reason = "it lives as long as this function")]
    let feed = tokio::spawn(feed.run());
    cache.ready().await;
    let mut out = Vec::with_capacity(WRITES * OBJECT * 2);
    let listed = best_of(|| {
        out.clear();
        if let Ok(Some(list)) = cache.list(&Scope::All, None, 0, None) {
            list.objects.iter().for_each(|o| out.extend_from_slice(&o.bytes));
        }
        black_box(&out);
    });
    let raw = out;
    let mut copy = Vec::with_capacity(raw.len());
    let copied = best_of(|| {
        copy.clear();
        copy.extend_from_slice(black_box(&raw));
        black_box(&copy);
    });
    println!(
        "list: {WRITES} objects, {} MB concatenated from the cache in {:.2} times the time of one memcpy ({listed:.2?} and {copied:.2?})",
        raw.len() / 1_000_000,
        listed.as_secs_f64() / copied.as_secs_f64(),
    );
    let alone = follow(&cache, &grouped).await?;
    let others =
        (0..WATCHERS).map(|n| cache.watch(&Scope::Namespace(format!("other-{n}")), cache.revision()?));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    let crowded = follow(&cache, &grouped).await?;
    println!(
        "watch: {CHANGES} changes reach one watcher beside {} watchers of other namespaces in {:.2} times the time without them",
        others.len(),
        crowded.as_secs_f64() / alone.as_secs_f64(),
    );
    feed.abort();
    Ok(())
}

/// Writes, and waits until one watcher has seen all of it.
async fn follow(cache: &Cache, store: &Store) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut watch = cache.watch(&Scope::Namespace("watched".to_owned()), cache.refresh().await?)?;
    let start = Instant::now();
    let from = store.revision();
    let writes = (0..CHANGES).map(|n| async move {
        store
            .put(
                &format!("/registry/pods/watched/{from}-{n}"),
                Bytes::from_static(b"x"),
                Expect::Absent,
                None,
            )
            .await
    });
    for result in join_all(writes).await {
        result?;
    }
    for _ in 0..CHANGES {
        watch.next().await.ok_or("the watcher was ended")?;
    }
    Ok(start.elapsed())
}

async fn write_all(store: &Store) -> Result<Duration, store::Error> {
    let value = Bytes::from(vec![b'x'; OBJECT]);
    let start = Instant::now();
    let writes = (0..WRITES).map(|n| {
        let value = value.clone();
        async move { store.put(&format!("/registry/pods/ns/{n}"), value, Expect::Absent, None).await }
    });
    for result in join_all(writes).await {
        result?;
    }
    Ok(start.elapsed())
}

fn best_of(mut run: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    best
}
