use super::mapping::Source;
use super::*;
use futures::future::BoxFuture;
use machinery::entry;
use parking_lot::Mutex;
use pki::jwk::KeySet;
use serde_json::json;

/// A token by openssl's key, of `https://issuer.example` for `kubernetes`, and that key.
fn case() -> (String, KeySet) {
    let case: Value = serde_json::from_str(include_str!("../../../../pki/tests/data/rs256.json")).unwrap();
    (case["token"].as_str().unwrap().to_owned(), KeySet::of(&case["keys"]))
}

/// Has the first keys until newer ones are asked for.
struct Rotating(Mutex<Vec<Arc<KeySet>>>);

impl Keys for Rotating {
    fn known(&self) -> BoxFuture<'_, Result<Arc<KeySet>, String>> {
        let keys = self.0.lock()[0].clone();
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn fresh<'a>(&'a self, _: &'a Arc<KeySet>) -> BoxFuture<'a, Result<Arc<KeySet>, String>> {
        let mut all = self.0.lock();
        if all.len() > 1 {
            all.remove(0);
        }
        Box::pin(std::future::ready(Ok(all[0].clone())))
    }
}

fn claim(name: &str, prefix: &str) -> Source {
    Source::Claim { name: name.into(), prefix: prefix.into() }
}

fn expression(source: &str) -> Source {
    Source::Expression(entry::on_claims(source, false).unwrap())
}

fn rule(source: &str, message: &str, on_user: bool) -> Rule {
    let expression = if on_user { entry::on_user(source) } else { entry::on_claims(source, true) };
    Rule { source: source.into(), expression: expression.unwrap(), message: message.into() }
}

fn issuer() -> Issuer {
    Issuer {
        url: "https://issuer.example".into(),
        audiences: vec!["other".into(), "kubernetes".into()],
        algorithms: ALGORITHMS.map(str::to_owned).into(),
        keys: Arc::new(Rotating(Mutex::new(vec![Arc::default(), Arc::new(case().1)]))),
        mapping: Mapping {
            username: claim("sub", "oidc:"),
            groups: Some(claim("groups", "oidc:")),
            uid: None,
            extra: Vec::new(),
        },
        required: BTreeMap::new(),
        claim_rules: Vec::new(),
        user_rules: Vec::new(),
    }
}

async fn user(issuer: Issuer) -> Result<Option<User>, String> {
    Issuers(vec![issuer]).user(&case().0, Timestamp::from_second(1_800_000_000).unwrap()).await
}

#[tokio::test]
async fn a_token_says_who_its_bearer_is() {
    // Its key is known only when newer ones are asked for.
    let alice = user(issuer()).await.unwrap().unwrap();
    assert_eq!(alice.name, "oidc:alice");
    assert_eq!(alice.groups, ["oidc:a", "oidc:b"]);
    let mapped = Issuer {
        mapping: Mapping {
            username: expression("claims.sub + '@' + claims.iss"),
            groups: Some(expression("claims.groups.filter(g, g != 'a')")),
            uid: Some(expression("claims.sub")),
            extra: vec![("example.org/aud".into(), entry::on_claims("claims.aud", false).unwrap())],
        },
        ..issuer()
    };
    let alice = user(mapped).await.unwrap().unwrap();
    assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice@https://issuer.example", "alice"));
    assert_eq!(
        (alice.groups, alice.extra["example.org/aud"].clone()),
        (vec!["b".to_owned()], vec!["kubernetes".to_owned()])
    );
}

#[tokio::test]
async fn a_token_that_is_not_for_us_must_not_be_accepted() {
    let wrong = |change: &dyn Fn(&mut Issuer)| {
        let mut issuer = issuer();
        change(&mut issuer);
        issuer
    };
    let none = Arc::new(Rotating(Mutex::new(vec![Arc::default()])));
    for (issuer, why) in [
        (
            wrong(&|i| i.audiences = vec!["other".into()]),
            "oidc: expected audience in [\"other\"] got [\"kubernetes\"]",
        ),
        (wrong(&|i| i.algorithms = vec!["ES256".into()]), "unsupported algorithm"),
        (wrong(&|i| i.keys = none.clone()), "failed to verify id token signature"),
        (wrong(&|i| drop(i.required.insert("hd".into(), "x".into()))), "required claim hd not present"),
        (wrong(&|i| drop(i.required.insert("sub".into(), "bob".into()))), "Got = alice, want = bob"),
        (wrong(&|i| i.claim_rules.push(rule("claims.sub != 'alice'", "not alice", false))), "not alice"),
        (
            wrong(&|i| i.claim_rules.push(rule("'x' in claims.groups", "", false))),
            "validation expression ''x' in claims.groups' failed",
        ),
        (wrong(&|i| i.claim_rules.push(rule("claims.none == 1", "", false))), "no such key: none"),
        (
            wrong(&|i| i.user_rules.push(rule("!user.username.startsWith('oidc:')", "reserved", true))),
            "user info validation rule: reserved",
        ),
        (wrong(&|i| i.mapping.username = expression("''")), "empty username"),
        (wrong(&|i| i.mapping.username = expression("claims.groups")), "must return a string"),
        (wrong(&|i| i.mapping.username = claim("email", "")), "claim not present"),
        (wrong(&|i| i.mapping.groups = Some(claim("exp", ""))), "no list of texts"),
    ] {
        let error = user(issuer).await.unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
    }
    let late = Issuers(vec![issuer()]).user(&case().0, Timestamp::from_second(4_200_000_000).unwrap()).await;
    assert!(late.unwrap_err().contains("oidc: token is expired (Token Expiry: 2100-01-01"));
}

#[tokio::test]
async fn a_token_of_nobody_we_know_is_left_to_others() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let issuers = Issuers(vec![Issuer { url: "https://another.example".into(), ..issuer() }]);
    assert_eq!(issuers.user(&case().0, now).await, Ok(None));
    assert_eq!(issuers.user("abcdef.0123456789abcdef", now).await, Ok(None));
    assert_eq!(Issuers::default().user(&case().0, now).await, Ok(None));
}

#[test]
fn an_address_nobody_has_verified_must_not_be_a_name() {
    let mapping = Mapping { username: claim("email", ""), groups: None, uid: None, extra: Vec::new() };
    let of = |verified: Value| {
        let claims = json!({"email": "a@x", "email_verified": verified});
        mapping.user(claims.as_object().unwrap(), &claims).map(|user| user.name)
    };
    assert_eq!(of(json!(true)).unwrap(), "a@x");
    assert_eq!(of(json!(false)).unwrap_err(), "oidc: email not verified");
    assert!(of(json!("true")).is_err());
}
