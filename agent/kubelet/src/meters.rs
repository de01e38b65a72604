//! What the kubelet counts of its own work, under upstream's names (`pkg/kubelet/metrics`), in Prometheus' text format.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Prometheus' own buckets, in seconds.
const USUAL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From 5 ms on, each 2.5 times the one before.
const CALLS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];
const STARTS: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Numbers of one name.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    kind: Kind,
    /// It has no labels, and is shown before anything was counted.
    plain: bool,
    buckets: &'static [f64],
    help: &'static str,
}

const fn family(
    name: &'static str,
    kind: Kind,
    plain: bool,
    buckets: &'static [f64],
    help: &'static str,
) -> Family {
    Family { name, kind, plain, buckets, help }
}

macro_rules! families {
    ($($ident:ident = $name:literal $kind:ident $plain:literal $buckets:expr, $help:literal;)*) => {
        $(pub static $ident: Family = family($name, Kind::$kind, $plain, $buckets, $help);)*
        static ALL: &[&Family] = &[$(&$ident),*];
    };
}

families! {
    EVICTIONS = "kubelet_evictions" Counter false &[], "[ALPHA] Cumulative number of pod evictions by eviction signal";
    SHUTDOWN_END = "kubelet_graceful_shutdown_end_time_seconds" Gauge true &[], "[ALPHA] Last graceful shutdown end time since unix epoch in seconds";
    SHUTDOWN_START = "kubelet_graceful_shutdown_start_time_seconds" Gauge true &[], "[ALPHA] Last graceful shutdown start time since unix epoch in seconds";
    HTTP_INFLIGHT = "kubelet_http_inflight_requests" Gauge false &[], "[ALPHA] Number of the inflight http requests";
    HTTP_DURATION = "kubelet_http_requests_duration_seconds" Histogram false USUAL, "[ALPHA] Duration in seconds to serve http requests";
    PLEG_DISCARDED = "kubelet_pleg_discard_events" Counter true &[], "[ALPHA] The number of discard events in PLEG.";
    PLEG_SEEN = "kubelet_pleg_last_seen_seconds" Gauge true &[], "[ALPHA] Timestamp in seconds when PLEG was last seen active.";
    PLEG_DURATION = "kubelet_pleg_relist_duration_seconds" Histogram true USUAL, "[ALPHA] Duration in seconds for relisting pods in PLEG.";
    PLEG_INTERVAL = "kubelet_pleg_relist_interval_seconds" Histogram true USUAL, "[ALPHA] Interval in seconds between relisting in PLEG.";
    POD_START = "kubelet_pod_start_duration_seconds" Histogram true STARTS, "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
    WORKER_DURATION = "kubelet_pod_worker_duration_seconds" Histogram false USUAL, "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync";
    WORKER_START = "kubelet_pod_worker_start_duration_seconds" Histogram true USUAL, "[ALPHA] Duration in seconds from kubelet seeing a pod to starting a worker.";
    CALLS_DURATION = "kubelet_runtime_operations_duration_seconds" Histogram false CALLS, "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.";
    CALLS_FAILED = "kubelet_runtime_operations_errors_total" Counter false &[], "[ALPHA] Cumulative number of runtime operation errors by operation type.";
    CALLS_TOTAL = "kubelet_runtime_operations_total" Counter false &[], "[ALPHA] Cumulative number of runtime operations by operation type.";
    CONTAINERS_FAILED = "kubelet_started_containers_errors_total" Counter false &[], "[ALPHA] Cumulative number of errors when starting containers";
    CONTAINERS_STARTED = "kubelet_started_containers_total" Counter false &[], "[ALPHA] Cumulative number of containers started";
    PODS_FAILED = "kubelet_started_pods_errors_total" Counter true &[], "[ALPHA] Cumulative number of errors when starting pods";
    PODS_STARTED = "kubelet_started_pods_total" Counter true &[], "[ALPHA] Cumulative number of pods started";
}

/// One row: its number, or how many observations were in each bucket.
#[derive(Clone, Debug, Default)]
struct Series {
    value: f64,
    count: u64,
    buckets: Vec<u64>,
}

type Rows = BTreeMap<(&'static str, String), Series>;

/// A shared handle to what was counted.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<Rows>>);

impl Meters {
    fn change(&self, family: &Family, labels: String, change: impl FnOnce(&mut Series)) {
        change(self.0.lock().entry((family.name, labels)).or_default());
    }

    /// Adds to a counter or gauge; `labels` are written as `{a="b"}`, or empty.
    pub fn add(&self, family: &Family, labels: impl Into<String>, amount: f64) {
        self.change(family, labels.into(), |series| series.value += amount);
    }

    /// Sets a gauge.
    pub fn set(&self, family: &Family, value: f64) {
        self.change(family, String::new(), |series| series.value = value);
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, family: &Family, labels: impl Into<String>, span: Duration) {
        let seconds = span.as_secs_f64();
        self.change(family, labels.into(), |series| {
            series.buckets.resize(family.buckets.len(), 0);
            for (bound, count) in family.buckets.iter().zip(&mut series.buckets) {
                *count += u64::from(seconds <= *bound);
            }
            series.count += 1;
            series.value += seconds;
        });
    }

    /// A call of the runtime that is over.
    pub fn call(&self, operation: &str, span: Duration, failed: bool) {
        let labels = format!("{{operation_type={:?}}}", operation_type(operation));
        self.add(&CALLS_TOTAL, labels.clone(), 1.0);
        if failed {
            self.add(&CALLS_FAILED, labels.clone(), 1.0);
        }
        self.observe(&CALLS_DURATION, labels, span);
    }

    /// Writes everything.
    pub fn write(&self, out: &mut String) -> std::fmt::Result {
        let rows = self.0.lock().clone();
        for family in ALL {
            let first = (family.name, String::new());
            let own = rows.range(first..).take_while(|((name, _), _)| *name == family.name);
            let mut own: Vec<(&str, Series)> =
                own.map(|((_, labels), row)| (labels.as_str(), row.clone())).collect();
            if own.is_empty() && family.plain {
                own.push(("", Series::default()));
            }
            family.write(out, &own)?;
        }
        Ok(())
    }
}

impl Family {
    fn write(&self, out: &mut String, rows: &[(&str, Series)]) -> std::fmt::Result {
        let Self { name, kind, help, buckets, .. } = self;
        if rows.is_empty() {
            return Ok(());
        }
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {word}")?;
        for (labels, row) in rows {
            if *kind != Kind::Histogram {
                writeln!(out, "{name}{labels} {}", row.value)?;
                continue;
            }
            let head = labels.strip_suffix('}').map_or_else(|| "{".to_owned(), |head| format!("{head},"));
            for (index, bound) in buckets.iter().enumerate() {
                let count = row.buckets.get(index).copied().unwrap_or_default();
                writeln!(out, "{name}_bucket{head}le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "{name}_bucket{head}le=\"+Inf\"}} {}", row.count)?;
            writeln!(out, "{name}_sum{labels} {}\n{name}_count{labels} {}", row.value, row.count)?;
        }
        Ok(())
    }
}

/// A call of CRI as upstream labels it: `RunPodSandbox` is `run_podsandbox`.
fn operation_type(operation: &str) -> String {
    let mut out = String::new();
    for letter in
        operation.replace("PodSandbox", "Podsandbox").replace("ContainerResources", "Container").chars()
    {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_labelled_as_upstreams() {
        for (operation, label) in [
            ("RunPodSandbox", "run_podsandbox"),
            ("PodSandboxStatus", "podsandbox_status"),
            ("ListPodSandbox", "list_podsandbox"),
            ("UpdateContainerResources", "update_container"),
            ("ContainerStatus", "container_status"),
            ("ImageFsInfo", "image_fs_info"),
            ("ExecSync", "exec_sync"),
        ] {
            assert_eq!(operation_type(operation), label);
        }
    }

    #[test]
    fn what_was_counted_is_shown_with_its_type_and_what_was_not_is_zero() {
        let meters = Meters::default();
        meters.call("PullImage", Duration::from_millis(100), true);
        meters.call("PullImage", Duration::from_secs(4), false);
        meters.add(&PODS_STARTED, "", 1.0);
        let mut out = String::new();
        meters.write(&mut out).unwrap();
        for line in [
            "# TYPE kubelet_runtime_operations_total counter",
            "kubelet_runtime_operations_total{operation_type=\"pull_image\"} 2",
            "kubelet_runtime_operations_errors_total{operation_type=\"pull_image\"} 1",
            "# TYPE kubelet_runtime_operations_duration_seconds histogram",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"pull_image\",le=\"0.078125\"} 0",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"pull_image\",le=\"0.1953125\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"pull_image\",le=\"+Inf\"} 2",
            "kubelet_runtime_operations_duration_seconds_sum{operation_type=\"pull_image\"} 4.1",
            "kubelet_runtime_operations_duration_seconds_count{operation_type=\"pull_image\"} 2",
            "kubelet_started_pods_total 1",
            "kubelet_started_pods_errors_total 0",
            "kubelet_pleg_relist_duration_seconds_bucket{le=\"0.005\"} 0",
            "kubelet_pleg_relist_duration_seconds_count 0",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} in\n{out}");
        }
        assert!(!out.contains("kubelet_evictions"), "nothing is told of signals that never were");
    }
}
