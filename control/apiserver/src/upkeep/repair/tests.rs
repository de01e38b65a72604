//! The repair on a store of its own: what is wrong is put there by hand.

use super::*;
use crate::registry::hooks::{AllowAll, Record};
use crate::registry::kind::Kind;
use crate::registry::{Config, Registry, stored};
use crate::write::service::allocation::Allocation;
use crate::write::service::{ip_address, ports::KEY};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::embedded::{Options, Store};
use store::{Backend, Expect};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Record for Told {
    fn warn(
        &self,
        component: &'static str,
        about: &Value,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        let name = machinery::object::name(about);
        self.0.lock().push(format!("{component} {name} {reason} {action}: {note}"));
    }
}

struct Ground {
    writer: Arc<Writer>,
    told: Arc<Told>,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::default()).unwrap();
        let registry = Registry::new(Arc::new(store), Config::default());
        registry.attach(Arc::new(AllowAll));
        let (stop, writer, told) =
            (CancellationToken::new(), Writer::new(registry), Arc::new(Told::default()));
        writer.record_with(told.clone());
        writer.start(stop.clone()).await.unwrap();
        Self { writer, told, _stop: stop.drop_guard(), _dir: dir }
    }

    fn backend(&self) -> &dyn Backend {
        &*self.writer.registry.backend
    }

    async fn service(&self, name: &str) -> Value {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        self.writer.make(&Kind::of("", "services").unwrap(), service).await.unwrap().object
    }

    /// Waits until the caches have everything.
    async fn hear(&self) {
        for (group, plural) in [("", "services"), ("networking.k8s.io", "ipaddresses")] {
            self.writer.registry.fresh(&Kind::of(group, plural).unwrap()).await.unwrap();
        }
    }

    async fn has(&self, key: &str) -> bool {
        self.backend().get(key).await.unwrap().is_some()
    }

    /// An IPAddress of a Service that is not there, made by a server whose clock is wrong.
    async fn claim(&self, ip: &str) {
        let mut address = ip_address::of(ip.parse().unwrap(), "default", "never-made");
        address["metadata"]["uid"] = ip.into();
        address["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
        self.backend().put(&key(ip), stored::encode(&address).unwrap(), Expect::Absent, None).await.unwrap();
    }

    async fn allocation(&self) -> Allocation {
        self.writer.ports.look(&self.writer.registry).await.unwrap().unwrap().0
    }

    fn told(&self, part: &str) -> bool {
        self.told.0.lock().iter().any(|line| line.contains(part))
    }
}

fn key(ip: &str) -> String {
    format!("/registry/ipaddresses/{ip}")
}

#[tokio::test]
async fn a_services_numbers_must_not_stay_free_when_somebody_took_them_away() {
    let ground = Ground::new().await;
    let service = ground.service("s").await;
    let ip = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let port = u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    // The one that follows IPAddresses sees it go.
    let entry = ground.backend().get(&key(&ip)).await.unwrap().unwrap();
    ground.backend().delete(&key(&ip), Expect::At(entry.mod_revision)).await.unwrap();
    while !ground.has(&key(&ip)).await {
        tokio::task::yield_now().await;
    }
    let note = format!(
        "ipallocator-repair-controller s ClusterIPNotAllocated ClusterIPAllocation: Cluster IP [IPv4]: {ip} is not allocated; repairing"
    );
    assert!(ground.told(&note), "{:?}", ground.told.0.lock());
    // All node ports are forgotten.
    let entry = ground.backend().get(KEY).await.unwrap().unwrap();
    let empty = Allocation::new(ground.writer.ports.range).bytes().unwrap();
    ground.backend().put(KEY, empty, Expect::At(entry.mod_revision), None).await.unwrap();
    ports::round(&ground.writer, &mut Leaks::default()).await.unwrap();
    assert!(ground.allocation().await.has(ground.writer.ports.range, port));
    let note = format!(
        "portallocator-repair-controller s PortNotAllocated PortAllocation: Port {port} is not allocated; repairing"
    );
    assert!(ground.told(&note), "{:?}", ground.told.0.lock());
}

#[tokio::test]
async fn what_a_dead_server_claimed_is_free_again_after_a_while() {
    let ground = Ground::new().await;
    ground.claim("10.96.0.70").await;
    let range = ground.writer.ports.range;
    let entry = ground.backend().get(KEY).await.unwrap().unwrap();
    let mut leaked = ground.allocation().await;
    leaked.taken.insert(range.offset(30100).unwrap());
    ground.backend().put(KEY, leaked.bytes().unwrap(), Expect::At(entry.mod_revision), None).await.unwrap();
    ground.hear().await;
    let mut suspects = Suspects::default();
    let due = addresses::round(&ground.writer, &mut suspects).await.unwrap().unwrap();
    assert!(due <= Duration::from_secs(61), "{due:?}");
    assert!(ground.has(&key("10.96.0.70")).await, "it may be of a Service that is on its way");
    suspects.age(GRACE + Duration::from_secs(1));
    ground.claim("10.96.0.71").await;
    ground.hear().await;
    addresses::round(&ground.writer, &mut suspects).await.unwrap().unwrap();
    assert!(!ground.has(&key("10.96.0.70")).await);
    assert!(ground.has(&key("10.96.0.71")).await, "it may be of a Service that is on its way");
    assert!(ground.has(&key("10.96.0.1")).await, "the kubernetes Service has it");
    assert!(ground.told("10.96.0.70 IPAddressNotAllocated IPAddressAllocation"));
    let mut leaks = Leaks::default();
    for look in 1..=3 {
        ports::round(&ground.writer, &mut leaks).await.unwrap();
        assert_eq!(ground.allocation().await.has(range, 30100), look < 3, "look {look}");
    }
}

#[tokio::test]
async fn a_claim_must_not_go_by_the_clock_of_the_server_that_made_it() {
    let ground = Ground::new().await;
    // Years ago, says that clock.
    ground.claim("10.96.0.70").await;
    ground.hear().await;
    let mut suspects = Suspects::default();
    for _ in 0..3 {
        assert!(addresses::round(&ground.writer, &mut suspects).await.unwrap().is_some());
        assert!(ground.has(&key("10.96.0.70")).await);
    }
    // Its Service comes: it is suspected no longer, and from the beginning should that go again.
    suspects.age(GRACE + Duration::from_secs(1));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "never-made", "namespace": "default", "uid": "s"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.70", "clusterIPs": ["10.96.0.70"], "ports": [{"port": 80}]}});
    let place = "/registry/services/specs/default/never-made";
    let bytes = stored::encode(&service).unwrap();
    let entry = ground.backend().put(place, bytes, Expect::Absent, None).await.unwrap();
    ground.hear().await;
    assert_eq!(addresses::round(&ground.writer, &mut suspects).await.unwrap(), None);
    ground.backend().delete(place, Expect::At(entry.mod_revision)).await.unwrap();
    ground.hear().await;
    assert!(addresses::round(&ground.writer, &mut suspects).await.unwrap().is_some());
    assert!(ground.has(&key("10.96.0.70")).await);
}

#[tokio::test]
async fn an_address_that_is_another_by_now_must_not_be_taken_away() {
    let ground = Ground::new().await;
    ground.claim("10.96.0.70").await;
    let kind = Kind::of("networking.k8s.io", "ipaddresses").unwrap();
    let looked_at = ground.writer.registry.read(&kind, "", "10.96.0.70").await.unwrap().unwrap();
    // Somebody else gives it back and takes it meanwhile.
    let entry = ground.backend().get(&key("10.96.0.70")).await.unwrap().unwrap();
    ground.backend().delete(&key("10.96.0.70"), Expect::At(entry.mod_revision)).await.unwrap();
    ground.claim("10.96.0.70").await;
    ground.writer.discard_seen(&kind, &looked_at).await.unwrap();
    assert!(ground.has(&key("10.96.0.70")).await);
    let now = ground.writer.registry.read(&kind, "", "10.96.0.70").await.unwrap().unwrap();
    ground.writer.discard_seen(&kind, &now).await.unwrap();
    assert!(!ground.has(&key("10.96.0.70")).await);
}
