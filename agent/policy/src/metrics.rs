//! What is counted of policies, as OpenMetrics text, and who may ask for it: this machine, over HTTP.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Work, accept};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Media type of the exposition.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at a time.
const MOST_CONNECTIONS: usize = 16;
/// The longest a connection lasts.
const LONGEST_CONNECTION: Duration = Duration::from_secs(30);

/// The counters of one node.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    applied: Histogram,
    failures: Counter,
    cut: Counter,
    /// Policies, pods known, addresses judged.
    counts: [Gauge; 3],
    asked: Histogram,
    unjudged: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = || Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        let metrics = Self {
            registry: Mutex::default(),
            applied: durations(),
            failures: Counter::default(),
            cut: Counter::default(),
            counts: Default::default(),
            asked: durations(),
            unjudged: Counter::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            let policy = registry.sub_registry_with_prefix("windlass_policy");
            let help = "From known changes to rules that say so";
            policy.register("apply_duration_seconds", help, metrics.applied.clone());
            policy.register("apply_failures", "Transactions that failed", metrics.failures.clone());
            policy.register("cut_flows", "Flows forgotten that are allowed no more", metrics.cut.clone());
            for ((name, help), gauge) in [
                ("policies", "Policies of the cluster"),
                ("pods", "Pods known, of all nodes; none while there is no policy"),
                ("judged_addresses", "Addresses of this node's pods, each direction that is judged"),
            ]
            .into_iter()
            .zip(&metrics.counts)
            {
                policy.register(name, help, gauge.clone());
            }
            let help = "How long the container runtime waited for a new pod's rules";
            policy.register("attach_duration_seconds", help, metrics.asked.clone());
            let help = "Pods attached before it was known how to judge them";
            policy.register("attached_unjudged", help, metrics.unjudged.clone());
        }
        metrics
    }
}

impl Metrics {
    /// Everything known is in the kernel.
    pub(crate) fn applied(&self, took: Duration, counts: [usize; 3]) {
        self.applied.observe(took.as_secs_f64());
        for (gauge, count) in self.counts.iter().zip(counts) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The kernel took nothing.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// So many flows were cut.
    pub(crate) fn cut(&self, count: usize) {
        self.cut.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A pod's addresses may be used.
    pub(crate) fn attached(&self, took: Duration, judged: bool) {
        self.asked.observe(took.as_secs_f64());
        if !judged {
            self.unjudged.inc();
        }
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if let Err(error) = encode(&mut out, &self.registry.lock()) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        out
    }
}

/// Answers `/metrics` until `stop`. A port that cannot be had is left alone with a warning: policies matter more.
pub(crate) fn serve(
    metrics: Arc<Metrics>,
    address: SocketAddr,
    works: (Work, Work),
    stop: CancellationToken,
) {
    let listener = match supervise::listen::listen(address) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%address, %error, "nobody can ask what is counted of policies"),
    };
    let (listening, work) = works;
    listening.spawn(async move {
        let connection = |stream: TcpStream, _| {
            let metrics = metrics.clone();
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(request.uri().path(), &metrics);
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // a client that goes away is its own affair
                let _ended = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
            }
        };
        accept(&listener, MOST_CONNECTIONS, &work, &stop, connection).await;
    });
}

fn answer(path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (code, kind, body) = match path {
        "/metrics" => (StatusCode::OK, MEDIA_TYPE, metrics.render()),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_must_be_missing_or_named_twice() {
        let metrics = Metrics::default();
        metrics.applied(Duration::from_millis(3), [7, 8, 9]);
        metrics.failed();
        metrics.cut(2);
        metrics.attached(Duration::from_millis(3), true);
        metrics.attached(Duration::from_millis(3), false);
        let text = metrics.render();
        for line in [
            "windlass_policy_apply_duration_seconds_count 1",
            "windlass_policy_apply_failures_total 1",
            "windlass_policy_cut_flows_total 2",
            "windlass_policy_policies 7",
            "windlass_policy_pods 8",
            "windlass_policy_judged_addresses 9",
            "windlass_policy_attach_duration_seconds_count 2",
            "windlass_policy_attached_unjudged_total 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(answer("/other", &metrics).status(), StatusCode::NOT_FOUND);
    }
}
