//! The secure port of a part alone: `/healthz`, `/livez`, `/readyz` and `/metrics`, as upstream's scheduler and controller manager have it.
//!
//! Health is everybody's to read; the rest is for those the API server lets: it is asked who the caller is (TokenReview, unless a
//! certificate of `--client-ca-file` says so, or of an authority that the cluster names ([`lookup`])) and what it may do (SubjectAccessReview of the path).

mod lookup;
mod reviews;

use super::kubeconfig;
use crate::flags::Flags;
use anyhow::{Context as _, bail};
use apiserver::health::{Endpoint, Health};
use apiserver::tls::ServingCertificate;
use apiserver::{FrontProxies, Limits, Response, query};
use client::leader::Elector;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use jiff::Timestamp;
use kubelet::server::{Authentication, Authenticator, Authorities, Files, User};
use lookup::{Believed, Lookup};
use pki::handshake::Agreed;
use pki::{Authority, Leaf};
use reviews::Reviews;
use rustls::pki_types::CertificateDer;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Task, Work, accept, listen};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// The longest handshake, and the longest wait for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Paths nobody is asked about (upstream: `--authorization-always-allow-paths`).
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/livez"];

/// The port, opened, and what is said on it.
pub(crate) struct Port {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    http2: Http2,
    answers: Answers,
}

/// Whether HTTP/2 is spoken, and how many requests one connection has at once (`--disable-http2-serving`, `--http2-max-streams-per-connection`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Http2 {
    served: bool,
    streams: u32,
}

impl Http2 {
    fn of(flags: &Flags, agreed: &Agreed) -> Self {
        let streams = flags.int("http2-max-streams-per-connection").and_then(|n| u32::try_from(n).ok());
        // Zero is the default.
        let streams = streams.filter(|n| *n > 0).unwrap_or_else(|| Limits::default().streams);
        Self { served: !agreed.no_http2, streams }
    }
}

struct Answers {
    health: Arc<Health>,
    elector: Option<(&'static str, Elector)>,
    supervisor: Supervisor,
    open: Vec<String>,
    front: Option<FrontProxies>,
    /// Whom to believe where the flags do not say.
    lookup: Arc<Lookup>,
    authenticator: Authenticator,
    reviews: Reviews,
}

impl Port {
    /// Opens the port of the flags, or none where they say 0. `client` asks the API server unless a kubeconfig for that is named. `tolerant`:
    /// it is opened although the API server does not say whom to believe, if the flags do not say otherwise.
    pub(crate) async fn open(
        flags: &Flags,
        (default_port, tolerant): (u16, bool),
        client: &kube::Client,
        supervisor: &Supervisor,
        elector: Option<(&'static str, Elector)>,
    ) -> anyhow::Result<Option<Self>> {
        let port = flags.port("secure-port", default_port)?;
        if port == 0 {
            return Ok(None);
        }
        let address = SocketAddr::new(flags.ip("bind-address").unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port);
        let agreed = super::tls::agreed(flags)?;
        let http2 = Http2::of(flags, &agreed);
        let tls = Arc::new(tls(flags, address.ip(), &agreed)?);
        let authorities = flags.text("client-ca-file").map(|path| Authorities::new(Path::new(path)));
        let cache = flags.duration("authentication-token-webhook-cache-ttl").unwrap_or(reviews::KEPT);
        let authentication = Authentication { anonymous: true, tokens: true, cache };
        let reviewer = asker(flags, "authentication-kubeconfig", client).await?;
        let open = flags.list("authorization-always-allow-paths").map(<[String]>::to_vec);
        let answers = Answers {
            health: health(supervisor, elector.clone()),
            elector,
            supervisor: supervisor.clone(),
            open: open.unwrap_or_else(|| OPEN.map(str::to_owned).into()),
            front: super::front::proxies(flags)?,
            lookup: Arc::new(Lookup::new(flags, reviewer.clone(), tolerant).await?),
            authenticator: Authenticator::new(
                authentication,
                authorities.transpose().context("--client-ca-file")?,
                Some(reviewer),
            ),
            reviews: Reviews::new(flags, asker(flags, "authorization-kubeconfig", client).await?),
        };
        let listener = listen::listen(address).with_context(|| format!("listen on {address}"))?;
        Ok(Some(Self { listener, acceptor: TlsAcceptor::from(tls), http2, answers }))
    }

    /// Serves it until told to stop, and keeps up with whom to believe.
    pub(crate) fn tasks(self) -> Vec<Task> {
        let lookup = self.answers.lookup.task();
        let port = Arc::new(self);
        let serving = Task::new("secure-port", move |stop| {
            let port = port.clone();
            async move {
                port.serve(&stop).await;
                Ok(())
            }
        });
        std::iter::once(serving).chain(lookup).collect()
    }

    async fn serve(self: Arc<Self>, stop: &CancellationToken) {
        let connections = Work::new(&self.answers.supervisor, "secure-port/connections");
        let serve = |stream, _| self.clone().connection(stream, stop.clone());
        accept(&self.listener, CONNECTIONS, &connections, stop, serve).await;
        connections.finish(Duration::from_secs(1)).await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, self.acceptor.accept(stream)).await else {
            return;
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = Arc::new(Peer(certificates.iter().map(|c| c.clone().into_owned()).collect()));
        let streams = Streams(Work::new(&self.answers.supervisor, "secure-port/streams"));
        let http2 = self.http2;
        let service = service_fn(move |request: Request<Incoming>| {
            let (port, peer) = (self.clone(), peer.clone());
            // Nothing here reads a body.
            async move { Ok::<_, Infallible>(port.respond(peer, request.into_parts().0).await) }
        });
        let mut builder = Builder::new(streams);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder.http2().max_concurrent_streams(http2.streams);
        if !http2.served {
            builder = builder.http1_only();
        }
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        if let Some(Err(error)) = stop.run_until_cancelled(serving).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    fn respond(self: Arc<Self>, peer: Arc<Peer>, request: Parts) -> BoxFuture<'static, HttpResponse> {
        Box::pin(async move {
            let user = self.answers.user(&peer.0, &request.headers).await;
            let (head, body) = self.answers.answer(&request, user).await.into_parts();
            // All of it is there already.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            http::Response::from_parts(head, Full::new(body))
        })
    }
}

/// A peer's certificates, its own first.
struct Peer(Vec<CertificateDer<'static>>);
type HttpResponse = http::Response<Full<bytes::Bytes>>;

/// The client a flag's kubeconfig makes, or the part's own.
async fn asker(flags: &Flags, name: &'static str, own: &kube::Client) -> anyhow::Result<kube::Client> {
    match flags.text(name) {
        Some(path) => kubeconfig::client(Path::new(path), None).await.with_context(|| format!("--{name}")),
        None => Ok(own.clone()),
    }
}

/// Tasks of HTTP/2 streams.
#[derive(Clone)]
struct Streams(Work);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

impl Answers {
    /// The caller; `None` is answered 401.
    async fn user(&self, chain: &[CertificateDer<'static>], headers: &HeaderMap) -> Option<User> {
        let believed = self.lookup.believed();
        let front = self.front.as_ref().or(believed.front.as_ref());
        match front.map_or(Ok(None), |front| super::front::user(front, chain, headers)) {
            Ok(Some(user)) => Some(user),
            Ok(None) => self.known(&believed, chain, headers).await,
            Err(error) => {
                tracing::debug!(error, "headers of a proxy in front are not believed");
                // As upstream: what is said and not believed does not make the caller anonymous.
                self.known(&believed, chain, headers).await.filter(|user| !user.is_anonymous())
            }
        }
    }

    /// The caller by its certificate or its token.
    async fn known(
        &self,
        believed: &Believed,
        chain: &[CertificateDer<'static>],
        headers: &HeaderMap,
    ) -> Option<User> {
        match believed.user(chain) {
            Some(user) => Some(user),
            None => self.authenticator.user(chain, headers).await,
        }
    }

    async fn answer(&self, request: &Parts, user: Option<User>) -> Response {
        let path = request.uri.path();
        if !self.is_open(path) {
            let Some(user) = user else { return text(StatusCode::UNAUTHORIZED, "Unauthorized") };
            let verb = request.method.as_str().to_lowercase();
            match self.reviews.may(&user, &verb, path).await {
                Ok(true) => {}
                Ok(false) => {
                    let words = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
                    return text(StatusCode::FORBIDDEN, words);
                }
                Err(error) => {
                    tracing::warn!(%error, path, "ask whether a caller may read this");
                    return text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
                }
            }
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        if let Some((endpoint, single)) = Endpoint::of(path) {
            let asked = query::parse(request.uri.query().unwrap_or_default());
            return self.health.answer(endpoint, single, &asked);
        }
        match path {
            "/metrics" => text(StatusCode::OK, self.metrics()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn is_open(&self, path: &str) -> bool {
        let matches = |open: &String| match open.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == open,
        };
        self.open.iter().any(matches)
    }

    fn metrics(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = supervise::metrics::write(&mut out, &self.supervisor);
        if let Some((name, elector)) = &self.elector {
            let leads = u8::from(elector.leads());
            out.push_str("# HELP leader_election_master_status Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.\n");
            out.push_str("# TYPE leader_election_master_status gauge\n");
            out.push_str(&format!("leader_election_master_status{{name={name:?}}} {leads}\n"));
        }
        out.push_str(&machinery::gates::metrics());
        if let Some(started) = supervise::process::started() {
            out.push_str("# TYPE process_start_time_seconds gauge\n");
            out.push_str(&format!("process_start_time_seconds {started}\n"));
        }
        out
    }
}

fn health(supervisor: &Supervisor, elector: Option<(&'static str, Elector)>) -> Arc<Health> {
    let health = Health::new(supervisor.clone());
    health.add("ping", true, || Ok(()));
    if let Some((_, elector)) = elector {
        health.add("leaderElection", true, move || elector.check());
    }
    Arc::new(health)
}

fn text(code: StatusCode, words: impl Into<String>) -> Response {
    let body = Full::<bytes::Bytes>::from(words.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

/// The certificate of the flags, read again when its files change; without one, one nobody signed.
fn tls(flags: &Flags, address: IpAddr, agreed: &Agreed) -> anyhow::Result<rustls::ServerConfig> {
    match (flags.text("tls-cert-file"), flags.text("tls-private-key-file")) {
        (Some(certificate), Some(key)) => {
            let files = Files { certificate: certificate.into(), key: key.into(), client_ca: None };
            return Ok(kubelet::server::server_config(&files, agreed)?);
        }
        (None, None) => {}
        _ => bail!("--tls-cert-file and --tls-private-key-file must be given together"),
    }
    let now = Timestamp::now();
    let authority = Authority::generate("windlass self-signed", now)?;
    let ips = vec![Ipv4Addr::LOCALHOST.into(), address];
    let leaf = Leaf::server("localhost", vec!["localhost".to_owned()], ips);
    let issued = authority.issue(&leaf, now)?;
    let certificate = ServingCertificate::from_pem(&issued.cert_pem, &issued.key_pem)?;
    Ok(apiserver::tls::server_config(certificate, agreed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    #[test]
    fn a_flag_of_the_port_must_not_be_taken_and_not_heard() {
        for part in ["kube-scheduler", "kube-controller-manager"] {
            let of = |line: &str| {
                let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                let flags = Component::named(part).unwrap().table().parse(&arguments).unwrap();
                assert!(flags.unused().is_empty(), "{part} {line}");
                super::super::tls::agreed(&flags).map(|agreed| (Http2::of(&flags, &agreed), agreed, flags))
            };
            let (usual, agreed, _) = of("").unwrap();
            assert_eq!(
                (usual, &agreed),
                (Http2 { served: true, streams: Limits::default().streams }, &Agreed::default())
            );
            assert_eq!(of("--http2-max-streams-per-connection=7").unwrap().0, Http2 { streams: 7, ..usual });
            assert_eq!(of("--http2-max-streams-per-connection=0").unwrap().0, usual);
            let (http2, agreed, flags) =
                of("--disable-http2-serving --tls-min-version=VersionTLS13").unwrap();
            assert_eq!((http2.served, agreed.only_tls13), (false, true));
            let config = tls(&flags, Ipv4Addr::LOCALHOST.into(), &agreed).unwrap();
            assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
            let few =
                of("--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 --tls-curve-preferences=29")
                    .unwrap()
                    .1;
            assert_eq!(
                (few.suites.map(|all| all.len()), few.groups.map(|all| all.len())),
                (Some(1), Some(1))
            );
            assert_eq!(
                of("--tls-min-version=TLS13").unwrap_err().to_string(),
                "unknown tls version \"TLS13\""
            );
        }
    }
}
