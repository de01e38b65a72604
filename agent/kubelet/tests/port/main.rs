//! The kubelet's port over loopback TLS: a fake API server for reviews, a fake runtime behind.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]

#[macro_use]
#[path = "../support/refuse.rs"]
mod refuse;

mod bytes_arrive;
#[path = "../support/runtime.rs"]
#[allow(dead_code, reason = "the port asks for less than a worker")]
mod runtime;
mod streaming;
#[path = "../support/world.rs"]
#[allow(dead_code, reason = "the port asks for less than a worker")]
mod world;

use bytes::Bytes;
use cri_proto::client::{Deadlines, Runtime};
use cri_proto::v1::{ContainerConfig, ContainerMetadata, ImageSpec, PodSandboxConfig, PodSandboxMetadata};
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode, response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kubelet::server::{self, Agreed, Authentication, Authorization, Config, Files, Pods, View};
use kubelet::{Cgroups, Claims, Pulse, Stats, spdy};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervise::{Scope, Supervisor};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::CancellationToken;

const LOG: &str = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n";

struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn issue(&self, name: &str, group: &str) -> (rcgen::Certificate, KeyPair) {
        let (mut params, key) =
            (CertificateParams::new(vec!["node".to_owned()]).unwrap(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// Who may what: user and subresource.
const RULES: &[(&str, &str)] = &[
    ("fine", "pods"),
    ("old", "proxy"),
    ("apiserver", "proxy"),
    ("apiserver", "pods"),
    ("reader", "log"),
    ("apiserver", "metrics"),
    ("apiserver", "statusz"),
    ("apiserver", "configz"),
    ("apiserver", "checkpoint"),
];

#[derive(Clone, Default)]
struct Api {
    reviews: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let path = request.uri().path().to_owned();
                let bytes = request.into_body().collect().await?.to_bytes();
                let mut object: Value = serde_json::from_slice(&bytes).unwrap();
                api.reviews.fetch_add(1, Ordering::SeqCst);
                let spec = object["spec"].clone();
                object["status"] = if path.ends_with("/tokenreviews") {
                    match spec["token"].as_str().and_then(|t| t.strip_prefix("token-of-")) {
                        Some(user) => {
                            json!({"authenticated": true, "user": {"username": user, "groups": ["g"]}})
                        }
                        None => json!({"authenticated": false}),
                    }
                } else {
                    api.asked.lock().unwrap().push(spec.clone());
                    let asked = (
                        spec["user"].as_str().unwrap(),
                        spec["resourceAttributes"]["subresource"].as_str().unwrap(),
                    );
                    json!({"allowed": RULES.contains(&asked)})
                };
                let body = kube::client::Body::from(serde_json::to_vec(&object).unwrap());
                Ok::<_, kube::Error>(Response::builder().status(201).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }
}

struct OnePod;

impl Pods for OnePod {
    fn all(&self) -> Vec<View> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u1"}, "spec": {"containers": [{"name": "c"}]}
        }))
        .unwrap();
        let status: PodStatus = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "containerd://container2", "state": {"running": {}}
        }]}))
        .unwrap();
        vec![View { pod: Arc::new(pod), status: Arc::new(status) }]
    }

    fn by_name(&self, namespace: &str, name: &str) -> Option<View> {
        self.all().into_iter().find(|_| (namespace, name) == ("n", "p"))
    }
}

/// A runtime in which the pod's container runs.
fn one_container(log: &Path) -> world::World {
    let labels = [("io.kubernetes.pod.uid", "u1"), ("io.kubernetes.container.name", "c")];
    let labels: HashMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let mut world = world::World::default();
    world.images.push("i".to_owned());
    let metadata =
        PodSandboxMetadata { name: "p".into(), uid: "u1".into(), namespace: "n".into(), attempt: 0 };
    let config = PodSandboxConfig { metadata: Some(metadata), labels: labels.clone(), ..Default::default() };
    let sandbox = world.run_sandbox(config).unwrap();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "i".into(), ..Default::default() }),
        labels,
        log_path: log.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let id = world.create(&sandbox, config).unwrap();
    world.start(&id).unwrap();
    world
}

struct Port {
    dir: tempfile::TempDir,
    address: SocketAddr,
    /// Where everybody may read.
    open: SocketAddr,
    authority: Authority,
    api: Api,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), server::Error>>,
    fake: runtime::Fake,
}

async fn port() -> Port {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let authority = Authority::new();
    let (certificate, key) = authority.issue("system:node:node", "system:nodes");
    std::fs::write(path("pair.pem"), certificate.pem() + &key.serialize_pem()).unwrap();
    std::fs::write(path("ca.pem"), &authority.1).unwrap();
    std::fs::write(path("0.log"), LOG).unwrap();
    let mut fake = runtime::Fake::new(one_container(&path("0.log")), runtime::Trap::None);
    fake.streaming = streaming::serve().await;
    tokio::spawn(fake.clone().serve(UnixListener::bind(path("cri.sock")).unwrap()));
    let endpoint = format!("unix://{}", path("cri.sock").display());
    let runtime = Runtime::connect(&endpoint, Deadlines::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config {
        node_name: "node".to_owned(),
        address,
        files: Files {
            certificate: path("pair.pem"),
            key: path("pair.pem"),
            client_ca: Some(path("ca.pem")),
        },
        agreed: Agreed::default(),
        authentication: Authentication::default(),
        authorization: Authorization::default(),
        shown: json!({}),
        flags: [("root-dir".to_owned(), "/r".to_owned())].into(),
        debugging: true,
        system_logs: Some(path("logs")),
        log_query: false,
        checkpoints: true,
        gates: String::new(),
    };
    let (api, stop) = (Api::default(), CancellationToken::new());
    let mut settings = kubelet::Config::new("node", Vec::new());
    settings.root_dir = path("root");
    let settings = Arc::new(settings);
    let cgroups = Cgroups::new(&settings);
    let stats = Stats::new(settings, runtime.clone(), cgroups, kubelet::Pods::default(), Claims::default());
    let client = Some(api.client());
    let scope = Arc::new(Scope::new(&Supervisor::default(), "kubelet/", &stop));
    let health = server::Health { scope, pulse: Pulse::default() };
    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (for_all, one) = (Config { address: open, ..config.clone() }, Arc::new(OnePod));
    let read = server::plain::read_only(for_all, one, runtime.clone(), stats.clone(), health.clone());
    tokio::spawn(read);
    let served = server::serve(listener, config, Arc::new(OnePod), runtime, stats, client, health);
    Port { dir, address, open, authority, api, stop, served: tokio::spawn(served), fake }
}

type Pair = (rcgen::Certificate, KeyPair);

impl Port {
    async fn connect(&self, pair: Option<&Pair>) -> TlsStream<TcpStream> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.1.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("node").unwrap(), stream)
            .await
            .unwrap()
    }

    async fn get(&self, pair: Option<&Pair>, token: Option<&str>, path: &str) -> (StatusCode, String) {
        let (head, body) = self.ask(Method::GET, pair, token, path).await;
        (head.status, body)
    }

    async fn ask(
        &self,
        method: Method,
        pair: Option<&Pair>,
        token: Option<&str>,
        path: &str,
    ) -> (response::Parts, String) {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(self.connect(pair).await)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "node");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.served).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn callers_are_known_and_permitted_by_the_api_server() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    let strange = Authority::new().issue("apiserver", "system:masters");
    let refused = |user: &str, subresources: &str| {
        format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[{subresources}])\n")
    };
    for (pair, token, path, code, text) in [
        (None, None, "/pods", 401, Some("Unauthorized\n".to_owned())),
        (None, Some("nonsense"), "/pods", 401, Some("Unauthorized\n".to_owned())),
        (Some(&strange), None, "/pods", 401, Some("Unauthorized\n".to_owned())),
        (Some(&ours), None, "/pods", 200, None),
        (Some(&ours), None, "/healthz", 200, Some("ok".to_owned())),
        (None, Some("token-of-fine"), "/pods", 200, None),
        (None, Some("token-of-fine"), "/exec/n/p/c", 403, Some(refused("fine", "proxy"))),
        (None, Some("token-of-old"), "/pods", 200, None),
        (None, Some("token-of-old"), "/metrics", 403, Some(refused("old", "metrics"))),
        (None, Some("token-of-nobody"), "/pods", 403, Some(refused("nobody", "pods proxy"))),
        (Some(&ours), None, "/nowhere", 404, None),
    ] {
        let got = port.get(pair, token, path).await;
        assert_eq!(got.0.as_u16(), code, "{path} {token:?}: {}", got.1);
        assert!(text.as_ref().is_none_or(|text| *text == got.1), "{path} {token:?}: {}", got.1);
    }
    let asked = port.api.asked.lock().unwrap()[0].clone();
    assert_eq!(asked["groups"], json!(["system:masters", "system:authenticated"]));
    let attributes =
        json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "pods", "name": "node"});
    assert_eq!(asked["resourceAttributes"], attributes);
    let before = port.api.reviews.load(Ordering::SeqCst);
    let list: Value = serde_json::from_str(&port.get(None, Some("token-of-old"), "/pods").await.1).unwrap();
    assert_eq!(port.api.reviews.load(Ordering::SeqCst), before, "answers are kept");
    assert_eq!((&list["kind"], &list["items"][0]["status"]["phase"]), (&json!("PodList"), &json!("Running")));
    port.end().await;
}

#[tokio::test]
async fn what_everybody_may_read_must_not_be_more_than_that() {
    let port = port().await;
    let ask = async |method: Method, path: &str| {
        let stream = loop {
            match TcpStream::connect(port.open).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "node");
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (head.status.as_u16(), text)
    };
    let (code, pods) = ask(Method::GET, "/pods").await;
    assert!(code == 200 && pods.contains("\"PodList\""), "{pods}");
    assert_eq!(ask(Method::GET, "/healthz").await, (200, "ok".to_owned()));
    let (code, metrics) = ask(Method::GET, "/metrics").await;
    assert!(code == 200 && metrics.contains("server_type=\"readonly\""), "{metrics}");
    for (method, path) in [
        (Method::POST, "/run/n/p/c?cmd=ls"),
        (Method::POST, "/exec/n/p/c?command=ls&output=1"),
        (Method::GET, "/containerLogs/n/p/c"),
        (Method::GET, "/runningpods/"),
        (Method::POST, "/checkpoint/n/p/c"),
    ] {
        assert_eq!(ask(method, path).await, (405, "Debug endpoints are disabled.\n".to_owned()), "{path}");
    }
    assert_eq!(ask(Method::GET, "/configz").await.0, 404);
    port.end().await;
}

#[tokio::test]
async fn a_checkpoint_is_made_of_the_running_container_and_refused_in_upstreams_words() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    for (method, path, code, text) in [
        (Method::POST, "/checkpoint/n/q/c", 404, "pod does not exist"),
        (Method::POST, "/checkpoint/n/p/d", 404, "container d does not exist"),
        (
            Method::POST,
            "/checkpoint/n/p/c?timeout=1&timeout=x",
            404,
            "cannot parse value of timeout parameter",
        ),
        (
            Method::POST,
            "/checkpoint/n/p/c?timeout=-1",
            500,
            "checkpointing of n/p/c failed (CheckpointContainer requires the timeout value to be > 0)",
        ),
        (Method::GET, "/checkpoint/n/p/c", 405, "405: Method Not Allowed"),
    ] {
        let (head, body) = port.ask(method, Some(&ours), None, path).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (code, text), "{path}");
    }
    let (head, body) = port.ask(Method::POST, Some(&ours), None, "/checkpoint/n/p/c?timeout=500").await;
    assert_eq!(head.status, StatusCode::OK, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let file = Path::new(answer["items"][0].as_str().unwrap());
    assert_eq!(file.parent(), Some(port.dir.path().join("root/checkpoints").as_path()));
    assert!(file.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-p_n-c-"), "{body}");
    assert!(
        std::fs::read_to_string(file).unwrap().ends_with(" 500"),
        "the caller's patience is the runtime's"
    );
    port.end().await;
}

#[tokio::test]
async fn logs_are_served_and_refused_in_upstreams_words() {
    let port = port().await;
    // What is followed ends with its container.
    port.fake.change(|world| world.exit("c", 0));
    let ours = port.authority.issue("apiserver", "system:masters");
    for (path, code, text) in [
        ("/containerLogs/n/p/c", 200, "one\ntwo\n"),
        ("/containerLogs/n/p/c?follow=true", 200, "one\ntwo\n"),
        ("/containerLogs/n/p/c?tailLines=1&timestamps=true", 200, "2026-01-01T00:00:01.000000000Z two\n"),
        ("/containerLogs/n/q/c", 404, "pod \"q\" does not exist\n"),
        ("/containerLogs/n/p/d", 404, "container \"d\" not found in pod \"p\"\n"),
        (
            "/containerLogs/n/p/c?previous=true",
            400,
            "previous terminated container \"c\" in pod \"p\" not found",
        ),
        ("/containerLogs/n/p/c?tailLines=-1", 422, "{\"message\": \"Invalid request.\"}"),
        ("/exec/n/p/c?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/n/q/c?command=ls&output=1", 404, "pod does not exist"),
        ("/exec/n/p/d?command=ls&output=1", 500, "container not found (\"d\")"),
        ("/logs/", 403, "Forbidden (user=apiserver, verb=get, resource=nodes, subresource(s)=[log])\n"),
    ] {
        let got = port.get(Some(&ours), None, path).await;
        assert_eq!((got.0.as_u16(), got.1.as_str()), (code, text), "{path}");
    }
    assert!(port.dir.path().exists());
    port.end().await;
}

/// What upstream gives to Go's own mux takes any method, and answers HEAD as GET without the bytes.
#[tokio::test]
async fn a_head_must_be_answered_like_its_get() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    let open = &["/healthz", "/configz", "/flagz", "/metrics/probes"];
    for path in open {
        let (get, text) = port.ask(Method::GET, Some(&ours), None, path).await;
        assert_eq!(get.status, 200, "{path}: {text}");
        let (head, nothing) = port.ask(Method::HEAD, Some(&ours), None, path).await;
        assert_eq!((head.status, nothing.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "content-length", "x-content-type-options"] {
            assert_eq!(head.headers.get(name), get.headers.get(name), "{path}: {name}");
        }
    }
    // Their lengths change from one to the next.
    for path in ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/slis", "/statusz"] {
        let (get, _) = port.ask(Method::GET, Some(&ours), None, path).await;
        let (head, nothing) = port.ask(Method::HEAD, Some(&ours), None, path).await;
        assert_eq!((head.status.as_u16(), get.status.as_u16(), nothing.as_str()), (200, 200, ""), "{path}");
        assert_eq!(head.headers["content-type"], get.headers["content-type"], "{path}");
    }
    let (pods, _) = port.ask(Method::HEAD, Some(&ours), None, "/pods").await;
    assert_eq!(pods.status, 405, "routed by method");
    port.end().await;
}

#[tokio::test]
async fn health_checks_are_counted_and_pages_tell_of_the_process() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    let slis = async || port.get(Some(&ours), None, "/metrics/slis").await.1;
    assert_eq!(slis().await, "");
    port.get(Some(&ours), None, "/healthz?exclude=log").await;
    let page = slis().await;
    assert!(page.contains("kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n"), "{page}");
    assert!(!page.contains("name=\"log\""), "{page}");
    let (reset, text) = port.ask(Method::DELETE, Some(&ours), None, "/metrics/slis").await;
    assert_eq!((reset.status.as_u16(), text.as_str()), (200, "metrics reset\n"));
    assert_eq!(slis().await, "");
    let flags = port.get(Some(&ours), None, "/flagz").await.1;
    assert!(flags.starts_with("\nkubelet flagz\n") && flags.ends_with("root-dir=/r\n"), "{flags}");
    let status = port.get(Some(&ours), None, "/statusz").await.1;
    assert!(status.contains("\nPaths: /configz /flagz /healthz /metrics\n"), "{status}");
    for (path, subresource) in [("/statusz", "statusz"), ("/flagz", "configz")] {
        let refused = port.get(None, Some("token-of-old"), path).await;
        let text =
            format!("Forbidden (user=old, verb=get, resource=nodes, subresource(s)=[{subresource}])\n");
        assert_eq!((refused.0.as_u16(), refused.1), (403, text));
    }
    port.end().await;
}

const COMMAND: &str = "command=sh&command=-c&command=cat%3B%20exit%203";

#[tokio::test]
async fn exec_by_websocket_closes_stdin_alone_and_brings_the_exit_code() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    let uri = format!("wss://node/exec/n/p/c?{COMMAND}&input=1&output=1&tty=1");
    let mut request = uri.into_client_request().unwrap();
    let protocols = "v5.channel.k8s.io, v4.channel.k8s.io";
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let stream = port.connect(Some(&ours)).await;
    let (mut socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let input = Bytes::from(vec![b'x'; 300_000]);
    let resize = [&[4][..], br#"{"Width":80,"Height":24}"#].concat();
    socket.send(Message::Binary(resize.into())).await.unwrap();
    for piece in input.chunks(32 * 1024) {
        socket.send(Message::Binary([&[0], piece].concat().into())).await.unwrap();
    }
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let mut channels = vec![Vec::<u8>::new(); 5];
    let mut closed = false;
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend(&bytes[1..]),
            // clients take any other end for an error
            Message::Close(frame) => closed = frame.is_some_and(|f| u16::from(f.code) == 1000),
            other => panic!("{other:?}"),
        }
    }
    assert!(closed, "a command's end is told by a close");
    assert_eq!(channels[3], streaming::VERDICT.as_bytes());
    let want = [br#"size={"Width":80,"Height":24};"#, &input[..]].concat();
    assert!(channels[1] == want, "{} of {} bytes", channels[1].len(), want.len());
    port.end().await;
}

/// A remote command's connection, switched to SPDY.
async fn spdy(port: &Port, query: &str) -> TokioIo<hyper::upgrade::Upgraded> {
    let ours = port.authority.issue("apiserver", "system:masters");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(port.connect(Some(&ours)).await)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(format!("/exec/n/p/c?{query}"))
        .header("host", "node")
        .header("authorization", "Bearer secret")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap())
}

#[tokio::test]
async fn exec_by_spdy_is_passed_through() {
    let port = port().await;
    let io = spdy(&port, &format!("{COMMAND}&input=1&output=1&error=1")).await;
    let (mut session, driver) = spdy::client(io).unwrap();
    let driven = tokio::spawn(driver.run());
    let mut open =
        async |kind: &str| session.open(vec![("streamtype".to_owned(), kind.to_owned())]).await.unwrap();
    let (mut error, stdin) = (open("error").await, open("stdin").await);
    let (mut stdout, mut stderr) = (open("stdout").await, open("stderr").await);
    stdin.0.send(Bytes::from_static(b"hello")).await.unwrap();
    stdin.0.finish().await.unwrap();
    let mut texts = Vec::new();
    for stream in [&mut stdout.1, &mut stderr.1, &mut error.1] {
        let mut text = Vec::new();
        while let Some(piece) = stream.receive().await {
            text.extend(piece);
        }
        texts.push(String::from_utf8(text).unwrap());
    }
    assert_eq!(texts, ["size=;hello", "warning", streaming::VERDICT]);
    driven.abort();
    port.end().await;
}

#[tokio::test]
async fn a_head_request_must_not_break_http2() {
    let port = port().await;
    let ours = port.authority.issue("apiserver", "system:masters");
    let io = TokioIo::new(port.connect(Some(&ours)).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for (path, status) in
        [("/healthz", 200), ("/pods", 405), ("/nothing", 404), ("/runningpods/", 405), ("/logs/", 403)]
    {
        let request = Request::head(format!("https://node{path}")).body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
    }
    let (status, text) = port.get(Some(&ours), None, "/runningpods/").await;
    assert_eq!((status, text.contains("PodList")), (StatusCode::OK, true), "{text}");
    std::fs::create_dir(port.dir.path().join("logs")).unwrap();
    std::fs::write(port.dir.path().join("logs/syslog"), "hello").unwrap();
    let reader = port.authority.issue("reader", "g");
    let (status, text) = port.get(Some(&reader), None, "/logs/syslog").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "hello"));
    port.end().await;
}
