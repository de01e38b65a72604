//! The core group's smaller kinds.

use serde_json::{Value, json};

use super::amounts::{round, round_each};
use crate::access::{Fields, Get, default, default_text, entries, existing, object, remove, set};

pub(super) fn namespace(namespace: &mut Value) {
    let name = namespace.text("metadata.name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object(namespace, "metadata").and_then(|m| object(m, "labels"))
    {
        set(labels, "kubernetes.io/metadata.name", name);
    }
    if let Some(status) = object(namespace, "status") {
        default_text(status, "phase", "Active");
    }
}

pub(super) fn resource_quota(quota: &mut Value) {
    round(quota, &["spec.hard", "status.hard", "status.used"]);
}

pub(super) fn node(node: &mut Value) {
    round(node, &["status.capacity", "status.allocatable"]);
    if let Some(status) = existing(node, "status")
        && let Some(capacity) = status.fields("capacity").cloned()
    {
        default(status, "allocatable", capacity);
    }
}

pub(super) fn secret(secret: &mut Value) {
    default_text(secret, "type", "Opaque");
}

pub(super) fn endpoints(endpoints: &mut Value) {
    for subset in entries(endpoints, "subsets") {
        for port in entries(subset, "ports") {
            default_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn limit_range(range: &mut Value) {
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    round_each(range, "spec.limits", &lists);
    for item in entries(range, "spec.limits") {
        if item.text("type") != "Container" {
            continue;
        }
        inherit(item, "default", "max");
        inherit(item, "defaultRequest", "default");
        inherit(item, "defaultRequest", "min");
    }
}

/// Fills in one list of resources with what only the other names.
fn inherit(item: &mut Value, key: &str, from: &str) {
    let Some(values) = item.fields(from).filter(|values: &&Fields| !values.is_empty()).cloned() else {
        return;
    };
    if let Some(list) = object(item, key) {
        for (name, quantity) in values {
            default(list, &name, quantity);
        }
    }
}

pub(super) fn service(service: &mut Value) {
    let Some(spec) = object(service, "spec") else { return };
    default_text(spec, "sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" => {
            if let Some(client) =
                object(spec, "sessionAffinityConfig").and_then(|config| object(config, "clientIP"))
            {
                default(client, "timeoutSeconds", 10800);
            }
        }
        _ => {}
    }
    default_text(spec, "type", "ClusterIP");
    for port in entries(spec, "ports") {
        default_text(port, "protocol", "TCP");
        let unset = match port.at("targetPort") {
            Value::Null => true,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(name) => name.is_empty(),
            _ => false,
        };
        if unset && port.has("port") {
            let own = port.at("port").clone();
            set(port, "targetPort", own);
        }
    }
    let kind = spec.text("type").to_owned();
    let open = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.items("externalIPs").is_empty());
    if open {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in entries(service, "status.loadBalancer.ingress") {
            if !ingress.text("ip").is_empty() {
                default(ingress, "ipMode", json!("VIP"));
            }
        }
    }
}
