//! Horizontal pod autoscalers: v1 knows one metric, the CPU's mean utilisation; the rest of v2 rides in annotations, metrics in
//! the form of v1's own types ([`metrics`]). Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

mod metrics;

use serde_json::{Value, json};

use crate::access::{Fields, Get, existing, object, remove, set};
use crate::schema;
use metrics::Metrics;

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

/// The annotations by which v1 carries what it has no fields for (upstream: `DropRoundTripHorizontalPodAutoscalerAnnotations`).
const ROUND_TRIP: [&str; 6] = [
    METRICS,
    BEHAVIOR,
    CURRENT_METRICS,
    CONDITIONS,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// Removes what is another version's, and would be taken for this one's later.
pub(super) fn drop_round_trip(hpa: &mut Value) {
    for name in ROUND_TRIP {
        take(hpa, name);
    }
}

fn take(hpa: &mut Value, name: &str) -> Option<Value> {
    let annotations = existing(hpa, "metadata.annotations")?;
    let text = remove(annotations, name)?;
    let emptied = annotations.as_object().is_some_and(Fields::is_empty);
    if emptied {
        remove(existing(hpa, "metadata")?, "annotations");
    }
    Some(text)
}

/// Takes an annotation out and reads the JSON in it; what does not parse is dropped, as upstream drops it.
fn take_annotation(hpa: &mut Value, name: &str) -> Option<Value> {
    serde_json::from_str(take(hpa, name)?.as_str()?).ok()
}

fn annotate(hpa: &mut Value, name: &str, value: &Value) {
    if let Some(annotations) = object(hpa, "metadata").and_then(|m| object(m, "annotations")) {
        set(annotations, name, value.to_string());
    }
}

/// The fields of `behavior` and below, which upstream writes by the names of Go's internal type (`ScaleUp`), nothing left out, and reads
/// whatever their case.
const BEHAVIOR_FIELDS: [&str; 9] = [
    "scaleUp",
    "scaleDown",
    "stabilizationWindowSeconds",
    "selectPolicy",
    "policies",
    "tolerance",
    "type",
    "value",
    "periodSeconds",
];

fn behavior_of_v1(value: Value) -> Option<Value> {
    let named = rename(value, &|name: &str| {
        let field = BEHAVIOR_FIELDS.iter().find(|field| field.eq_ignore_ascii_case(name));
        field.map_or_else(|| name.to_owned(), |field| (*field).to_owned())
    });
    decoded("v2", "HorizontalPodAutoscalerBehavior", named)
        .filter(|b| b.fields("").is_some_and(|b| !b.is_empty()))
}

fn behavior_in_v1(behavior: &Value) -> Value {
    let rules = |name: &str| {
        behavior.present(name).map_or(Value::Null, |rules| {
            let field = |name: &str| rules.at(name).clone();
            let policy = |policy: &Value| {
                json!({"Type": policy.at("type"), "Value": policy.at("value"), "PeriodSeconds": policy.at("periodSeconds")})
            };
            let policies = rules.at("policies").as_array().map(|all| all.iter().map(policy).collect::<Vec<_>>());
            json!({
                "StabilizationWindowSeconds": field("stabilizationWindowSeconds"),
                "SelectPolicy": field("selectPolicy"),
                "Policies": policies,
                "Tolerance": field("tolerance"),
            })
        })
    };
    json!({"ScaleUp": rules("scaleUp"), "ScaleDown": rules("scaleDown")})
}

/// Renames every key.
fn rename(value: Value, name: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (name(&key), rename(value, name))).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| rename(item, name)).collect(),
        other => other,
    }
}

/// A value read as a type of `autoscaling/VERSION`: all of it or nothing, as upstream's decoding into Go's type.
fn decoded(version: &str, name: &str, value: Value) -> Option<Value> {
    let table = schema::builtin();
    let package = format!("k8s.io.api.autoscaling.{version}");
    let (id, _) = table.types().find(|(_, of)| of.name == name && of.package == package)?;
    table.normalize(id, value).ok().map(|read| read.value)
}

/// A list of values of a type of v1.
fn decoded_list(name: &str, value: Option<Value>) -> Option<Vec<Value>> {
    let Value::Array(items) = value? else { return None };
    items.into_iter().map(|item| decoded("v1", name, item)).collect()
}

pub(super) fn v1_to_v2(hpa: &mut Value) {
    let metrics = decoded_list("MetricSpec", take_annotation(hpa, METRICS));
    let behavior = take_annotation(hpa, BEHAVIOR).and_then(behavior_of_v1);
    let current = decoded_list("MetricStatus", take_annotation(hpa, CURRENT_METRICS));
    let conditions = decoded_list("HorizontalPodAutoscalerCondition", take_annotation(hpa, CONDITIONS));
    drop_round_trip(hpa);
    if let Some(spec) = existing(hpa, "spec") {
        let mut list = Metrics::Sources.to_v2(metrics.as_deref().unwrap_or_default());
        if let Some(percentage) = remove(spec, "targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
            list.push(cpu(&percentage));
        }
        if list.is_empty() {
            list.push(cpu(&json!(DEFAULT_UTILIZATION)));
        }
        set(spec, "metrics", list);
        if let Some(behavior) = behavior {
            set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = existing(hpa, "status") {
        let mut list = Metrics::Statuses.to_v2(current.as_deref().unwrap_or_default());
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
    drop_round_trip(hpa);
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
                annotations.push((METRICS, Metrics::Sources.to_v1(&others)));
            }
        }
        if let Some(behavior) = remove(spec, "behavior").filter(|b| !b.is_null()) {
            annotations.push((BEHAVIOR, behavior_in_v1(&behavior)));
        }
    }
    if let Some(status) = existing(hpa, "status") {
        if let Some(Value::Array(metrics)) = remove(status, "currentMetrics") {
            if let Some(cpu) = metrics.iter().rfind(|metric| is_cpu_utilization(metric, "current")) {
                let percentage = cpu.at("resource.current.averageUtilization").clone();
                set(status, "currentCPUUtilizationPercentage", percentage);
            }
            if !metrics.is_empty() {
                annotations.push((CURRENT_METRICS, Metrics::Statuses.to_v1(&metrics)));
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
