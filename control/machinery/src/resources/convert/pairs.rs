//! Fields that a later field replaced, and that stay beside it for clients that know only the older one: a node's range and a pod's
//! address, of which there may be two by now, and the name of a service account. Upstream: `pkg/apis/core/v1/conversion.go` and
//! `pkg/apis/apps/v1/conversion.go`.

use serde_json::{Value, json};

use crate::access::{Get, object_at, set, set_at};
use crate::object;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A daemon set's count of its templates is an annotation, which is there even of a client that says nothing of it.
pub(super) fn daemon_set(daemon_set: &mut Value) {
    if object::annotation(daemon_set, TEMPLATE_GENERATION).is_none() {
        object_at(daemon_set, "metadata.annotations").insert(TEMPLATE_GENERATION.to_owned(), "0".into());
    }
}

/// The service account of a pod's spec, or of a template's, by its two names; the newer one counts.
pub(super) fn service_account(spec: &mut Value) {
    const NAMES: [&str; 2] = ["serviceAccountName", "serviceAccount"];
    let Some(name) = NAMES.map(|field| spec.text(field)).into_iter().find(|name| !name.is_empty()) else {
        return;
    };
    let name = name.to_owned();
    for field in NAMES {
        set(spec, field, name.as_str());
    }
}

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
