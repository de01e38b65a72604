use super::*;
use crate::parts::component::Component;
use serde_json::json;

fn read(text: &str) -> anyhow::Result<Vec<Planned>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorization.yaml");
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, "").unwrap();
    let head = format!("apiVersion: {}\nkind: {}\n", KINDS[0].api_version, KINDS[0].kind);
    std::fs::write(&path, head + &text.replace("KUBECONFIG", &kubeconfig.display().to_string())).unwrap();
    Source::File(path).planned()
}

const HOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, \
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: KUBECONFIG}";

fn hook_with(more: &str) -> String {
    format!("authorizers: [{{type: Webhook, name: w, webhook: {{{HOOK}, {more}}}}}]")
}

#[test]
fn authorizers_decide_in_the_files_order() {
    let text = format!(
        "authorizers:\n- {{type: Node, name: node}}\n- {{type: Webhook, name: w, webhook: {{{HOOK}, \
         authorizedTTL: 1m, cacheUnauthorizedRequests: false, matchConditionSubjectAccessReviewVersion: v1, \
         matchConditions: [{{expression: has(request.resourceAttributes)}}]}}}}\n- {{type: RBAC, name: rbac}}\n"
    );
    let planned = read(&text).unwrap();
    let [Planned::Plain("Node"), Planned::Webhook(hook), Planned::Plain("RBAC")] = &planned[..] else {
        panic!("{planned:?}")
    };
    assert_eq!((hook.timeout, hook.v1, hook.fails_open), (Duration::from_secs(3), true, false));
    assert_eq!((hook.allowed_for, hook.refused_for), (Duration::from_secs(60), Duration::ZERO));
    assert_eq!(hook.conditions, ["has(request.resourceAttributes)"]);
}

#[test]
fn a_file_that_cannot_be_followed_must_not_be_followed_in_part() {
    for (text, wrong) in [
        ("authorizers: []".to_owned(), "authorizers: Required value: at least one authorization mode"),
        ("authorizers: [{name: x}]".to_owned(), "authorizers[0].type: Required value"),
        (
            "authorizers: [{type: ABAC, name: x}]".to_owned(),
            "authorizers[0].type: Unsupported value: \"ABAC\"",
        ),
        (
            "authorizers: [{type: RBAC, name: a}, {type: RBAC, name: b}]".to_owned(),
            "authorizers[1].type: Duplicate value: \"RBAC\"",
        ),
        ("authorizers: [{type: RBAC}]".to_owned(), "authorizers[0].name: Required value"),
        (
            "authorizers: [{type: RBAC, name: roles}]".to_owned(),
            "expected name rbac for authorizer RBAC instead of roles",
        ),
        (
            "authorizers: [{type: RBAC, name: A_b}]".to_owned(),
            "authorizer name is invalid: a lowercase RFC 1123",
        ),
        (
            hook_with("unauthorizedTTL: -1s, cacheUnauthorizedRequests: false"),
            "unauthorizedTTL: Invalid value",
        ),
        ("authorizers: [{type: Webhook, name: w}]".to_owned(), "required when type=Webhook"),
        ("authorizers: [{type: RBAC, name: a, webhook: {timeout: 3s}}]".to_owned(), "may only be specified"),
        ("authorizers: [{type: RBAC, name: a, more: 1}]".to_owned(), "unknown field \"authorizers[0].more\""),
        (hook_with("timeout: 31s").replace("timeout: 3s, ", ""), "must be > 0s and <= 30s"),
        (hook_with("").replace("failurePolicy: Deny, ", ""), "authorizers[0].failurePolicy: Required value"),
        (hook_with("authorizedTTL: -1s"), "authorizers[0].authorizedTTL: Invalid value"),
        (hook_with("").replace("KUBECONFIG", "/nowhere"), "error loading file"),
        (hook_with("matchConditions: [{expression: 'true'}]"), "required if match conditions are specified"),
        (
            hook_with(
                "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: request.x}]",
            ),
            "authorizers[0].matchConditions[0].expression: Invalid value: \"request.x\": compilation failed",
        ),
    ] {
        let error = format!("{:#}", read(&text).expect_err(&text));
        assert!(error.contains(wrong), "{text}: {error}");
    }
}

fn of_flags(line: &str) -> anyhow::Result<Source> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Source::of_flags(&Component::named("kube-apiserver").unwrap().table().parse(&arguments)?)
}

#[test]
fn modes_must_not_decide_that_were_not_named() {
    let modes = |line: &str| match of_flags(line).unwrap() {
        Source::Modes(planned) => planned,
        other => panic!("{other:?}"),
    };
    assert_eq!(modes(""), [Planned::Plain("Node"), Planned::Plain("RBAC")]);
    assert_eq!(modes("--authorization-mode=RBAC"), [Planned::Plain("RBAC")]);
    let planned = modes("--authorization-mode=AlwaysDeny,Webhook --authorization-webhook-config-file=/x");
    let [Planned::Plain("AlwaysDeny"), Planned::Webhook(hook)] = &planned[..] else { panic!("{planned:?}") };
    assert!(!hook.v1 && hook.fails_open && hook.allowed_for == ALLOWED_FOR);
    for wrong in [
        "--authorization-mode=ABAC",
        "--authorization-mode=Webhook",
        "--authorization-mode=RBAC,RBAC",
        "--authorization-config=/x --authorization-mode=RBAC",
        "--authorization-config=/x --authorization-webhook-cache-authorized-ttl=1s",
        "--authorization-mode=RBAC --authorization-webhook-config-file=/x",
        "--authorization-mode=Webhook --authorization-webhook-config-file=/x --authorization-webhook-version=v2",
    ] {
        assert!(of_flags(wrong).is_err(), "{wrong}");
    }
    let path = PathBuf::from("/x");
    assert_eq!(of_flags("--authorization-config=/x").unwrap(), Source::File(path));
}

/// A service that allows `alice`, on a port of its own.
async fn service() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |request: http::Request<hyper::body::Incoming>| async move {
        use http_body_util::BodyExt as _;
        let right = request.uri().path() == "/authorize/here" && request.method() == http::Method::POST;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let status = json!({"allowed": right && review["spec"]["user"] == "alice"});
        let body = http_body_util::Full::new(bytes::Bytes::from(json!({"status": status}).to_string()));
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    };
    #[allow(clippy::disallowed_methods, reason = "a test")]
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let io = hyper_util::rt::TokioIo::new(stream);
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, hyper::service::service_fn(answer));
            serving.await.ok();
        }
    });
    (format!("http://{address}/authorize/here"), task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_of_a_kubeconfig_is_asked_at_its_servers_path() {
    use apiserver::{Attributes, Authorizer as _};
    let (server, task) = service().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let hook = Hook {
        kubeconfig: Some(path),
        timeout: Duration::from_secs(10),
        v1: true,
        allowed_for: ALLOWED_FOR,
        refused_for: REFUSED_FOR,
        fails_open: false,
        conditions: Vec::new(),
    };
    let authorization = Authorization::default();
    Source::Modes(vec![Planned::Webhook(hook)]).apply(&authorization).await.unwrap();
    let of = |name: &str| {
        let user = apiserver::User { name: name.to_owned(), ..Default::default() };
        Attributes { user, verb: "get".to_owned(), path: "/x".to_owned(), ..Attributes::default() }
    };
    assert!(authorization.authorizer.decide(&of("alice")).await.allowed());
    assert!(!authorization.authorizer.decide(&of("bob")).await.allowed());
    task.abort();
}

#[tokio::test]
async fn a_file_that_has_become_wrong_must_not_change_who_decides() {
    use apiserver::{Attributes, Authorizer as _};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorization.yaml");
    let write = |text: &str| {
        let head = format!("apiVersion: {}\nkind: {}\n", KINDS[1].api_version, KINDS[1].kind);
        std::fs::write(&path, head + text).unwrap();
    };
    let (source, authorization) = (Source::File(path.clone()), Authorization::default());
    let allowed = || authorization.authorizer.authorize(&Attributes::default()).allowed();
    write("authorizers: [{type: AlwaysAllow, name: alwaysallow}]");
    let first = source.apply(&authorization).await.unwrap();
    let mut used = first.clone();
    assert!(allowed());
    assert!(!source.follow_once(&first, &mut used, &authorization).await.unwrap(), "nothing was changed");
    for wrong in ["authorizers: [{type: RBAC}]", "authorizers: {", "more: 1"] {
        write(wrong);
        assert!(source.follow_once(&first, &mut used, &authorization).await.is_err() && allowed(), "{wrong}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(source.follow_once(&first, &mut used, &authorization).await.is_err() && allowed());
    // More may come; what was there at first stays, whatever its place.
    write("authorizers: [{type: AlwaysDeny, name: alwaysdeny}, {type: AlwaysAllow, name: alwaysallow}]");
    assert!(source.follow_once(&first, &mut used, &authorization).await.unwrap() && allowed());
    assert_eq!(used, [Planned::Plain("AlwaysDeny"), Planned::Plain("AlwaysAllow")]);
    write("authorizers: [{type: AlwaysAllow, name: alwaysallow}]");
    assert!(source.follow_once(&first, &mut used, &authorization).await.unwrap(), "what came later may go");
}

#[tokio::test]
async fn an_authorizer_of_the_start_must_not_be_dropped_by_a_changed_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authorization.yaml");
    let write = |text: &str| {
        let head = format!("apiVersion: {}\nkind: {}\n", KINDS[0].api_version, KINDS[0].kind);
        std::fs::write(&path, format!("{head}authorizers: [{text}]")).unwrap();
    };
    let (node, rbac, deny) =
        ("{type: Node, name: node}", "{type: RBAC, name: rbac}", "{type: AlwaysDeny, name: alwaysdeny}");
    let (source, authorization) = (Source::File(path.clone()), Authorization::default());
    write(&format!("{node}, {rbac}"));
    let first = source.apply(&authorization).await.unwrap();
    let mut used = first.clone();
    for (left, missing) in [(node, "RBAC"), (rbac, "Node"), (deny, "Node\", \"RBAC")] {
        write(left);
        let error = source.follow_once(&first, &mut used, &authorization).await.unwrap_err().to_string();
        assert!(error.contains(&format!("missing required types: [\"{missing}\"]")), "{left}: {error}");
        assert_eq!(used, [Planned::Plain("Node"), Planned::Plain("RBAC")]);
    }
    write(&format!("{rbac}, {deny}, {node}"));
    assert!(source.follow_once(&first, &mut used, &authorization).await.unwrap());
    // The first file had none, and nobody has followed pods for it.
    write(rbac);
    let first = source.apply(&authorization).await.unwrap();
    let mut used = first.clone();
    write(&format!("{rbac}, {node}"));
    let error = source.follow_once(&first, &mut used, &authorization).await.unwrap_err().to_string();
    assert!(error.contains("not enabled at initial server startup"), "{error}");
}
