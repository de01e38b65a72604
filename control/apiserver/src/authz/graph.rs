//! Which objects a node has a reason to read: those its pods refer to, and what these refer to in turn.
//! Upstream: `plugin/pkg/auth/authorizer/node/graph.go`.

use crate::objects::{Observer, list, names, text};
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

/// A kind of object the graph knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Vertex {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    VolumeClaim,
    Volume,
    ResourceClaim,
    VolumeAttachment,
    ResourceSlice,
}

/// (kind, namespace or empty, name)
type Key = (Vertex, String, String);

/// The references of pods, volumes, attachments and slices, kept by observed changes.
#[derive(Default)]
pub struct Graph(RwLock<Edges>);

#[derive(Default)]
struct Edges {
    /// From the object that refers to what it refers to.
    to: FxHashMap<Key, FxHashSet<Key>>,
    /// The same, turned round.
    from: FxHashMap<Key, FxHashSet<Key>>,
    /// The node a pod, attachment or slice belongs to.
    node: FxHashMap<Key, String>,
    /// The claim a volume is for: whoever reaches the claim reaches the volume.
    claim: FxHashMap<Key, Key>,
}

impl Edges {
    fn set(&mut self, source: Key, node: &str, targets: FxHashSet<Key>) {
        self.remove(&source);
        for target in &targets {
            self.from.entry(target.clone()).or_default().insert(source.clone());
        }
        if !node.is_empty() {
            self.node.insert(source.clone(), node.to_owned());
        }
        if !targets.is_empty() {
            self.to.insert(source, targets);
        }
    }

    fn remove(&mut self, source: &Key) {
        self.node.remove(source);
        for target in self.to.remove(source).into_iter().flatten() {
            if let Some(sources) = self.from.get_mut(&target) {
                sources.remove(source);
                if sources.is_empty() {
                    self.from.remove(&target);
                }
            }
        }
    }

    fn reaches(&self, node: &str, start: &Key) -> bool {
        let (mut seen, mut open) = (FxHashSet::default(), vec![start]);
        while let Some(key) = open.pop() {
            if self.node.get(key).is_some_and(|n| n == node) {
                return true;
            }
            if seen.insert(key) {
                open.extend(self.from.get(key).into_iter().flatten());
                open.extend(self.claim.get(key));
            }
        }
        false
    }
}

impl Graph {
    /// Whether `node` has a reason to touch the object.
    #[must_use]
    pub fn related(&self, node: &str, kind: Vertex, namespace: &str, name: &str) -> bool {
        self.0.read().reaches(node, &(kind, namespace.to_owned(), name.to_owned()))
    }

    fn put_pod(&self, pod: &Value) {
        let (namespace, name) = names(pod);
        let key = (Vertex::Pod, namespace.to_owned(), name.to_owned());
        let node = text(pod, "/spec/nodeName");
        if node.is_empty() {
            self.0.write().remove(&key);
            return;
        }
        let mut targets = FxHashSet::default();
        // A mirror pod is the kubelet's own claim: it earns the node no access.
        if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_none() {
            references(pod, |kind, name| {
                targets.insert((kind, namespace.to_owned(), name.to_owned()));
            });
        }
        self.0.write().set(key, node, targets);
    }

    fn put_volume(&self, volume: &Value) {
        let (_, name) = names(volume);
        let key = (Vertex::Volume, String::new(), name.to_owned());
        let claim_namespace = text(volume, "/spec/claimRef/namespace");
        let mut secrets = Vec::new();
        persistent_volume_secrets(volume, claim_namespace, |namespace, name| {
            secrets.push((Vertex::Secret, namespace.to_owned(), name.to_owned()));
        });
        let claim =
            (Vertex::VolumeClaim, claim_namespace.to_owned(), text(volume, "/spec/claimRef/name").to_owned());
        let mut edges = self.0.write();
        edges.set(key.clone(), "", secrets.into_iter().collect());
        match claim.2.is_empty() {
            true => edges.claim.remove(&key),
            false => edges.claim.insert(key, claim),
        };
    }
}

impl Observer for Graph {
    fn put(&self, _group: &str, resource: &str, object: &Value) {
        let (_, name) = names(object);
        let own = |kind| (kind, String::new(), name.to_owned());
        match resource {
            "pods" => self.put_pod(object),
            "persistentvolumes" => self.put_volume(object),
            "volumeattachments" => self.0.write().set(
                own(Vertex::VolumeAttachment),
                text(object, "/spec/nodeName"),
                FxHashSet::default(),
            ),
            "resourceslices" => {
                self.0.write().set(
                    own(Vertex::ResourceSlice),
                    text(object, "/spec/nodeName"),
                    FxHashSet::default(),
                );
            }
            _ => {}
        }
    }

    fn delete(&self, _group: &str, resource: &str, namespace: &str, name: &str) {
        let kind = match resource {
            "pods" => Vertex::Pod,
            "persistentvolumes" => Vertex::Volume,
            "volumeattachments" => Vertex::VolumeAttachment,
            "resourceslices" => Vertex::ResourceSlice,
            _ => return,
        };
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut edges = self.0.write();
        edges.claim.remove(&key);
        edges.remove(&key);
    }
}

/// Calls `found` with every object of the pod's own namespace that the pod refers to.
pub(crate) fn references(pod: &Value, mut found: impl FnMut(Vertex, &str)) {
    machinery::pod_secrets::named(pod).into_iter().for_each(|name| found(Vertex::Secret, name));
    let mut one = |kind, value: &Value, pointer: &str| {
        let name = text(value, pointer);
        if !name.is_empty() {
            found(kind, name);
        }
    };
    one(Vertex::ServiceAccount, pod, "/spec/serviceAccountName");
    for containers in ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"] {
        for container in list(pod, containers) {
            for source in list(container, "/envFrom") {
                one(Vertex::ConfigMap, source, "/configMapRef/name");
            }
            for variable in list(container, "/env") {
                one(Vertex::ConfigMap, variable, "/valueFrom/configMapKeyRef/name");
            }
        }
    }
    for volume in list(pod, "/spec/volumes") {
        for (kind, pointer) in VOLUME_REFERENCES {
            one(kind, volume, pointer);
        }
        for source in list(volume, "/projected/sources") {
            one(Vertex::ConfigMap, source, "/configMap/name");
        }
        if volume.get("ephemeral").is_some_and(|e| !e.is_null()) {
            found_claim(pod, volume, &mut one);
        }
    }
    one(Vertex::ResourceClaim, pod, "/status/extendedResourceClaimStatus/resourceClaimName");
    for claim in list(pod, "/spec/resourceClaims") {
        if !text(claim, "/resourceClaimName").is_empty() {
            one(Vertex::ResourceClaim, claim, "/resourceClaimName");
        } else if !text(claim, "/resourceClaimTemplateName").is_empty() {
            // made of a template: the status says under which name
            let own = |status: &&Value| text(status, "/name") == text(claim, "/name");
            if let Some(status) = list(pod, "/status/resourceClaimStatuses").iter().find(own) {
                one(Vertex::ResourceClaim, status, "/resourceClaimName");
            }
        }
    }
}

/// A generic ephemeral volume's claim is named after the pod and the volume.
fn found_claim(pod: &Value, volume: &Value, one: &mut impl FnMut(Vertex, &Value, &str)) {
    let name = format!("{}-{}", names(pod).1, text(volume, "/name"));
    one(Vertex::VolumeClaim, &Value::String(name), "");
}

/// Where a pod's volume names another object than a secret.
const VOLUME_REFERENCES: [(Vertex, &str); 2] =
    [(Vertex::ConfigMap, "/configMap/name"), (Vertex::VolumeClaim, "/persistentVolumeClaim/claimName")];

fn persistent_volume_secrets(volume: &Value, claim_namespace: &str, mut found: impl FnMut(&str, &str)) {
    // A CSI driver's controller secrets are no node's business.
    const REFERENCES: [&str; 10] = [
        "/spec/cephfs/secretRef",
        "/spec/cinder/secretRef",
        "/spec/flexVolume/secretRef",
        "/spec/rbd/secretRef",
        "/spec/scaleIO/secretRef",
        "/spec/iscsi/secretRef",
        "/spec/storageos/secretRef",
        "/spec/csi/nodePublishSecretRef",
        "/spec/csi/nodeStageSecretRef",
        "/spec/csi/nodeExpandSecretRef",
    ];
    for pointer in REFERENCES {
        let name = text(volume, &format!("{pointer}/name"));
        let namespace = Some(text(volume, &format!("{pointer}/namespace"))).filter(|n| !n.is_empty());
        if !name.is_empty() {
            found(namespace.unwrap_or(claim_namespace), name);
        }
    }
    let azure = text(volume, "/spec/azureFile/secretName");
    if !azure.is_empty() {
        let namespace = Some(text(volume, "/spec/azureFile/secretNamespace")).filter(|n| !n.is_empty());
        found(namespace.unwrap_or(claim_namespace), azure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str) -> Value {
        json!({
            "metadata": {"namespace": "a", "name": name},
            "spec": {
                "nodeName": node, "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}],
                "volumes": [
                    {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "projected"}}]}},
                ],
            },
        })
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to() {
        let graph = Graph::default();
        graph.put("", "pods", &pod("p", "n1"));
        graph.put("", "persistentvolumes", &json!({
            "metadata": {"name": "pv"},
            "spec": {"claimRef": {"namespace": "a", "name": "claim"}, "csi": {"nodeStageSecretRef": {"namespace": "x", "name": "stage"}}},
        }));
        let all = [
            (Vertex::Pod, "a", "p"),
            (Vertex::Secret, "a", "env"),
            (Vertex::Secret, "a", "pull"),
            (Vertex::ConfigMap, "a", "from"),
            (Vertex::ConfigMap, "a", "projected"),
            (Vertex::ServiceAccount, "a", "sa"),
            (Vertex::VolumeClaim, "a", "claim"),
            (Vertex::VolumeClaim, "a", "p-e"),
            (Vertex::Volume, "", "pv"),
            (Vertex::Secret, "x", "stage"),
        ];
        for (kind, namespace, name) in all {
            assert!(graph.related("n1", kind, namespace, name), "{kind:?} {name}");
            assert!(!graph.related("n2", kind, namespace, name), "{kind:?} {name}");
        }
        assert!(!graph.related("n1", Vertex::Secret, "b", "env"));
        graph.delete("", "pods", "a", "p");
        for (kind, namespace, name) in all {
            assert!(!graph.related("n1", kind, namespace, name), "{kind:?} {name} after the pod is gone");
        }
    }

    #[test]
    fn a_shared_secret_stays_readable_while_one_pod_is_left() {
        let graph = Graph::default();
        graph.put("", "pods", &pod("p", "n1"));
        graph.put("", "pods", &pod("q", "n1"));
        graph.delete("", "pods", "a", "p");
        assert!(graph.related("n1", Vertex::Secret, "a", "env"));
        graph.put("", "pods", &pod("q", "n2"));
        assert!(
            !graph.related("n1", Vertex::Secret, "a", "env")
                && graph.related("n2", Vertex::Secret, "a", "env")
        );
    }

    #[test]
    fn a_mirror_pod_earns_nothing_but_itself() {
        let graph = Graph::default();
        let mut mirror = pod("p", "n1");
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        graph.put("", "pods", &mirror);
        assert!(
            graph.related("n1", Vertex::Pod, "a", "p") && !graph.related("n1", Vertex::Secret, "a", "env")
        );
    }

    #[test]
    fn a_released_volume_is_out_of_reach() {
        let graph = Graph::default();
        graph.put("", "pods", &pod("p", "n1"));
        let mut volume =
            json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "claim"}}});
        graph.put("", "persistentvolumes", &volume);
        assert!(graph.related("n1", Vertex::Volume, "", "pv"));
        volume["spec"] = json!({});
        graph.put("", "persistentvolumes", &volume);
        assert!(!graph.related("n1", Vertex::Volume, "", "pv"));
    }

    #[test]
    fn a_volume_must_not_hide_another_of_the_same_claim() {
        let graph = Graph::default();
        graph.put("", "pods", &pod("p", "n1"));
        let volume = |name: &str| json!({"metadata": {"name": name}, "spec": {"claimRef": {"namespace": "a", "name": "claim"}}});
        graph.put("", "persistentvolumes", &volume("bound"));
        graph.put("", "persistentvolumes", &volume("other"));
        assert!(graph.related("n1", Vertex::Volume, "", "bound"));
        graph.delete("", "persistentvolumes", "", "other");
        assert!(graph.related("n1", Vertex::Volume, "", "bound"));
        assert!(!graph.related("n1", Vertex::Volume, "", "other"));
        assert!(graph.related("n1", Vertex::VolumeClaim, "a", "claim"));
    }

    #[test]
    fn a_status_must_not_give_a_node_claims_its_pod_does_not_ask_for() {
        let graph = Graph::default();
        let mut held = pod("p", "n1");
        held["spec"]["resourceClaims"] = json!([
            {"name": "plain", "resourceClaimName": "direct"},
            {"name": "made", "resourceClaimTemplateName": "t"},
        ]);
        held["status"]["resourceClaimStatuses"] = json!([
            {"name": "plain", "resourceClaimName": "not-this"},
            {"name": "made", "resourceClaimName": "of-template"},
            {"name": "stranger", "resourceClaimName": "somebodys"},
        ]);
        held["status"]["extendedResourceClaimStatus"] = json!({"resourceClaimName": "extended"});
        graph.put("", "pods", &held);
        for (claim, reached) in [
            ("direct", true),
            ("of-template", true),
            ("extended", true),
            ("not-this", false),
            ("somebodys", false),
        ] {
            assert_eq!(graph.related("n1", Vertex::ResourceClaim, "a", claim), reached, "{claim}");
        }
    }

    #[test]
    fn malformed_objects_do_not_panic() {
        let graph = Graph::default();
        for object in [
            json!(null),
            json!([]),
            json!({"spec": {"volumes": 3, "nodeName": []}}),
            json!({"metadata": {"name": 1}}),
        ] {
            for resource in ["pods", "persistentvolumes", "volumeattachments", "resourceslices"] {
                graph.put("", resource, &object);
            }
        }
    }
}
