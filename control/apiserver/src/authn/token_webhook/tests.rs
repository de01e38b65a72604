use super::*;
use futures::future::BoxFuture;

/// Answers with what it was given, and remembers what it was asked.
struct Fake {
    answers: Mutex<VecDeque<Result<Value, Failure>>>,
    asked: Mutex<Vec<Value>>,
}

impl Reviewer for Fake {
    fn review<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, Failure>> {
        self.asked.lock().push(review.clone());
        let answer = self.answers.lock().pop_front().unwrap_or_else(|| Ok(json!({"status": {}})));
        Box::pin(async move { answer })
    }
}

fn fake(answers: impl IntoIterator<Item = Result<Value, Failure>>) -> Arc<Fake> {
    Arc::new(Fake { answers: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() })
}

fn says(status: Value) -> Result<Value, Failure> {
    Ok(json!({"status": status}))
}

fn alice(audiences: &[&str]) -> Value {
    json!({"authenticated": true, "audiences": audiences, "user": {
        "username": "alice", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}}})
}

fn own() -> Vec<String> {
    vec!["api".to_owned()]
}

async fn of(webhook: &TokenWebhook, token: &str) -> Result<Option<Identity>, String> {
    webhook.identify(token, &own(), &own()).await
}

const TTL: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_review_is_sent_as_upstream_sends_it() {
    for (v1, version) in [(true, "authentication.k8s.io/v1"), (false, "authentication.k8s.io/v1beta1")] {
        let service = fake([says(alice(&[]))]);
        let webhook = TokenWebhook::new(service.clone(), v1, TTL);
        let identity = of(&webhook, "t").await.unwrap().unwrap();
        assert_eq!((identity.user.name.as_str(), identity.user.uid.as_str()), ("alice", "7"));
        assert_eq!((identity.user.groups, identity.audiences), (vec!["g".to_owned()], own()));
        assert_eq!(identity.user.extra["k"], ["v"]);
        let review = service.asked.lock()[0].clone();
        assert_eq!(review["apiVersion"], version);
        assert_eq!(review["spec"], json!({"token": "t", "audiences": ["api"]}));
    }
}

#[tokio::test]
async fn an_answer_says_what_upstream_takes_it_to_say() {
    let cases: [(Value, Result<bool, &str>, &str); 6] = [
        (alice(&["api", "x"]), Ok(true), "one of the audiences is ours"),
        (alice(&["x"]), Ok(false), "for others"),
        (json!({"authenticated": false}), Ok(false), "nobody's"),
        (json!({"authenticated": false, "error": "expired"}), Err("expired"), "in its words"),
        (json!({"audiences": ["x"], "error": "expired"}), Ok(false), "for others, whatever else"),
        (json!({"authenticated": true}), Ok(true), "somebody without a name"),
    ];
    for (status, expected, why) in cases {
        let webhook = TokenWebhook::new(fake([says(status)]), true, TTL);
        let said = of(&webhook, "t").await.map(|identity| identity.is_some());
        assert_eq!(said, expected.map_err(str::to_owned), "{why}");
    }
    for wrong in [
        json!([]),
        json!({"kind": "Pod"}),
        json!({"status": {"authenticated": "yes"}}),
        json!({"status": []}),
    ] {
        let webhook = TokenWebhook::new(fake([Ok(wrong.clone())]), true, TTL);
        assert!(of(&webhook, "t").await.is_err(), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_token_and_its_time_only() {
    let service = fake([says(json!({})), says(alice(&[])), says(alice(&[]))]);
    let webhook = TokenWebhook::new(service.clone(), true, TTL);
    let asked = || service.asked.lock().len();
    assert_eq!(of(&webhook, "t").await, Ok(None));
    assert_eq!((of(&webhook, "t").await, asked()), (Ok(None), 1), "that it is nobody's is kept, too");
    assert!(of(&webhook, "u").await.unwrap().is_some() && asked() == 2);
    assert!(webhook.identify("u", &[], &own()).await.unwrap().is_some() && asked() == 3, "other audiences");
    tokio::time::advance(TTL).await;
    assert_eq!((of(&webhook, "u").await, asked()), (Ok(None), 4));
    let forgetful = fake([says(alice(&[])), says(json!({}))]);
    let webhook = TokenWebhook::new(forgetful.clone(), true, Duration::ZERO);
    assert!(of(&webhook, "t").await.unwrap().is_some() && of(&webhook, "t").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failure_must_not_be_kept_and_is_tried_again_where_it_may_pass() {
    let fails = |passing| Err(Failure { text: "down".to_owned(), passing });
    let service = fake([fails(false), fails(true), says(alice(&[]))]);
    let webhook = TokenWebhook::new(service.clone(), true, TTL);
    assert_eq!(of(&webhook, "t").await, Err("down".to_owned()));
    assert!(of(&webhook, "t").await.unwrap().is_some());
    assert_eq!(service.asked.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn answers_must_not_fill_the_memory() {
    let mut kept = Kept::default();
    for index in 0..2 * MOST {
        kept.keep(key(&index.to_string(), &[]), TTL, None);
        kept.keep(key("often", &[]), TTL, None);
    }
    assert!(kept.answers.len() <= MOST && kept.get(&key("often", &[])).is_some());
    assert_eq!(kept.get(&key("0", &[])), None);
}
