//! A store of either engine for a test.

use crate::member::Cluster;
use crate::shifted::Shifted;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use store::encoding::Plain;
use store::etcd::{Etcd, Options};
use store::{Backend, embedded};
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// Makes a test of each function, which takes a [`Rig`], on each engine.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::rig::Rig::embedded()).await;
            })*
        }
        mod on_etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(rig) = crate::rig::Rig::etcd().await else { return };
                super::$name(rig).await;
            })*
        }
    };
}

/// A store and what it stands on.
pub struct Rig {
    pub store: Arc<dyn Backend>,
    ground: Ground,
}

enum Ground {
    File(tempfile::TempDir),
    Members(Box<Cluster>, u64, Option<Scope>),
}

impl Rig {
    pub fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: open_file(&dir), ground: Ground::File(dir) }
    }

    /// `None`, and a line that says so, where there is no etcd.
    pub async fn etcd() -> Option<Self> {
        let cluster = Cluster::start(1)?;
        let (etcd, scope) = open_etcd(&cluster, "/registry").await;
        let base = etcd.revision();
        let store = Arc::new(Shifted { inner: Arc::new(etcd), base });
        Some(Self { store, ground: Ground::Members(Box::new(cluster), base, Some(scope)) })
    }

    /// Closes the store and opens it again.
    pub async fn reopen(&mut self) {
        self.store = Arc::new(Closed);
        match &mut self.ground {
            Ground::File(dir) => self.store = open_file(dir),
            Ground::Members(cluster, base, scope) => {
                drop(scope.take());
                let (etcd, tasks) = open_etcd(cluster, "/registry").await;
                *scope = Some(tasks);
                self.store = Arc::new(Shifted { inner: Arc::new(etcd), base: *base });
            }
        }
    }

    /// The shortest life a key can be given.
    pub fn shortest_ttl(&self) -> Duration {
        match self.ground {
            Ground::File(_) => Duration::from_millis(150),
            Ground::Members(..) => Duration::from_secs(1),
        }
    }
}

fn open_file(dir: &tempfile::TempDir) -> Arc<dyn Backend> {
    let options = embedded::Options { cache_bytes: 1 << 20, ..Default::default() };
    Arc::new(embedded::Store::open(dir.path().join("s"), options).unwrap())
}

/// An engine on the cluster, its tasks running until the scope is dropped.
pub async fn open_etcd(cluster: &Cluster, prefix: &str) -> (Etcd, Scope) {
    open_with(Options { prefix: prefix.to_owned(), ..options(cluster) }).await
}

pub fn options(cluster: &Cluster) -> Options {
    Options {
        client: cluster.config(),
        prefix: "/registry".to_owned(),
        compaction_interval: Duration::ZERO,
        tuning: store::etcd::Tuning::default(),
        encoding: Arc::new(Plain),
    }
}

pub async fn open_with(options: Options) -> (Etcd, Scope) {
    let (etcd, tasks) = Etcd::open(options).await.unwrap();
    let scope = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
    tasks.into_iter().for_each(|task| scope.keep(task));
    (etcd, scope)
}

/// Stands where a store was.
struct Closed;

impl Backend for Closed {
    fn revision(&self) -> u64 {
        0
    }
    fn compacted(&self) -> u64 {
        0
    }
    fn get(&self, _: &str) -> futures::future::BoxFuture<'_, Result<Option<store::Entry>, store::Error>> {
        panic!("closed")
    }
    fn list(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
        _: Option<u64>,
    ) -> futures::future::BoxFuture<'_, Result<store::Page, store::Error>> {
        panic!("closed")
    }
    fn put(
        &self,
        _: &str,
        _: Bytes,
        _: store::Expect,
        _: Option<Duration>,
    ) -> futures::future::BoxFuture<'_, Result<store::Entry, store::Error>> {
        panic!("closed")
    }
    fn delete(
        &self,
        _: &str,
        _: store::Expect,
    ) -> futures::future::BoxFuture<'_, Result<(store::Entry, u64), store::Error>> {
        panic!("closed")
    }
    fn watch(
        &self,
        _: &str,
        _: u64,
    ) -> Result<futures::stream::BoxStream<'static, Result<store::Event, store::Error>>, store::Error> {
        panic!("closed")
    }
    fn request_progress(&self, _: &str) {}
    fn compact(&self, _: u64) -> futures::future::BoxFuture<'_, Result<(), store::Error>> {
        panic!("closed")
    }
}

pub fn value(n: usize) -> Bytes {
    Bytes::from(format!("{{\"n\":{n}}}"))
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("took longer than 30 s")
}
