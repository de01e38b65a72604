//! What a server of these tests keeps its objects in: the embedded store, or with `WINDLASS_TEST_ENGINE=etcd` an etcd of its own, on which
//! every test must pass as well.

use std::any::Any;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use store::Backend;
use store::embedded::{Options, Store};
use store::etcd::{Config, Etcd};
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// A store, and what must live as long.
pub(super) async fn open() -> (Arc<dyn Backend>, Box<dyn Any + Send + Sync>) {
    let dir = tempfile::tempdir().unwrap();
    if std::env::var("WINDLASS_TEST_ENGINE").as_deref() != Ok("etcd") {
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        return (Arc::new(store), Box::new(dir));
    }
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let urls = listeners.map(|l| format!("http://{}", l.local_addr().unwrap()));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let member = Command::new("etcd")
        .args(["--name=m", "--heartbeat-interval=20", "--election-timeout=200"])
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .args([format!("--listen-client-urls={}", urls[0]), format!("--advertise-client-urls={}", urls[0])])
        .args([
            format!("--listen-peer-urls={}", urls[1]),
            format!("--initial-advertise-peer-urls={}", urls[1]),
        ])
        .arg(format!("--initial-cluster=m={}", urls[1]))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let member = Member(member);
    let options = store::etcd::Options {
        tuning: store::etcd::Tuning::default(),
        client: Config { endpoints: vec![urls[0].clone()], ..Config::default() },
        prefix: "/registry".to_owned(),
        compaction_interval: std::time::Duration::ZERO,
        encoding: Arc::new(crate::etcd::Upstream),
    };
    let (etcd, tasks) = Etcd::open(options).await.unwrap();
    let scope = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
    tasks.into_iter().for_each(|task| scope.keep(task));
    (Arc::new(etcd), Box::new((scope, member, dir)))
}

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
