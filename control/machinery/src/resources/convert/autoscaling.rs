//! Horizontal pod autoscalers: v1 knows one metric, the CPU's mean utilisation; the rest of v2 rides in annotations.

use serde_json::{Value, json};

use crate::access::{Fields, Get, existing, object, remove, set};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

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

pub(super) fn v1_to_v2(hpa: &mut Value) {
    let metrics = take_annotation(hpa, METRICS);
    let behavior = take_annotation(hpa, BEHAVIOR);
    let current = take_annotation(hpa, CURRENT_METRICS);
    let conditions = take_annotation(hpa, CONDITIONS);
    if let Some(spec) = existing(hpa, "spec") {
        let mut list = metrics.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(percentage) = remove(spec, "targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            list.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": percentage}}}),
            );
        }
        if !list.is_empty() {
            set(spec, "metrics", list);
        }
        if let Some(behavior) = behavior {
            set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = existing(hpa, "status") {
        let mut list = current.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(percentage) = remove(status, "currentCPUUtilizationPercentage").filter(|p| !p.is_null())
            && !list.iter().any(|metric| is_cpu_utilization(metric, "current"))
        {
            let current = json!({"averageUtilization": percentage});
            list.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
        }
        set(status, "currentMetrics", list);
        if let Some(conditions) = conditions {
            set(status, "conditions", conditions);
        }
    }
}

pub(super) fn v2_to_v1(hpa: &mut Value) {
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = existing(hpa, "spec") {
        if let Some(Value::Array(mut metrics)) = remove(spec, "metrics") {
            if let Some(index) = metrics.iter().position(|metric| is_cpu_utilization(metric, "target")) {
                let cpu = metrics.remove(index);
                let percentage = cpu.at("resource.target.averageUtilization").clone();
                set(spec, "targetCPUUtilizationPercentage", percentage);
            }
            if !metrics.is_empty() {
                annotations.push((METRICS, Value::Array(metrics)));
            }
        }
        if let Some(behavior) = remove(spec, "behavior").filter(|b| !b.is_null()) {
            annotations.push((BEHAVIOR, behavior));
        }
    }
    if let Some(status) = existing(hpa, "status") {
        if let Some(Value::Array(metrics)) = remove(status, "currentMetrics") {
            if let Some(cpu) = metrics.iter().find(|metric| is_cpu_utilization(metric, "current")) {
                let percentage = cpu.at("resource.current.averageUtilization").clone();
                set(status, "currentCPUUtilizationPercentage", percentage);
            }
            if !metrics.is_empty() {
                annotations.push((CURRENT_METRICS, Value::Array(metrics)));
            }
        }
        if let Some(conditions) = remove(status, "conditions").filter(|c| !c.is_null()) {
            annotations.push((CONDITIONS, conditions));
        }
    }
    for (name, value) in annotations {
        annotate(hpa, name, &value);
    }
}
