//! Fields that a later field replaced, and that stay beside it for clients that know only the older one: a node's range and a pod's
//! address, of which there may be two by now. Upstream: `pkg/apis/core/v1/conversion.go`.

use serde_json::{Value, json};

use crate::access::{Get, set_at};

pub(super) fn node(node: &mut Value) {
    let first = node.at("spec.podCIDRs").get(0).and_then(Value::as_str);
    match (node.text("spec.podCIDR"), first) {
        ("", None | Some("")) => {}
        ("", Some(first)) => {
            let first = first.to_owned();
            set_at(node, "spec.podCIDR", first);
        }
        (one, first) if first != Some(one) => {
            let all = json!([one]);
            set_at(node, "spec.podCIDRs", all);
        }
        _ => {}
    }
}

pub(super) fn pod(pod: &mut Value) {
    let first = pod.at("status.podIPs").get(0).map(|first| first.text("ip"));
    match (pod.text("status.podIP"), first) {
        ("", None | Some("")) => {}
        ("", Some(first)) => {
            let first = first.to_owned();
            set_at(pod, "status.podIP", first);
        }
        (one, first) if first != Some(one) => {
            let all = json!([{"ip": one}]);
            set_at(pod, "status.podIPs", all);
        }
        _ => {}
    }
}
