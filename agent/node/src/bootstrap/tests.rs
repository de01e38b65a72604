//! Joining against a TLS server that knows cluster-info and certificate requests.

use super::*;
use crate::rotation;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::bootstrap::{BootstrapToken, JoinToken};
use pki::{Authority, CertificateRequest, ClusterNames, Pki};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

pub(crate) struct Cluster {
    pub(crate) pki: Pki,
    pub(crate) token: BootstrapToken,
    pub(crate) requests: Mutex<BTreeMap<String, Value>>,
    pub(crate) verdict: Mutex<&'static str>,
    pub(crate) log: Mutex<Vec<String>>,
    pub(crate) server: Mutex<String>,
    /// The authorities it names, where not its own.
    pub(crate) published: Mutex<Option<String>>,
}

impl Cluster {
    fn answer(
        &self,
        method: &str,
        path: &str,
        query: &str,
        authorization: &str,
        body: &[u8],
    ) -> (StatusCode, Value) {
        self.log.lock().unwrap().push(format!("{method} {path} {authorization}"));
        if path == "/api/v1/namespaces/kube-public/configmaps/cluster-info" {
            let server = self.server.lock().unwrap().clone();
            let ca = self.published.lock().unwrap().clone().unwrap_or_else(|| self.pki.ca.cert_pem());
            let info = Kubeconfig::new("", &server, &ca, "", Credentials::Anonymous).to_yaml().unwrap();
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info"},
                "data": {"kubeconfig": info}});
            return (StatusCode::OK, object);
        }
        let known =
            authorization == format!("Bearer {}", self.token.expose()) || authorization == "certificate";
        if !known {
            return (StatusCode::UNAUTHORIZED, failure("Unauthorized", 401));
        }
        const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        match (method, path.strip_prefix(CSRS)) {
            ("POST", Some("")) => self.create(serde_json::from_slice(body).unwrap()),
            // a watch in which nothing happens, and which ends
            ("GET", Some("")) if query.contains("watch=") => (StatusCode::OK, Value::Null),
            ("GET", Some("")) => {
                let requests = self.requests.lock().unwrap();
                let items: Vec<&Value> = requests
                    .values()
                    .filter(|r| query.contains(r["metadata"]["name"].as_str().unwrap()))
                    .collect();
                (
                    StatusCode::OK,
                    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequestList",
                    "metadata": {"resourceVersion": "1"}, "items": items}),
                )
            }
            _ => (StatusCode::NOT_FOUND, failure("NotFound", 404)),
        }
    }

    fn create(&self, mut request: Value) -> (StatusCode, Value) {
        let mut requests = self.requests.lock().unwrap();
        let name = request["metadata"]["name"].as_str().unwrap().to_owned();
        if requests.contains_key(&name) {
            return (StatusCode::CONFLICT, failure("AlreadyExists", 409));
        }
        let spec: k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec =
            serde_json::from_value(request["spec"].clone()).unwrap();
        let csr = CertificateRequest::from_pem(std::str::from_utf8(&spec.request.0).unwrap()).unwrap();
        let usages = spec.usages.unwrap();
        let signer = pki::signer::Signer::from_name(&spec.signer_name).unwrap();
        signer.validate(&csr, &usages).unwrap();
        request["status"] = match *self.verdict.lock().unwrap() {
            "approve" => {
                let pem = self.pki.sign(&csr, &usages, None, Timestamp::now()).unwrap();
                json!({ "certificate": k8s_openapi::ByteString(pem.into_bytes()) })
            }
            verdict => {
                json!({"conditions": [{"type": verdict, "status": "True", "reason": "Because", "message": "no"}]})
            }
        };
        requests.insert(name, request.clone());
        (StatusCode::CREATED, request)
    }
}

fn failure(reason: &str, code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code})
}

/// A cluster on a loopback port, served until the test's runtime ends.
pub(crate) async fn cluster() -> Arc<Cluster> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let names = ClusterNames::of("cluster.local", "10.96.0.1".parse().unwrap(), &[]);
    let pki = Pki::load_or_create(dir.path(), &names, Timestamp::now()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca.certificate().der.clone().into()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
    let certs = pki::pem::certificates(pki.apiserver.cert_pem.as_bytes()).unwrap();
    let key = pki::pem::private_key(pki.apiserver.key_pem.as_bytes()).unwrap();
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(certs, key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = Arc::new(Cluster {
        pki,
        token: BootstrapToken::generate().unwrap(),
        requests: Mutex::default(),
        verdict: Mutex::new("approve"),
        log: Mutex::default(),
        published: Mutex::default(),
        server: Mutex::new(format!("https://{}", listener.local_addr().unwrap())),
    });
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let shared = cluster.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, cluster) = (acceptor.clone(), shared.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let certified = stream.get_ref().1.peer_certificates().is_some();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let cluster = cluster.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let header =
                            parts.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
                        let who =
                            header.unwrap_or(if certified { "certificate".into() } else { String::new() });
                        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
                        let (status, answer) =
                            cluster.answer(parts.method.as_str(), path, query, &who, &body);
                        let bytes = match answer.is_null() {
                            true => Bytes::new(),
                            false => Bytes::from(serde_json::to_vec(&answer).unwrap()),
                        };
                        let built =
                            Response::builder().status(status).header("content-type", "application/json");
                        Ok::<_, Infallible>(built.body(Full::new(bytes)).unwrap())
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    cluster
}

pub(crate) fn config(dir: &Path, token: Option<JoinToken>) -> Config {
    Config { data_dir: dir.to_owned(), token, ..Config::new("n1", vec!["192.0.2.1".parse().unwrap()]) }
}

async fn try_join(config: &Config, cluster: &Cluster) -> Result<(kube::Client, Files), Error> {
    let server = cluster.server.lock().unwrap().clone();
    let shutdown = CancellationToken::new();
    let joined = Box::pin(join(config, &server, &shutdown));
    tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap()
}

#[tokio::test]
async fn a_machine_joins_once_and_then_lives_on_its_certificate() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let token = JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate());
    let (client, files) = try_join(&config(dir.path(), Some(token)), &cluster).await.unwrap();
    let pair = files.read_pair(Role::Client).unwrap().unwrap();
    assert_eq!(pair.certificate.common_name, "system:node:n1");
    assert_eq!(pair.certificate.organizations, ["system:nodes"]);
    assert!(pair.certificate.is_signed_by(cluster.pki.ca.certificate()));

    // A restart needs no token and asks for nothing.
    let before = cluster.log.lock().unwrap().len();
    try_join(&config(dir.path(), None), &cluster).await.unwrap();
    assert_eq!(cluster.log.lock().unwrap().len(), before);

    // The serving certificate is asked for with the new identity, not with the token.
    let ips = ["192.0.2.1".parse().unwrap()];
    rotation::ensure_serving("n1", &ips, &files).unwrap();
    let renewal = rotation::serving("n1", &ips, &files, &client, rotation::never());
    let seen = async {
        loop {
            let pair = files.read_pair(Role::Serving).unwrap().unwrap();
            if pair.certificate.is_signed_by(cluster.pki.ca.certificate()) {
                return pair.certificate;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let certificate = tokio::select! {
        () = Box::pin(renewal) => unreachable!("it never returns"),
        certificate = tokio::time::timeout(Duration::from_secs(20), seen) => certificate.unwrap(),
    };
    assert_eq!((certificate.dns_names, certificate.ips), (vec!["n1".to_owned()], ips.to_vec()));
    let log = cluster.log.lock().unwrap();
    let posts: Vec<&String> = log.iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts.len(), 2);
    assert!(posts[0].contains("Bearer") && posts[1].ends_with(" certificate"), "{posts:?}");
}

#[tokio::test]
async fn a_token_of_a_replaced_authority_must_not_take_a_machine_its_identity() {
    let (first, other) = (cluster().await, cluster().await);
    let dir = tempfile::tempdir().unwrap();
    let token = |of: &Cluster, ca: &Authority| JoinToken::new(of.token.clone(), ca.certificate());
    let joins = config(dir.path(), Some(token(&first, &first.pki.ca)));
    let (_, files) = try_join(&joins, &first).await.unwrap();
    let pair = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    // What rotations leave: authorities in which the token's is not.
    let replaced = Authority::generate("kubernetes", Timestamp::now()).unwrap();
    let before = first.log.lock().unwrap().len();
    let again = config(dir.path(), Some(token(&first, &replaced)));
    try_join(&again, &first).await.unwrap();
    assert_eq!(files.read_pair(Role::Client).unwrap().unwrap().certificate, pair);
    assert!(first.log.lock().unwrap()[before..].iter().all(|line| !line.contains("Bearer")));
    // A new authority that is trusted beside ours is the same cluster's.
    *first.published.lock().unwrap() = Some(replaced.cert_pem() + &first.pki.ca.cert_pem());
    try_join(&again, &first).await.unwrap();
    // Nobody answers: the node lives on.
    let shutdown = CancellationToken::new();
    let joined = Box::pin(join(&again, "https://127.0.0.1:1", &shutdown));
    tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap().unwrap();
    assert_eq!(files.read_pair(Role::Client).unwrap().unwrap().certificate, pair);
    // Another cluster, which the token names, is joined.
    try_join(&config(dir.path(), Some(token(&other, &other.pki.ca))), &other).await.unwrap();
    let moved = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    assert!(moved.is_signed_by(other.pki.ca.certificate()));
}

#[tokio::test]
async fn a_machine_must_not_stay_between_two_clusters() {
    let (first, other) = (cluster().await, cluster().await);
    let dir = tempfile::tempdir().unwrap();
    let token = |of: &Cluster| JoinToken::new(of.token.clone(), of.pki.ca.certificate());
    let (client, files) = try_join(&config(dir.path(), Some(token(&first))), &first).await.unwrap();
    let pair = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    let before = std::fs::read_to_string(files.kubeconfig()).unwrap();
    // The other cluster's server is not up yet: everything stays, the URL with it.
    let moved = config(dir.path(), Some(token(&other)));
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let silent = format!("https://{place}");
    let joined = Box::pin(join(&moved, &silent, &shutdown));
    tokio::time::timeout(Duration::from_secs(20), joined).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(files.kubeconfig()).unwrap(), before);
    assert!(settle_once(&moved, &silent, &files).await.is_err(), "it is asked again");
    assert_eq!(files.read_pair(Role::Client).unwrap().unwrap().certificate, pair);
    // It comes up, and proves itself.
    let server = other.server.lock().unwrap().clone();
    let (_, slot) = crate::client::renewable(client);
    let changed = watch::Sender::new(());
    let mut seen = changed.subscribe();
    let settled = Box::pin(settle(&moved, &server, &files, &slot, &changed));
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    let now = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    assert!(now.is_signed_by(other.pki.ca.certificate()));
    // And then it is ours.
    settle(&moved, &server, &files, &slot, &changed).await;
    assert!(!seen.has_changed().unwrap());
    // One that is ours, at another place, is found there.
    let later = "https://127.0.0.1:1";
    assert!(settle_once(&moved, later, &files).await.unwrap());
    let written = Kubeconfig::read(&files.kubeconfig()).unwrap().cluster().unwrap().server.clone();
    assert_eq!(written, later);
}

#[tokio::test]
async fn the_token_must_not_reach_a_server_that_is_not_the_named_one() {
    let cluster = cluster().await;
    let other = Authority::generate("kubernetes", Timestamp::now()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = JoinToken::new(cluster.token.clone(), other.certificate());
    let error = try_join(&config(dir.path(), Some(token)), &cluster).await.err().unwrap();
    let text = chain(&error);
    assert!(text.contains("another cluster, or someone is in between"), "{text}");
    assert!(!text.contains(cluster.token.secret()));
    assert!(cluster.log.lock().unwrap().iter().all(|line| !line.contains("Bearer")));
}

#[tokio::test]
async fn without_token_or_credentials_the_way_out_is_told() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let error = try_join(&config(dir.path(), None), &cluster).await.err().unwrap().to_string();
    assert!(error.contains("windlass token create"), "{error}");
    let plain = cluster.token.expose().parse().unwrap();
    let error = try_join(&config(dir.path(), Some(plain)), &cluster).await.err().unwrap();
    assert!(chain(&error).contains("give its hash"), "{error}");
}

#[tokio::test]
async fn a_denied_request_is_asked_again_with_another_key() {
    let cluster = cluster().await;
    *cluster.verdict.lock().unwrap() = "Denied";
    let dir = tempfile::tempdir().unwrap();
    let token = JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate());
    let config = config(dir.path(), Some(token));
    let patient = try_join(&config, &cluster);
    let change_of_mind = async {
        while cluster.requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        *cluster.verdict.lock().unwrap() = "approve";
    };
    let (joined, ()) = tokio::join!(Box::pin(patient), change_of_mind);
    joined.unwrap();
    assert_eq!(cluster.requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_that_was_made_anew_must_not_be_kept_from_its_name() {
    let cluster = cluster().await;
    let (before, now) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let token = || Some(JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate()));
    let (_, old) = try_join(&config(before.path(), token()), &cluster).await.unwrap();
    let (_, new) = try_join(&config(now.path(), token()), &cluster).await.unwrap();
    let certificate = |files: &Files| files.read_pair(Role::Client).unwrap().unwrap().certificate;
    assert_eq!(certificate(&new).common_name, certificate(&old).common_name);
    assert_ne!(certificate(&new).public_key_hash(), certificate(&old).public_key_hash());
    assert_eq!(cluster.requests.lock().unwrap().len(), 2, "each has a request of its own");
}

#[tokio::test]
async fn a_machine_that_was_renamed_must_not_speak_by_its_old_name() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let token = || Some(JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate()));
    let (_, files) = try_join(&config(dir.path(), token()), &cluster).await.unwrap();
    rotation::ensure_serving("n1", &["192.0.2.1".parse().unwrap()], &files).unwrap();
    let old_part = files.pair(Role::Part(pki::part::NodePart::Proxy));
    std::fs::write(&old_part, "of the node before").unwrap();
    let renamed = |token| Config { node_name: "n2".to_owned(), ..config(dir.path(), token) };
    // Nobody lets it in, and it is told what to do.
    let error = try_join(&renamed(None), &cluster).await.err().unwrap().to_string();
    assert!(error.contains("windlass token create"), "{error}");
    let (_, files) = try_join(&renamed(token()), &cluster).await.unwrap();
    let certificate = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    assert_eq!(certificate.common_name, "system:node:n2");
    let written = Kubeconfig::read(&files.kubeconfig()).unwrap().to_yaml().unwrap();
    assert!(written.contains("system:node:n2") && !written.contains("system:node:n1"), "{written}");
    assert!(!old_part.exists(), "what its parts had is of the node before");
    rotation::ensure_serving("n2", &["192.0.2.1".parse().unwrap()], &files).unwrap();
    let serving = files.read_pair(Role::Serving).unwrap().unwrap().certificate;
    assert_eq!((serving.common_name.as_str(), serving.dns_names), ("system:node:n2", vec!["n2".to_owned()]));
    // And from then on it needs no token.
    let before = cluster.log.lock().unwrap().len();
    try_join(&renamed(None), &cluster).await.unwrap();
    assert_eq!(cluster.log.lock().unwrap().len(), before);
}

#[tokio::test]
async fn a_machine_that_was_away_longer_than_its_certificate_lives_joins_again() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let token = || Some(JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate()));
    let (_, files) = try_join(&config(dir.path(), token()), &cluster).await.unwrap();
    let long_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24 * 400);
    let key = pki::request::new_key().unwrap();
    let request = Subject::node("n1").request(&key).unwrap();
    let request = CertificateRequest::from_pem(&request).unwrap();
    let usages = ["digital signature".to_owned(), "client auth".to_owned()];
    let spent = cluster.pki.sign(&request, &usages, None, long_ago).unwrap();
    let certificate = Certificate::from_pem(&spent).unwrap();
    files.write_pair(Role::Client, &crate::identity::KeyPair { certificate, key_pem: key }).unwrap();
    // Without a token nobody knows it any more; with one it is as new.
    assert!(try_join(&config(dir.path(), None), &cluster).await.is_err());
    try_join(&config(dir.path(), token()), &cluster).await.unwrap();
    let now = files.read_pair(Role::Client).unwrap().unwrap().certificate;
    assert!(now.is_valid_at(Timestamp::now()));
}

#[tokio::test]
async fn a_killed_agent_takes_up_its_request() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let token = JoinToken::new(cluster.token.clone(), cluster.pki.ca.certificate());
    let config = config(dir.path(), Some(token));
    let ours = Files::new(&config.agent_dir());
    ours.create().unwrap();
    let key = ours.pending_key(Role::Client).unwrap();
    try_join(&config, &cluster).await.unwrap();
    let pair = ours.read_pair(Role::Client).unwrap().unwrap();
    assert!(pair.certificate.has_key(&key));
    // Killed after the signature, before the files were written.
    std::fs::remove_file(ours.kubeconfig()).unwrap();
    std::fs::remove_file(ours.pair(Role::Client)).unwrap();
    files::write_atomic(&config.agent_dir().join("pki/kubelet-client.key.new"), key.as_bytes(), 0o600)
        .unwrap();
    try_join(&config, &cluster).await.unwrap();
    assert_eq!(cluster.requests.lock().unwrap().len(), 1);
}
