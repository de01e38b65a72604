//! What a client is told beside its answer.

use std::collections::HashMap;

use serde_json::Value;

use crate::{
    field::Path,
    goformat::go_quote,
    resources::{Resource, access::Get},
};

/// Labels of nodes that have had another name for long, and that name with the release of the change.
const DEPRECATED_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

/// The warnings of a written object, in the order of its fields. What a change of a workload leaves as it was is not
/// warned of again.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    let counted = |object: &Value| object.int("metadata.generation");
    let workload = matches!((resource.group, resource.kind), ("apps" | "batch", _));
    if workload && old.is_some_and(|old| counted(old) == counted(object)) {
        return found;
    }
    match (resource.group, resource.kind) {
        ("", "Pod") => pod_spec(&Path::new("spec"), object.at("spec"), &mut found),
        ("apps", _) | ("", "ReplicationController") | ("batch", "Job") if object.has("spec.template") => {
            let path = Path::new("spec").child("template").child("spec");
            pod_spec(&path, object.at("spec.template.spec"), &mut found);
        }
        ("", "PodTemplate") => {
            pod_spec(&Path::new("template").child("spec"), object.at("template.spec"), &mut found);
        }
        ("batch", "CronJob") => {
            let path = Path::from("spec.jobTemplate.spec.template.spec");
            pod_spec(&path, object.at("spec.jobTemplate.spec.template.spec"), &mut found);
        }
        ("", "Service") if object.has("spec.externalIPs") && object.text("spec.type") == "ExternalName" => {
            found.push("spec.externalIPs is ignored when type is \"ExternalName\"".to_owned());
        }
        _ => {}
    }
    found
}

fn pod_spec(path: &Path, spec: &Value, found: &mut Vec<String>) {
    for (label, text) in DEPRECATED_NODE_LABELS {
        if spec.fields("nodeSelector").is_some_and(|selector| selector.contains_key(*label)) {
            found.push(format!("{}: {text}", path.child("nodeSelector").key(label)));
        }
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in spec.items(list).iter().enumerate() {
            let path = path.child(list).index(index);
            hidden_variables(&path, container, found);
            duplicate_ports(&path, container, found);
        }
    }
    let priority_names = spec.items("imagePullSecrets").iter().map(|secret| secret.text("name"));
    for (index, name) in priority_names.enumerate() {
        if name.is_empty() {
            let path = path.child("imagePullSecrets").index(index);
            found.push(format!("{path}: invalid empty name \"\""));
        }
    }
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        found.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
}

fn hidden_variables(path: &Path, container: &Value, found: &mut Vec<String>) {
    let mut seen: HashMap<&str, &Value> = HashMap::new();
    for (index, variable) in container.items("env").iter().enumerate() {
        let name = variable.text("name");
        // A variable that builds on its earlier self is meant.
        let builds_on = variable.text("value").contains(&format!("$({name})"));
        if seen.insert(name, variable).is_some() && !builds_on {
            let path = path.child("env").index(index);
            let name = go_quote(name);
            found.push(format!(
                "{path}: hides previous definition of {name}, which may be dropped when using apply"
            ));
        }
    }
}

fn duplicate_ports(path: &Path, container: &Value, found: &mut Vec<String>) {
    let ports = container.items("ports");
    for (index, port) in ports.iter().enumerate() {
        let same = |other: &&Value| {
            ["containerPort", "protocol", "hostIP", "hostPort"]
                .iter()
                .all(|key| other.at(key) == port.at(key))
        };
        if let Some(first) = ports.iter().take(index).position(|other| same(&other)) {
            let (path, first) = (path.child("ports").index(index), path.child("ports").index(first));
            found.push(format!("{path}: duplicate port definition with {first}"));
        }
    }
}
