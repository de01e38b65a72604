//! Webhooks as real TLS servers on the loopback, behind a Service and by URL.

use super::*;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use parking_lot::Mutex;
use pki::authority::{Authority, Leaf};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CONFIGS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Answers = Arc<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// A webhook server: `answer` gets the path and the review's request, and gives the response but for its uid.
pub(super) struct Hook {
    port: u16,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    pub(super) async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let answer: Answers = Arc::new(answer);
        let now = Timestamp::now();
        let authority = Authority::generate("hook-ca", now).unwrap();
        let names = vec!["hook.default.svc".to_owned(), "localhost".to_owned()];
        let issued = authority.issue(&Leaf::server("hook", names, Vec::new()), now).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap(),
                pki::pem::private_key(issued.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (answer, seen) = (answer.clone(), seen.clone());
                        async move {
                            let path = request.uri().to_string();
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&bytes).unwrap();
                            seen.lock().push(review.clone());
                            let mut response = answer(&path, &review["request"]);
                            response["uid"] = review["request"]["uid"].clone();
                            let said = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
                            Ok::<_, std::convert::Infallible>(http::Response::new(full(said.to_string())))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        use base64::Engine as _;
        let bundle = base64::engine::general_purpose::STANDARD.encode(authority.cert_pem());
        Hook { port, bundle, asked }
    }

    pub(super) fn by_url(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.port), "caBundle": self.bundle})
    }
}

pub(super) fn webhook(name: &str, client: Value, resources: &Value) -> Value {
    json!({
        "name": format!("{name}.example.com"),
        "clientConfig": client,
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    })
}

pub(super) async fn configure(s: &Server, mutating: bool, name: &str, webhooks: Value) {
    let (kind, plural) = if mutating {
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
    } else {
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
    };
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": webhooks});
    s.ok("POST", &format!("{CONFIGS}/{plural}"), body).await;
    settle(s, plural, name).await;
}

/// Waits until the watch cache has it.
async fn settle(s: &Server, plural: &str, name: &str) {
    s.get(&format!("{CONFIGS}/{plural}/{name}")).await;
    s.get(&format!("{CONFIGS}/{plural}")).await;
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A Service with a port of TLS.
pub(super) async fn service(s: &Server, name: &str) {
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 443, "name": "https"}]}});
    s.ok("POST", "/api/v1/namespaces/default/services", service).await;
}

/// Puts a port of the loopback behind a Service: no address of this machine may be an endpoint, but for tests.
pub(super) async fn endpoint(s: &Server, service: &str, port: u16) {
    let mut slice = json!({"metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"]}]});
    let kind = crate::registry::kind::Kind::of("discovery.k8s.io", "endpointslices").unwrap();
    machinery::object::set_gvk(&mut slice, &kind.gvk());
    machinery::object::set_namespace(&mut slice, "default");
    let bytes = kind.encode(&slice).unwrap();
    s.registry.write(&kind, &kind.key_of(&slice), bytes, store::Expect::Absent, None).await.unwrap();
    s.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices").await;
}

fn patch(operations: &Value) -> Value {
    use base64::Engine as _;
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

#[tokio::test]
async fn a_webhook_behind_a_service_denies() {
    let s = Server::start().await;
    let hook = Hook::start(|path, request| {
        if request["name"] == "bad" && path == "/deny?timeout=10s" {
            return json!({"allowed": false, "status": {"message": "no bad maps", "code": 403}, "warnings": ["careful"]});
        }
        json!({"allowed": true, "warnings": ["fine"]})
    })
    .await;
    service(&s, "hook").await;
    endpoint(&s, "hook", hook.port).await;
    let client = json!({"service": {"namespace": "default", "name": "hook", "path": "/deny"}, "caBundle": hook.bundle});
    configure(&s, false, "c", json!([webhook("deny", client, &json!(["configmaps"]))])).await;
    let refused = s.ask("POST", MAPS, config_map("bad")).await;
    assert_eq!(
        (refused.code, refused.body["message"].as_str().unwrap()),
        (403, r#"admission webhook "deny.example.com" denied the request: no bad maps"#)
    );
    let warnings = |answer: &Received| answer.headers.get("warning").map(|w| w.to_str().unwrap().to_owned());
    assert_eq!(warnings(&refused).as_deref(), Some(r#"299 - "careful""#));
    let made = s.ask("POST", MAPS, config_map("good")).await;
    assert_eq!((made.code, warnings(&made).as_deref()), (201, Some(r#"299 - "fine""#)));
    let review = hook.asked.lock().last().cloned().unwrap();
    let request = &review["request"];
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(request["requestKind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!((&request["namespace"], &request["oldObject"]), (&json!("default"), &Value::Null));
    assert_eq!(request["options"], json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}));
    assert_eq!(request["object"]["apiVersion"], "v1");
    assert_eq!(request["userInfo"]["username"], "admin");
    s.ok("DELETE", &format!("{MAPS}/good"), Value::Null).await;
    let review = hook.asked.lock().last().cloned().unwrap();
    assert_eq!(review["request"]["operation"], "DELETE");
    assert_eq!(review["request"]["object"], Value::Null);
    assert_eq!(review["request"]["oldObject"]["metadata"]["name"], "good");
}

#[tokio::test]
async fn patches_apply_in_order_and_defaults_follow() {
    let s = Server::start().await;
    let hook = Hook::start(|path, request| {
        let add = |path: &str, value: Value| patch(&json!([{"op": "add", "path": path, "value": value}]));
        if path.starts_with("/pod") {
            return add("/spec/initContainers", json!([{"name": "i", "image": "x"}]));
        }
        let data = &request["object"]["data"];
        match path.split('?').next().unwrap() {
            "/1" if data["1"].is_null() => add("/data/1", json!("yes")),
            "/2" if data["1"] == "yes" && data["2"].is_null() => add("/data/2", json!("yes")),
            // Sees the others' work in the second round only.
            "/0" if data["2"] == "yes" => add("/data/0", json!("yes")),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    let maps = json!(["configmaps"]);
    let mut first = webhook("zero", hook.by_url("/0"), &maps);
    first["reinvocationPolicy"] = json!("IfNeeded");
    configure(&s, true, "a", json!([first])).await;
    configure(
        &s,
        true,
        "b",
        json!([webhook("one", hook.by_url("/1"), &maps), webhook("two", hook.by_url("/2"), &maps)]),
    )
    .await;
    configure(&s, true, "pods", json!([webhook("pod", hook.by_url("/pod"), &json!(["pods"]))])).await;
    let mut map = config_map("m");
    map["data"] = json!({"x": "y"});
    let made = s.ok("POST", MAPS, map).await;
    assert_eq!(made["data"], json!({"0": "yes", "1": "yes", "2": "yes", "x": "y"}));
    let made = s.ok("POST", PODS, pod("p")).await;
    assert_eq!(made["spec"]["initContainers"][0]["terminationMessagePolicy"], "File");
    assert_eq!(made["spec"]["initContainers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn a_webhook_that_cannot_be_called_fails_closed_or_open() {
    let s = Server::start().await;
    let hook = Hook::start(|_, _| json!({"allowed": true})).await;
    let other = Hook::start(|_, _| json!({"allowed": true})).await;
    let closed = |client: Value| webhook("closed", client, &json!(["configmaps"]));
    let mut client = hook.by_url("/x");
    client["caBundle"] = json!(other.bundle);
    configure(&s, false, "c", json!([closed(client)])).await;
    let (code, text) = s.refused("POST", MAPS, config_map("m")).await;
    assert_eq!(code, 500);
    assert_eq!(
        text,
        format!(
            "Internal error occurred: failed calling webhook \"closed.example.com\": failed to call webhook: Post \
             \"https://localhost:{}/x?timeout=10s\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
            hook.port
        )
    );
    let item = format!("{CONFIGS}/validatingwebhookconfigurations/c");
    let open = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let patched = s.call("PATCH", &item, open, &[("content-type", "application/json-patch+json")]).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    settle(&s, "validatingwebhookconfigurations", "c").await;
    s.ok("POST", MAPS, config_map("m")).await;
    let absent = json!({"service": {"namespace": "default", "name": "none"}, "caBundle": hook.bundle});
    configure(&s, false, "d", json!([webhook("absent", absent, &json!(["configmaps"]))])).await;
    let (_, text) = s.refused("POST", MAPS, config_map("n")).await;
    assert_eq!(
        text,
        "Internal error occurred: failed calling webhook \"absent.example.com\": failed to call webhook: Post \
         \"https://none.default.svc:443/?timeout=10s\": service \"none\" not found"
    );
    // Configurations themselves are never held up.
    s.ok("DELETE", &item, Value::Null).await;
}

#[tokio::test]
async fn a_slow_webhook_is_given_up() {
    let s = Server::start().await;
    let hook = Hook::start(|_, _| {
        std::thread::sleep(Duration::from_secs(2));
        json!({"allowed": true})
    })
    .await;
    let mut slow = webhook("slow", hook.by_url("/x"), &json!(["configmaps"]));
    slow["timeoutSeconds"] = json!(1);
    configure(&s, true, "c", json!([slow])).await;
    let (_, text) = s.refused("POST", MAPS, config_map("m")).await;
    assert!(text.ends_with("/x?timeout=1s\": context deadline exceeded"), "{text}");
}

#[tokio::test]
async fn selectors_and_equivalent_versions_decide() {
    let s = Server::start().await;
    let hook = Hook::start(|_, request| {
        json!({"allowed": false, "status": {"message": format!("{} as {}", request["requestResource"]["version"], request["resource"]["version"])}})
    })
    .await;
    let mut of_v1 = webhook("hpa", hook.by_url("/x"), &json!(["horizontalpodautoscalers"]));
    of_v1["rules"][0]["apiVersions"] = json!(["v1"]);
    of_v1["objectSelector"] = json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    configure(&s, false, "c", json!([of_v1])).await;
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let mut hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let (code, text) = s.refused("POST", path, hpa.clone()).await;
    assert_eq!(
        (code, text.as_str()),
        (400, r#"admission webhook "hpa.example.com" denied the request: "v2" as "v1""#)
    );
    assert_eq!(hook.asked.lock()[0]["request"]["object"]["apiVersion"], "autoscaling/v1");
    hpa["metadata"]["labels"] = json!({"skip": "yes"});
    s.ok("POST", path, hpa).await;
}

#[tokio::test]
async fn subresources_are_shown_as_clients_send_them() {
    let s = Server::start().await;
    let hook = Hook::start(|_, request| {
        let denied = |why: &str| json!({"allowed": false, "status": {"message": why}});
        match request["subResource"].as_str().unwrap_or_default() {
            "exec" => denied(&format!("no {}", request["object"]["command"])),
            "scale" => patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 7}])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    configure(&s, true, "c", json!([webhook("all", hook.by_url("/x"), &json!(["*/*"]))])).await;
    s.ok("POST", PODS, pod("p")).await;
    let (_, text) =
        s.refused("POST", &format!("{PODS}/p/exec?command=ls&command=-l&stdout=1"), Value::Null).await;
    assert_eq!(text, r#"admission webhook "all.example.com" denied the request: no ["ls","-l"]"#);
    assert_eq!(hook.asked.lock().last().unwrap()["request"]["operation"], "CONNECT");
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let labels = json!({"app": "d"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod("x")["spec"]}}});
    s.ok("POST", path, deployment).await;
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 3}});
    let scaled = s.ok("PUT", &format!("{path}/d/scale"), scale).await;
    assert_eq!(scaled["spec"]["replicas"], 7);
    let request = hook.asked.lock().last().unwrap()["request"].clone();
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"]["resource"], "deployments");
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
}

#[tokio::test]
async fn a_dry_run_calls_only_what_has_no_effects() {
    let s = Server::start().await;
    let hook = Hook::start(|_, _| json!({"allowed": true})).await;
    configure(&s, false, "c", json!([webhook("a", hook.by_url("/x"), &json!(["configmaps"]))])).await;
    s.ok("POST", &format!("{MAPS}?dryRun=All&fieldManager=me"), config_map("m")).await;
    let request = hook.asked.lock().last().unwrap()["request"].clone();
    assert_eq!(request["dryRun"], true);
    assert_eq!(
        request["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"})
    );
}

#[tokio::test]
async fn conditions_decide_who_is_asked() {
    let s = Server::start().await;
    let hook = Hook::start(|_, _| json!({"allowed": false})).await;
    let mut conditional = webhook("c", hook.by_url("/x"), &json!(["configmaps"]));
    conditional["matchConditions"] =
        json!([{"name": "not-me", "expression": "object.metadata.name != 'skip-me'"}]);
    configure(&s, true, "c", json!([conditional])).await;
    s.ok("POST", MAPS, config_map("skip-me")).await;
    let (_, text) = s.refused("POST", MAPS, config_map("m")).await;
    assert_eq!(text, r#"admission webhook "c.example.com" denied the request without explanation"#);
}
