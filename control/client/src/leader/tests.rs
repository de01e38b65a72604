use super::*;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// An API server that has one lease, or cannot be reached.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    unreachable: Arc<AtomicBool>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let sent = body.collect().await.unwrap().to_bytes();
        let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
        let mut lease = self.lease.lock();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let code = match (parts.method, &mut *lease) {
            _ if self.unreachable.load(SeqCst) => StatusCode::SERVICE_UNAVAILABLE,
            (Method::GET, Some(_)) => StatusCode::OK,
            (Method::POST, lease @ None) => {
                let mut sent = sent;
                sent["metadata"]["resourceVersion"] = "1".into();
                *lease = Some(sent);
                StatusCode::CREATED
            }
            (Method::PUT, Some(lease)) if version(&sent) == version(lease) => {
                let next = version(lease).as_str().unwrap().parse::<u32>().unwrap() + 1;
                *lease = sent;
                lease["metadata"]["resourceVersion"] = next.to_string().into();
                StatusCode::OK
            }
            (Method::GET, None) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        let body = match code.is_success() {
            true => lease.clone().unwrap(),
            false => {
                let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
                json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": ""})
            }
        };
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    fn elector(&self, identity: &str) -> Elector {
        let (recorder, _) = Recorder::new(None, None);
        Elector::new(Settings::new("kube-scheduler"), self.client(), identity, "test", recorder)
    }

    fn holder(&self) -> String {
        self.lease.lock().as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }
}

/// A part of a program that leads, and whether it works.
struct Part {
    stop: CancellationToken,
    works: Arc<AtomicBool>,
    ended: tokio::task::JoinHandle<Result<Option<()>, Lost>>,
}

impl Part {
    #[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
    fn start(server: &Server, identity: &str) -> Self {
        let (stop, works) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let (elector, shutdown, working) = (server.elector(identity), stop.clone(), works.clone());
        let ended = tokio::spawn(async move {
            let work = |stop: CancellationToken| async move {
                working.store(true, SeqCst);
                stop.cancelled().await;
                working.store(false, SeqCst);
            };
            elector.lead(&shutdown, work).await
        });
        Self { stop, works, ended }
    }

    fn works(&self) -> bool {
        self.works.load(SeqCst)
    }

    /// Seconds until it works.
    async fn leads_after(&self) -> u64 {
        let start = Instant::now();
        while !self.works() {
            assert!(start.elapsed() < Duration::from_secs(60));
            sleep(Duration::from_millis(100)).await;
        }
        start.elapsed().as_secs()
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_only_one_leads_and_the_other_takes_over_from_one_that_was_killed() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    assert_eq!(a.leads_after().await, 0, "nobody led: no wait");
    let b = Part::start(&server, "b");
    for _ in 0..100 {
        sleep(Duration::from_secs(1)).await;
        assert!(a.works() && !b.works());
    }
    a.ended.abort();
    let after = b.leads_after().await;
    assert!((12..=18).contains(&after), "after {after} s");
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_over_must_not_wait_for_the_next_look() {
    for _ in 0..20 {
        let server = Server::default();
        let a = Part::start(&server, "a");
        a.leads_after().await;
        let b = Part::start(&server, "b");
        sleep(Duration::from_secs(7)).await;
        // Renewed now, and never again.
        let version = || server.lease.lock().as_ref().unwrap()["metadata"]["resourceVersion"].clone();
        let before = version();
        while version() == before {
            sleep(Duration::from_millis(10)).await;
        }
        a.ended.abort();
        let start = Instant::now();
        while !b.works() {
            sleep(Duration::from_millis(10)).await;
        }
        let settings = Settings::new("kube-scheduler");
        let most = settings.lease + settings.retry.mul_f64(1.1) + Duration::from_millis(100);
        let after = start.elapsed();
        assert!(after >= settings.lease - Duration::from_millis(100) && after <= most, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_must_not_make_the_next_wait() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    a.leads_after().await;
    let b = Part::start(&server, "b");
    sleep(Duration::from_secs(5)).await;
    a.stop.cancel();
    assert!(matches!(a.ended.await.unwrap(), Ok(Some(()))));
    assert_eq!(server.holder(), "");
    assert!(b.leads_after().await <= 2);
    assert_eq!(server.lease.lock().as_ref().unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_its_lease_is_over() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    a.leads_after().await;
    sleep(Duration::from_secs(20)).await;
    let start = Instant::now();
    server.unreachable.store(true, SeqCst);
    assert!(a.ended.await.unwrap().is_err());
    assert!(!a.works.load(SeqCst), "its work has ended");
    let seconds = start.elapsed().as_secs();
    assert!((10..15).contains(&seconds), "after {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_leader_outlives_a_server_that_is_away_for_a_while() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    a.leads_after().await;
    server.unreachable.store(true, SeqCst);
    sleep(Duration::from_secs(8)).await;
    server.unreachable.store(false, SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert!(a.works());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_is_anothers_stops_at_once() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    a.leads_after().await;
    {
        let mut lease = server.lease.lock();
        let lease = lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = "b".into();
        lease["metadata"]["resourceVersion"] = "100".into();
    }
    let start = Instant::now();
    assert!(a.ended.await.unwrap().is_err());
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(server.holder(), "b", "it is not given back by who has it not");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_was_killed_must_not_wait_for_its_own_lease() {
    let server = Server::default();
    let a = Part::start(&server, "a");
    a.leads_after().await;
    a.ended.abort();
    sleep(Duration::from_secs(1)).await;
    let again = Part::start(&server, "a");
    assert_eq!(again.leads_after().await, 0);
    assert_eq!(server.lease.lock().as_ref().unwrap()["spec"]["leaseTransitions"], 0);
}
