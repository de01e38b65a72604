//! Pods bound to it: mirrors of its own manifests, what it reports, what it evicts.

use super::super::{Attributes, Operation};
use super::{owners, unexpected};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) async fn pod(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let quoted = go_quote(node);
    match a.operation {
        Operation::Create => mirror(registry, a, node).await,
        Operation::Delete if bound(a.old_object(), node) => Ok(()),
        Operation::Delete => {
            Err(a.forbidden(format!("node {quoted} can only delete pods with spec.nodeName set to itself")))
        }
        Operation::Update | Operation::Connect => Err(a.forbidden(format!(
            "unexpected operation {}, node {quoted} can only create and delete mirror pods",
            go_quote(a.operation.text())
        ))),
    }
}

fn bound(pod: &Value, node: &str) -> bool {
    pod.text("spec.nodeName") == node
}

/// The pod as stored.
pub(super) async fn stored(registry: &Registry, namespace: &str, name: &str) -> Result<Value, Status> {
    let kind = Kind::of("", "pods").ok_or_else(|| Status::internal_error("pods are not served"))?;
    registry.read_required(&kind, namespace, name).await
}

pub(super) fn status(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let quoted = go_quote(node);
    if a.operation != Operation::Update {
        return Err(unexpected(a));
    }
    let (old, new) = (a.old_object(), a.new_object());
    if !bound(old, node) {
        return Err(a.forbidden(format!(
            "node {quoted} can only update pod status for pods with spec.nodeName set to itself"
        )));
    }
    if labels(old) != labels(new) {
        return Err(a.forbidden(format!("node {quoted} cannot update labels through pod status")));
    }
    // Which claims are a pod's is what gives its node the right to read them.
    if claims(old) != claims(new) {
        return Err(a.forbidden(format!("node {quoted} cannot update resource claim statues")));
    }
    let extended = "status.extendedResourceClaimStatus";
    if old.present(extended) != new.present(extended) {
        return Err(a.forbidden(format!("node {quoted} cannot update extended resource claim status")));
    }
    Ok(())
}

fn labels(pod: &Value) -> BTreeMap<&str, &str> {
    pod.texts("metadata.labels").collect()
}

/// The pod's own names of its claims, and those of the objects.
fn claims(pod: &Value) -> Vec<(&str, Option<&Value>)> {
    let statuses = pod.items("status.resourceClaimStatuses");
    statuses.iter().map(|s| (s.text("name"), s.present("resourceClaimName"))).collect()
}

pub(super) async fn eviction(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if a.operation != Operation::Create {
        return Err(a.forbidden(format!("unexpected operation {}", a.operation.text())));
    }
    if a.name.is_empty() {
        return Err(a.forbidden("could not determine pod from request data"));
    }
    if !bound(&stored(registry, &a.namespace, &a.name).await?, node) {
        return Err(a.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")));
    }
    Ok(())
}

async fn mirror(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (pod, quoted) = (a.new_object(), go_quote(node));
    if object::annotation(pod, MIRROR).is_none() {
        return Err(a.forbidden(format!(
            "pod does not have {} annotation, node {quoted} can only create mirror pods",
            go_quote(MIRROR)
        )));
    }
    if !bound(pod, node) {
        return Err(
            a.forbidden(format!("node {quoted} can only create pods with spec.nodeName set to itself"))
        );
    }
    owned(registry, a, node).await?;
    match reference(pod) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => {
            Err(a.forbidden(format!("node {quoted} can not create pods that reference {what}")))
        }
        Err(why) => Err(a.forbidden(format!("error checking mirror pod for API references: {why}"))),
    }
}

/// The pod's one owner is the node, as it is now.
async fn owned(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let quoted = go_quote(node);
    let only = |what: &str| a.forbidden(format!("node {quoted} can only create pods with {what}"));
    let owner = match owners(a.new_object()) {
        [owner] => owner,
        [] => return Err(only("an owner reference set to itself")),
        _ => return Err(only("a single owner reference set to itself")),
    };
    let is = |field, value: &str| owner.text(field) == value;
    if !is("apiVersion", "v1") || !is("kind", "Node") || !is("name", node) {
        return Err(only("an owner reference set to itself"));
    }
    if owner.get("controller") != Some(&Value::Bool(true)) {
        return Err(only("a controller owner reference set to itself"));
    }
    if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
        return Err(
            a.forbidden(format!("node {quoted} must not set blockOwnerDeletion on an owner reference"))
        );
    }
    let kind = Kind::of("", "nodes").ok_or_else(|| Status::internal_error("nodes are not served"))?;
    let stored = registry.read_required(&kind, "", node).await?;
    let (expected, got) = (owner.text("uid"), object::uid(&stored));
    if expected != got {
        return Err(a.forbidden(format!("node {node} UID mismatch: expected {expected} got {got}")));
    }
    Ok(())
}

/// Volumes whose contents do not come from the API.
const LOCAL_VOLUMES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];
/// Volumes that name another object, and what is said of them.
const API_VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same for sources of projected volumes.
const API_SOURCES: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// What other object a pod refers to, by which its node would come to read it; `Err` where that cannot be said. Pure.
/// Upstream: `pkg/api/pod/util.go`, `HasAPIObjectReference`.
fn reference(pod: &Value) -> Result<Option<&'static str>, String> {
    if !pod.text("spec.serviceAccountName").is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    let mut named = (false, false);
    crate::authz::graph::references(pod, |kind, _| match kind {
        crate::authz::graph::Vertex::Secret => named.0 = true,
        crate::authz::graph::Vertex::ConfigMap => named.1 = true,
        _ => {}
    });
    if named.0 {
        return Ok(Some("secrets"));
    }
    if named.1 {
        return Ok(Some("configmaps"));
    }
    if !pod.items("spec.resourceClaims").is_empty() {
        return Ok(Some("resourceclaims"));
    }
    for volume in pod.items("spec.volumes") {
        let has = |source: &&str| volume.has(source);
        if LOCAL_VOLUMES.iter().any(has) {
            continue;
        }
        if let Some((_, what)) = API_VOLUMES.iter().find(|(source, _)| has(source)) {
            return Ok(Some(what));
        }
        let name = go_quote(volume.text("name"));
        if volume.present("projected").is_none() {
            return Err(format!("unknown volume type for volume  {name}"));
        }
        for source in volume.items("projected.sources") {
            if let Some((_, what)) = API_SOURCES.iter().find(|(kind, _)| source.has(kind)) {
                return Ok(Some(what));
            }
            if source.present("downwardAPI").is_none() {
                return Err(format!("unknown source for projected volume {name}"));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mirror_pod_must_not_name_what_its_node_would_then_read() {
        let of = |spec: Value| reference(&json!({ "spec": spec }));
        let volume = |source: Value| of(json!({"volumes": [source]}));
        assert_eq!(of(json!({"serviceAccountName": "a"})), Ok(Some("serviceaccounts")));
        assert_eq!(of(json!({"imagePullSecrets": [{"name": "s"}]})), Ok(Some("secrets")));
        let env = json!({"containers": [{"envFrom": [{"configMapRef": {"name": "m"}}]}]});
        assert_eq!(of(env), Ok(Some("configmaps")));
        assert_eq!(of(json!({"resourceClaims": [{"name": "c"}]})), Ok(Some("resourceclaims")));
        assert_eq!(volume(json!({"name": "v", "hostPath": {"path": "/"}})), Ok(None));
        assert_eq!(
            volume(json!({"name": "v", "csi": {"driver": "d"}})),
            Ok(Some("csidrivers (via CSI volumes)"))
        );
        let token = json!({"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {"path": "t"}}]}});
        assert_eq!(volume(token), Ok(Some("serviceaccounts (via projected volumes)")));
        let claim = json!({"name": "v", "ephemeral": {}});
        assert_eq!(volume(claim), Ok(Some("persistentvolumeclaims (via ephemeral volumes)")));
        assert_eq!(
            volume(json!({"name": "v", "new": {}})),
            Err("unknown volume type for volume  \"v\"".to_owned())
        );
        assert_eq!(of(json!({"containers": [{"name": "c"}]})), Ok(None));
    }
}
