//! What a server of these tests keeps its objects in: the embedded store, or with `WINDLASS_TEST_ENGINE=etcd` an etcd of its own, on which
//! every test must pass as well.

use std::any::Any;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
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
    let address = own_address();
    let listeners = [(); 2].map(|()| TcpListener::bind((address, 0)).unwrap());
    let places = listeners.map(|l| l.local_addr().unwrap());
    let urls = places.map(|place| format!("http://{place}"));
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
        compaction_interval: Duration::ZERO,
        encoding: Arc::new(crate::etcd::Upstream),
    };
    // Two hundred of them start at once: longer than a client waits for one that is there.
    for _ in 0..1200 {
        if tokio::net::TcpStream::connect(places[0]).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (etcd, tasks) = Etcd::open(options).await.unwrap();
    let scope = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
    tasks.into_iter().for_each(|task| scope.keep(task));
    (Arc::new(etcd), Box::new((scope, member, dir)))
}

/// A loopback address no other test of this process uses, nor one of a process that runs beside it: a port that was found free at a common one
/// is somebody else's by the time etcd asks for it, and the test would then speak to that test's etcd.
fn own_address() -> Ipv4Addr {
    static USED: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high, low, USED.fetch_add(1, Ordering::Relaxed))
}

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
