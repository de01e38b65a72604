use super::*;
use crate::objects::Fixed;
use base64::Engine as _;
use pki::service_account::{BoundObject, Claims, KubernetesClaims, LegacyClaims, SigningKey, Verifier};
use pki::{Authority, Leaf};
use rustls_pki_types::CertificateDer;
use serde_json::json;

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

struct World {
    key: SigningKey,
    authority: Authority,
    objects: Arc<Fixed>,
    authenticator: Authenticator,
}

fn world() -> World {
    let key = SigningKey::generate().unwrap();
    let authority = Authority::generate("kubernetes", now()).unwrap();
    let objects = Arc::new(Fixed::default());
    objects.put("", "serviceaccounts", json!({"metadata": {"namespace": "a", "name": "sa", "uid": "1"}}));
    objects.put("", "pods", json!({"metadata": {"namespace": "a", "name": "p", "uid": "2"}}));
    let mut static_tokens = static_token::StaticTokens::default();
    static_tokens.add("fixed", User { name: "robot".into(), ..User::default() });
    let config = Config {
        front_proxies: None,
        client_authorities: Some(certificate::Authorities::from_pem(&authority.cert_pem()).unwrap()),
        service_accounts: Some(Verifier { keys: vec![key.public().clone()], issuers: vec!["api".into()] }),
        api_audiences: vec!["api".into()],
        bootstrap_tokens: true,
        static_tokens,
        anonymous: true,
        ..Config::default()
    };
    let authenticator = Authenticator::new(config, objects.clone());
    World { key, authority, objects, authenticator }
}

fn claims() -> Claims {
    Claims {
        aud: vec!["api".into()],
        exp: now().as_second() + 3600,
        iss: "api".into(),
        jti: "id".into(),
        sub: "system:serviceaccount:a:sa".into(),
        kubernetes: KubernetesClaims {
            namespace: "a".into(),
            serviceaccount: BoundObject { name: "sa".into(), uid: "1".into() },
            pod: Some(BoundObject { name: "p".into(), uid: "2".into() }),
            node: Some(BoundObject { name: "n1".into(), uid: "3".into() }),
            ..KubernetesClaims::default()
        },
        ..Claims::default()
    }
}

impl World {
    async fn token(&self, claims: &Claims) -> Result<Option<Identity>, String> {
        let token = self.key.sign(claims).unwrap();
        self.authenticator.authenticate_token(&token, &[], now()).await
    }

    async fn request(&self, peer: Peer, authorization: Option<&str>) -> Result<User, String> {
        let mut request = http::Request::new(());
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        let (mut parts, ()) = request.into_parts();
        let user = self.authenticator.authenticate(&peer, &mut parts, now()).await;
        assert!(parts.headers.is_empty(), "credentials stay in the request");
        user.map_err(|e| e.to_string())
    }

    fn peer(&self, authority: &Authority, leaf: &Leaf) -> Peer {
        let issued = authority.issue(leaf, now()).unwrap();
        let der = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
        Peer::new(None, der.into_iter().map(|d| CertificateDer::from(d.to_vec())).collect())
    }
}

#[tokio::test]
async fn a_bound_token_is_its_account() {
    let identity = world().token(&claims()).await.unwrap().unwrap();
    assert_eq!(identity.audiences, ["api"]);
    let user = identity.user;
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:sa", "1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    let extra: Vec<_> =
        user.extra.iter().map(|(k, v)| (k.rsplit('/').next().unwrap(), v[0].as_str())).collect();
    assert_eq!(
        extra,
        [
            ("credential-id", "JTI=id"),
            ("node-name", "n1"),
            ("node-uid", "3"),
            ("pod-name", "p"),
            ("pod-uid", "2")
        ]
    );
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    let world = world();
    world.objects.put("", "pods", json!({"metadata": {"namespace": "a", "name": "p", "uid": "9"}}));
    assert_eq!(
        world.token(&claims()).await.unwrap_err(),
        "pod UID (9) does not match service account pod ref claim (2)"
    );
    world.objects.delete("", "pods", "a", "p");
    assert_eq!(world.token(&claims()).await.unwrap_err(), "service account token has been invalidated");
    let deleted = json!({"metadata": {"namespace": "a", "name": "sa", "uid": "1", "deletionTimestamp": "2026-05-31T23:00:00Z"}});
    world.objects.put("", "serviceaccounts", deleted);
    assert_eq!(world.token(&claims()).await.unwrap_err(), "service account a/sa has been deleted");
    world.objects.delete("", "serviceaccounts", "a", "sa");
    assert_eq!(world.token(&claims()).await.unwrap_err(), "serviceaccounts \"sa\" not found");
}

#[tokio::test]
async fn expired_and_misdirected_tokens_are_refused() {
    let world = world();
    let expired = Claims { exp: now().as_second() - 61, ..claims() };
    assert_eq!(world.token(&expired).await.unwrap_err(), "service account token has expired");
    let other = Claims { aud: vec!["vault".into()], ..claims() };
    assert_eq!(
        world.token(&other).await.unwrap_err(),
        r#"token audiences ["vault"] is invalid for the target audiences ["api"]"#
    );
    let token = world.key.sign(&other).unwrap();
    let identity =
        world.authenticator.authenticate_token(&token, &["vault".into()], now()).await.unwrap().unwrap();
    assert_eq!(identity.audiences, ["vault"]);
}

#[tokio::test]
async fn foreign_tokens_are_nobodys() {
    let world = world();
    assert_eq!(world.authenticator.authenticate_token("nonsense", &[], now()).await, Ok(None));
    let stranger = SigningKey::generate().unwrap();
    let foreign = stranger.sign(&Claims { iss: "elsewhere".into(), ..claims() }).unwrap();
    assert_eq!(world.authenticator.authenticate_token(&foreign, &[], now()).await, Ok(None));
    let forged = stranger.sign(&claims()).unwrap();
    assert!(world.authenticator.authenticate_token(&forged, &[], now()).await.is_err());
}

#[tokio::test]
async fn a_bootstrap_token_joins() {
    let world = world();
    let token = pki::bootstrap::BootstrapToken::generate().unwrap();
    let data: serde_json::Map<String, serde_json::Value> = token
        .secret_data("", None)
        .into_iter()
        .map(|(k, v)| (k.to_owned(), base64::engine::general_purpose::STANDARD.encode(v).into()))
        .collect();
    let secret = json!({"metadata": {"namespace": "kube-system", "name": token.secret_name()}, "type": "bootstrap.kubernetes.io/token", "data": data});
    let bearer = format!("Bearer {}", token.expose());
    assert!(world.request(Peer::default(), Some(&bearer)).await.is_err());
    world.objects.put("", "secrets", secret);
    let user = world.request(Peer::default(), Some(&bearer)).await.unwrap();
    assert_eq!(user.name, format!("system:bootstrap:{}", token.id()));
    assert!(user.groups.contains(&"system:authenticated".to_owned()));
}

#[tokio::test]
async fn certificates_name_user_and_groups() {
    let world = world();
    let leaf = Leaf::client("alice", &["dev", "ops"]);
    let user = world.request(world.peer(&world.authority, &leaf), None).await.unwrap();
    assert_eq!(user.name, "alice");
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    let stranger = Authority::generate("kubernetes", now()).unwrap();
    let error = world.request(world.peer(&stranger, &leaf), None).await.unwrap_err();
    assert!(error.contains("verifying certificate"), "{error}");
    let user = world.request(world.peer(&stranger, &leaf), Some("Bearer fixed")).await.unwrap();
    assert_eq!(user.name, "robot", "a good token makes up for a strange certificate");
}

#[tokio::test]
async fn a_server_certificate_is_no_client() {
    let world = world();
    let server = Leaf::server("x", vec!["x".into()], vec![]);
    assert!(world.request(world.peer(&world.authority, &server), None).await.is_err());
}

#[tokio::test]
async fn a_connection_outlives_no_certificate() {
    let world = world();
    let peer = world.peer(&world.authority, &Leaf::client("alice", &[]));
    let authorities = certificate::Authorities::from_pem(&world.authority.cert_pem()).unwrap();
    assert!(peer.user(&authorities, now()).unwrap().is_some());
    let later = now() + jiff::SignedDuration::from_hours(24 * 400);
    assert!(peer.user(&authorities, later).unwrap_err().contains("expired"));
}

#[tokio::test]
async fn no_credentials_is_anonymous_and_bad_ones_are_not() {
    let world = world();
    assert_eq!(world.request(Peer::default(), None).await.unwrap(), anonymous());
    assert!(
        world
            .request(Peer::default(), Some("Bearer wrong"))
            .await
            .unwrap_err()
            .contains("invalid bearer token")
    );
}

#[tokio::test]
async fn a_token_must_not_outlive_its_secret_or_its_account() {
    let world = world();
    let token = world.key.sign_legacy(&LegacyClaims::new("a", "sa", "1", "t")).unwrap();
    let ask = async || world.authenticator.authenticate_token(&token, &[], now()).await;
    assert_eq!(ask().await.unwrap_err(), "Token has been invalidated", "no such secret");
    let encoded = base64::engine::general_purpose::STANDARD.encode(&token);
    let secret = json!({"metadata": {"namespace": "a", "name": "t", "uid": "5"}, "data": {"token": encoded}});
    world.objects.put("", "secrets", secret.clone());
    let identity = ask().await.unwrap().unwrap();
    assert_eq!(
        (identity.user.name.as_str(), identity.user.uid.as_str()),
        ("system:serviceaccount:a:sa", "1")
    );
    assert_eq!(identity.audiences, ["api"]);
    assert!(identity.user.extra.is_empty());
    let used = world.objects.get("", "secrets", "a", "t").await.unwrap();
    assert_eq!(used["metadata"]["labels"], json!({"kubernetes.io/legacy-token-last-used": "2026-06-01"}));

    let elsewhere = world.authenticator.authenticate_token(&token, &["vault".into()], now()).await;
    assert_eq!(
        elsewhere.unwrap_err(),
        "token audiences [\"api\"] is invalid for the target audiences [\"vault\"]"
    );
    let mut other = secret.clone();
    other["data"]["token"] = json!("b3RoZXI=");
    world.objects.put("", "secrets", other);
    assert_eq!(ask().await.unwrap_err(), "Token does not match server's copy");
    let mut marked = secret.clone();
    marked["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-invalid-since": "2026-05-01"});
    world.objects.put("", "secrets", marked);
    assert!(ask().await.unwrap_err().contains("has been marked invalid"));
    world.objects.put("", "secrets", secret);
    world.objects.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "a", "name": "sa", "uid": "9"}}),
    );
    assert_eq!(ask().await.unwrap_err(), "ServiceAccount UID (9) does not match claim (1)");
    world.objects.delete("", "secrets", "a", "t");
    assert_eq!(ask().await.unwrap_err(), "Token has been invalidated");
}

#[tokio::test]
async fn a_token_whose_secret_is_gone_is_good_only_where_nobody_is_to_look() {
    let world = world();
    let token = world.key.sign_legacy(&LegacyClaims::new("a", "sa", "1", "t")).unwrap();
    let ask = async |unseen_secrets: bool| {
        let keys = vec![world.key.public().clone()];
        let config = Config {
            service_accounts: Some(Verifier { keys, issuers: vec!["api".into()] }),
            unseen_secrets,
            ..Config::default()
        };
        let authenticator = Authenticator::new(config, world.objects.clone());
        authenticator.authenticate_token(&token, &[], now()).await.map(|identity| identity.unwrap().user.name)
    };
    assert_eq!(ask(false).await, Err("Token has been invalidated".to_owned()));
    assert_eq!(ask(true).await, Ok("system:serviceaccount:a:sa".to_owned()));
}

/// A service outside that knows one token.
struct Outside(&'static str);

impl crate::authz::webhook::Reviewer for Outside {
    fn review<'a>(
        &'a self,
        review: &'a serde_json::Value,
    ) -> futures::future::BoxFuture<'a, Result<serde_json::Value, crate::authz::webhook::Failure>> {
        let known = review["spec"]["token"] == self.0;
        let status = json!({"authenticated": known, "user": {"username": "outsider"}});
        Box::pin(async move { Ok(json!({"status": status})) })
    }
}

#[tokio::test]
async fn a_token_that_is_refused_here_must_not_be_kept_from_others_who_know_it() {
    let (world, own) = (world(), claims());
    let expired = world.key.sign(&Claims { exp: 1, iat: None, nbf: None, ..own }).unwrap();
    let outside: &'static str = Box::leak(expired.clone().into_boxed_str());
    let config = Config {
        service_accounts: Some(Verifier {
            keys: vec![world.key.public().clone()],
            issuers: vec!["api".into()],
        }),
        api_audiences: vec!["api".into()],
        webhook: Some(token_webhook::TokenWebhook::new(
            Arc::new(Outside(outside)),
            true,
            std::time::Duration::ZERO,
        )),
        ..Config::default()
    };
    let authenticator = Authenticator::new(config, world.objects.clone());
    let identity = authenticator.authenticate_token(&expired, &[], now()).await.unwrap().unwrap();
    assert_eq!(
        (identity.user.name.as_str(), identity.user.groups),
        ("outsider", vec![AUTHENTICATED.to_owned()])
    );
    let other = world.key.sign(&Claims { exp: 2, ..claims() }).unwrap();
    let refusal = authenticator.authenticate_token(&other, &[], now()).await.unwrap_err();
    assert_eq!(refusal, "service account token has expired", "nobody else knows it");
    assert_eq!(authenticator.authenticate_token("nobody's", &[], now()).await, Ok(None));
}

#[tokio::test]
async fn nobody_in_particular_must_not_come_in_where_that_is_not_said() {
    let config = Config { anonymous: true, anonymous_paths: vec!["/livez".into()], ..Config::default() };
    let authenticator = Authenticator::new(config, Arc::new(Fixed::default()));
    for (path, open) in [("/livez", true), ("/livez/ping", false), ("/api", false)] {
        let (mut parts, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        let user = authenticator.authenticate(&Peer::default(), &mut parts, now()).await;
        assert_eq!(user.is_ok(), open, "{path}");
    }
}

#[test]
fn an_authority_that_was_dropped_must_not_be_believed_on_an_open_connection() {
    let (old, new) = (Authority::generate("a", now()).unwrap(), Authority::generate("b", now()).unwrap());
    let of = |pem: &str| certificate::Authorities::from_pem(pem).unwrap();
    let both = of(&format!("{}{}", old.cert_pem(), new.cert_pem()));
    let peer = world().peer(&old, &Leaf::client("alice", &[]));
    assert_eq!(peer.user(&both, now()).unwrap().unwrap().name, "alice");
    assert!(peer.user(&of(&new.cert_pem()), now()).is_err());
    assert_eq!(peer.user(&of(&old.cert_pem()), now()).unwrap().unwrap().name, "alice");
    // Nor must one that came later be unknown on it.
    let peer = world().peer(&new, &Leaf::client("bob", &[]));
    assert!(peer.user(&of(&old.cert_pem()), now()).is_err());
    assert_eq!(peer.user(&both, now()).unwrap().unwrap().name, "bob");
}
