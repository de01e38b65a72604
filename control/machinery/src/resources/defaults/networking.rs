//! Endpoint slices, network policies, ingress classes.

use serde_json::{Value, json};

use crate::access::{Get, default, entries, existing, object, set};

pub(super) fn endpoint_slice(slice: &mut Value) {
    for port in entries(slice, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

pub(super) fn network_policy(policy: &mut Value) {
    let Some(spec) = object(policy, "spec") else { return };
    for rules in ["ingress", "egress"] {
        for rule in entries(spec, rules) {
            for port in entries(rule, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    }
    if spec.items("policyTypes").is_empty() {
        let types =
            if spec.items("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        set(spec, "policyTypes", types);
    }
}

pub(super) fn ingress_class(class: &mut Value) {
    if let Some(parameters) = existing(class, "spec.parameters") {
        default(parameters, "scope", "Cluster");
    }
}
