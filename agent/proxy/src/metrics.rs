//! What the proxy counts, under upstream's names (`pkg/proxy/metrics/metrics.go`), as OpenMetrics text. One transaction of ours is of both
//! families, and so is noted for both.

use crate::model::NoLocal;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Media type of the exposition.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    ip_family: &'static str,
}

const FAMILIES: [FamilyLabel; 2] = [FamilyLabel { ip_family: "IPv4" }, FamilyLabel { ip_family: "IPv6" }];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    traffic_policy: &'static str,
    ip_family: &'static str,
}

type Durations = Family<FamilyLabel, Histogram, fn() -> Histogram>;
/// Seconds since 1970.
type Moment = Family<FamilyLabel, Gauge<f64, AtomicU64>>;

fn durations() -> Durations {
    Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15)))
}

/// Seconds from a change of a pod or service to rules in the kernel.
fn programming() -> Histogram {
    let parts = [(0.25, 0.25, 2), (1.0, 1.0, 59), (60.0, 5.0, 12), (120.0, 30.0, 7)];
    Histogram::new(parts.into_iter().flat_map(|(start, width, count)| linear_buckets(start, width, count)))
}

/// How much of the kernel's state an application went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Full,
    Partial,
}

/// What waits to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Service,
    Endpoints,
}

/// The counters of one proxy.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    synced: Durations,
    full: Durations,
    partial: Durations,
    last: Moment,
    queued: Moment,
    programming: Durations,
    /// Services, then endpoints.
    pending: [Gauge; 2],
    changes: [Counter; 2],
    failures: Family<FamilyLabel, Counter>,
    healthz: Family<CodeLabel, Counter>,
    livez: Family<CodeLabel, Counter>,
    no_local: Family<PolicyLabels, Gauge>,
    forgetting: Durations,
    forgotten: Family<FamilyLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            synced: durations(),
            full: durations(),
            partial: durations(),
            last: Family::default(),
            queued: Family::default(),
            programming: Family::new_with_constructor(programming),
            pending: Default::default(),
            changes: Default::default(),
            failures: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            no_local: Family::default(),
            forgetting: durations(),
            forgotten: Family::default(),
        };
        // what nobody has seen yet is none, not unknown
        for family in &FAMILIES {
            drop(metrics.failures.get_or_create(family));
            drop(metrics.forgotten.get_or_create(family));
        }
        metrics.queued();
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock();
        if let Some(started) = supervise::process::started() {
            let started = ConstGauge::new(started);
            registry.register(
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970",
                started,
            );
        }
        let kubeproxy = registry.sub_registry_with_prefix("kubeproxy");
        let sync = kubeproxy.sub_registry_with_prefix("sync");
        for (name, help, durations) in [
            ("proxy_rules_duration_seconds", "How long rules took to apply", &self.synced),
            ("full_proxy_rules_duration_seconds", "How long all rules took to apply", &self.full),
            ("partial_proxy_rules_duration_seconds", "How long changed rules took to apply", &self.partial),
        ] {
            sync.register(name, help, durations.clone());
        }
        let rules = sync.sub_registry_with_prefix("proxy_rules");
        rules.register("last_timestamp_seconds", "When rules were applied last", self.last.clone());
        rules.register("last_queued_timestamp_seconds", "When a change came last", self.queued.clone());
        for (index, pending, total) in [
            (0, "service_changes_pending", "service_changes"),
            (1, "endpoint_changes_pending", "endpoint_changes"),
        ] {
            rules.register(pending, "Changes that wait to be applied", self.pending[index].clone());
            rules.register(total, "Changes seen", self.changes[index].clone());
        }
        rules.register("nftables_sync_failures", "Transactions that failed", self.failures.clone());
        rules.register(
            "no_local_endpoints_total",
            "Ports of services whose policy is Local and that have endpoints, but none here",
            self.no_local.clone(),
        );
        kubeproxy.register(
            "network_programming_duration_seconds",
            "From a change of a pod or service to rules that say so",
            self.programming.clone(),
        );
        kubeproxy.register("proxy_healthz", "Answers of /healthz by their code", self.healthz.clone());
        kubeproxy.register("proxy_livez", "Answers of /livez by their code", self.livez.clone());
        let conntrack = kubeproxy.sub_registry_with_prefix("conntrack_reconciler");
        conntrack.register(
            "sync_duration_seconds",
            "How long it took to look for stale flows",
            self.forgetting.clone(),
        );
        conntrack.register("deleted_entries", "Stale flows forgotten", self.forgotten.clone());
    }

    /// A change was seen and waits.
    pub(crate) fn changed(&self, change: Change) {
        let index = usize::from(change == Change::Endpoints);
        self.changes[index].inc();
        self.pending[index].inc();
        self.queued();
    }

    fn queued(&self) {
        for family in &FAMILIES {
            self.queued.get_or_create(family).set(now());
        }
    }

    /// Everything known is in the kernel.
    pub(crate) fn applied(&self, extent: Extent, took: Duration, no_local: NoLocal) {
        for pending in &self.pending {
            pending.set(0);
        }
        let some = if extent == Extent::Full { &self.full } else { &self.partial };
        for (index, family) in FAMILIES.iter().enumerate() {
            self.synced.get_or_create(family).observe(took.as_secs_f64());
            some.get_or_create(family).observe(took.as_secs_f64());
            self.last.get_or_create(family).set(now());
            for (traffic_policy, count) in [("internal", no_local.internal), ("external", no_local.external)]
            {
                let labels = PolicyLabels { traffic_policy, ip_family: family.ip_family };
                self.no_local.get_or_create(&labels).set(count[index]);
            }
        }
    }

    /// The kernel took nothing.
    pub(crate) fn failed(&self) {
        for family in &FAMILIES {
            self.failures.get_or_create(family).inc();
        }
    }

    /// A change of endpoints is in the kernel so long after it happened.
    pub(crate) fn programmed(&self, ipv6: bool, after: f64) {
        self.programming.get_or_create(&FAMILIES[usize::from(ipv6)]).observe(after.max(0.0));
    }

    /// So many stale flows were forgotten, by family.
    pub(crate) fn forgot(&self, took: Duration, counts: [usize; 2]) {
        for (family, count) in FAMILIES.iter().zip(counts) {
            self.forgetting.get_or_create(family).observe(took.as_secs_f64());
            self.forgotten.get_or_create(family).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// The proxy was asked how it is.
    pub(crate) fn asked(&self, path: &str, code: u16) {
        let answers = match path {
            "/healthz" => &self.healthz,
            "/livez" => &self.livez,
            _ => return,
        };
        answers.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if let Err(error) = encode(&mut out, &self.registry.lock()) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        out
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_must_miss_its_upstream_name() {
        let metrics = Metrics::default();
        metrics.changed(Change::Service);
        metrics.changed(Change::Endpoints);
        metrics.failed();
        metrics.applied(
            Extent::Full,
            Duration::from_millis(3),
            NoLocal { internal: [1, 0], external: [0, 2] },
        );
        metrics.changed(Change::Endpoints);
        metrics.programmed(true, 1.5);
        metrics.forgot(Duration::ZERO, [3, 0]);
        metrics.asked("/healthz", 503);
        metrics.asked("/livez", 200);
        let text = metrics.render();
        for line in [
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.004",ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} "#,
            r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} "#,
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 2",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 1",
            r#"kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal",ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external",ip_family="IPv6"} 2"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="2.0",ip_family="IPv6"} 1"#,
            r#"kubeproxy_proxy_healthz_total{code="503"} 1"#,
            r#"kubeproxy_proxy_livez_total{code="200"} 1"#,
            r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 3"#,
            "# TYPE kubeproxy_conntrack_reconciler_sync_duration_seconds histogram",
            "# TYPE process_start_time_seconds gauge",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        metrics.applied(Extent::Partial, Duration::from_millis(3), NoLocal::default());
        let partial = r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#;
        assert!(metrics.render().contains(partial));
    }
}
