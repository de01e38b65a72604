use super::*;
use crate::cluster::TOKEN_TYPE as SECRET_TYPE;
use crate::fake::Fake;

const SECRET: &str = "/api/v1/namespaces/ns/secrets/t";
const ACCOUNT: &str = "/api/v1/namespaces/ns/serviceaccounts/sa";

fn controller(fake: &Fake) -> (ServiceAccountTokens, Cluster) {
    let cluster = Cluster::default();
    let key = Arc::new(SigningKey::generate().unwrap());
    let bundle = watch::Sender::new("BUNDLE".to_owned()).subscribe();
    let tokens = ServiceAccountTokens::new(&cluster, fake.client(), key, bundle, &Arc::default());
    (tokens, cluster)
}

fn account(uid: &str) -> Value {
    json!({ "metadata": { "namespace": "ns", "name": "sa", "uid": uid, "resourceVersion": "1" },
        "secrets": [{ "name": "other" }, { "name": "t" }] })
}

fn secret(uid_of_account: &str) -> Value {
    json!({ "metadata": { "namespace": "ns", "name": "t", "uid": "s", "resourceVersion": "1",
        "annotations": { NAME: "sa", UID: uid_of_account } }, "type": SECRET_TYPE })
}

fn decoded(secret: &Value, field: &str) -> String {
    String::from_utf8(STANDARD.decode(secret["data"][field].as_str().unwrap()).unwrap()).unwrap()
}

/// One pass over the secret as it is known, the account being on the server only.
async fn pass(tokens: &ServiceAccountTokens, fake: &Fake) {
    let known: Secret = serde_json::from_value(fake.get(SECRET).unwrap()).unwrap();
    let key = Key::new("ns", "t");
    match tokens.account("ns", &AccountRef::of(&known)).await.unwrap() {
        Some(account) => tokens.fill(&key, &known, &account).await.unwrap(),
        None => tokens.delete(&key, &known).await.unwrap(),
    }
}

#[tokio::test]
async fn a_secret_must_not_stay_without_its_token() {
    let fake = Fake::default();
    let (tokens, _cluster) = controller(&fake);
    fake.put(ACCOUNT, account("u"));
    fake.put(SECRET, secret(""));
    pass(&tokens, &fake).await;
    let filled = fake.get(SECRET).unwrap();
    assert_eq!(
        (decoded(&filled, "namespace").as_str(), decoded(&filled, "ca.crt").as_str()),
        ("ns", "BUNDLE")
    );
    let verifier =
        pki::service_account::Verifier { keys: vec![tokens.key.public().clone()], issuers: vec![] };
    assert_eq!(
        verifier.verify_legacy(&decoded(&filled, "token")),
        Ok(LegacyClaims::new("ns", "sa", "u", "t"))
    );
    assert_eq!(filled["metadata"]["annotations"], json!({ NAME: "sa", UID: "u" }));
    pass(&tokens, &fake).await;
    assert_eq!(fake.get(SECRET).unwrap(), filled, "a token that is there stays");
}

#[tokio::test]
async fn a_secret_must_not_outlive_its_account() {
    for there in [None, Some(account("another"))] {
        let fake = Fake::default();
        let (tokens, _cluster) = controller(&fake);
        there.into_iter().for_each(|account| fake.put(ACCOUNT, account));
        fake.put(SECRET, secret("u"));
        pass(&tokens, &fake).await;
        assert!(fake.get(SECRET).is_none());
    }
}

#[tokio::test]
async fn a_secret_written_meanwhile_must_not_lose_what_was_written() {
    let fake = Fake::default();
    let (tokens, _cluster) = controller(&fake);
    fake.put(SECRET, secret("u"));
    let known: Secret = serde_json::from_value(secret("u")).unwrap();
    let mut newer = secret("u");
    newer["metadata"]["resourceVersion"] = json!("2");
    newer["data"] = json!({ "token": "bWluZQ==" });
    fake.put(SECRET, newer.clone());
    let account: ServiceAccount = serde_json::from_value(account("u")).unwrap();
    tokens.fill(&Key::new("ns", "t"), &known, &account).await.unwrap();
    assert_eq!(fake.get(SECRET), Some(newer));
}

#[tokio::test]
async fn a_secret_must_not_keep_an_authority_that_was_replaced() {
    let fake = Fake::default();
    let cluster = Cluster::default();
    let (key, bundle) = (Arc::new(SigningKey::generate().unwrap()), watch::Sender::new("OLD".to_owned()));
    let queue = Arc::<Queue>::default();
    let tokens =
        Arc::new(ServiceAccountTokens::new(&cluster, fake.client(), key, bundle.subscribe(), &queue));
    fake.put(ACCOUNT, account("u"));
    fake.put(SECRET, secret("u"));
    pass(&tokens, &fake).await;
    let token = decoded(&fake.get(SECRET).unwrap(), "token");
    bundle.send_replace("NEW".to_owned());
    pass(&tokens, &fake).await;
    let filled = fake.get(SECRET).unwrap();
    assert_eq!((decoded(&filled, "ca.crt").as_str(), decoded(&filled, "token")), ("NEW", token));
    // Nobody names authorities: those of another stay.
    bundle.send_replace(String::new());
    pass(&tokens, &fake).await;
    assert_eq!(decoded(&fake.get(SECRET).unwrap(), "ca.crt"), "NEW");
}
