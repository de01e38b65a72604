//! `/metrics/resource`: what metrics-server reads. Upstream: `metrics/collectors/resource_metrics.go`.

use std::fmt::Write;

use super::collect::Measured;
use crate::cgroup::usage::Usage;

/// Something with counters: its labels, what it uses, and when it was asked.
struct Row<'a> {
    labels: String,
    usage: &'a Usage,
}

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Usage) -> Option<f64>,
}

const SECOND: f64 = 1e9;

fn cpu(usage: &Usage) -> Option<f64> {
    Some(usage.cpu as f64 / SECOND)
}

fn memory(usage: &Usage) -> Option<f64> {
    Some(usage.working_set as f64)
}

fn swap(usage: &Usage) -> Option<f64> {
    usage.swap.map(|bytes| bytes as f64)
}

const CONTAINER: [Family; 4] = [
    Family {
        name: "container_cpu_usage_seconds_total",
        kind: "counter",
        help: "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        value: cpu,
    },
    Family {
        name: "container_memory_working_set_bytes",
        kind: "gauge",
        help: "[STABLE] Current working set of the container in bytes",
        value: memory,
    },
    Family {
        name: "container_swap_usage_bytes",
        kind: "gauge",
        help: "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        value: swap,
    },
    Family {
        name: "container_swap_limit_bytes",
        kind: "gauge",
        help: "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems",
        value: |usage| usage.swap_limit.map(|bytes| bytes as f64),
    },
];

const NODE: [Family; 3] = [
    Family {
        name: "node_cpu_usage_seconds_total",
        kind: "counter",
        help: "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        value: cpu,
    },
    Family {
        name: "node_memory_working_set_bytes",
        kind: "gauge",
        help: "[STABLE] Current working set of the node in bytes",
        value: memory,
    },
    Family {
        name: "node_swap_usage_bytes",
        kind: "gauge",
        help: "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
        value: swap,
    },
];

const POD: [Family; 3] = [
    Family {
        name: "pod_cpu_usage_seconds_total",
        kind: "counter",
        help: "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        value: cpu,
    },
    Family {
        name: "pod_memory_working_set_bytes",
        kind: "gauge",
        help: "[STABLE] Current working set of the pod in bytes",
        value: memory,
    },
    Family {
        name: "pod_swap_usage_bytes",
        kind: "gauge",
        help: "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        value: swap,
    },
];

/// The metrics, in Prometheus' text format.
pub fn of(measured: &Measured) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(&mut out, measured);
    out
}

fn render(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let millis = measured.at.as_millisecond();
    let mut containers = Vec::new();
    let mut pods = Vec::new();
    let mut starts = Vec::new();
    for pod in &measured.pods {
        let object = &pod.view.pod;
        let (name, namespace) = (crate::pod::name(object), crate::pod::namespace(object));
        let of_pod = format!("namespace={namespace:?},pod={name:?}");
        for container in &pod.containers {
            let labels = format!("{{container={:?},{of_pod}}}", container.name);
            if let Some(started) = container.started {
                starts.push((labels.clone(), started.as_nanosecond() as f64 / SECOND));
            }
            containers.extend(container.usage.as_ref().map(|usage| Row { labels, usage }));
        }
        pods.extend(pod.usage.as_ref().map(|usage| Row { labels: format!("{{{of_pod}}}"), usage }));
    }
    let node: Vec<Row<'_>> =
        measured.machine.iter().map(|usage| Row { labels: String::new(), usage }).collect();
    for family in CONTAINER {
        write_family(out, &family, &containers, millis)?;
    }
    if !starts.is_empty() {
        let name = "container_start_time_seconds";
        let help = "[STABLE] Start time of the container since unix epoch in seconds";
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        starts.iter().try_for_each(|(labels, value)| writeln!(out, "{name}{labels} {value}"))?;
    }
    for (families, rows) in [(NODE, &node), (POD, &pods)] {
        for family in families {
            write_family(out, &family, rows, millis)?;
        }
    }
    let failed = i32::from(measured.machine.is_none());
    for (name, stability) in [("resource_scrape_error", "STABLE"), ("scrape_error", "ALPHA")] {
        let help =
            format!("[{stability}] 1 if there was an error while getting container metrics, 0 otherwise");
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {failed}")?;
    }
    Ok(())
}

fn write_family(out: &mut String, family: &Family, rows: &[Row<'_>], millis: i64) -> std::fmt::Result {
    let values: Vec<(&str, f64)> =
        rows.iter().filter_map(|row| Some((row.labels.as_str(), (family.value)(row.usage)?))).collect();
    if values.is_empty() {
        return Ok(());
    }
    let Family { name, kind, help, .. } = family;
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    values.iter().try_for_each(|(labels, value)| writeln!(out, "{name}{labels} {value} {millis}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::View;
    use crate::stats::collect::{Container, PodStats};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn counters_carry_labels_and_time() {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}}));
        let usage = Usage { cpu: 1_500_000_000, working_set: 7, ..Usage::default() };
        let measured = Measured {
            at: jiff::Timestamp::from_second(2).unwrap(),
            machine: Some(usage.clone()),
            pods: vec![PodStats {
                view: View {
                    pod: Arc::new(pod.unwrap()),
                    status: Arc::default(),
                    observed: Arc::new(crate::pod::observed::Observed::default()),
                },
                usage: Some(usage.clone()),
                rate: None,
                containers: vec![Container {
                    name: "c".into(),
                    id: "i".into(),
                    image: String::new(),
                    started: None,
                    usage: Some(usage),
                    rate: None,
                    layer: None,
                    logs: None,
                }],
                interfaces: Vec::new(),
                volumes: Vec::new(),
                ephemeral: None,
            }],
            ..Measured::default()
        };
        let text = of(&measured);
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 2000",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 7 2000",
            "node_cpu_usage_seconds_total 1.5 2000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(!text.contains("swap_usage"), "what is not counted is not told");
    }
}
