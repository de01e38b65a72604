//! Horizontal pod autoscalers.

use super::cursor::Cursor;
use crate::{access::Get as _, names};

/// Longest period of a scaling policy, in seconds.
const PERIOD_MAX: i64 = 1800;
/// Longest window a scaler may look back, in seconds.
const WINDOW_MAX: i64 = 3600;

/// What holds for every autoscaler; a target it had before is not judged again.
pub(super) fn horizontal_pod_autoscaler(hpa: Cursor<'_>) {
    let spec = hpa.field("spec");
    let (min, max) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    // Nothing scales to zero here, but what did may go on.
    let low = if min.old.as_i64() == Some(0) { 0 } else { 1 };
    if min.number().is_some_and(|min| min < low) {
        min.invalid(format!("must be greater than or equal to {low}"));
    }
    let most = max.number().unwrap_or_default();
    if most == 0 {
        max.missing("must be set and greater than 0");
    } else if most < 0 {
        max.invalid("must be greater than or equal to 1");
    }
    if min.number().is_some_and(|min| most < min) {
        max.invalid("must be greater than or equal to `minReplicas`");
    }
    let target = spec.field("scaleTargetRef");
    let known =
        hpa.is_update() && ["apiVersion", "kind"].iter().all(|key| target.text(key) == target.old.text(key));
    let version = match target.text("kind") {
        _ if known => Version::Any,
        "ReplicationController" => Version::WithoutGroup,
        _ => Version::WithGroup,
    };
    reference(target, version);
    let bad = |metric: &serde_json::Value| {
        let version = metric.text("object.describedObject.apiVersion");
        metric.text("type") == "Object"
            && metric.has("object")
            && version_error(version, Version::WithoutGroup).is_some()
    };
    let described =
        if spec.old.items("metrics").iter().any(bad) { Version::Any } else { Version::WithoutGroup };
    metrics(spec, described);
    for key in ["scaleUp", "scaleDown"] {
        scaling_rules(spec.field("behavior").field(key));
    }
}

/// What an `apiVersion` may be.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Any,
    WithGroup,
    WithoutGroup,
}

fn version_error(version: &str, wanted: Version) -> Option<String> {
    match (wanted, version.matches('/').count()) {
        (Version::Any, _) => None,
        (_, 2..) => Some(format!("unexpected GroupVersion string: {version}")),
        (Version::WithGroup, 0) => Some("apiVersion must specify API group".to_owned()),
        (Version::WithGroup, _) if version.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

fn reference(target: Cursor<'_>, version: Version) {
    target.field("kind").segment();
    target.field("name").segment();
    if let Some(detail) = version_error(target.text("apiVersion"), version) {
        target.field("apiVersion").invalid(detail);
    }
}

/// Each kind of metric and where it is described, in the order upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metrics(spec: Cursor<'_>, described: Version) {
    let metrics = spec.field("metrics");
    metrics.items().for_each(|metric| self::metric(metric, described));
    let outside = metrics.items().any(|metric| matches!(metric.text("type"), "Object" | "External"));
    if spec.at("minReplicas").as_i64() == Some(0) && !outside {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(detail);
    }
}

fn metric(metric: Cursor<'_>, described: Version) {
    let kind = metric.field("type");
    kind.required_with("must specify a metric source type");
    kind.enumerated();
    let present: Vec<&str> = SOURCES.iter().map(|(_, key)| *key).filter(|key| metric.has(key)).collect();
    if let Some(first) = present.first() {
        source(metric.field(first), first, described);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.str()).map(|(_, key)| *key);
    match expected {
        Some(key) => {
            metric.field(key).required_with("must populate information for the given metric source");
        }
        // Upstream says this twice.
        None => kind.enumerated(),
    }
    if present.len() != 1 {
        for key in present.into_iter().filter(|key| Some(*key) != expected) {
            metric.field(key).forbidden("must populate the given metric source only");
        }
    }
}

fn source(source: Cursor<'_>, kind: &str, described: Version) {
    if kind == "object" {
        reference(source.field("describedObject"), described);
    }
    if matches!(kind, "resource" | "containerResource") {
        let name = source.field("name");
        if name.required_with("must specify a resource name") && kind == "containerResource" {
            name.container_resource(name.str());
        }
    } else {
        let name = source.field("metric.name");
        if name.required_with("must specify a metric name") {
            name.format(names::path_segment);
        }
    }
    if kind == "containerResource" && source.field("container").required_with("must specify a container") {
        source.field("container").label();
    }
    let target = source.field("target");
    self::target(target);
    aims_at_one(kind, target);
}

/// A target names the amount its kind of metric is measured in, and no second one.
fn aims_at_one(kind: &str, target: Cursor<'_>) {
    let (value, average) = (target.field("value"), target.field("averageValue"));
    let utilization = target.field("averageUtilization");
    let set = [value, average, utilization].map(Cursor::is_set);
    match (kind, set) {
        ("object", [false, false, _]) => average.missing("must set either a target value or averageValue"),
        ("external", [false, false, _]) => {
            average.missing("must set either a target value for metric or a per-pod target");
        }
        ("external", [true, true, _]) => {
            value.forbidden("may not set both a target value for metric and a per-pod target");
        }
        ("pods", [_, false, _]) => average.missing("must specify a positive target averageValue"),
        ("resource" | "containerResource", [_, false, false]) => {
            utilization.missing("must set either a target raw value or a target utilization");
        }
        ("resource" | "containerResource", [_, true, true]) => {
            average.forbidden("may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn target(target: Cursor<'_>) {
    let kind = target.field("type");
    kind.required_with("must specify a metric target type");
    if !kind.is_enumerated() {
        kind.invalid("must be either Utilization, Value, or AverageValue");
    }
    for amount in ["value", "averageValue"].map(|key| target.field(key)) {
        if let Some(quantity) = amount.quantity().filter(|quantity| quantity.sign() <= 0) {
            amount.invalid_value(quantity.canonical(), "must be positive");
        }
    }
    let share = target.field("averageUtilization");
    if share.number().is_some_and(|share| share < 1) {
        share.invalid("must be greater than 0");
    }
}

fn scaling_rules(rules: Cursor<'_>) {
    if !rules.is_set() {
        return;
    }
    let window = rules.field("stabilizationWindowSeconds");
    match window.number() {
        Some(..0) => window.invalid("must be greater than or equal to zero"),
        Some(seconds) if seconds > WINDOW_MAX => {
            window.invalid(format!("must be less than or equal to {WINDOW_MAX}"));
        }
        _ => {}
    }
    rules.plain(&["selectPolicy"]);
    rules.field("policies").required_with("must specify at least one Policy");
    rules.each("policies").for_each(scaling_policy);
    if let Some(tolerance) = rules.field("tolerance").if_set() {
        tolerance.amount();
    }
}

fn scaling_policy(policy: Cursor<'_>) {
    policy.field("type").enumerated();
    let period = policy.field("periodSeconds");
    for amount in [policy.field("value"), period] {
        if amount.number().unwrap_or_default() <= 0 {
            amount.invalid("must be greater than zero");
        }
    }
    if period.number() > Some(PERIOD_MAX) {
        period.invalid(format!("must be less than or equal to {PERIOD_MAX}"));
    }
}

pub(super) fn status(hpa: Cursor<'_>) {
    hpa.field("status").not_negatives(&["currentReplicas", "desiredReplicas"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{goformat::go_quote, resources::validate::cursor::look, schema::builtin};
    use serde_json::{Value, json};

    fn said(hpa: &Value, old: &Value) -> Vec<String> {
        let old = (!old.is_null()).then_some(old);
        let kind = builtin().named("autoscaling/v2", "HorizontalPodAutoscaler");
        let errors = look(kind, hpa, old, horizontal_pod_autoscaler);
        errors.into_iter().map(|e| e.to_string()).collect()
    }

    fn hpa() -> Value {
        json!({"spec": {"maxReplicas": 3, "minReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]}})
    }

    #[test]
    fn a_target_needs_a_group_unless_it_was_there_before() {
        assert!(said(&hpa(), &Value::Null).is_empty());
        let mut bare = hpa();
        bare["spec"]["scaleTargetRef"]["apiVersion"] = json!("v1");
        let detail = go_quote("v1");
        assert_eq!(
            said(&bare, &Value::Null),
            [format!(
                "spec.scaleTargetRef.apiVersion: Invalid value: {detail}: apiVersion must specify API group"
            )]
        );
        assert!(said(&bare, &bare).is_empty());
    }

    #[test]
    fn metrics_say_one_thing_and_aim_at_one() {
        let mut two = hpa();
        two["spec"]["metrics"][0]["pods"] = json!({});
        two["spec"]["metrics"][0]["resource"]["target"]["averageValue"] = json!("1");
        assert_eq!(
            said(&two, &Value::Null),
            [
                "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
                "spec.metrics[0].pods.target.type: Required value: must specify a metric target type",
                "spec.metrics[0].pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
                "spec.metrics[0].pods: Forbidden: must populate the given metric source only",
            ]
        );
    }

    #[test]
    fn policies_are_bounded() {
        let mut bad = hpa();
        bad["spec"]["behavior"] = json!({"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Maybe",
            "policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}});
        assert_eq!(
            said(&bad, &Value::Null),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Maybe\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ]
        );
    }
}
