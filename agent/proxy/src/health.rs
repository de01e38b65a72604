//! What load balancers and people ask a node's proxy over HTTP.
//!
//! - for each service with a `healthCheckNodePort`: whether a ready endpoint is on this node, in upstream's words
//!   (`pkg/proxy/healthcheck/service_health.go`);
//! - `/healthz` and `/livez` of the proxy itself: healthy unless a change waits too long, or the API server never showed us
//!   any service because we lack the credentials; `/healthz` also asks whether the node may get traffic at all;
//! - `/proxyMode` and `/metrics`, for this machine only.

use crate::apply::ServiceName;
use crate::metrics::{MEDIA_TYPE, Metrics};
use bytes::Bytes;
use client::recorder::{Note, Recorder, Severity};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::listen::listen;
use supervise::{Supervisor, Work, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections a listener serves at a time.
const MOST_CONNECTIONS: usize = 64;
/// The longest a connection lasts.
const LONGEST_CONNECTION: Duration = Duration::from_secs(30);
/// The mode as upstream names it.
const MODE: &str = "nftables";

/// How the proxy is.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// The last time everything known was in the kernel.
    pub(crate) updated: Timestamp,
    /// Since when a change waits.
    pub(crate) waiting: Option<Instant>,
    /// How long it may.
    pub(crate) patience: Duration,
    /// Whether the node should get traffic from outside.
    pub(crate) eligible: bool,
    /// Why the API server does not show us services.
    pub(crate) refused: Option<String>,
}

impl Status {
    fn healthy(&self) -> bool {
        self.refused.is_none() && self.waiting.is_none_or(|since| since.elapsed() < self.patience)
    }
}

/// A service's number of ready endpoints here, and where load balancers ask for it.
type Checked = (u16, usize);

pub(crate) struct Health {
    node: String,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    listening: Work,
    serving: Work,
    status: watch::Sender<Status>,
    services: BTreeMap<ServiceName, (u16, watch::Sender<usize>, DropGuard)>,
    /// Ports that could not be listened on; said once.
    failed: BTreeMap<ServiceName, u16>,
}

impl Health {
    /// Says on services of `node`'s, by `recorder`, what keeps load balancers from asking for them.
    pub(crate) fn new(
        supervisor: &Supervisor,
        patience: Duration,
        metrics: Arc<Metrics>,
        (node, recorder): (String, Recorder),
    ) -> Self {
        let (updated, eligible) = (Timestamp::now(), true);
        let status = Status { updated, waiting: None, patience, eligible, refused: None };
        let listening = Work::new(supervisor, "proxy/health");
        let serving = Work::new(supervisor, "proxy/health/connection");
        Self {
            node,
            recorder,
            metrics,
            listening,
            serving,
            status: watch::Sender::new(status),
            services: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Tells how the proxy is.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// Answers for the proxy itself until cancelled. A port that cannot be had is left alone with a warning: services matter more.
    pub(crate) fn serve_own(
        &self,
        (healthz, mode): (Option<SocketAddr>, Option<SocketAddr>),
        shutdown: &CancellationToken,
    ) {
        for (address, own) in [(healthz, true), (mode, false)] {
            let Some(address) = address else { continue };
            match listen(address) {
                Ok(listener) => {
                    let status = self.status.subscribe();
                    let metrics = self.metrics.clone();
                    let answer = move |path: &str| {
                        let status = status.borrow().clone();
                        match (own, path) {
                            (true, _) => {
                                let response = about_proxy(path, &status);
                                metrics.asked(path, response.status().as_u16());
                                response
                            }
                            (false, "/metrics") => respond(StatusCode::OK, MEDIA_TYPE, metrics.render()),
                            (false, _) => about_mode(path, &status),
                        }
                    };
                    self.listening.spawn(serve(
                        listener,
                        Arc::new(answer),
                        self.serving.clone(),
                        shutdown.child_token(),
                    ));
                }
                Err(error) => tracing::warn!(%address, %error, "nobody can ask how the proxy is"),
            }
        }
    }

    /// Brings the listeners to `wanted`.
    pub(crate) fn sync(&mut self, wanted: &BTreeMap<ServiceName, Checked>) {
        self.services.retain(|name, (port, ..)| wanted.get(name).is_some_and(|(p, _)| p == port));
        self.failed.retain(|name, port| wanted.get(name).is_some_and(|(p, _)| p == port));
        for (name, (port, count)) in wanted {
            if let Some((_, counts, _)) = self.services.get(name) {
                counts.send_replace(*count);
                continue;
            }
            match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))) {
                Ok(listener) => {
                    let stop = CancellationToken::new();
                    let counts = watch::Sender::new(*count);
                    let (seen, status, service) = (counts.subscribe(), self.status.subscribe(), name.clone());
                    let answer =
                        move |_: &str| about_service(&service, *seen.borrow(), status.borrow().healthy());
                    self.listening.spawn(serve(
                        listener,
                        Arc::new(answer),
                        self.serving.clone(),
                        stop.clone(),
                    ));
                    self.services.insert(name.clone(), (*port, counts, stop.drop_guard()));
                    self.failed.remove(name);
                }
                Err(error) => {
                    if self.failed.insert(name.clone(), *port) != Some(*port) {
                        tracing::warn!(service = ?name, port, %error, "a load balancer cannot ask for this service");
                        self.recorder.note(unheard(&self.node, name, *port, &error));
                    }
                }
            }
        }
    }
}

type HttpResponse = Response<Full<Bytes>>;

async fn serve<F>(listener: TcpListener, answer: Arc<F>, work: Work, stop: CancellationToken)
where
    F: Fn(&str) -> HttpResponse + Send + Sync + 'static,
{
    let connection = |stream: TcpStream, _| {
        let (answer, stop) = (answer.clone(), stop.clone());
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.uri().path());
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // a client that goes away is its own affair
                _ = tokio::time::timeout(LONGEST_CONNECTION, connection) => {}
            }
        }
    };
    accept(&listener, MOST_CONNECTIONS, &work, &stop, connection).await;
}

fn respond(code: StatusCode, kind: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn not_found() -> HttpResponse {
    respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
}

fn about_service((namespace, name): &ServiceName, endpoints: usize, healthy: bool) -> HttpResponse {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut response = respond(code(endpoints > 0 && healthy), "application/json", body);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", endpoints.into());
    response
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyHealth {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    /// Not upstream's, whose proxy ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    status: BTreeMap<&'static str, FamilyHealth>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    last_updated: Timestamp,
    healthy: bool,
}

fn about_proxy(path: &str, status: &Status) -> HttpResponse {
    let now = Timestamp::now();
    let healthy = status.healthy();
    let (good, node_eligible) = match path {
        "/healthz" => (healthy && status.eligible, Some(status.eligible)),
        "/livez" => (healthy, None),
        _ => return not_found(),
    };
    let family = || FamilyHealth { last_updated: status.updated, healthy };
    let health = ProxyHealth {
        last_updated: if good { now } else { status.updated },
        current_time: now,
        node_eligible,
        healthy,
        message: status.refused.clone(),
        status: BTreeMap::from([("IPv4", family()), ("IPv6", family())]),
    };
    // a plain structure of strings and booleans always becomes JSON
    let body = serde_json::to_string(&health).unwrap_or_default();
    respond(code(good), "application/json", body)
}

fn about_mode(path: &str, status: &Status) -> HttpResponse {
    match path {
        "/proxyMode" => respond(StatusCode::OK, "text/plain; charset=utf-8", MODE.to_owned()),
        "/healthz" if status.healthy() => {
            respond(StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned())
        }
        "/healthz" => {
            let why = status.refused.clone().unwrap_or_else(|| "a change waits too long".to_owned());
            respond(code(false), "text/plain; charset=utf-8", why)
        }
        _ => not_found(),
    }
}

/// What upstream records of a port that is not to be had.
fn unheard(node: &str, (namespace, name): &ServiceName, port: u16, error: &std::io::Error) -> Note {
    let service = format!("{namespace}/{name}");
    Note {
        component: "kube-proxy",
        about: ObjectReference {
            kind: Some("Service".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            api_version: Some("v1".to_owned()),
            ..ObjectReference::default()
        },
        severity: Severity::Warning,
        reason: "FailedToStartServiceHealthcheck".into(),
        message: format!("node {node} failed to start healthcheck {service:?} on port {port}: {error}"),
        action: Some(("Listen", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn body(answer: HttpResponse) -> (u16, String) {
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn status() -> Status {
        let (updated, patience) = (Timestamp::UNIX_EPOCH, Duration::from_secs(60));
        Status { updated, waiting: None, patience, eligible: true, refused: None }
    }

    #[tokio::test]
    async fn a_service_is_answered_for_in_upstreams_words() {
        let name = ("d".to_owned(), "web".to_owned());
        let answer = about_service(&name, 2, true);
        assert_eq!(answer.headers()["x-load-balancing-endpoint-weight"], "2");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let wanted = "{\n\t\"service\": {\n\t\t\"namespace\": \"d\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!(body(answer).await, (200, wanted.to_owned()));
        assert_eq!(body(about_service(&name, 0, true)).await.0, 503);
        assert_eq!(body(about_service(&name, 1, false)).await.0, 503);
    }

    #[tokio::test]
    async fn the_proxy_is_unhealthy_when_a_change_waits_and_ineligible_only_for_healthz() {
        let mut status = status();
        assert_eq!(body(about_proxy("/healthz", &status)).await.0, 200);
        assert!(
            body(about_proxy("/healthz", &status)).await.1.contains("\"nodeEligible\":true,\"healthy\":true")
        );
        status.eligible = false;
        assert_eq!(body(about_proxy("/healthz", &status)).await.0, 503);
        assert_eq!(body(about_proxy("/livez", &status)).await.0, 200);
        status.waiting = Instant::now().checked_sub(Duration::from_secs(61));
        let (code, text) = body(about_proxy("/livez", &status)).await;
        assert_eq!((code, text.contains("1970-01-01")), (503, true));
        assert_eq!(body(about_proxy("/other", &status)).await.0, 404);
        assert_eq!(body(about_mode("/proxyMode", &status)).await, (200, "nftables".to_owned()));
    }

    #[tokio::test]
    async fn a_proxy_without_credentials_says_so() {
        let refused = Some("no credentials of the proxy".to_owned());
        let status = Status { refused, ..status() };
        for path in ["/healthz", "/livez"] {
            let (code, text) = body(about_proxy(path, &status)).await;
            assert!(code == 503 && text.contains("\"message\":\"no credentials of the proxy\""), "{text}");
        }
        assert_eq!(
            body(about_mode("/healthz", &status)).await,
            (503, "no credentials of the proxy".to_owned())
        );
    }

    async fn whole(port: u16, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn ask(port: u16) -> Option<String> {
        whole(port, "/").await?.lines().next().map(str::to_owned)
    }

    fn health() -> Health {
        let (recorder, _) = Recorder::new(None, Some("n"));
        let reports = ("n".to_owned(), recorder);
        Health::new(&Supervisor::default(), Duration::from_secs(60), Arc::default(), reports)
    }

    #[tokio::test]
    async fn a_port_that_is_taken_must_not_be_known_to_the_log_alone() {
        let taken = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let port = taken.local_addr().unwrap().port();
        let name = ("d".to_owned(), "web".to_owned());
        let mut health = health();
        health.sync(&BTreeMap::from([(name.clone(), (port, 1))]));
        assert_eq!(health.failed, BTreeMap::from([(name.clone(), port)]), "it is said");
        let note = unheard("n", &name, port, &std::io::Error::other("taken"));
        let text = format!("node n failed to start healthcheck \"d/web\" on port {port}: taken");
        assert_eq!((&*note.reason, note.message), ("FailedToStartServiceHealthcheck", text));
        assert_eq!(
            (note.about.kind.as_deref(), note.about.namespace.as_deref(), note.about.name.as_deref()),
            (Some("Service"), Some("d"), Some("web"))
        );
        drop(taken);
        health.sync(&BTreeMap::from([(name, (port, 1))]));
        assert!(health.failed.is_empty(), "it is tried again");
    }

    #[tokio::test]
    async fn what_is_counted_must_not_be_hidden() {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (healthz, mode) = (free(), free());
        let health = health();
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        health.serve_own((Some(healthz), Some(mode)), &stop);
        assert!(whole(healthz.port(), "/healthz").await.unwrap().starts_with("HTTP/1.1 200"));
        let text = whole(mode.port(), "/metrics").await.unwrap();
        assert!(
            text.contains(MEDIA_TYPE) && text.contains("kubeproxy_proxy_healthz_total{code=\"200\"} 1"),
            "{text}"
        );
        assert!(whole(healthz.port(), "/metrics").await.unwrap().starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn listeners_follow_the_services() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut health = health();
        let name = ("d".to_owned(), "web".to_owned());
        health.sync(&BTreeMap::from([(name.clone(), (port, 0))]));
        assert_eq!(ask(port).await.unwrap(), "HTTP/1.1 503 Service Unavailable");
        health.sync(&BTreeMap::from([(name, (port, 3))]));
        assert_eq!(ask(port).await.unwrap(), "HTTP/1.1 200 OK");
        health.sync(&BTreeMap::new());
        let deadline = Instant::now() + Duration::from_secs(5);
        while ask(port).await.is_some() {
            assert!(Instant::now() < deadline, "still answered");
            tokio::task::yield_now().await;
        }
    }
}
