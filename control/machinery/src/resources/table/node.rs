//! Nodes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::age,
    format::{condition, name, or},
};
use crate::access::Get;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(node, "Ready") {
        Some(condition) if condition.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.flag("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = node.items("status.addresses").iter().find(|address| address.text("type") == kind);
        found.map_or("<none>", |address| address.text("address")).to_owned()
    };
    let info = |key: &str| or(node.at("status.nodeInfo").text(key), "<unknown>").to_owned();
    let mut kernel = info("kernelVersion");
    let architecture = node.text("status.nodeInfo.architecture");
    if !architecture.is_empty() {
        kernel.push_str(&format!(" ({architecture})"));
    }
    vec![
        name(node),
        json!(status),
        json!(roles(node)),
        age(node, now),
        json!(node.text("status.nodeInfo.kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(kernel),
        json!(info("containerRuntimeVersion")),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.fields("metadata.labels").into_iter().flatten() {
        let role = match key.strip_prefix(ROLE_PREFIX) {
            None if key == ROLE_LABEL => value.as_str().unwrap_or_default(),
            role => role.unwrap_or_default(),
        };
        if !role.is_empty() {
            roles.push(role);
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), "<none>").to_owned()
}
