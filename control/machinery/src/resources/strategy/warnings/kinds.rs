//! Kinds other than pods.

use serde_json::Value;

use super::{address, amounts::fractional, nodes, pod, write::Write};
use crate::{
    access::{Fields, Get},
    field::Path,
    goformat::go_quote,
    quantity::Quantity,
};

/// An indexed job with more completions and more parallelism than this may lose count.
const COMPLETIONS: i64 = 100_000;
const PARALLELISM: i64 = 10_000;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

pub(super) fn warnings(group: &str, kind: &str, write: &Write<'_>, found: &mut Vec<String>) {
    let object = write.object;
    match (group, kind) {
        ("", "Service") => service(object, found),
        ("", "PersistentVolume") => persistent_volume(object, found),
        ("", "PersistentVolumeClaim") => {
            let text = "deprecated since v1.8; use \"storageClassName\" attribute instead";
            annotated(object, CLASS_ANNOTATION, text, found);
            claim(&Path::new("spec"), object.at("spec"), found);
        }
        ("", "Node") => node(object, found),
        ("", "ResourceQuota") if write.old.is_none() => quota(object, found),
        ("", "ServiceAccount") => account(write, found),
        ("", "Endpoints") => endpoints(object, found),
        ("discovery.k8s.io", "EndpointSlice") => slice(write, found),
        ("networking.k8s.io", "Ingress") if write.old.is_none() => ingress(object, found),
        ("networking.k8s.io", "NetworkPolicy") => network_policy(object, found),
        ("node.k8s.io", "RuntimeClass") => {
            for (_, text) in nodes::in_map(object.at("scheduling.nodeSelector")) {
                found.push(format!("scheduling.nodeSelector: {text}"));
            }
        }
        ("storage.k8s.io", "StorageClass") => storage_class(object, found),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            let (path, selector) = (Path::new("nodeTopology"), object.at("nodeTopology"));
            nodes::expressions(&path, selector, false, found);
            for (label, text) in nodes::in_map(selector.at("matchLabels")) {
                found.push(format!("{}: {text}", path.child("matchLabels").child(label)));
            }
        }
        ("storage.k8s.io", "CSIDriver") => driver(write, found),
        ("resource.k8s.io", "ResourceSlice") => {
            let driver = object.text("spec.driver");
            if driver != driver.to_lowercase() {
                let driver = go_quote(driver);
                found.push(format!(
                    "spec.driver: driver names should be lowercase; {driver} contains uppercase characters"
                ));
            }
        }
        ("admissionregistration.k8s.io", _) if object.text("metadata.name").ends_with(".static.k8s.io") => {
            found.push(
                "metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based configurations \
                 and cannot be managed via the API"
                    .to_owned(),
            );
        }
        _ => {}
    }
}

fn annotated(object: &Value, key: &str, text: &str, found: &mut Vec<String>) {
    if object.fields("metadata.annotations").is_some_and(|annotations| annotations.contains_key(key)) {
        found.push(format!("{}: {text}", Path::new("metadata").child("annotations").key(key)));
    }
}

fn claim(path: &Path, spec: &Value, found: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        fractional(&path.child("resources").child(list), spec.at("resources").at(list), "storage", found);
    }
}

pub(super) fn stateful_set(write: &Write<'_>, found: &mut Vec<String>) {
    let templates = write.object.items("spec.volumeClaimTemplates");
    for (index, template) in templates.iter().enumerate() {
        let path = Path::from("spec.volumeClaimTemplates").index(index);
        // Upstream names the field in Go's spelling where the set is changed.
        let path = if write.old.is_some() { path.child("Spec") } else { path };
        claim(&path, template.at("spec"), found);
    }
    if write.object.int("spec.revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        found.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
}

/// The job whose spec stands at `path`.
pub(super) fn job(write: &Write<'_>, path: &str, found: &mut Vec<String>) {
    if !write.counts() {
        return;
    }
    let spec = write.object.at(path);
    let over = |key: &str, limit: i64| spec.int(key).is_some_and(|n| n > limit);
    let indexed = spec.text("completionMode") == "Indexed";
    if indexed && over("completions", COMPLETIONS) && over("parallelism", PARALLELISM) {
        found.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    pod::warnings(&Path::from(path).child("template"), spec.at("template"), found);
}

/// A changed cron job that still has its time zone in the schedule.
pub(super) fn schedule(write: &Write<'_>, found: &mut Vec<String>) {
    if write.old.is_some() && write.object.text("spec.schedule").contains("TZ") {
        found.push(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                .to_owned(),
        );
    }
}

fn service(object: &Value, found: &mut Vec<String>) {
    let (spec, path) = (object.at("spec"), Path::new("spec"));
    let texts = |list: &str| -> Vec<String> {
        spec.items(list).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (kind, external_ips) = (spec.text("type"), texts("externalIPs"));
    let headless = kind == "ClusterIP" && spec.text("clusterIP") == "None";
    if object
        .fields("metadata.annotations")
        .is_some_and(|a| a.contains_key("service.kubernetes.io/topology-aware-hints"))
    {
        found.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    if !headless && kind != "ExternalName" && !spec.text("clusterIP").is_empty() {
        for (index, ip) in texts("clusterIPs").iter().enumerate() {
            address::ip(&path.child("clusterIPs").index(index), ip, found);
        }
    }
    if headless {
        let ignored = |what: &str| format!("spec.{what} is ignored for headless services");
        if !spec.text("loadBalancerIP").is_empty() {
            found.push(ignored("loadBalancerIP"));
        }
        if !external_ips.is_empty() {
            found.push(ignored("externalIPs"));
        }
        if spec.text("sessionAffinity") != "None" {
            found.push(ignored("SessionAffinity"));
        }
    }
    for (index, ip) in external_ips.iter().enumerate() {
        address::ip(&path.child("externalIPs").index(index), ip, found);
    }
    if !external_ips.is_empty() && !headless && kind != "ExternalName" {
        found.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    address::ip(&path.child("loadBalancerIP"), spec.text("loadBalancerIP"), found);
    for (index, range) in texts("loadBalancerSourceRanges").iter().enumerate() {
        address::cidr(&path.child("loadBalancerSourceRanges").index(index), range, found);
    }
    if kind == "ExternalName" && !external_ips.is_empty() {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        found.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
}

fn persistent_volume(object: &Value, found: &mut Vec<String>) {
    annotated(
        object,
        CLASS_ANNOTATION,
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
        found,
    );
    let options = "volume.beta.kubernetes.io/mount-options";
    annotated(object, options, "deprecated since v1.31; use \"mountOptions\" attribute instead", found);
    let spec = object.at("spec");
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        found.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let path = Path::from("spec.nodeAffinity.required.nodeSelectorTerms");
    nodes::terms(&path, spec.items("nodeAffinity.required.nodeSelectorTerms"), found);
    for (_, shown, text) in OLD_VOLUMES.iter().filter(|(source, ..)| spec.has(source)) {
        found.push(format!("spec.{shown}: {text}"));
    }
}

fn node(object: &Value, found: &mut Vec<String>) {
    if object.has("spec.configSource") {
        found.push("spec.configSource: the feature is removed".to_owned());
    }
    if !object.text("spec.externalID").is_empty() {
        found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for (index, range) in object.items("spec.podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        address::cidr(&Path::from("spec.podCIDRs").index(index), range, found);
    }
}

fn quota(object: &Value, found: &mut Vec<String>) {
    let hard = object.fields("spec.hard");
    let amount = |name: &str| Quantity::parse(hard.and_then(|h: &Fields| h.get(name)?.as_str())?).ok();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let (mut request, limit) = (format!("requests.{resource}"), format!("limits.{resource}"));
        if amount(&request).is_none() && matches!(resource, "cpu" | "memory") {
            resource.clone_into(&mut request);
        }
        if let (Some(asked), Some(most)) = (amount(&request), amount(&limit))
            && asked > most
        {
            found.push(format!("ResourceQuota {request} ({asked}) should be less than {limit} ({most})"));
        }
    }
}

fn account(write: &Write<'_>, found: &mut Vec<String>) {
    let key = "kubernetes.io/enforce-mountable-secrets";
    let has = |object: &Value| object.fields("metadata.annotations").is_some_and(|a| a.contains_key(key));
    if has(write.object) && !write.old.is_some_and(has) {
        found.push(format!(
            "metadata.annotations[{key}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        ));
    }
}

/// Controllers of the system write addresses in one spelling; theirs are not looked at.
fn managed_by(object: &Value, label: &str, managers: &[&str]) -> bool {
    let manager = object.fields("metadata.labels").and_then(|labels| labels.get(label)?.as_str());
    manager.is_some_and(|manager| managers.contains(&manager))
}

fn endpoints(object: &Value, found: &mut Vec<String>) {
    if managed_by(object, "endpoints.kubernetes.io/managed-by", &["endpoint-controller"]) {
        return;
    }
    for (index, subset) in object.items("subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            let path = Path::new("subsets").index(index).child(list);
            for (at, entry) in subset.items(list).iter().enumerate() {
                address::ip(&path.index(at).child("ip"), entry.text("ip"), found);
            }
        }
    }
}

fn slice(write: &Write<'_>, found: &mut Vec<String>) {
    if write.old.is_none() && write.object.text("addressType") == "FQDN" {
        found.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let own = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if managed_by(write.object, "endpointslice.kubernetes.io/managed-by", &own) {
        return;
    }
    for (index, endpoint) in write.object.items("endpoints").iter().enumerate() {
        let path = Path::new("endpoints").index(index).child("addresses");
        for (at, text) in endpoint.items("addresses").iter().filter_map(Value::as_str).enumerate() {
            address::ip(&path.index(at), text, found);
        }
    }
}

fn ingress(object: &Value, found: &mut Vec<String>) {
    let key = "kubernetes.io/ingress.class";
    let annotated = object.fields("metadata.annotations").is_some_and(|a| a.contains_key(key));
    if annotated && !object.has("spec.ingressClassName") {
        let key = go_quote(key);
        found.push(format!("annotation {key} is deprecated, please use 'spec.ingressClassName' instead"));
    }
}

fn network_policy(object: &Value, found: &mut Vec<String>) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in object.at("spec").items(direction).iter().enumerate() {
            let path = Path::new("spec").child(direction).index(index).child(peers);
            for (at, peer) in rule.items(peers).iter().enumerate().filter(|(_, peer)| peer.has("ipBlock")) {
                let (path, block) = (path.index(at).child("ipBlock"), peer.at("ipBlock"));
                address::cidr(&path.child("cidr"), block.text("cidr"), found);
                for (at, except) in block.items("except").iter().filter_map(Value::as_str).enumerate() {
                    address::cidr(&path.child("except").index(at), except, found);
                }
            }
        }
    }
}

fn storage_class(object: &Value, found: &mut Vec<String>) {
    for (index, topology) in object.items("allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies").index(index).child("matchLabelExpressions");
        for (at, expression) in topology.items("matchLabelExpressions").iter().enumerate() {
            if let Some(text) = nodes::deprecated(expression.text("key")) {
                found.push(format!("{}: {text}", path.index(at).child("key")));
            }
        }
    }
}

fn driver(write: &Write<'_>, found: &mut Vec<String>) {
    let requests = |object: &Value| object.at("spec.tokenRequests").clone();
    let changed = write.old.is_none_or(|old| requests(old) != requests(write.object));
    if changed
        && !write.object.items("spec.tokenRequests").is_empty()
        && !write.object.has("spec.serviceAccountTokenInSecrets")
    {
        found.push(
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
             logging of tokens in volume attributes"
                .to_owned(),
        );
    }
}
