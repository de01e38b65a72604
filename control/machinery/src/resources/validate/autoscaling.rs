//! Horizontal pod autoscalers.

use serde_json::Value;

use super::{Errors, quantities, rules};
use crate::{
    field::{FieldError, Path},
    resources::access::Get,
};

/// Longest period of a scaling policy, in seconds.
const PERIOD_MAX: i64 = 1800;
/// Longest window a scaler may look back, in seconds.
const WINDOW_MAX: i64 = 3600;

/// What holds for every autoscaler; a target that `old` (null for a new one) has is not judged again.
pub(super) fn horizontal_pod_autoscaler(hpa: &Value, old: &Value, errors: &mut Errors) {
    let (path, spec, before) = (Path::new("spec"), hpa.at("spec"), old.at("spec"));
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or_default());
    // Nothing scales to zero here, but what did may go on.
    let low = if before.int("minReplicas") == Some(0) { 0 } else { 1 };
    if let Some(min) = min.filter(|min| *min < low) {
        let detail = format!("must be greater than or equal to {low}");
        errors.push(FieldError::invalid(&path.child("minReplicas"), min, detail));
    }
    let max_path = path.child("maxReplicas");
    if max == 0 {
        errors.push(FieldError::required(&max_path, "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(FieldError::invalid(&max_path, max, "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&max_path, max, detail));
    }
    let (target, target_before) = (spec.at("scaleTargetRef"), before.at("scaleTargetRef"));
    let known = !old.is_null()
        && ["apiVersion", "kind"].iter().all(|key| target.text(key) == target_before.text(key));
    let version = match target.text("kind") {
        _ if known => Version::Any,
        "ReplicationController" => Version::WithoutGroup,
        _ => Version::WithGroup,
    };
    reference(&path.child("scaleTargetRef"), target, version, errors);
    let object = |metric: &Value| metric.text("type") == "Object" && metric.has("object");
    let bad = |metric: &&Value| {
        version_error(metric.text("object.describedObject.apiVersion"), Version::WithoutGroup).is_some()
    };
    let described = match before.items("metrics").iter().filter(|m| object(m)).find(bad) {
        Some(_) => Version::Any,
        None => Version::WithoutGroup,
    };
    metrics(&path.child("metrics"), spec, described, errors);
    for key in ["scaleUp", "scaleDown"] {
        scaling_rules(&path.child("behavior").child(key), spec.at("behavior").at(key), errors);
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

fn reference(path: &Path, target: &Value, version: Version, errors: &mut Errors) {
    rules::segment(&path.child("kind"), target.text("kind"), errors);
    rules::segment(&path.child("name"), target.text("name"), errors);
    let text = target.text("apiVersion");
    if let Some(detail) = version_error(text, version) {
        errors.push(FieldError::invalid(&path.child("apiVersion"), text, detail));
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
const SOURCE_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

fn metrics(path: &Path, spec: &Value, described: Version, errors: &mut Errors) {
    let list = spec.items("metrics");
    for (index, metric) in list.iter().enumerate() {
        self::metric(&path.index(index), metric, described, errors);
    }
    let outside = list.iter().any(|metric| matches!(metric.text("type"), "Object" | "External"));
    if spec.int("minReplicas") == Some(0) && !outside {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn metric(path: &Path, metric: &Value, described: Version, errors: &mut Errors) {
    let (kind, kind_path) = (metric.text("type"), path.child("type"));
    if kind.is_empty() {
        errors.push(FieldError::required(&kind_path, "must specify a metric source type"));
    }
    let unknown = !SOURCE_TYPES.contains(&kind);
    if unknown {
        errors.push(FieldError::not_supported(&kind_path, kind, &SOURCE_TYPES));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, key)| *key).filter(|key| metric.has(key)).collect();
    if let Some(first) = present.first() {
        source(&path.child(first), first, metric.at(first), described, errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key);
    match expected {
        Some(key) if !metric.has(key) => {
            let detail = "must populate information for the given metric source";
            errors.push(FieldError::required(&path.child(key), detail));
        }
        Some(_) => {}
        // Upstream says this twice.
        None => errors.push(FieldError::not_supported(&kind_path, kind, &SOURCE_TYPES)),
    }
    if present.len() != 1 {
        for key in present.into_iter().filter(|key| Some(*key) != expected) {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
}

fn source(path: &Path, kind: &str, source: &Value, described: Version, errors: &mut Errors) {
    let (target, target_path) = (source.at("target"), path.child("target"));
    let has = |key: &str| target.has(key);
    if kind == "object" {
        reference(&path.child("describedObject"), source.at("describedObject"), described, errors);
    }
    match kind {
        "resource" | "containerResource" => {
            let name = source.text("name");
            if name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
            } else if kind == "containerResource" {
                quantities::resource_name(&path.child("name"), name, errors);
            }
        }
        _ => {
            let (name, path) = (source.text("metric.name"), path.child("metric").child("name"));
            if name.is_empty() {
                errors.push(FieldError::required(&path, "must specify a metric name"));
            } else {
                rules::segment(&path, name, errors);
            }
        }
    }
    if kind == "containerResource" {
        let (container, path) = (source.text("container"), path.child("container"));
        if container.is_empty() {
            errors.push(FieldError::required(&path, "must specify a container"));
        } else {
            rules::label(&path, container, errors);
        }
    }
    self::target(&target_path, target, errors);
    let (lacks, both) = match kind {
        "object" if !has("value") && !has("averageValue") => {
            (Some(("averageValue", "must set either a target value or averageValue")), None)
        }
        "external" => (
            (!has("value") && !has("averageValue"))
                .then_some(("averageValue", "must set either a target value for metric or a per-pod target")),
            (has("value") && has("averageValue"))
                .then_some(("value", "may not set both a target value for metric and a per-pod target")),
        ),
        "pods" if !has("averageValue") => {
            (Some(("averageValue", "must specify a positive target averageValue")), None)
        }
        "resource" | "containerResource" => (
            (!has("averageUtilization") && !has("averageValue")).then_some((
                "averageUtilization",
                "must set either a target raw value or a target utilization",
            )),
            (has("averageUtilization") && has("averageValue"))
                .then_some(("averageValue", "may not set both a target raw value and a target utilization")),
        ),
        _ => (None, None),
    };
    if let Some((key, detail)) = lacks {
        errors.push(FieldError::required(&target_path.child(key), detail));
    }
    if let Some((key, detail)) = both {
        errors.push(FieldError::forbidden(&target_path.child(key), detail));
    }
}

fn target(path: &Path, target: &Value, errors: &mut Errors) {
    let (kind, kind_path) = (target.text("type"), path.child("type"));
    if kind.is_empty() {
        errors.push(FieldError::required(&kind_path, "must specify a metric target type"));
    }
    if !["AverageValue", "Utilization", "Value"].contains(&kind) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&kind_path, kind, detail));
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = quantities::parse(target.at(key)).filter(|amount| amount.sign() <= 0) {
            errors.push(FieldError::invalid(&path.child(key), amount.canonical(), "must be positive"));
        }
    }
    if let Some(share) = target.int("averageUtilization").filter(|share| *share < 1) {
        errors.push(FieldError::invalid(&path.child("averageUtilization"), share, "must be greater than 0"));
    }
}

fn scaling_rules(path: &Path, rules: &Value, errors: &mut Errors) {
    if rules.is_null() {
        return;
    }
    let window_path = path.child("stabilizationWindowSeconds");
    if let Some(window) = rules.int("stabilizationWindowSeconds") {
        if window < 0 {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&window_path, window, detail));
        }
        if window > WINDOW_MAX {
            let detail = format!("must be less than or equal to {WINDOW_MAX}");
            errors.push(FieldError::invalid(&window_path, window, detail));
        }
    }
    let selections = ["Disabled", "Max", "Min"];
    if let Some(selection) = rules.at("selectPolicy").as_str().filter(|s| !selections.contains(s)) {
        errors.push(FieldError::not_supported(&path.child("selectPolicy"), selection, &selections));
    }
    let (policies, policies_path) = (rules.items("policies"), path.child("policies"));
    if policies.is_empty() {
        errors.push(FieldError::required(&policies_path, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        scaling_policy(&policies_path.index(index), policy, errors);
    }
    if rules.has("tolerance") {
        quantities::amount(&path.child("tolerance"), rules.at("tolerance"), errors);
    }
}

fn scaling_policy(path: &Path, policy: &Value, errors: &mut Errors) {
    let kind = policy.text("type");
    if !["Percent", "Pods"].contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &["Percent", "Pods"]));
    }
    for key in ["value", "periodSeconds"] {
        let number = policy.int(key).unwrap_or_default();
        if number <= 0 {
            errors.push(FieldError::invalid(&path.child(key), number, "must be greater than zero"));
        }
        if key == "periodSeconds" && number > PERIOD_MAX {
            let detail = format!("must be less than or equal to {PERIOD_MAX}");
            errors.push(FieldError::invalid(&path.child(key), number, detail));
        }
    }
}

pub(super) fn status(new: &Value, _old: &Value, errors: &mut Errors) {
    rules::not_negatives(
        &Path::new("status"),
        new.at("status"),
        &["currentReplicas", "desiredReplicas"],
        errors,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goformat::go_quote;
    use serde_json::json;

    fn said(hpa: &Value, old: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        horizontal_pod_autoscaler(hpa, old, &mut errors);
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
