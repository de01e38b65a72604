//! The stages of requests, as the audit log has them.

use super::*;
use crate::audit::Mode;
use crate::audit::fake::{Fake, delivery};

async fn audited(rules: Value) -> (World, Arc<Fake>) {
    let fake = Fake::refusing(0);
    let auditor = fake.auditor(&rules, delivery(Mode::Blocking), &Metrics::default());
    let change = |config: &mut Config| {
        config.audit = Some(auditor);
        config.authentication.bootstrap_tokens = true;
    };
    (world_with(change).await, fake)
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_written_when_it_comes_and_when_it_is_answered() {
    let (world, log) = audited(json!([{"level": "Request"}])).await;
    let request = world
        .request("GET", "/api/v1/namespaces/a/pods/p?pretty=0")
        .header("audit-id", "mine")
        .header("user-agent", "test/1")
        .header("x-forwarded-for", "192.0.2.7")
        .body(Empty::new())
        .unwrap();
    let response = world.send(ROOT, request).await;
    assert_eq!(response.headers()["audit-id"], "mine");
    let events = log.until(2).await;
    let mut expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "mine", "stage": "RequestReceived",
        "requestURI": "/api/v1/namespaces/a/pods/p?pretty=0", "verb": "get",
        "user": {"username": "root", "groups": ["system:masters", "system:authenticated"],
            "extra": events[0]["user"]["extra"]},
        "sourceIPs": ["192.0.2.7", "127.0.0.1"], "userAgent": "test/1",
        "objectRef": {"resource": "pods", "namespace": "a", "name": "p", "apiVersion": "v1"},
        "requestReceivedTimestamp": events[0]["requestReceivedTimestamp"],
        "stageTimestamp": events[0]["requestReceivedTimestamp"],
    });
    assert_eq!(events[0], expected);
    expected["stage"] = "ResponseComplete".into();
    expected["stageTimestamp"] = events[1]["stageTimestamp"].clone();
    expected["responseStatus"] = json!({"metadata": {}, "code": 200});
    expected["annotations"] =
        json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""});
    assert_eq!(events[1], expected);
    let time = events[1]["stageTimestamp"].as_str().unwrap();
    assert_eq!(time.len(), "2026-01-02T03:04:05.678901Z".len());
    assert!(time > events[0]["stageTimestamp"].as_str().unwrap());
    world.stop().await;
}

#[tokio::test]
async fn a_path_is_no_object_and_an_unmeant_request_is_not_written() {
    let (world, log) =
        audited(json!([{"level": "None", "nonResourceURLs": ["/healthz*"]}, {"level": "Metadata", "omitStages": ["RequestReceived"]}]))
            .await;
    world.send(ROOT, world.get("/healthz/ping")).await;
    world.send(ROOT, world.get("/version")).await;
    let events = log.until(1).await;
    assert_eq!((&events[0]["requestURI"], &events[0]["verb"]), (&json!("/version"), &json!("get")));
    assert!(events[0].get("objectRef").is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_says_who_refused_and_why() {
    let (world, log) = audited(json!([{"level": "RequestResponse"}])).await;
    let response = world.send(None, world.get("/api/v1/namespaces/default/pods")).await;
    let said = value(response).await;
    let events = log.until(2).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[1]["user"]["username"], "system:anonymous");
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[1]["responseObject"], said);
    assert_eq!(
        events[1]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": said["message"], "reason": "Forbidden",
            "details": said["details"], "code": 403})
    );
    world.stop().await;
}

#[tokio::test]
async fn a_caller_who_is_nobody_is_written_once() {
    let (world, log) = audited(json!([{"level": "Metadata"}])).await;
    let request = world
        .request("GET", "/api/v1/pods")
        .header("authorization", "Bearer wrong")
        .body(Empty::new())
        .unwrap();
    assert_eq!(world.send(None, request).await.status(), 401);
    assert_eq!(world.send(ROOT, world.get("/api/v1/pods?timeout=soon")).await.status(), 400);
    let events = log.until(2).await;
    assert_eq!(stages(&events), ["ResponseStarted", "ResponseStarted"]);
    assert_eq!(events[0]["user"], json!({}));
    assert_eq!(
        events[0]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
    );
    assert_eq!(
        (&events[1]["responseStatus"]["code"], &events[1]["responseStatus"]["reason"]),
        (&json!(400), &json!("BadRequest"))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_panic_is_a_stage_and_a_timeout_an_answer() {
    let (world, log) = audited(json!([{"level": "Metadata"}])).await;
    world.send(ROOT, world.get("/api/v1/namespaces/a/pods/panic")).await;
    let events = log.until(2).await;
    assert_eq!(stages(&events), ["RequestReceived", "Panic"]);
    assert_eq!(
        events[1]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "APIServer panic'd: asked to", "reason": "InternalError", "code": 500})
    );
    world.send(ROOT, world.get("/api/v1/namespaces/a/pods/never")).await;
    let events = log.until(4).await;
    assert_eq!(
        (&events[3]["stage"], &events[3]["responseStatus"]["code"]),
        (&json!("ResponseComplete"), &json!(504))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_watch_is_complete_when_its_client_has_gone() {
    let (world, log) = audited(json!([{"level": "Metadata"}])).await;
    let mut response = world.send(ROOT, world.get("/api/v1/pods?watch=true")).await;
    response.body_mut().frame().await.unwrap().unwrap();
    let events = log.until(2).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseStarted"]);
    assert_eq!(events[1]["responseStatus"], json!({"metadata": {}, "code": 200}));
    assert_eq!(events[1]["verb"], "watch");
    drop(response);
    world.stop().await;
    assert_eq!(stages(&log.until(3).await)[2], "ResponseComplete");
}

#[tokio::test]
async fn a_tunnel_must_not_be_complete_before_it_ends() {
    let (world, log) = audited(json!([{"level": "Metadata"}])).await;
    let exec = world
        .request("POST", "/api/v1/namespaces/a/pods/p/exec?command=sh&stdin=true")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .body(Empty::new())
        .unwrap();
    let mut response = world.send(ROOT, exec).await;
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    io.read_exact(&mut [0u8; 5]).await.unwrap();
    let events = log.until(2).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseStarted"]);
    assert_eq!(events[1]["responseStatus"]["code"], 101);
    assert_eq!(events[1]["objectRef"]["subresource"], "exec");
    drop(io);
    assert_eq!(stages(&log.until(3).await)[2], "ResponseComplete");
    world.stop().await;
}

#[tokio::test]
async fn who_acts_as_another_is_written_beside_whom() {
    let (world, log) = audited(json!([{"level": "Metadata", "omitStages": ["RequestReceived"]}])).await;
    let request =
        world.request("GET", "/api/v1/pods").header("impersonate-user", "bob").body(Empty::new()).unwrap();
    world.send(ROOT, request).await;
    let events = log.until(1).await;
    assert_eq!(events[0]["user"]["username"], "root");
    assert_eq!(events[0]["impersonatedUser"], json!({"username": "bob", "groups": ["system:authenticated"]}));
    // By the first way that lets: a constrained one.
    assert_eq!(
        events[0]["authenticationMetadata"],
        json!({"impersonationConstraint": "impersonate:user-info"})
    );
    world.stop().await;
}

#[tokio::test]
async fn a_request_must_not_go_on_where_its_event_is_lost_and_that_is_not_allowed() {
    let (fake, metrics) = (Fake::refusing(usize::MAX), Metrics::default());
    let mut strict = delivery(Mode::BlockingStrict);
    strict.truncate = Some(crate::audit::Truncate { event: 1 << 20, batch: 1 << 20 });
    let auditor = fake.auditor(&json!([{"level": "Metadata"}]), strict, &metrics);
    let change = |config: &mut Config| {
        config.audit = Some(auditor);
        config.request_timeout = Duration::from_secs(30);
    };
    let world = world_with(change).await;
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods/panic")).await;
    assert_eq!(response.status(), 500);
    assert_eq!(
        text(response).await,
        "Internal Server Error: \"/api/v1/namespaces/a/pods/panic\": failed to store audit event\n"
    );
    assert!(metrics.render().contains("apiserver_audit_requests_rejected_total 1\n"));
    world.stop().await;
}
