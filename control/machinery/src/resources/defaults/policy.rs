//! Roles' bindings, priorities, autoscalers, flow control, device claims.

use serde_json::{Value, json};

use crate::access::{Get, default, default_int, default_text, entries, existing, object, set};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role_binding(binding: &mut Value) {
    if let Some(role) = object(binding, "roleRef") {
        default_text(role, "apiGroup", RBAC);
    }
    for subject in entries(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            default_text(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn priority_class(class: &mut Value) {
    default(class, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn horizontal_pod_autoscaler(hpa: &mut Value) {
    let Some(spec) = object(hpa, "spec") else { return };
    default(spec, "minReplicas", 1);
    if spec.items("metrics").is_empty() {
        set(
            spec,
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
    let Some(behavior) = existing(spec, "behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = object(behavior, "scaleUp") {
        default(up, "stabilizationWindowSeconds", 0);
        scaling_rules(up, vec![pods, percent.clone()]);
    }
    if let Some(down) = object(behavior, "scaleDown") {
        scaling_rules(down, vec![percent]);
    }
}

fn scaling_rules(rules: &mut Value, policies: Vec<Value>) {
    default(rules, "selectPolicy", "Max");
    default(rules, "policies", policies);
}

pub(super) fn flow_schema(schema: &mut Value) {
    if let Some(spec) = object(schema, "spec") {
        default_int(spec, "matchingPrecedence", 1000);
    }
}

pub(super) fn priority_level(level: &mut Value) {
    if let Some(exempt) = existing(level, "spec.exempt") {
        default(exempt, "nominalConcurrencyShares", 0);
        default(exempt, "lendablePercent", 0);
    }
    let Some(limited) = existing(level, "spec.limited") else { return };
    default(limited, "nominalConcurrencyShares", 30);
    default(limited, "lendablePercent", 0);
    if let Some(queuing) = existing(limited, "limitResponse.queuing") {
        default_int(queuing, "queues", 64);
        default_int(queuing, "handSize", 8);
        default_int(queuing, "queueLengthLimit", 50);
    }
}

pub(super) fn resource_claim(claim: &mut Value) {
    for request in entries(claim, "spec.devices.requests") {
        if let Some(exactly) = existing(request, "exactly") {
            device_request(exactly);
        }
        for option in entries(request, "firstAvailable") {
            device_request(option);
        }
    }
}

fn device_request(request: &mut Value) {
    default_text(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        default_int(request, "count", 1);
    }
    for toleration in entries(request, "tolerations") {
        default_text(toleration, "operator", "Equal");
    }
}

pub(super) fn resource_claim_template(template: &mut Value) {
    if let Some(claim) = existing(template, "spec") {
        resource_claim(claim);
    }
}
