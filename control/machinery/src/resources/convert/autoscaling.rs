//! Horizontal pod autoscalers: v1 knows one metric, the CPU's mean utilisation; the rest of v2 rides in annotations, metrics in
//! the form of v1's own types ([`metrics`]). Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

mod metrics;

use serde_json::{Value, json};

use crate::access::{Fields, Get, existing, object, remove, set};
use metrics::{SOURCES, STATUSES};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Percent, where nothing else is said (upstream: `DefaultCPUUtilization`).
const DEFAULT_UTILIZATION: i64 = 80;

fn is_cpu_utilization(metric: &Value, target: &str) -> bool {
    metric.text("type") == "Resource"
        && metric.text("resource.name") == "cpu"
        && metric.int(&format!("resource.{target}.averageUtilization")).is_some()
}

/// Takes an annotation out and reads the JSON in it; what does not parse is dropped, as upstream drops it.
fn take_annotation(hpa: &mut Value, name: &str) -> Option<Value> {
    let annotations = existing(hpa, "metadata.annotations")?;
    let text = remove(annotations, name)?;
    let emptied = annotations.as_object().is_some_and(Fields::is_empty);
    if emptied {
        remove(existing(hpa, "metadata")?, "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(hpa: &mut Value, name: &str, value: &Value) {
    if let Some(annotations) = object(hpa, "metadata").and_then(|m| object(m, "annotations")) {
        set(annotations, name, value.to_string());
    }
}

/// Upstream writes `behavior` by the names of Go's fields (`ScaleUp`), and reads any case; so do we.
fn behavior_of_v1(value: Value) -> Value {
    rename(value, |name| {
        let mut letters = name.chars();
        letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
    })
}

fn behavior_in_v1(value: Value) -> Value {
    rename(value, |name| {
        let mut letters = name.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    })
}

/// Renames every key; what is null is left out.
fn rename(value: Value, name: impl Fn(&str) -> String + Copy) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (name(&key), rename(value, name)))
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| rename(item, name)).collect(),
        other => other,
    }
}

pub(super) fn v1_to_v2(hpa: &mut Value) {
    let metrics = take_annotation(hpa, METRICS);
    let behavior = take_annotation(hpa, BEHAVIOR);
    let current = take_annotation(hpa, CURRENT_METRICS);
    let conditions = take_annotation(hpa, CONDITIONS);
    if let Some(spec) = existing(hpa, "spec") {
        let mut list = SOURCES.to_v2(metrics.as_ref());
        if let Some(percentage) = remove(spec, "targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            list.push(cpu(&percentage));
        }
        if list.is_empty() {
            list.push(cpu(&json!(DEFAULT_UTILIZATION)));
        }
        set(spec, "metrics", list);
        if let Some(behavior) = behavior.map(behavior_of_v1) {
            set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = existing(hpa, "status") {
        let mut list = STATUSES.to_v2(current.as_ref());
        if let Some(percentage) = remove(status, "currentCPUUtilizationPercentage").filter(|p| !p.is_null())
            && current.is_none()
        {
            let current = json!({"averageUtilization": percentage});
            list.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
        }
        set(status, "currentMetrics", list);
        if status.int("currentReplicas") == Some(0) {
            remove(status, "currentReplicas");
        }
        if let Some(conditions) = conditions {
            set(status, "conditions", conditions);
        }
    }
}

fn cpu(percentage: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percentage}}})
}

pub(super) fn v2_to_v1(hpa: &mut Value) {
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = existing(hpa, "spec") {
        if let Some(Value::Array(metrics)) = remove(spec, "metrics") {
            let (cpu, others): (Vec<Value>, Vec<Value>) =
                metrics.into_iter().partition(|metric| is_cpu_utilization(metric, "target"));
            if let Some(cpu) = cpu.first() {
                let percentage = cpu.at("resource.target.averageUtilization").clone();
                set(spec, "targetCPUUtilizationPercentage", percentage);
            }
            if !others.is_empty() {
                annotations.push((METRICS, SOURCES.to_v1(&others)));
            }
        }
        if let Some(behavior) = remove(spec, "behavior").filter(|b| !b.is_null()) {
            annotations.push((BEHAVIOR, behavior_in_v1(behavior)));
        }
    }
    if let Some(status) = existing(hpa, "status") {
        if let Some(Value::Array(metrics)) = remove(status, "currentMetrics") {
            if let Some(cpu) = metrics.iter().find(|metric| is_cpu_utilization(metric, "current")) {
                let percentage = cpu.at("resource.current.averageUtilization").clone();
                set(status, "currentCPUUtilizationPercentage", percentage);
            }
            if !metrics.is_empty() {
                annotations.push((CURRENT_METRICS, STATUSES.to_v1(&metrics)));
            }
        }
        if let Some(conditions) =
            remove(status, "conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty()))
        {
            annotations.push((CONDITIONS, conditions));
        }
        // v1 always says both numbers.
        for number in ["currentReplicas", "desiredReplicas"] {
            if status.int(number).is_none() {
                set(status, number, 0);
            }
        }
    }
    for (name, value) in annotations {
        annotate(hpa, name, &value);
    }
}
