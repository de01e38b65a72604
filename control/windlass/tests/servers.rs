//! Two API servers, each a process, on one etcd: what they hand out at once. `WINDLASS_TEST_SERVICES` says how many Services each makes
//! (100); with it set, the test also waits until what a killed server had claimed is free again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use pki::{ClusterNames, Pki};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ETCD: &str = "/usr/bin/etcd";
/// The longest wait for anything but the repair: other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// A claim lives for a minute, and everything is looked at every three.
const REPAIRED_WITHIN: Duration = Duration::from_secs(300);
/// Requests at once, to each server.
const AT_ONCE: usize = 16;

struct Process(Child);

impl Process {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// An etcd, and what two servers on it are told by files.
struct Place {
    dir: tempfile::TempDir,
    pki: Pki,
    etcd: u16,
    servers: [u16; 2],
    _etcd: Process,
}

impl Place {
    /// Nothing, and a line that says so, where there is no etcd.
    fn new() -> Option<Self> {
        if !Path::new(ETCD).exists() {
            println!("skipped: there is no {ETCD}");
            return None;
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let names =
            ClusterNames::of("cluster.local", IpAddr::from([10, 96, 0, 1]), &["127.0.0.1".to_owned()]);
        let pki = Pki::load_or_create(&dir.path().join("pki"), &names, Timestamp::now()).unwrap();
        let [etcd, peer, first, second] = free_ports();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let log = std::fs::File::create(dir.path().join("etcd.log")).unwrap();
        let member = Command::new(ETCD)
            .args(["--name=m", &format!("--data-dir={}", dir.path().join("etcd").display())])
            .args([
                format!("--listen-client-urls={}", url(etcd)),
                format!("--advertise-client-urls={}", url(etcd)),
            ])
            .args([
                format!("--listen-peer-urls={0}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
            ])
            .arg(format!("--initial-cluster=m={}", url(peer)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { dir, pki, etcd, servers: [first, second], _etcd: Process(member) })
    }

    fn server(&self, number: usize) -> Process {
        let pki = |name: &str| self.dir.path().join("pki").join(name).display().to_string();
        let flags = [
            format!("--data-dir={}", self.dir.path().join(format!("data{number}")).display()),
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            format!("--secure-port={}", self.servers[number]),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--advertise-address={}", address(number)),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
        ];
        let log = self.dir.path().join(format!("server{number}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_windlass"));
        program.arg("apiserver").args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(program.spawn().unwrap())
    }

    /// A client of one server, once it is ready.
    async fn client(&self, number: usize) -> Client {
        let url = format!("https://127.0.0.1:{}", self.servers[number]);
        let path = self.dir.path().join(format!("admin{number}.kubeconfig"));
        let kubeconfig = self.pki.kubeconfig(&url, "admin", &["system:masters"], Timestamp::now()).unwrap();
        kubeconfig.write(&path).unwrap();
        let parsed = kube::config::Kubeconfig::read_from(path).unwrap();
        let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        self.until(PATIENCE, "the server is ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.is_ok()
        })
        .await;
        client
    }

    async fn until(&self, patience: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !holds().await {
            let log = |number| std::fs::read_to_string(self.dir.path().join(format!("server{number}.log")));
            assert!(start.elapsed() < patience, "{what}\n{:?}\n{:?}", log(0), log(1));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn address(number: usize) -> String {
    format!("192.0.2.{}", number + 1)
}

fn service(name: &str) -> Service {
    serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
    )
    .unwrap()
}

/// Makes a Service by the first client that can; one that was made although its answer was lost is there.
async fn make(clients: &[&Client], name: &str) {
    let (start, mut tried) = (Instant::now(), 0);
    loop {
        let api: Api<Service> = Api::namespaced(clients[tried % clients.len()].clone(), "default");
        match api.create(&PostParams::default(), &service(name)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 409 && tried > 0 => return,
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                panic!("{name}: {status}")
            }
            Err(error) => assert!(start.elapsed() < PATIENCE, "{name}: {error}"),
        }
        tried += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes Services by both servers at once, and tells how many are done.
async fn make_all(clients: [&[&Client]; 2], prefix: &str, count: usize, done: &AtomicUsize) {
    let by = |number: usize| {
        let names = futures::stream::iter(0..count).map(move |i| format!("{prefix}-{number}-{i}"));
        names.for_each_concurrent(AT_ONCE, move |name| async move {
            make(clients[number], &name).await;
            done.fetch_add(1, Ordering::SeqCst);
        })
    };
    tokio::join!(by(0), by(1));
}

/// Addresses of all Services, of which there are `count` and the one of the API; none and no node port is there twice.
async fn given(client: &Client, count: usize) -> BTreeSet<String> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let all = services.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), count + 1);
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for spec in all.into_iter().filter_map(|service| service.spec) {
        let ip = spec.cluster_ip.unwrap();
        assert!(ips.insert(ip.clone()), "{ip} is given twice");
        for port in spec.ports.unwrap_or_default().into_iter().filter_map(|port| port.node_port) {
            assert!(ports.insert(port), "{port} is given twice");
        }
    }
    assert_eq!((ips.len(), ports.len()), (count + 1, count));
    ips
}

/// The addresses that are taken.
async fn taken(client: &Client) -> BTreeSet<String> {
    let all: Api<IPAddress> = Api::all(client.clone());
    let all = all.list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter_map(|address| address.metadata.name).collect()
}

/// How many Services each server makes, and whether somebody wants it to last.
fn services() -> (usize, bool) {
    let asked = std::env::var("WINDLASS_TEST_SERVICES").ok().and_then(|text| text.parse().ok());
    (asked.unwrap_or(100), asked.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_etcd_must_not_give_an_address_or_a_port_twice() {
    let Some(place) = Place::new() else { return };
    let _servers = [place.server(0), place.server(1)];
    let (a, b) = (place.client(0).await, place.client(1).await);
    let (count, _) = services();
    let (start, done) = (Instant::now(), AtomicUsize::new(0));
    make_all([&[&a], &[&b]], "s", count, &done).await;
    let took = start.elapsed();
    println!("two servers made {} Services in {took:?}", 2 * count);
    assert_eq!(taken(&a).await, given(&b, 2 * count).await, "each address is written down, and nothing else");
    let endpoints: Api<Endpoints> = Api::namespaced(a.clone(), "default");
    let lists_both = |endpoints: Option<&Endpoints>| {
        let subsets = endpoints.and_then(|endpoints| endpoints.subsets.as_ref());
        let listed = subsets.into_iter().flatten().flat_map(|subset| subset.addresses.iter().flatten());
        listed.map(|address| address.ip.clone()).eq([address(0), address(1)])
    };
    let listed = kube::runtime::wait::await_condition(endpoints, "kubernetes", lists_both);
    tokio::time::timeout(Duration::from_secs(60), listed).await.expect("both are listed").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_half_way_must_not_leave_a_number_that_is_given_twice() {
    let Some(place) = Place::new() else { return };
    let mut first = place.server(0);
    let _second = place.server(1);
    let (a, b) = (place.client(0).await, place.client(1).await);
    let (count, lasting) = services();
    let done = AtomicUsize::new(0);
    let killing = async {
        while done.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.kill();
    };
    let (either, second): (&[&Client], &[&Client]) = (&[&a, &b], &[&b]);
    tokio::join!(make_all([either, second], "s", count, &done), killing);
    let ips = given(&b, 2 * count).await;
    let left: Vec<String> = taken(&b).await.difference(&ips).cloned().collect();
    println!("a killed server left {} addresses that no Service has", left.len());
    let _again = place.server(0);
    let a = place.client(0).await;
    let more = count / 4;
    make_all([&[&a], &[&b]], "more", more, &done).await;
    let ips = given(&a, 2 * (count + more)).await;
    assert!(ips.is_subset(&taken(&a).await), "every address is written down");
    if lasting {
        let start = Instant::now();
        place
            .until(REPAIRED_WITHIN, "what the killed server claimed is free", async || taken(&a).await == ips)
            .await;
        println!("they were free again {:?} later", start.elapsed());
    }
    // A server that died is not listed once its lease ran out; this one lives again.
    let endpoints: Api<Endpoints> = Api::namespaced(b.clone(), "default");
    let listed = endpoints.get("kubernetes").await.unwrap().subsets.unwrap();
    assert_eq!(listed[0].addresses.iter().flatten().count(), 2);
}
