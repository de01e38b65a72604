//! Pods, and templates of them.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    address,
    amounts::fractional,
    nodes, paths,
    ports::{self, containers},
};
use crate::{access::Get, field::Path, goformat::go_quote};

const SYSCTLS: &str = "non-functional in v1.11+; use the \"sysctls\" field instead";
const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", SYSCTLS),
    ("security.alpha.kubernetes.io/unsafe-sysctls", SYSCTLS),
];
const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// The warnings of a pod (an empty path) or a template.
pub(super) fn warnings(path: &Path, pod: &Value, found: &mut Vec<String>) {
    let (spec, at) = (pod.at("spec"), path.child("spec"));
    placement(&at, spec, found);
    let annotations = path.child("metadata").child("annotations");
    let annotated = |key: &str| pod.fields("metadata.annotations").and_then(|a| a.get(key)?.as_str());
    for (key, text) in DEPRECATED_ANNOTATIONS.iter().filter(|(key, _)| annotated(key).is_some()) {
        found.push(format!("{}: {text}", annotations.key(key)));
    }
    volumes(&at, spec, found);
    repeated(&at.child("hostAliases"), spec.items("hostAliases"), "ip", found);
    repeated(&at.child("imagePullSecrets"), spec.items("imagePullSecrets"), "name", found);
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            let path = at.child("imagePullSecrets").index(index).child("name");
            found.push(format!("{path}: invalid empty name \"\""));
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fractional(&at.child("overhead"), spec.at("overhead"), resource, found);
    }
    let seccomp = "seccomp.security.alpha.kubernetes.io/pod";
    if !spec.has("securityContext.seccompProfile") && annotated(seccomp).is_some() {
        found.push(format!("{}: {SECCOMP}", annotations.key(seccomp)));
    }
    for (at, container) in containers(&at, spec) {
        let name = container.text("name");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !container.has("securityContext.seccompProfile") && annotated(&key).is_some() {
            found.push(format!("{}: {SECCOMP}", annotations.key(&key)));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        if !path.is_root()
            && !container.has("securityContext.appArmorProfile")
            && let Some(profile) = annotated(&key)
            && !same_profile(spec.at("securityContext.appArmorProfile"), profile)
        {
            let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            found.push(format!("{}: {text}", annotations.key(&key)));
        }
        let resources = at.child("resources");
        for resource in ["memory", "ephemeral-storage"] {
            for list in ["limits", "requests"] {
                fractional(&resources.child(list), container.at("resources").at(list), resource, found);
            }
        }
        hidden_variables(&at, container, found);
    }
    ports::warnings(&at, spec, found);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let path = at.child("terminationGracePeriodSeconds");
        found.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_terms(&at.child("affinity"), spec.at("affinity"), found);
    let servers = spec.items("dnsConfig.nameservers").iter().filter_map(Value::as_str);
    for (index, server) in servers.enumerate() {
        address::ip(&at.child("dnsConfig").child("nameservers").index(index), server, found);
    }
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        address::ip(&at.child("hostAliases").index(index).child("ip"), alias.text("ip"), found);
    }
}

fn placement(path: &Path, spec: &Value, found: &mut Vec<String>) {
    for (label, text) in nodes::in_map(spec.at("nodeSelector")) {
        found.push(format!("{}: {text}", path.child("nodeSelector").key(label)));
    }
    let (affinity, at) = (spec.at("affinity.nodeAffinity"), path.child("affinity").child("nodeAffinity"));
    let terms = affinity.at(REQUIRED).items("nodeSelectorTerms");
    nodes::terms(&at.child(REQUIRED).child("nodeSelectorTerms"), terms, found);
    for (index, term) in affinity.items(PREFERRED).iter().enumerate() {
        let path = at.child(PREFERRED).index(index).child("preference");
        nodes::expressions(&path, term.at("preference"), true, found);
    }
    for (index, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        let key = constraint.text("topologyKey");
        if let Some(text) = nodes::deprecated(key) {
            found.push(format!("{}: {key} is {text}", path.child("topologyKey")));
        }
        no_selector(&path, constraint, found);
    }
}

fn no_selector(path: &Path, holder: &Value, found: &mut Vec<String>) {
    if holder.at("labelSelector").is_null() {
        let path = path.child("labelSelector");
        found.push(format!("{path}: a null labelSelector results in matching no pod"));
    }
}

fn pod_terms(path: &Path, affinity: &Value, found: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (path, terms) = (path.child(kind), affinity.at(kind));
        for (index, term) in terms.items(REQUIRED).iter().enumerate() {
            no_selector(&path.child(REQUIRED).index(index), term, found);
        }
        for (index, weighted) in terms.items(PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(index).child("podAffinityTerm");
            no_selector(&path, weighted.at("podAffinityTerm"), found);
        }
    }
}

fn volumes(path: &Path, spec: &Value, found: &mut Vec<String>) {
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        for (source, text) in VOLUMES.iter().filter(|(source, _)| volume.has(source)) {
            let shown = if *source == "storageos" { "storageOS" } else { *source };
            found.push(format!("{}: {text}", path.child(shown)));
        }
        let claim = volume.at("ephemeral.volumeClaimTemplate.spec.resources");
        let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec").child("resources");
        for list in ["requests", "limits"] {
            fractional(&path.child(list), claim.at(list), "storage", found);
        }
    }
    paths::warnings(spec.items("volumes"), found);
}

/// Warns of items that repeat another's value of `key`.
fn repeated(path: &Path, items: &[Value], key: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let value = item.text(key);
        if !seen.insert(value) {
            found.push(format!("{}: duplicate {key} {}", path.index(index).child(key), go_quote(value)));
        }
    }
}

/// Whether an annotation says what the pod's profile says.
fn same_profile(profile: &Value, annotation: &str) -> bool {
    let kind = profile.text("type");
    match annotation {
        "runtime/default" => kind == "RuntimeDefault",
        "unconfined" => kind == "Unconfined",
        other => other
            .strip_prefix("localhost/")
            .is_some_and(|name| kind == "Localhost" && profile.text("localhostProfile") == name),
    }
}

fn hidden_variables(path: &Path, container: &Value, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, variable) in container.items("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        let reference = format!("$({name})");
        // A variable that builds on its earlier self is meant.
        let builds_on = !variable.has("valueFrom") && value != reference && value.contains(&reference);
        if !seen.insert(name) && !builds_on {
            found.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.child("env").index(index),
                go_quote(name)
            ));
        }
    }
}
