//! What the server counts, under upstream's names, as OpenMetrics text, as far as it is [`shown`].

mod shown;

pub use shown::Shown;

use crate::facts::{RequestInfo, Response};
use crate::health::Outcomes;
use machinery::gates;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;
use supervise::Supervisor;

/// Media type of the exposition.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const BUCKETS: [f64; 22] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    code: String,
    component: &'static str,
    dry_run: String,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    component: &'static str,
    group: String,
    resource: String,
    scope: &'static str,
    subresource: String,
    verb: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeatureLabels {
    name: &'static str,
    stage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    priority_level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    name: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    name: String,
    r#type: &'static str,
    status: &'static str,
}

/// How health checks went, for `/metrics/slis` (upstream: `component-base/metrics/prometheus/slis`).
#[derive(Default)]
struct Indicators {
    registry: Registry,
    last: Family<CheckLabels, Gauge>,
    all: Family<OutcomeLabels, Counter>,
}

impl Indicators {
    fn new() -> Self {
        let mut indicators = Indicators::default();
        let last = indicators.last.clone();
        indicators.registry.register(
            "kubernetes_healthcheck",
            "Whether a health check passed when it was last asked",
            last,
        );
        let all = indicators.all.clone();
        indicators.registry.register(
            "kubernetes_healthchecks",
            "How often health checks passed and failed",
            all,
        );
        indicators
    }
}

type Durations = Family<DurationLabels, Histogram, fn() -> Histogram>;

/// Counters of each task.
#[derive(Debug)]
struct Tasks(Supervisor);

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for (name, help, series) in supervise::metrics::counted(&self.0) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (task, value) in series {
                let labels = [("task", task)];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// A counter kept elsewhere.
#[derive(Debug)]
struct Counted {
    name: &'static str,
    help: &'static str,
    value: fn() -> u64,
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let metric = encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        ConstCounter::new((self.value)()).encode(metric)
    }
}

/// The counters of one server.
pub struct Metrics {
    shown: Shown,
    registry: Mutex<Registry>,
    indicators: Indicators,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    inflight: Family<KindLabel, Gauge>,
    seats: Family<LevelLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations: Durations = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let metrics = Metrics {
            shown: Shown::default(),
            registry: Mutex::default(),
            indicators: Indicators::new(),
            requests: Family::default(),
            durations,
            inflight: Family::default(),
            seats: Family::default(),
        };
        metrics.register(|registry| {
            if let Some(started) = supervise::process::started() {
                registry.register(
                    "process_start_time_seconds",
                    "Start time of the process since unix epoch in seconds",
                    ConstGauge::new(started),
                );
            }
            registry.register(
                "apiserver_request",
                "Requests by verb, group, version, resource, scope, component and code",
                metrics.requests.clone(),
            );
            registry.register(
                "apiserver_request_duration_seconds",
                "Time until a response begins, by verb, group, version, resource, subresource, scope and component",
                metrics.durations.clone(),
            );
            registry.register(
                "apiserver_current_inflight_requests",
                "Requests being worked on, by kind",
                metrics.inflight.clone(),
            );
            registry.register(
                "apiserver_flowcontrol_nominal_limit_seats",
                "Seats of each priority level",
                metrics.seats.clone(),
            );
            let features = Family::<FeatureLabels, Gauge>::default();
            for gate in gates::all() {
                let labels = FeatureLabels { name: gate.name, stage: gate.stage() };
                features.get_or_create(&labels).set(i64::from(gate.default));
            }
            let (name, help) = gates::METRIC;
            registry.register(name, help, features);
        });
        metrics
    }
}

impl Metrics {
    /// Adds the metrics of another part of the program.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// Shows no more than that.
    #[must_use]
    pub fn showing(self, shown: Shown) -> Self {
        Metrics { shown, ..self }
    }

    /// Adds what is counted of tasks.
    pub fn tasks(&self, supervisor: &Supervisor) {
        let tasks = Tasks(supervisor.clone());
        self.register(|registry| registry.register_collector(Box::new(tasks)));
    }

    /// Adds a counter that another part of the program keeps; `name` is without `_total`.
    pub fn count(&self, name: &'static str, help: &'static str, value: fn() -> u64) {
        let counted = Counted { name, help, value };
        self.register(|registry| registry.register_collector(Box::new(counted)));
    }

    /// The gauge of one kind of requests.
    #[must_use]
    pub fn inflight(&self, request_kind: &'static str) -> Gauge {
        self.inflight.get_or_create(&KindLabel { request_kind }).clone()
    }

    /// Tells the seats of every priority level.
    pub fn seats<'l>(&self, levels: impl Iterator<Item = (&'l str, usize)>) {
        self.seats.clear();
        for (level, seats) in levels {
            let label = LevelLabel { priority_level: level.to_owned() };
            self.seats.get_or_create(&label).set(i64::try_from(seats).unwrap_or(i64::MAX));
        }
    }

    /// Counts an answered request. Only resources that exist may become labels: `known` says whether this one does.
    pub fn observe(&self, info: &RequestInfo, response: &Response, took: Duration, known: bool) {
        let named = |text: &str| if known { text.to_owned() } else { String::new() };
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (_, false, _) => "resource",
            (_, true, false) => "namespace",
            _ => "cluster",
        };
        let labels = DurationLabels {
            component: "apiserver",
            group: named(&info.group),
            resource: named(&info.resource),
            scope,
            subresource: named(&info.subresource),
            verb: info.verb.to_uppercase(),
            version: named(&info.version),
        };
        let counted = labels.clone();
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        self.requests
            .get_or_create(&RequestLabels {
                code: response.status().as_u16().to_string(),
                component: counted.component,
                dry_run: String::new(),
                group: counted.group,
                resource: counted.resource,
                scope: counted.scope,
                subresource: counted.subresource,
                verb: counted.verb,
                version: counted.version,
            })
            .inc();
    }

    /// Notes how the checks of an answer went.
    pub(crate) fn checked(&self, outcomes: &Outcomes) {
        let r#type = outcomes.endpoint.name();
        for (name, passed) in &outcomes.checks {
            let status = if *passed { "success" } else { "error" };
            let name = name.clone();
            let last = CheckLabels { name: name.clone(), r#type };
            self.indicators.last.get_or_create(&last).set(i64::from(*passed));
            self.indicators.all.get_or_create(&OutcomeLabels { name, r#type, status }).inc();
        }
    }

    /// How health checks went, as text.
    #[must_use]
    pub fn render_indicators(&self) -> String {
        let mut out = String::new();
        if let Err(e) = encode(&mut out, &self.indicators.registry) {
            tracing::warn!(error = %e, "metrics cannot be written");
        }
        out
    }

    /// All metrics in Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        if let Err(e) = encode(&mut out, &self.registry.lock()) {
            tracing::warn!(error = %e, "metrics cannot be written");
        }
        self.shown.of(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_shown_is_not_rendered() {
        let rendered = |shown: Shown| {
            let metrics = Metrics::default().showing(shown);
            metrics.inflight("readOnly").inc();
            metrics.render()
        };
        let name = "apiserver_current_inflight_requests";
        assert!(rendered(Shown::default()).contains(name));
        let shown = Shown { disabled: vec![name.to_owned()], ..Shown::default() };
        assert!(!rendered(shown).contains(name));
    }

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            is_resource: true,
            verb: "list".into(),
            resource: "pods".into(),
            version: "v1".into(),
            ..RequestInfo::default()
        };
        metrics.observe(&info, &crate::answer::not_found(), Duration::from_millis(30), true);
        metrics.inflight("readOnly").inc();
        let text = metrics.render();
        for line in [
            r#"apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"} 1"#,
            r#"apiserver_current_inflight_requests{request_kind="readOnly"} 1"#,
            "# TYPE process_start_time_seconds gauge",
            r#"apiserver_request_duration_seconds_bucket{le="0.05",component="apiserver","#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn a_caught_panic_must_not_go_uncounted() {
        let (metrics, supervisor) = (Metrics::default(), Supervisor::default());
        metrics.tasks(&supervisor);
        metrics.count("windlass_unreadable_objects", "Objects", || 7);
        let work = supervise::Work::new(&supervisor, "connections");
        assert!(supervisor.inject_panic("connections"));
        assert!(work.attempt(std::future::pending::<()>()).await.is_err());
        let text = metrics.render();
        for line in [
            "# TYPE windlass_task_panics counter\n",
            "windlass_task_panics_total{task=\"connections\"} 1\n",
            "windlass_task_restarts_total{task=\"connections\"} 0\n",
            "windlass_unreadable_objects_total 7\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_failed_check_must_not_be_counted_as_passed() {
        use crate::health::{Endpoint, Health};
        let (metrics, health) = (Metrics::default(), Health::default());
        health.add("ping", true, || Ok(()));
        health.add("etcd", true, || Err("closed".into()));
        for endpoint in [Endpoint::Live, Endpoint::Live, Endpoint::Ready] {
            let response = health.answer(endpoint, "", &[]);
            metrics.checked(response.extensions().get().unwrap());
        }
        let text = metrics.render_indicators();
        for line in [
            r#"kubernetes_healthcheck{name="ping",type="livez"} 1"#,
            r#"kubernetes_healthcheck{name="etcd",type="readyz"} 0"#,
            r#"kubernetes_healthchecks_total{name="ping",type="livez",status="success"} 2"#,
            r#"kubernetes_healthchecks_total{name="etcd",type="livez",status="error"} 2"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!metrics.render().contains("kubernetes_healthcheck"), "they stand apart");
    }

    #[test]
    fn a_strangers_path_adds_no_series() {
        let metrics = Metrics::default();
        for i in 0..50 {
            let info = RequestInfo {
                is_resource: true,
                verb: "get".into(),
                resource: format!("r{i}"),
                name: "x".into(),
                ..RequestInfo::default()
            };
            metrics.observe(&info, &crate::answer::not_found(), Duration::ZERO, false);
        }
        assert_eq!(metrics.render().matches("apiserver_request_total{").count(), 1);
    }
}
