//! The whole front over loopback TLS: a fake registry behind it, and a fake kubelet behind that.

mod audit;

use super::*;
use crate::answer;
use crate::authz::bootstrap;
use crate::context::{Context, Request, RequestInfo, Response};
use crate::objects::Fixed;
use crate::registry::hooks::Hooks as _;
use crate::stream::default_node_addresses;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use machinery::status::Status;
use pki::{Authority, Leaf};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

mod settings;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers every request with what it was asked; some names have a behaviour.
struct FakeRegistry {
    connector: Connector,
    objects: Arc<Fixed>,
}

impl Resources for FakeRegistry {
    fn serve(&self, context: Context, request: Request) -> BoxFuture<'static, Response> {
        let (connector, objects) = (self.connector.clone(), self.objects.clone());
        Box::pin(async move {
            let info = context.info.clone();
            if ["exec", "log", "proxy"].contains(&info.subresource.as_str()) {
                let name = info.name.split(':').next().unwrap().to_owned();
                let object = objects.get("", &info.resource, &info.namespace, &name).await.unwrap();
                return connector.connect(context, request, &object).await;
            }
            match info.name.as_str() {
                "panic" => panic!("asked to"),
                "never" => std::future::pending().await,
                _ if info.verb == "watch" => {
                    let first = futures::stream::iter([Ok(http_body::Frame::data("event\n".into()))]);
                    Response::new(StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync())
                }
                _ => match request.into_body().collect().await {
                    Ok(body) => answer::json(
                        StatusCode::OK,
                        &json!({"user": context.user.name, "verb": info.verb, "resource": info.resource, "bytes": body.to_bytes().len()}),
                    ),
                    Err(e) => answer::status(&Status::request_entity_too_large(e)),
                },
            }
        })
    }

    fn knows(&self, info: &RequestInfo) -> bool {
        info.resource == "pods"
    }
}

struct World {
    authority: Authority,
    port: u16,
    stopping: CancellationToken,
    server: ApiServer,
    listening: JoinHandle<()>,
    objects: Arc<Fixed>,
    dialer: Arc<Dialer>,
    _kubelet: JoinHandle<()>,
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

async fn world() -> World {
    world_with(|_| ()).await
}

async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let authority = Authority::generate("kubernetes", now()).unwrap();
    let (kubelet_port, kubelet) = fake_kubelet(&authority).await;
    let objects = Arc::new(Fixed::default());
    objects.put(
        "",
        "nodes",
        json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}}}}),
    );
    objects.put(
        "",
        "pods",
        json!({"metadata": {"namespace": "a", "name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": {"podIP": "127.0.0.1"}}),
    );

    let authorization = Authorization::default();
    bootstrap::objects().iter().for_each(|o| authorization.policy.put(o));
    let client = authority.issue(&Leaf::client("apiserver", &["system:masters"]), now()).unwrap();
    let tasks = Tasks::default();
    let dialer = Dialer::new(Some(&authority.cert_pem()), &client.cert_pem, &client.key_pem).unwrap();
    let dialer = Arc::new(dialer);
    let connector = Connector {
        objects: objects.clone(),
        authorizer: authorization.authorizer.clone(),
        dialer: dialer.clone(),
        node_addresses: default_node_addresses(),
        tasks: tasks.clone(),
    };
    let mut config = Config {
        authentication: authn::Config {
            client_authorities: Some(
                authn::certificate::Authorities::from_pem(&authority.cert_pem()).unwrap(),
            ),
            anonymous: true,
            ..authn::Config::default()
        },
        request_timeout: Duration::from_millis(300),
        limits: Limits { body: 1000, ..Limits::default() },
        ..Config::default()
    };
    change(&mut config);
    let parts = Parts {
        aggregator: None,
        objects: objects.clone(),
        resources: Arc::new(FakeRegistry { connector, objects: objects.clone() }),
        catalog: Arc::default(),
        documents: Vec::new(),
        authorization,
        health: Arc::default(),
        metrics: Arc::default(),
        tasks,
    };
    let stopping = CancellationToken::new();
    let server = ApiServer::new(config, parts, stopping.clone());
    let serving = authority.issue(&Leaf::server("apiserver", vec![], vec![LOCALHOST]), now()).unwrap();
    let certificate = ServingCertificate::from_pem(&serving.cert_pem, &serving.key_pem).unwrap();
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listening = tokio::spawn({
        let server = server.clone();
        async move { server.listen(listener, certificate).await.unwrap() }
    });
    World { authority, port, stopping, server, listening, objects, dialer, _kubelet: kubelet }
}

/// Echoes upgraded bytes in upper case, and answers everything else with its path and headers.
async fn fake_kubelet(authority: &Authority) -> (u16, JoinHandle<()>) {
    let serving = authority.issue(&Leaf::server("kubelet", vec![], vec![LOCALHOST]), now()).unwrap();
    let certificate = ServingCertificate::from_pem(&serving.cert_pem, &serving.key_pem).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(
        crate::tls::server_config(certificate, &Agreed::default()).unwrap(),
    ));
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            assert!(stream.get_ref().1.peer_certificates().is_some(), "the apiserver shows its certificate");
            let service = hyper::service::service_fn(kubelet_answer);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    };
    (port, tokio::spawn(serving))
}

async fn kubelet_answer(
    mut request: http::Request<hyper::body::Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let path = request.uri().to_string();
    if request.headers().contains_key("upgrade") {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            let mut buffer = [0u8; 64];
            while let Ok(n @ 1..) = io.read(&mut buffer).await {
                let upper = buffer[..n].to_ascii_uppercase();
                io.write_all(&upper).await.unwrap();
            }
        });
        let mut response = answer::text(StatusCode::SWITCHING_PROTOCOLS, "");
        response.headers_mut().insert("upgrade", request.headers()["upgrade"].clone());
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("x-kubelet-path", path.parse().unwrap());
        return Ok(response);
    }
    if path.contains("previous=true") {
        return Ok(answer::text(StatusCode::BAD_REQUEST, "previous terminated container \"c\" not found"));
    }
    let said: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
    Ok(answer::text(StatusCode::OK, format!("{path} {}", said.join(","))))
}

type Sent = http::Request<Empty<bytes::Bytes>>;

impl World {
    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        http::Request::builder().method(method).uri(path).header("host", format!("127.0.0.1:{}", self.port))
    }

    fn get(&self, path: &str) -> Sent {
        self.request("GET", path).body(Empty::new()).unwrap()
    }

    async fn tls(
        &self,
        user: Option<(&str, &[&str])>,
        alpn: &str,
    ) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        for der in pki::pem::certificates(self.authority.cert_pem().as_bytes()).unwrap() {
            roots.add(der).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match user {
            None => builder.with_no_client_auth(),
            Some((name, groups)) => {
                let issued = self.authority.issue(&Leaf::client(name, groups), now()).unwrap();
                let chain = pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(chain, pki::pem::private_key(issued.key_pem.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = tokio::net::TcpStream::connect((LOCALHOST, self.port)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// A request on its own HTTP/1.1 connection.
    async fn send(
        &self,
        user: Option<(&str, &[&str])>,
        request: Sent,
    ) -> http::Response<hyper::body::Incoming> {
        let stream = self.tls(user, "http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn stop(self) {
        self.stopping.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.listening).await.expect("drains").unwrap();
    }
}

const ROOT: Option<(&str, &[&str])> = Some(("root", &["system:masters"]));

async fn text(response: http::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn value(response: http::Response<hyper::body::Incoming>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn a_certificate_gets_in_over_both_protocols() {
    let world = world().await;
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods")).await;
    assert!(response.headers().contains_key("audit-id"));
    assert_eq!(response.headers()["cache-control"], "no-cache, private");
    assert!(response.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    assert_eq!(
        value(response).await,
        json!({"user": "root", "verb": "list", "resource": "pods", "bytes": 0})
    );

    let stream = world.tls(ROOT, "h2").await;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://127.0.0.1:{}/api/v1/pods", world.port);
    let request: Sent =
        http::Request::builder().uri(uri).header("audit-id", "mine").body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(
        (response.version(), &response.headers()["audit-id"]),
        (http::Version::HTTP_2, &"mine".parse().unwrap())
    );
    drop(sender);
    world.stop().await;
}

#[tokio::test]
async fn refusals_read_as_upstreams() {
    let world = world().await;
    let response = world.send(None, world.get("/api/v1/namespaces/default/pods")).await;
    assert_eq!(response.status(), 403);
    assert_eq!(
        value(response).await["message"],
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let with_token =
        world.request("GET", "/api").header("authorization", "Bearer wrong").body(Empty::new()).unwrap();
    let response = world.send(None, with_token).await;
    assert_eq!(response.status(), 401);
    assert_eq!(
        value(response).await,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401})
    );
    assert_eq!(text(world.send(None, world.get("/readyz")).await).await, "ok");
    assert_eq!(world.send(ROOT, world.get("/nonsense")).await.status(), 404);
    assert_eq!(value(world.send(ROOT, world.get("/version")).await).await["minor"], "36");
    world.stop().await;
}

#[tokio::test]
async fn a_stuck_or_panicking_request_hurts_nobody_else() {
    let world = world().await;
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods/never")).await;
    assert_eq!(response.status(), 504);
    assert_eq!(
        value(response).await["message"],
        "Timeout: request did not complete within the allotted timeout"
    );
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods/panic")).await;
    assert_eq!(response.status(), 500);
    assert_eq!(world.send(ROOT, world.get("/api/v1/pods")).await.status(), 200);
    let head = world.request("HEAD", "/livez/ping").body(Empty::new()).unwrap();
    assert_eq!(text(world.send(ROOT, head).await).await, "");
    world.stop().await;
}

#[tokio::test]
async fn the_checks_of_health_are_counted_apart() {
    let world = world().await;
    let ready = text(world.send(ROOT, world.get("/readyz?verbose")).await).await;
    assert!(ready.contains("[+]ping ok\n[+]shutdown ok\n"), "{ready}");
    let indicators = text(world.send(ROOT, world.get("/metrics/slis")).await).await;
    for line in [
        r#"kubernetes_healthcheck{name="ping",type="readyz"} 1"#,
        r#"kubernetes_healthchecks_total{name="shutdown",type="readyz",status="success"} 1"#,
    ] {
        assert!(indicators.contains(line), "{line}\n{indicators}");
    }
    assert!(!text(world.send(ROOT, world.get("/healthz?verbose")).await).await.contains("shutdown"));
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_of_the_chain_must_not_be_encoded_otherwise_than_asked_for() {
    let world = world().await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    let request = world.request("GET", "/api/v1/namespaces/a/secrets/s").header("accept", protobuf);
    let response = world.send(None, request.body(Empty::new()).unwrap()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (403, &protobuf.parse().unwrap())
    );
    world.stop().await;
}

#[tokio::test]
async fn watches_outlive_the_timeout_and_end_with_the_server() {
    let world = world().await;
    let mut response = world.send(ROOT, world.get("/api/v1/pods?watch=true")).await;
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "event\n");
    let silent = tokio::time::timeout(Duration::from_millis(600), response.body_mut().frame()).await;
    assert!(silent.is_err(), "the watch goes on past the timeout of other requests");
    world.stop().await;
    assert!(response.body_mut().frame().await.is_none_or(|f| f.is_err()));
}

#[tokio::test]
async fn an_exec_is_a_tunnel_to_the_kubelet() {
    let world = world().await;
    let exec = |method: &str| {
        world
            .request(method, "/api/v1/namespaces/a/pods/p/exec?command=sh&stdin=true&stdout=true")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", "v4.channel.k8s.io")
            .body(Empty::new())
            .unwrap()
    };
    let mut response = world.send(ROOT, exec("POST")).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    assert_eq!(response.headers()["x-kubelet-path"], "/exec/a/p/c?command=sh&input=1&output=1");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut echo = [0u8; 5];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"HELLO");
    drop(io);

    let plain = world.request("POST", "/api/v1/namespaces/a/pods/p/exec").body(Empty::new()).unwrap();
    let response = world.send(ROOT, plain).await;
    assert_eq!(value(response).await["message"], "Upgrade request required");
    world.stop().await;
}

#[tokio::test]
async fn logs_and_proxies_come_from_the_kubelet() {
    let world = world().await;
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods/p/log?tailLines=2")).await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert!(text(response).await.starts_with("/containerLogs/a/p/c?tailLines=2 "));
    let response = world.send(ROOT, world.get("/api/v1/namespaces/a/pods/p/log?previous=true")).await;
    assert_eq!(response.status(), 400);
    assert_eq!(value(response).await["message"], "previous terminated container \"c\" not found");

    let said = text(world.send(ROOT, world.get("/api/v1/nodes/n1/proxy/stats/summary?x=1")).await).await;
    assert!(said.starts_with("/stats/summary?x=1 ") && said.contains("x-forwarded-uri"), "{said}");
    assert!(!said.contains("authorization"), "{said}");
    let response = world.send(ROOT, world.get("/api/v1/nodes/n1/proxy")).await;
    assert_eq!(response.headers()["location"], "/api/v1/nodes/n1/proxy/");

    world.objects.put("", "nodes", json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}));
    let response = world.send(ROOT, world.get("/api/v1/nodes/n1/proxy/x")).await;
    assert_eq!(response.status(), 503);
    assert!(
        value(response).await["message"]
            .as_str()
            .unwrap()
            .starts_with("error trying to reach service: dial tcp 127.0.0.1:1: ")
    );
    world.stop().await;
}

#[tokio::test]
async fn a_local_client_needs_no_socket() {
    use tower::ServiceExt as _;
    let world = world().await;
    let user =
        User { name: "system:controller".into(), groups: vec!["system:masters".into()], ..User::default() };
    let service = world.server.local_service(user);
    let client = kube::Client::new(service.clone(), "default");
    let request = http::Request::get("/api/v1/namespaces/x/pods").body(Vec::new()).unwrap();
    assert_eq!(client.request::<Value>(request).await.unwrap()["user"], "system:controller");
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let large = http::Request::post("/api/v1/namespaces/x/pods").body(answer::body(vec![0u8; 2000])).unwrap();
    let response = service.oneshot(large).await.unwrap();
    assert_eq!(response.status(), 200, "the bound on bodies is the listener's");
    world.stop().await;
}

#[tokio::test]
async fn a_large_body_is_cut_off() {
    let world = world().await;
    // An object may be named as a streaming subresource is; it has the bound of all objects.
    for (method, path) in
        [("POST", "/api/v1/namespaces/a/pods"), ("PUT", "/api/v1/namespaces/a/configmaps/proxy")]
    {
        let stream = world.tls(ROOT, "http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = world.request(method, path).body(answer::body(vec![b' '; 5000])).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 413, "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_timeout_is_the_clients_to_ask_for_but_not_of_streams() {
    let world = world().await;
    assert_eq!(world.send(ROOT, world.get("/api/v1/pods?timeout=soon")).await.status(), 400);
    assert_eq!(world.send(ROOT, world.get("/api/v1/nodes/n1/proxy/x?timeout=soon")).await.status(), 200);
    world.stop().await;
}

/// Runs kubectl where there is one, as a user would.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_its_way() {
    let world = world().await;
    let dir = tempfile::tempdir().unwrap();
    let issued = world.authority.issue(&Leaf::client("root", &["system:masters"]), now()).unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let flags = [
        format!("--server=https://127.0.0.1:{}", world.port),
        format!("--certificate-authority={}", write("ca", &world.authority.cert_pem())),
        format!("--client-certificate={}", write("cert", &issued.cert_pem)),
        format!("--client-key={}", write("key", &issued.key_pem)),
        format!("--cache-dir={}", dir.path().join("cache").display()),
    ];
    let kubectl = async |arguments: &[&str]| {
        let output =
            tokio::process::Command::new(std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into()))
                .env("HOME", dir.path())
                .env("KUBECONFIG", "/dev/null")
                .args(arguments)
                .args(&flags)
                .kill_on_drop(true)
                .output();
        match tokio::time::timeout(Duration::from_secs(60), output).await.expect("kubectl answers") {
            Ok(output) => Some(format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(_) => {
                println!("skipped: no kubectl");
                None
            }
        }
    };
    let Some(resources) = kubectl(&["api-resources", "-o", "wide"]).await else { return world.stop().await };
    assert!(
        resources.contains("deployments") && resources.contains("deploy") && resources.contains("apps/v1"),
        "{resources}"
    );
    let version = kubectl(&["version"]).await.unwrap();
    assert!(version.contains("v1.36.0+windlass"), "{version}");
    let explained = kubectl(&["explain", "deployments.spec.strategy"]).await.unwrap();
    assert!(explained.contains("rollingUpdate"), "{explained}");
    let explained = kubectl(&["explain", "pods.spec.containers", "--recursive"]).await.unwrap();
    assert!(explained.contains("imagePullPolicy") && explained.contains("hostPort"), "{explained}");
    let container = json!({"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 1}},
        "livenessProbe": {"httpGet": {"path": "/", "port": 80}}});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}});
    let create = |pod: &Value| write("pod.json", &pod.to_string());
    let good = create(&pod);
    let created = kubectl(&["create", "--dry-run=client", "--validate=true", "-f", &good]).await.unwrap();
    assert!(created.contains("pod/p created (dry run)"), "{created}");
    pod["spec"]["containers"][0]["imagee"] = "typo".into();
    let bad = create(&pod);
    let refused = kubectl(&["create", "--dry-run=client", "--validate=true", "-f", &bad]).await.unwrap();
    // Clients since 1.25 leave validation to a server that says it validates.
    let leaves_it_to_the_server = !version.contains("v1.20.");
    assert!(
        leaves_it_to_the_server
            || refused.contains("unknown field \"imagee\" in io.k8s.api.core.v1.Container"),
        "{refused}"
    );
    let raw = kubectl(&["get", "--raw", "/readyz?verbose"]).await.unwrap();
    assert!(raw.contains("[+]ping ok"), "{raw}");
    let logs = kubectl(&["get", "--raw", "/api/v1/namespaces/a/pods/p/log?container=c"]).await.unwrap();
    assert!(logs.starts_with("/containerLogs/a/p/c"), "{logs}");
    world.stop().await;
}

#[tokio::test]
async fn the_registry_asks_the_front() {
    let world = world().await;
    let front = world.server.front(world.dialer.clone(), world.objects.clone(), default_node_addresses());
    let alice = User { name: "alice".into(), groups: vec!["system:authenticated".into()], ..User::default() };
    let who = front.review("SelfSubjectReview", json!({}), &alice, "").await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "alice");
    let ask = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = front.review("SelfSubjectAccessReview", ask, &alice, "").await.unwrap();
    assert_eq!(answer["status"], json!({"allowed": false}));
    let token = front.review("TokenReview", json!({"spec": {"token": "x"}}), &alice, "").await.unwrap();
    assert_eq!(token["status"], json!({"user": {}}));
    assert_eq!(front.review("TokenReview", json!({}), &alice, "").await.unwrap_err().code, 400);
    world.stop().await;
}
