use super::*;
use crate::parts::component::Component;

fn flags(line: &str) -> Flags {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Component::named("kube-apiserver").unwrap().table().parse(&arguments).unwrap()
}

fn read_with(text: &str, more: &str) -> anyhow::Result<Source> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authentication.yaml");
    let head = format!("apiVersion: {}\nkind: {}\n", KINDS[0].api_version, KINDS[0].kind);
    std::fs::write(&path, head + text).unwrap();
    let line =
        format!("--authentication-config={} --service-account-issuer=https://ours {more}", path.display());
    Source::of_flags(&flags(&line))
}

fn read(text: &str) -> anyhow::Result<Source> {
    read_with(text, "")
}

const ISSUER: &str = "issuer: {url: 'https://a', audiences: [k]}";
const NAME: &str = "username: {claim: sub, prefix: ''}";

#[test]
fn a_file_names_issuers_and_where_anybody_may_ask() {
    let text = format!(
        "jwt:\n- {{{ISSUER}, claimMappings: {{{NAME}, groups: {{expression: claims.roles}}, uid: {{claim: sub}}, \
         extra: [{{key: a.b/c, valueExpression: claims.x}}]}}, claimValidationRules: [{{claim: hd, requiredValue: x}}, \
         {{expression: 'claims.exp - claims.nbf <= 86400', message: m}}], \
         userValidationRules: [{{expression: '!user.username.startsWith(\"system:\")'}}]}}\n\
         anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n"
    );
    let source = read(&text).unwrap();
    let issuers = source.issuers().unwrap().0;
    assert_eq!(issuers.len(), 1);
    assert_eq!(
        (issuers[0].url.as_str(), issuers[0].audiences.as_slice()),
        ("https://a", &["k".to_owned()][..])
    );
    assert_eq!(issuers[0].required.get("hd").map(String::as_str), Some("x"));
    assert_eq!((issuers[0].claim_rules.len(), issuers[0].user_rules.len()), (1, 1));
    assert_eq!(source.anonymous(), Some(Anonymous { enabled: true, paths: vec!["/livez".to_owned()] }));
    assert_eq!(read("jwt: []").unwrap().anonymous(), None);
}

#[test]
fn a_file_that_cannot_be_followed_must_not_be_followed_in_part() {
    let with = |issuer: &str, rest: &str| format!("jwt: [{{issuer: {{{issuer}}}, {rest}}}]");
    let mapped =
        |mapping: &str| with("url: 'https://a', audiences: [k]", &format!("claimMappings: {{{mapping}}}"));
    let named = format!("claimMappings: {{{NAME}}}");
    for (text, wrong) in [
        (with("audiences: [k]", &named), "jwt[0].issuer.url: Required value"),
        (with("url: 'http://a', audiences: [k]", &named), "URL scheme must be https"),
        (with("url: 'https://u:p@a', audiences: [k]", &named), "must not contain a username or password"),
        (with("url: 'https://a?x=1', audiences: [k]", &named), "must not contain a query"),
        (with("url: 'https://a#x', audiences: [k]", &named), "must not contain a fragment"),
        (with("url: 'https://ours', audiences: [k]", &named), "must not overlap with disallowed issuers"),
        (with("url: 'https://a', audiences: []", &named), "jwt[0].issuer.audiences: Required value"),
        (with("url: 'https://a', audiences: [k, l]", &named), "must be MatchAny for multiple audiences"),
        (
            with("url: 'https://a', audiences: [k], discoveryURL: 'https://a/'", &named),
            "must be different from URL",
        ),
        (
            with("url: 'https://a', audiences: [k], certificateAuthority: x", &named),
            "certificateAuthority: Invalid value",
        ),
        (mapped("groups: {claim: g, prefix: ''}"), "jwt[0].claimMappings.username: Required value"),
        (
            mapped("username: {claim: sub}"),
            "claimMappings.username.prefix: Required value: prefix is required",
        ),
        (mapped("username: {claim: sub, expression: claims.sub}"), "claim and expression can't both be set"),
        (mapped("username: {expression: claims.email}"), "claims.email_verified must be used"),
        (
            mapped(
                "username: {expression: 'claims.email != \"claims.email_verified\" ? claims.email : \"\"'}",
            ),
            "claims.email_verified must be used",
        ),
        (mapped("username: {expression: user.name}"), "compilation failed"),
        (
            mapped(&format!("{NAME}, extra: [{{key: plain, valueExpression: claims.x}}]")),
            "domain-prefixed path",
        ),
        (
            mapped(&format!("{NAME}, extra: [{{key: k8s.io/x, valueExpression: claims.x}}]")),
            "are reserved for Kubernetes use",
        ),
        (
            mapped(&format!("{NAME}, extra: [{{key: a_b.c/x, valueExpression: claims.x}}]")),
            "extra[0].key: Invalid value: \"a_b.c\": a lowercase RFC 1123 subdomain",
        ),
        (
            with("url: 'https://a', audiences: [k]", &format!("{named}, claimValidationRules: [{{}}]")),
            "claim or expression is required",
        ),
        (
            with(
                "url: 'https://a', audiences: [k]",
                &format!("{named}, userValidationRules: [{{expression: user.x}}]"),
            ),
            "compilation failed",
        ),
        (
            format!("jwt: [{{{ISSUER}, {named}}}, {{{ISSUER}, {named}}}]"),
            "jwt[1].issuer.url: Duplicate value: \"https://a\"",
        ),
        ("anonymous: {enabled: false, conditions: [{path: /x}]}".to_owned(), "enabled should be set to true"),
        ("jwt: [{issuers: {}}]".to_owned(), "unknown field"),
    ] {
        let error = format!("{:#}", read(&text).expect_err(&text));
        assert!(error.contains(wrong), "{text}: {error}");
    }
    let verified = "username: {expression: 'claims.email_verified ? claims.email : \"\"'}";
    assert!(read(&mapped(verified)).is_ok());
    assert!(read_with("anonymous: {enabled: true}", "--anonymous-auth=false").is_err());
}

#[test]
fn flags_say_the_same_of_one_issuer() {
    let line =
        "--oidc-issuer-url=https://a --oidc-client-id=k --oidc-groups-claim=roles --oidc-required-claim=hd=x";
    let source = Source::of_flags(&flags(line)).unwrap();
    let issuers = source.issuers().unwrap().0;
    assert_eq!(issuers[0].audiences, ["k"]);
    assert_eq!(issuers[0].algorithms, ["RS256"]);
    assert_eq!(
        source.config["jwt"][0]["claimMappings"]["username"],
        json!({"claim": "sub", "prefix": "https://a#"})
    );
    assert_eq!(issuers[0].required["hd"], "x");
    let prefix = |more: &str| {
        let source = Source::of_flags(&flags(&format!("{line} {more}"))).unwrap();
        source.config["jwt"][0]["claimMappings"]["username"]["prefix"].clone()
    };
    assert_eq!(prefix("--oidc-username-claim=email"), "");
    assert_eq!(prefix("--oidc-username-prefix=-"), "");
    assert_eq!(prefix("--oidc-username-prefix=o:"), "o:");
    assert_eq!(Source::of_flags(&flags("")).unwrap().issuers().unwrap().0.len(), 0);
    for wrong in
        ["--oidc-issuer-url=https://a", "--oidc-groups-claim=g", &format!("{line} --oidc-signing-algs=HS256")]
    {
        assert!(Source::of_flags(&flags(wrong)).is_err(), "{wrong}");
    }
    let both = read_with(&format!("jwt: [{{{ISSUER}, claimMappings: {{{NAME}}}}}]"), line);
    assert!(format!("{:#}", both.unwrap_err()).contains("mutually exclusive"));
    assert!(read_with("jwt: []", line).is_err(), "even where the file names no issuer");
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_must_not_take_others_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authentication.yaml");
    let write = |issuers: &[&str]| {
        let jwt: Vec<Value> = issuers
            .iter()
            .map(|url| {
                json!({
                    "issuer": {"url": url, "audiences": ["k"]},
                    "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
                })
            })
            .collect();
        let file = json!({"apiVersion": KINDS[0].api_version, "kind": KINDS[0].kind, "jwt": jwt});
        std::fs::write(&path, file.to_string()).unwrap();
    };
    write(&["https://127.0.0.1:1"]);
    let line = format!("--authentication-config={} --service-account-issuer=https://ours", path.display());
    let mut source = Source::of_flags(&flags(&line)).unwrap();
    let issuers = source.issuers().unwrap();
    let soon = (Duration::from_millis(20), Duration::from_millis(10));
    assert!(source.follow_once(&path, soon).await.unwrap().is_none(), "nothing was changed");
    write(&["https://127.0.0.1:1", "https://127.0.0.1:2"]);
    let error = source.follow_once(&path, soon).await.err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:"), "{error}");
    assert_eq!(source.config["jwt"].as_array().unwrap().len(), 1, "what is in use stays");
    write(&[]);
    assert!(source.follow_once(&path, soon).await.unwrap().unwrap().0.is_empty());
    // What was known of an issuer is known still, when the file changes for the sake of another.
    write(&["https://127.0.0.1:1"]);
    let again = source.issuers_of(&component_config::load_one_of(&path, &KINDS).unwrap().0).unwrap();
    let place = |issuers: &Issuers| Arc::as_ptr(&issuers.0[0].keys).cast::<()>();
    assert_eq!(place(&again), place(&issuers));
}
