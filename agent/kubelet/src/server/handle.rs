//! One request: who sends it, whether they may, and which handler answers.

use super::answer::{self, HttpResponse};
use super::authenticate::Authenticator;
use super::authorize::{Authorizer, Verdict};
use super::config::Config;
use super::health::Health;
use super::indicators::Indicators;
use super::metrics::{Metrics, volumes};
use super::pods::{Pods, View};
use super::query::Query;
use super::route::{Action, Route, Target};
use super::stream::options::{self, Streams};
use super::stream::{pass, remote, target, tunnel, upgrade};
use super::{checkpoint, log_query, logs, podlist, system_logs, zpages};
use crate::meters::{HTTP_DURATION, HTTP_INFLIGHT, Meters};
use crate::node::machine;
use crate::stats::collect::{Depth, Measured};
use crate::stats::{Stats, cadvisor, resource, summary};
use cri_proto::client::Runtime;
use cri_proto::v1;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervise::Work;
use tokio_util::sync::CancellationToken;

/// The content type of metrics.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who may come in: the callers that are known, and what they may.
pub(super) struct Gate {
    pub(super) authenticator: Authenticator,
    pub(super) authorizer: Authorizer,
}

/// A request that is being answered; whatever ends it, it is counted no more.
struct Inflight<'a>(&'a Meters, &'a str);

impl<'a> Inflight<'a> {
    fn new(meters: &'a Meters, labels: &'a str) -> Self {
        meters.add(&HTTP_INFLIGHT, labels, 1.0);
        Self(meters, labels)
    }
}

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.0.add(&HTTP_INFLIGHT, self.1, -1.0);
    }
}

/// What answers are made of.
pub(super) struct Parts {
    pub(super) pods: Arc<dyn Pods>,
    pub(super) runtime: Runtime,
    pub(super) stats: Stats,
    pub(super) health: Health,
    pub(super) streams: Work,
}

/// What all requests share.
pub(super) struct Handler {
    config: Config,
    /// None where everybody may come in.
    gate: Option<Gate>,
    pods: Arc<dyn Pods>,
    runtime: Runtime,
    metrics: Metrics,
    indicators: Indicators,
    /// When the kubelet started.
    started: Timestamp,
    stats: Stats,
    health: Health,
    streams: Work,
    pub(super) shutdown: CancellationToken,
}

impl Handler {
    pub(super) fn new(config: Config, gate: Option<Gate>, parts: Parts) -> Self {
        let Parts { pods, runtime, stats, health, streams } = parts;
        let shutdown = health.scope.stop().clone();
        let metrics =
            Metrics::new(if gate.is_some() { "readwrite" } else { "readonly" }, config.gates.clone());
        let (indicators, started) = (Indicators::default(), Timestamp::now());
        Self { config, gate, pods, runtime, metrics, indicators, started, stats, health, streams, shutdown }
    }

    /// Whether the caller may do this; else what they are told.
    async fn enter(
        &self,
        gate: &Gate,
        peer: &[CertificateDer<'static>],
        request: &Request<Incoming>,
    ) -> Result<(), HttpResponse> {
        let Some(user) = gate.authenticator.user(peer, request.headers()).await else {
            return Err(answer::refused(StatusCode::UNAUTHORIZED, "Unauthorized"));
        };
        match gate.authorizer.verdict(&user, request.method(), request.uri().path()).await {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden(text) => Err(answer::refused(StatusCode::FORBIDDEN, text)),
            Verdict::Failed(text) => Err(answer::refused(StatusCode::INTERNAL_SERVER_ERROR, text)),
        }
    }

    /// Answers one request of a peer that showed these certificates.
    pub(super) async fn handle(
        &self,
        peer: &[CertificateDer<'static>],
        request: Request<Incoming>,
    ) -> HttpResponse {
        let path = request.uri().path().to_owned();
        let heads_only = request.method() == Method::HEAD;
        let labels = self.metrics.request(request.method(), &path);
        let (meters, began) = (self.stats.meters(), Instant::now());
        let inflight = Inflight::new(&meters, &labels);
        let answer = Box::pin(self.decide(peer, request, &path)).await;
        drop(inflight);
        meters.observe(&HTTP_DURATION, labels, began.elapsed());
        if heads_only { answer::head(answer) } else { answer }
    }

    async fn decide(
        &self,
        peer: &[CertificateDer<'static>],
        request: Request<Incoming>,
        path: &str,
    ) -> HttpResponse {
        if let Some(gate) = &self.gate
            && let Err(refused) = self.enter(gate, peer, &request).await
        {
            return refused;
        }
        let route = Route::of(path);
        if !allowed(&route).contains(request.method()) {
            return answer::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        }
        let debugging = matches!(
            route,
            Route::ContainerLogs { .. }
                | Route::Container { .. }
                | Route::PortForward(_)
                | Route::Checkpoint { .. }
                | Route::RunningPods
                | Route::SystemLogs(_)
        );
        if debugging && !self.config.debugging {
            return answer::refused(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.");
        }
        let query = Query::new(request.uri().query());
        match route {
            Route::Health(check) => self.health.answer(check, &query, &self.indicators),
            Route::Pods => podlist::serve(&self.pods.all()),
            Route::RunningPods => podlist::running(&self.runtime).await,
            Route::SystemLogs(path) => self.system_logs(path, &query).await,
            // Upstream installs these with the handlers for debugging.
            Route::Configz | Route::Statusz | Route::Flagz if !self.config.debugging => {
                answer::text(StatusCode::NOT_FOUND, "404: Page Not Found")
            }
            Route::Configz => {
                answer::sniffless(answer::json(&serde_json::json!({"kubeletconfig": self.config.shown})))
            }
            Route::Statusz => zpages::statusz(request.headers(), self.started, Timestamp::now()),
            Route::Flagz => zpages::flagz(request.headers(), &self.config.flags),
            Route::Indicators if request.method() == Method::DELETE => {
                self.indicators.reset();
                answer::text(StatusCode::OK, "metrics reset\n")
            }
            Route::Indicators => answer::typed(StatusCode::OK, METRICS, self.indicators.page()),
            Route::Metrics => {
                let tasks = self.health.scope.supervisor();
                let pods = self.pods.all();
                // Nothing is measured for a node without claims.
                let claims = pods.iter().any(|view| volumes::has_claims(&view.pod));
                let measured = match claims {
                    true => self.stats.measure(self.stats.usual_depth(), volumes::has_claims).await,
                    false => Measured::default(),
                };
                let name = &self.config.node_name;
                self.metrics.serve(name, &pods, &self.runtime, tasks, (&measured, &self.stats.meters())).await
            }
            Route::ResourceMetrics => self.measured(Depth::Cgroups, |m, _| resource::of(m)).await,
            Route::ContainerMetrics => {
                self.measured(self.stats.usual_depth(), |m, root| cadvisor::of(m, &machine::read(root))).await
            }
            // Probes are not counted; an empty page is a valid one.
            Route::ProbeMetrics => answer::typed(StatusCode::OK, METRICS, String::new()),
            Route::Summary => self.summary(&query).await,
            Route::ContainerLogs { namespace, pod, container } => {
                let view = self.pods.by_name(namespace, pod);
                Box::pin(logs::serve(&self.runtime, view, pod, container, &query)).await
            }
            Route::Container { action: Action::Run, target, container } => {
                Box::pin(self.run(target, container, &query)).await
            }
            Route::Container { action, target, container } => {
                Box::pin(self.container(request, action, target, container, &query)).await
            }
            Route::Checkpoint { .. } if !self.config.checkpoints => {
                answer::text(StatusCode::NOT_FOUND, "404: Page Not Found")
            }
            Route::Checkpoint { namespace, pod, container } => {
                let (root, view) = (self.stats.root_dir(), self.pods.by_name(namespace, pod));
                checkpoint::serve(&self.runtime, root, view, container, &query).await
            }
            Route::PortForward(target) => Box::pin(self.port_forward(request, target, &query)).await,
            Route::Unknown => answer::text(StatusCode::NOT_FOUND, "404: Page Not Found"),
        }
    }

    async fn system_logs(&self, path: &str, query: &Query) -> HttpResponse {
        let root = self.config.system_logs.as_deref();
        if let Some(root) = root.filter(|_| self.config.log_query)
            && let Some(answer) = Box::pin(log_query::serve(root, path, query)).await
        {
            return answer;
        }
        system_logs::serve(root, path).await
    }

    /// A page of metrics, from a measurement of its own.
    async fn measured(&self, depth: Depth, page: fn(&Measured, &Path) -> String) -> HttpResponse {
        let measured = self.stats.measure(depth, |_| true).await;
        answer::typed(StatusCode::OK, METRICS, page(&measured, self.stats.root_dir()))
    }

    async fn summary(&self, query: &Query) -> HttpResponse {
        let brief = query.flag(&["only_cpu_and_memory"]);
        let depth = if brief { Depth::Cgroups } else { self.stats.usual_depth() };
        let measured = self.stats.measure(depth, |_| true).await;
        let memory = machine::read(self.stats.root_dir()).memory;
        answer::json(&summary::of(&measured, self.stats.node_name(), memory, brief))
    }

    fn pod(&self, target: Target<'_>) -> Option<View> {
        self.pods.by_name(target.namespace, target.pod)
    }

    /// The id of the running container a stream is for.
    async fn running(&self, target: Target<'_>, container: &str) -> Result<String, HttpResponse> {
        let view =
            self.pod(target).ok_or_else(|| answer::text(StatusCode::NOT_FOUND, "pod does not exist"))?;
        let named = target.uid.is_none_or(|uid| uid == view.uid());
        let found =
            if named { target::container(&self.runtime, view.uid(), container).await } else { Ok(None) };
        found.map_err(|error| answer::runtime(&error))?.ok_or_else(|| {
            answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"))
        })
    }

    async fn container(
        &self,
        request: Request<Incoming>,
        action: Action,
        target: Target<'_>,
        container: &str,
        query: &Query,
    ) -> HttpResponse {
        let streams = match Streams::parse(query) {
            Ok(streams) => streams,
            Err(text) => return answer::text(StatusCode::BAD_REQUEST, text),
        };
        let container_id = match self.running(target, container).await {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let Streams { stdin, stdout, stderr, tty } = streams;
        let (streams, url) = match action {
            Action::Attach => {
                // Whether a process has a terminal was settled when it was made.
                let tty = self.pod(target).is_some_and(|view| view.has_terminal(container));
                let streams = Streams { tty, stderr: stderr && !tty, ..streams };
                let request = v1::AttachRequest { container_id, stdin, tty, stdout, stderr: streams.stderr };
                (streams, self.runtime.attach(request).await)
            }
            Action::Exec | Action::Run => {
                let cmd = query.all("command");
                (
                    streams,
                    self.runtime
                        .exec(v1::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr })
                        .await,
                )
            }
        };
        match url {
            Ok(url) => self.remote(request, streams, &url).await,
            Err(error) => answer::runtime(&error),
        }
    }

    async fn remote(&self, request: Request<Incoming>, streams: Streams, url: &str) -> HttpResponse {
        if !upgrade::is_upgrade(request.headers()) {
            return answer::text(StatusCode::BAD_REQUEST, "Upgrade request required");
        }
        match remote::protocol(request.headers()) {
            Some(protocol) if upgrade::is_websocket(request.headers()) => {
                remote::serve(&self.streams, &self.shutdown, request, protocol, streams, url).await
            }
            _ => pass::serve(&self.streams, &self.shutdown, request, url).await,
        }
    }

    async fn port_forward(
        &self,
        request: Request<Incoming>,
        target: Target<'_>,
        query: &Query,
    ) -> HttpResponse {
        let websocket = upgrade::is_websocket(request.headers());
        let tunnel = websocket && tunnel::is_asked(request.headers());
        // Of the old protocol, which the runtime speaks itself; SPDY names ports in its streams.
        let ports = if websocket && !tunnel {
            match options::ports(query) {
                Ok(ports) => ports,
                Err(text) => return answer::text(StatusCode::BAD_REQUEST, text),
            }
        } else {
            Vec::new()
        };
        let Some(view) = self.pod(target) else {
            return answer::text(StatusCode::NOT_FOUND, "pod does not exist");
        };
        if target.uid.is_some_and(|uid| uid != view.uid()) {
            return answer::text(StatusCode::NOT_FOUND, "pod not found");
        }
        let url = match target::sandbox(&self.runtime, view.uid()).await {
            Ok(Some(pod_sandbox_id)) => {
                self.runtime.port_forward(v1::PortForwardRequest { pod_sandbox_id, port: ports }).await
            }
            Ok(None) => {
                let text = format!("pod not found (\"{}_{}\")", target.pod, target.namespace);
                return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
            Err(error) => Err(error),
        };
        match url {
            Err(error) => answer::runtime(&error),
            Ok(_) if !upgrade::is_upgrade(request.headers()) => {
                answer::text(StatusCode::BAD_REQUEST, "Upgrade request required")
            }
            Ok(url) if tunnel => tunnel::serve(&self.streams, &self.shutdown, request, &url).await,
            Ok(url) => pass::serve(&self.streams, &self.shutdown, request, &url).await,
        }
    }

    /// `/run`: the output of a command is the answer.
    async fn run(&self, target: Target<'_>, container: &str, query: &Query) -> HttpResponse {
        let id = match self.running(target, container).await {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        // Not as exec has it: one parameter, split at spaces.
        let cmd = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        match self.runtime.exec_sync(&id, cmd, Duration::ZERO).await {
            Ok(done) => {
                let output = [&done.stdout[..], &done.stderr[..]].concat();
                if done.exit_code == 0 {
                    return answer::typed(StatusCode::OK, "application/json", output);
                }
                let text = format!(
                    "command '{}' exited with {}: {}",
                    query.get("cmd").unwrap_or_default(),
                    done.exit_code,
                    String::from_utf8_lossy(&output)
                );
                answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.runtime_message()),
        }
    }
}

/// The methods of a route.
fn allowed(route: &Route<'_>) -> &'static [Method] {
    const READ: &[Method] = &[Method::GET];
    const STREAM: &[Method] = &[Method::GET, Method::POST];
    const ANY: &[Method] = &[
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    match route {
        Route::Container { action: Action::Run, .. } | Route::Checkpoint { .. } => &[Method::POST],
        Route::Container { .. } | Route::PortForward(_) => STREAM,
        Route::Summary => STREAM,
        // What upstream gives Go's own mux, which looks at no method.
        Route::Health(_)
        | Route::Metrics
        | Route::ResourceMetrics
        | Route::ContainerMetrics
        | Route::ProbeMetrics
        | Route::Indicators
        | Route::Configz
        | Route::Statusz
        | Route::Flagz
        | Route::Unknown => ANY,
        _ => READ,
    }
}
