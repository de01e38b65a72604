//! Of two that contend on a real API server and store one leads, and the other does when that one is killed.

use crate::server::Server;
use client::leader::{Elector, Settings};
use client::recorder::Recorder;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::Api;
use kube::api::{ListParams, PostParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use supervise::{Scope, Supervisor};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Contender {
    leads: Arc<AtomicBool>,
    life: JoinHandle<()>,
    stop: CancellationToken,
    _events: Scope,
}

impl Contender {
    fn start(server: &Server, identity: &str) -> Self {
        let (recorder, writer) = Recorder::new(Some(server.client()), None);
        let events = Scope::new(&Supervisor::default(), "", &CancellationToken::new());
        events.keep(writer.task("events"));
        let settings = Settings::new("kube-controller-manager");
        let elector = Elector::new(settings, server.client(), identity, "kube-controller-manager", recorder);
        let (leads, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (working, shutdown) = (leads.clone(), stop.clone());
        let life = tokio::spawn(async move {
            let work = |stop: CancellationToken| async move {
                working.store(true, Ordering::SeqCst);
                stop.cancelled().await;
                working.store(false, Ordering::SeqCst);
            };
            elector.lead(&shutdown, work).await.unwrap();
        });
        Self { leads, life, stop, _events: events }
    }

    fn leads(&self) -> bool {
        self.leads.load(Ordering::SeqCst)
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Moves the clock, and lets whoever it woke go on.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(300)).await;
}

async fn lease(server: &Server) -> k8s_openapi::api::coordination::v1::LeaseSpec {
    let api: Api<Lease> = Api::namespaced(server.client(), "kube-system");
    api.get("kube-controller-manager").await.unwrap().spec.unwrap()
}

#[tokio::test]
async fn two_must_not_lead_at_once_and_one_that_was_killed_is_followed_within_its_lease() {
    let server = Server::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    let system = serde_json::json!({"metadata": {"name": "kube-system"}});
    let made = namespaces.create(&PostParams::default(), &serde_json::from_value(system).unwrap()).await;
    // The server may have made it.
    assert!(
        made.map_or_else(|error| matches!(&error, kube::Error::Api(status) if status.code == 409), |_| true)
    );
    let a = Contender::start(&server, "host_a");
    until("a leads at once", async || a.leads()).await;
    let b = Contender::start(&server, "host_b");
    pass(3).await;
    assert!(a.leads() && !b.leads());
    a.life.abort();
    pass(10).await;
    assert!(!b.leads(), "the lease of a is good still");
    pass(3).await;
    pass(3).await;
    until("b leads when the lease of a is over", async || b.leads()).await;
    let spec = lease(&server).await;
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("host_b"), Some(1)));
    assert_eq!(spec.lease_duration_seconds, Some(15));

    let c = Contender::start(&server, "host_c");
    tokio::time::sleep(Duration::from_millis(300)).await;
    b.stop.cancel();
    until("b ends", async || b.life.is_finished()).await;
    assert!(!b.leads());
    pass(3).await;
    until("c need not wait for what b gave back", async || c.leads()).await;
    assert_eq!(lease(&server).await.lease_transitions, Some(2));

    let events: Api<Event> = Api::namespaced(server.client(), "kube-system");
    until("leadership is told", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let told = |identity: &str| {
            let message = format!("{identity} became leader");
            all.iter().any(|event| {
                event.message.as_ref() == Some(&message)
                    && event.reason.as_deref() == Some("LeaderElection")
                    && event.involved_object.kind.as_deref() == Some("Lease")
            })
        };
        ["host_a", "host_b", "host_c"].into_iter().all(told)
    })
    .await;
}
