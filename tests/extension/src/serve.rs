//! Connections and requests: TLS, the front proxy's certificate, and the path of each thing that can be asked.

use crate::answers::{Body, bytes, refusal, reply};
use crate::things::Things;
use crate::{documents, reviews};
use anyhow::Context as _;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use parking_lot::Mutex;
use pki::{Authority, Leaf};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use supervise::{Supervisor, Work};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections at a time.
const MOST: usize = 256;

/// How it is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where it listens; port 0 of the loopback where none is given.
    pub listen: Option<SocketAddr>,
    /// What its certificate is for: `NAME.NAMESPACE.svc`, and what else it is called.
    pub names: Vec<String>,
    /// PEM of the authority of the front proxy, whose clients are believed when they say for whom they ask.
    pub front: String,
    /// It speaks no OpenAPI 3.
    pub old: bool,
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// What it sent, if that was JSON.
    pub body: Value,
}

struct State {
    settings: Settings,
    things: Things,
    healthy: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    work: Work,
}

/// A running server; it ends when this is dropped.
pub struct Extension {
    state: Arc<State>,
    address: SocketAddr,
    authority: String,
    _stop: DropGuard,
}

impl Extension {
    /// Starts one, with a certificate of an authority of its own.
    ///
    /// # Errors
    /// The address is taken, or an authority is none.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let now = Timestamp::now();
        let authority = Authority::generate("extension", now).context("make an authority")?;
        let issued = authority
            .issue(&Leaf::server("extension", settings.names.clone(), Vec::new()), now)
            .context("issue a certificate")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let fronts =
            pki::pem::certificates(settings.front.as_bytes()).context("read the front proxy's authority")?;
        roots.add_parsable_certificates(fronts);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .context("believe the front proxy's authority")?;
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                pki::pem::certificates(issued.cert_pem.as_bytes())?,
                pki::pem::private_key(issued.key_pem.as_bytes())?,
            )?;
        let listen = settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen at {listen}"))?;
        let address = listener.local_addr().context("find the address")?;
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let state = Arc::new(State {
            settings,
            things: Things::default(),
            healthy: AtomicBool::new(true),
            seen: Mutex::default(),
            work: Work::new(&supervisor, "extension/connection"),
        });
        let (acceptor, serving, stopping) = (TlsAcceptor::from(Arc::new(tls)), state.clone(), stop.clone());
        Work::new(&supervisor, "extension/accept").spawn(async move {
            let work = serving.work.clone();
            let ends = stopping.clone();
            let serve = move |stream, _| {
                let served = connection(serving.clone(), acceptor.clone(), stream);
                let ends = ends.clone();
                async move {
                    ends.run_until_cancelled_owned(served).await;
                }
            };
            supervise::accept(&listener, MOST, &work, &stopping, serve).await;
        });
        Ok(Extension { state, address, authority: authority.cert_pem(), _stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its authority as objects of the API have it: `caBundle`.
    #[must_use]
    pub fn bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.authority)
    }

    /// Answers nothing but 503 while it is not healthy.
    pub fn set_healthy(&self, healthy: bool) {
        self.state.healthy.store(healthy, Ordering::SeqCst);
    }

    /// Every request whose path begins so, in the order they came.
    #[must_use]
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.state.seen.lock().iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
    }
}

async fn connection(state: Arc<State>, acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    // The verifier has looked at what is shown.
    let is_front = stream.get_ref().1.peer_certificates().is_some();
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, is_front, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        // Clients may go at any time.
        let _ = error;
    }
}

async fn answer(state: &Arc<State>, is_front: bool, mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    // Where the protocol is to change, what follows is no body.
    let sent = match upgrade {
        None => body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        Some(_) => Bytes::new(),
    };
    let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
    state.seen.lock().push(Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers.clone(),
        body: sent.clone(),
    });
    if !state.healthy.load(Ordering::SeqCst) {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "not now");
    }
    if let Some(review) = reviews::answer(&path, &sent) {
        return reply(StatusCode::OK, &review);
    }
    let user = parts.headers.get("x-remote-user").and_then(|user| user.to_str().ok());
    let Some(user) = user.filter(|_| is_front) else {
        return refusal(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    };
    if let Some(document) = documents::find(&path, state.settings.old) {
        return described(&parts.headers, &document);
    }
    if let Some(upgrade) = upgrade.filter(|_| path.ends_with("/echo")) {
        return echo(state, &parts.headers, upgrade);
    }
    let asked = parts.uri.query().unwrap_or_default();
    state.things.answer(&parts.method, &path, asked, user, sent)
}

/// A document, unless the client has it.
fn described(headers: &HeaderMap, document: &Value) -> Response<Body> {
    let text = document.to_string();
    let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
    let Ok(etag) = HeaderValue::from_str(&format!("\"{digest}\"")) else {
        return bytes(StatusCode::OK, "application/json", text);
    };
    let mut response = match headers.get(IF_NONE_MATCH) == Some(&etag) {
        true => bytes(StatusCode::NOT_MODIFIED, "application/json", Bytes::new()),
        false => bytes(StatusCode::OK, "application/json", text),
    };
    response.headers_mut().insert(ETAG, etag);
    response
}

/// Leaves HTTP, and sends back what it gets, in capitals.
fn echo(state: &State, headers: &HeaderMap, upgrade: hyper::upgrade::OnUpgrade) -> Response<Body> {
    state.work.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..count].to_ascii_uppercase()).await.is_err() {
                return;
            }
        }
    });
    let mut response = bytes(StatusCode::SWITCHING_PROTOCOLS, "text/plain", Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = headers.get(UPGRADE) {
        response.headers_mut().insert(UPGRADE, protocol.clone());
    }
    response
}
