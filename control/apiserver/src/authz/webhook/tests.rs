use super::*;
use crate::authz::{Masters, Union};

/// Answers as it is told, in order; the last answer stays.
struct Service {
    answers: Mutex<Vec<Result<Value, Failure>>>,
    asked: Mutex<Vec<Value>>,
}

impl Reviewer for Service {
    fn review<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, Failure>> {
        self.asked.lock().push(review.clone());
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        // A whole answer is given as it is.
        let whole = |said: Value| said.get("whole").cloned().unwrap_or_else(|| json!({"status": said}));
        Box::pin(std::future::ready(answer.map(whole)))
    }
}

fn service(answers: Vec<Result<Value, Failure>>) -> Arc<Service> {
    Arc::new(Service { answers: Mutex::new(answers), asked: Mutex::default() })
}

fn config(conditions: &[&str]) -> Config {
    let condition = |source: &&str| Condition {
        source: (*source).to_owned(),
        expression: machinery::entry::on_review(source).unwrap(),
    };
    Config {
        version: Version::V1,
        conditions: conditions.iter().map(condition).collect(),
        allowed_for: Duration::from_secs(300),
        refused_for: Duration::from_secs(30),
        fails_open: false,
    }
}

fn pods(verb: &str, user: &str) -> Attributes {
    Attributes {
        user: User { name: user.into(), groups: vec!["g".into()], ..User::default() },
        verb: verb.into(),
        is_resource: true,
        version: "v1".into(),
        resource: "pods".into(),
        namespace: "n".into(),
        ..Attributes::default()
    }
}

fn down() -> Result<Value, Failure> {
    Err(Failure { text: "connection refused".into(), passing: true })
}

#[tokio::test]
async fn the_service_decides_and_is_not_asked_twice() {
    for (status, verdict) in [
        (json!({"allowed": true, "reason": "r"}), Verdict::Allow),
        (json!({"allowed": false}), Verdict::NoOpinion),
        (json!({"denied": true, "allowed": false}), Verdict::Deny),
        (json!({"denied": true, "allowed": true}), Verdict::Deny),
    ] {
        let service = service(vec![Ok(status.clone())]);
        let webhook = Webhook::new(config(&[]), service.clone());
        for _ in 0..2 {
            assert_eq!(webhook.decide(&pods("get", "alice")).await.verdict, verdict, "{status}");
        }
        webhook.decide(&pods("list", "alice")).await;
        let asked = service.asked.lock();
        assert_eq!(asked.len(), 2, "{status}");
        let attributes = json!({"namespace": "n", "verb": "get", "version": "v1", "resource": "pods"});
        assert_eq!(
            asked[0]["spec"],
            json!({"user": "alice", "groups": ["g"], "resourceAttributes": attributes})
        );
        assert_eq!(asked[0]["apiVersion"], "authorization.k8s.io/v1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_must_not_be_kept_longer_than_its_time_nor_without_one() {
    let service = service(vec![Ok(json!({"allowed": true}))]);
    let webhook = Webhook::new(config(&[]), service.clone());
    webhook.decide(&pods("get", "a")).await;
    tokio::time::advance(Duration::from_secs(301)).await;
    webhook.decide(&pods("get", "a")).await;
    assert_eq!(service.asked.lock().len(), 2);
    let webhook = Webhook::new(Config { allowed_for: Duration::ZERO, ..config(&[]) }, service.clone());
    for _ in 0..2 {
        webhook.decide(&pods("get", "a")).await;
    }
    assert_eq!(service.asked.lock().len(), 4);
    let mut long = pods("get", "a");
    long.name = "x".repeat(LONGEST_KEPT);
    let webhook = Webhook::new(config(&[]), service.clone());
    for _ in 0..2 {
        webhook.decide(&long).await;
    }
    assert_eq!(service.asked.lock().len(), 6, "a caller must not fill the cache");
}

#[tokio::test(start_paused = true)]
async fn many_questions_must_not_keep_new_answers_out() {
    let service = service(vec![Ok(json!({"allowed": true}))]);
    let webhook = Webhook::new(config(&[]), service.clone());
    for index in 0..kept::MOST {
        webhook.keep(index.to_string(), Said { allowed: Some(false), ..Said::default() });
    }
    webhook.decide(&pods("get", "a")).await;
    webhook.decide(&pods("get", "a")).await;
    assert_eq!(service.asked.lock().len(), 1);
    assert_eq!(webhook.kept.lock().len(), kept::MOST);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_must_not_let_anybody_in() {
    let service = service(vec![down()]);
    let refused = Webhook::new(config(&[]), service.clone()).decide(&pods("get", "a")).await;
    assert_eq!((refused.verdict, refused.error.as_str()), (Verdict::Deny, "connection refused"));
    assert_eq!(service.asked.lock().len(), 5, "it is asked again");
    let open = Webhook::new(Config { fails_open: true, ..config(&[]) }, service.clone());
    assert_eq!(open.decide(&pods("get", "a")).await.verdict, Verdict::NoOpinion);
    let bad = Err(Failure { text: "bad request".into(), passing: false });
    *service.answers.lock() = vec![bad, Ok(json!({"allowed": true}))];
    service.asked.lock().clear();
    let webhook = Webhook::new(config(&[]), service.clone());
    assert_eq!(webhook.decide(&pods("get", "a")).await.verdict, Verdict::Deny);
    assert_eq!(service.asked.lock().len(), 1, "what was refused for good is not asked again");
    assert!(webhook.decide(&pods("get", "a")).await.allowed(), "a failure is not kept");
}

#[tokio::test]
async fn a_service_must_not_take_a_narrowed_list_for_a_list_of_all() {
    let service = service(vec![Ok(json!({"allowed": true}))]);
    let webhook = Webhook::new(config(&[]), service.clone());
    let narrowed = |selector: &str| Attributes {
        labels: machinery::labels::Selector::parse(selector).unwrap().requirements().to_vec(),
        fields: machinery::fields::FieldSelector::parse("spec.nodeName=n1").unwrap(),
        ..pods("list", "alice")
    };
    webhook.decide(&narrowed("a=b,c notin (d),e,!f,g>1")).await;
    webhook.decide(&narrowed("a=b")).await;
    let asked = service.asked.lock();
    assert_eq!(asked.len(), 2, "an answer about one list must not be taken for another's");
    let attributes = &asked[0]["spec"]["resourceAttributes"];
    let wanted = json!([
        {"key": "a", "operator": "In", "values": ["b"]},
        {"key": "c", "operator": "NotIn", "values": ["d"]},
        {"key": "e", "operator": "Exists"},
        {"key": "f", "operator": "DoesNotExist"},
    ]);
    assert_eq!(attributes["labelSelector"]["requirements"], wanted);
    let nodes = json!([{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]);
    assert_eq!(attributes["fieldSelector"]["requirements"], nodes);
}

#[tokio::test]
async fn a_service_must_not_be_asked_about_what_its_conditions_leave_out() {
    let service = service(vec![Ok(json!({"allowed": true}))]);
    let conditions = ["has(request.resourceAttributes)", "request.resourceAttributes.verb == 'get'"];
    let webhook = Webhook::new(config(&conditions), service.clone());
    assert_eq!(webhook.decide(&pods("list", "a")).await.verdict, Verdict::NoOpinion);
    let path = Attributes { path: "/metrics".into(), verb: "get".into(), ..Attributes::default() };
    assert_eq!(webhook.decide(&path).await.verdict, Verdict::NoOpinion);
    assert!(service.asked.lock().is_empty());
    assert!(webhook.decide(&pods("get", "a")).await.allowed());
    // One that fails, where none is false, is a failure.
    let webhook = Webhook::new(config(&["request.extra['x'] == ['y']"]), service.clone());
    let failed = webhook.decide(&pods("get", "a")).await;
    assert_eq!(failed.verdict, Verdict::Deny);
    assert!(failed.error.starts_with("cel evaluation error: expression 'request.extra"), "{}", failed.error);
    let webhook = Webhook::new(config(&["request.extra['x'] == ['y']", "false"]), service.clone());
    assert_eq!(webhook.decide(&pods("get", "a")).await.verdict, Verdict::NoOpinion);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorizers_in_a_row_ask_the_service_in_both_manners() {
    let service = service(vec![Ok(json!({"denied": true, "reason": "no"}))]);
    let webhook =
        Arc::new(Webhook::new(Config { version: Version::V1Beta1, ..config(&[]) }, service.clone()));
    let union = Union::new(vec![Arc::new(Masters), webhook]);
    assert_eq!(union.authorize(&pods("get", "a")).verdict, Verdict::Deny);
    assert_eq!(union.decide(&pods("list", "a")).await.reason, "no");
    let mut root = pods("get", "root");
    root.user.groups = vec!["system:masters".into()];
    assert!(union.decide(&root).await.allowed());
    assert_eq!(service.asked.lock()[0]["spec"]["group"], json!(["g"]));
}

#[tokio::test]
async fn an_answer_that_is_no_review_must_not_decide_nor_be_kept() {
    for wrong in [
        json!([]),
        Value::Null,
        json!("allowed"),
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500}),
        json!({"kind": "Pod", "status": {"allowed": true}}),
        json!({"apiVersion": "authorization.k8s.io/v2", "status": {"allowed": true}}),
        json!({"status": [true]}),
        json!({"status": {"allowed": "true"}}),
        json!({"status": {"allowed": false, "denied": "true"}}),
        json!({"status": {"allowed": true, "reason": 1}}),
    ] {
        let service = service(vec![Ok(json!({"whole": wrong})), Ok(json!({"allowed": true}))]);
        let webhook = Webhook::new(config(&[]), service.clone());
        let decision = webhook.decide(&pods("get", "a")).await;
        assert_eq!(decision.verdict, Verdict::Deny, "{wrong}");
        assert!(decision.error.contains("is no SubjectAccessReview"), "{wrong}: {}", decision.error);
        assert!(webhook.decide(&pods("get", "a")).await.allowed(), "{wrong}: it was kept");
    }
    let service = service(vec![Ok(json!({"whole": {
        "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": {"allowed": true, "denied": null},
    }}))]);
    assert!(Webhook::new(config(&[]), service).decide(&pods("get", "a")).await.allowed());
}

/// Never answers.
struct Hung;

impl Reviewer for Hung {
    fn review<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_must_not_take_every_thread_for_a_service_that_hangs() {
    let webhook = Webhook::new(config(&[]), Arc::new(Hung));
    let _all = webhook.waiting.try_acquire_many(u32::try_from(WAITING).unwrap()).unwrap();
    let decision = webhook.authorize(&pods("get", "a"));
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.error.contains("too many expressions"), "{}", decision.error);
    webhook.keep(
        spec(&pods("get", "b"), Version::V1).to_string(),
        Said { allowed: Some(true), ..Said::default() },
    );
    assert!(webhook.authorize(&pods("get", "b")).allowed(), "what is known needs no thread");
}
