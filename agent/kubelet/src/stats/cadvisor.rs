//! `/metrics/cadvisor`: the families of upstream's that dashboards live on, by container, pod and machine.

use std::fmt::Write;

use super::collect::Measured;
use crate::cgroup::usage::Usage;
use crate::node::machine;

struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// Labels of its own beside those of the container.
    labels: &'static str,
    value: fn(&Usage) -> Option<f64>,
}

const FAMILIES: [Family; 20] = [
    Family {
        name: "container_cpu_usage_seconds_total",
        kind: "counter",
        help: "Cumulative cpu time consumed in seconds.",
        labels: "cpu=\"total\",",
        value: |u| Some(u.cpu as f64 / 1e9),
    },
    Family {
        name: "container_memory_cache",
        kind: "gauge",
        help: "Number of bytes of page cache memory.",
        labels: "",
        value: |u| Some(u.cache as f64),
    },
    Family {
        name: "container_memory_rss",
        kind: "gauge",
        help: "Size of RSS in bytes.",
        labels: "",
        value: |u| Some(u.rss as f64),
    },
    Family {
        name: "container_memory_swap",
        kind: "gauge",
        help: "Container swap usage in bytes.",
        labels: "",
        value: |u| u.swap.map(|s| s as f64),
    },
    Family {
        name: "container_memory_usage_bytes",
        kind: "gauge",
        help: "Current memory usage in bytes, including all memory regardless of when it was accessed",
        labels: "",
        value: |u| Some(u.memory as f64),
    },
    Family {
        name: "container_memory_working_set_bytes",
        kind: "gauge",
        help: "Current working set in bytes.",
        labels: "",
        value: |u| Some(u.working_set as f64),
    },
    Family {
        name: "container_spec_memory_limit_bytes",
        kind: "gauge",
        help: "Memory limit for the container.",
        labels: "",
        value: |u| Some(u.memory_limit.unwrap_or(0) as f64),
    },
    Family {
        name: "container_threads",
        kind: "gauge",
        help: "Number of threads running inside the container",
        labels: "",
        value: |u| u.processes.map(|p| p as f64),
    },
    Family {
        name: "container_cpu_user_seconds_total",
        kind: "counter",
        help: "Cumulative user cpu time consumed in seconds.",
        labels: "",
        value: |u| Some(u.user as f64 / 1e9),
    },
    Family {
        name: "container_cpu_system_seconds_total",
        kind: "counter",
        help: "Cumulative system cpu time consumed in seconds.",
        labels: "",
        value: |u| Some(u.system as f64 / 1e9),
    },
    Family {
        name: "container_cpu_cfs_periods_total",
        kind: "counter",
        help: "Number of elapsed enforcement period intervals.",
        labels: "",
        value: |u| u.throttling.map(|t| t.periods as f64),
    },
    Family {
        name: "container_cpu_cfs_throttled_periods_total",
        kind: "counter",
        help: "Number of throttled period intervals.",
        labels: "",
        value: |u| u.throttling.map(|t| t.throttled as f64),
    },
    Family {
        name: "container_cpu_cfs_throttled_seconds_total",
        kind: "counter",
        help: "Total time duration the container has been throttled.",
        labels: "",
        value: |u| u.throttling.map(|t| t.waited as f64 / 1e9),
    },
    Family {
        name: "container_oom_events_total",
        kind: "counter",
        help: "Count of out of memory events observed for the container",
        labels: "",
        value: |u| u.oom_kills.map(|count| count as f64),
    },
    Family {
        name: "container_pressure_cpu_stalled_seconds_total",
        kind: "counter",
        help: "Total time duration no tasks in the container could make progress due to CPU congestion.",
        labels: "",
        value: |u| u.pressures.cpu.map(|p| p.full.total as f64 / 1e6),
    },
    Family {
        name: "container_pressure_cpu_waiting_seconds_total",
        kind: "counter",
        help: "Total time duration tasks in the container have waited due to CPU congestion.",
        labels: "",
        value: |u| u.pressures.cpu.map(|p| p.some.total as f64 / 1e6),
    },
    Family {
        name: "container_pressure_memory_stalled_seconds_total",
        kind: "counter",
        help: "Total time duration no tasks in the container could make progress due to memory congestion.",
        labels: "",
        value: |u| u.pressures.memory.map(|p| p.full.total as f64 / 1e6),
    },
    Family {
        name: "container_pressure_memory_waiting_seconds_total",
        kind: "counter",
        help: "Total time duration tasks in the container have waited due to memory congestion.",
        labels: "",
        value: |u| u.pressures.memory.map(|p| p.some.total as f64 / 1e6),
    },
    Family {
        name: "container_pressure_io_stalled_seconds_total",
        kind: "counter",
        help: "Total time duration no tasks in the container could make progress due to IO congestion.",
        labels: "",
        value: |u| u.pressures.io.map(|p| p.full.total as f64 / 1e6),
    },
    Family {
        name: "container_pressure_io_waiting_seconds_total",
        kind: "counter",
        help: "Total time duration tasks in the container have waited due to IO congestion.",
        labels: "",
        value: |u| u.pressures.io.map(|p| p.some.total as f64 / 1e6),
    },
];

/// The metrics, in Prometheus' text format.
pub fn of(measured: &Measured, machine: &machine::Machine) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(&mut out, measured, machine);
    out
}

/// Labels of a row: container, id, image, name, namespace, pod.
fn labels(container: &str, id: &str, image: &str, namespace: &str, pod: &str) -> String {
    format!(
        "container={container:?},id={id:?},image={image:?},name={id:?},namespace={namespace:?},pod={pod:?}"
    )
}

fn render(out: &mut String, measured: &Measured, machine: &machine::Machine) -> std::fmt::Result {
    let millis = measured.at.as_millisecond();
    let mut rows: Vec<(String, &Usage)> = Vec::new();
    let mut starts = Vec::new();
    let mut disks = Vec::new();
    let mut interfaces = Vec::new();
    rows.extend(measured.machine.iter().map(|u| (labels("", "/", "", "", ""), u)));
    rows.extend(measured.all_pods.iter().map(|u| (labels("", "/kubepods", "", "", ""), u)));
    for pod in &measured.pods {
        let object = &pod.view.pod;
        let (name, namespace) = (crate::pod::name(object), crate::pod::namespace(object));
        let of_pod = labels("", crate::pod::uid(object), "", namespace, name);
        interfaces.extend(pod.interfaces.iter().map(|i| (of_pod.clone(), i)));
        rows.extend(pod.usage.as_ref().map(|u| (of_pod, u)));
        for container in &pod.containers {
            let own = labels(&container.name, &container.id, &container.image, namespace, name);
            starts.extend(container.started.map(|at| (own.clone(), at.as_second())));
            disks.extend(container.layer.map(|used| (own.clone(), used.bytes)));
            rows.extend(container.usage.as_ref().map(|u| (own, u)));
        }
    }
    for family in FAMILIES {
        let Family { name, kind, help, .. } = family;
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (own, usage) in &rows {
            if let Some(value) = (family.value)(usage) {
                writeln!(out, "{name}{{{}{own}}} {value} {millis}", family.labels)?;
            }
        }
    }
    let name = "container_memory_failures_total";
    writeln!(out, "# HELP {name} Cumulative count of memory allocation failures.\n# TYPE {name} counter")?;
    for (own, usage) in &rows {
        for (kind, count) in [("pgfault", usage.faults), ("pgmajfault", usage.major_faults)] {
            writeln!(out, "{name}{{{own},failure_type=\"{kind}\",scope=\"container\"}} {count} {millis}")?;
        }
    }
    let mut simple = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| -> std::fmt::Result {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        rows.iter().try_for_each(|(labels, value)| writeln!(out, "{name}{{{labels}}} {value} {millis}"))
    };
    let starts: Vec<_> = starts.into_iter().map(|(l, at)| (l, u64::try_from(at).unwrap_or(0))).collect();
    simple(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        &starts,
    )?;
    simple(
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        &disks,
    )?;
    type Counter = fn(&super::network::Interface) -> u64;
    let counters: [(&str, &str, Counter); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |i| i.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |i| i.tx_errors,
        ),
    ];
    for (name, help, value) in counters {
        let rows: Vec<_> =
            interfaces.iter().map(|(l, i)| (format!("{l},interface={:?}", i.name), value(i))).collect();
        simple(name, "counter", help, &rows)?;
    }
    writeln!(out, "# HELP machine_cpu_cores Number of logical CPU cores.\n# TYPE machine_cpu_cores gauge")?;
    let who = format!(
        "boot_id={:?},machine_id={:?},system_uuid={:?}",
        machine.boot_id, machine.machine_id, machine.system_uuid
    );
    writeln!(out, "machine_cpu_cores{{{who}}} {}", machine.cpus)?;
    let name = "machine_memory_bytes";
    writeln!(out, "# HELP {name} Amount of memory installed on the machine.\n# TYPE {name} gauge")?;
    writeln!(out, "{name}{{{who}}} {}", machine.memory)
}
