//! Volumes of storage drivers are attached to the nodes whose pods want them, and detached when none does.
//!
//! Woken by: pods, claims, volumes, drivers, attachments and nodes that change, and a period as the retry (all of them by another). Reads: those. Writes:
//! VolumeAttachments, which drivers' attachers act on, and `status.volumesAttached` of the Node. Promises: a volume for one node is
//! attached to one node at a time; attachments that others made are left alone; what the Node says is in use is not detached while the node lives.
//!
//! The decision is [`plan`], pure.

pub(crate) mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use plan::{Attachment, DesiredAttachment, Plan};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const COMPONENT: &str = "attachdetach-controller";
/// A node that is silent for so long is not waited for (upstream's `maxWaitForUnmountDuration`).
const FORCE_DETACH: SignedDuration = SignedDuration::from_mins(6);
/// What waits is looked at again this often.
const PERIOD: Duration = Duration::from_secs(15);

/// The controller; its keys are nodes.
pub(crate) struct AttachDetach {
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    nodes: Arc<Informer<Node>>,
    drivers: Arc<Informer<CSIDriver>>,
    attachments: Arc<Informer<VolumeAttachment>>,
    /// Whether a node that is silent for long loses its volumes.
    force_detach: bool,
    client: Client,
    recorder: Recorder,
}

fn node_of(pod: &Pod) -> Option<Key> {
    let name = pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())?;
    Some(Key::new("", name))
}

impl AttachDetach {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        force_detach: bool,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.pods.on_change(move |old, new| {
            for pod in old.into_iter().chain(new) {
                if crate::volume_protection::claims_of(pod).next().is_some() {
                    node_of(pod).into_iter().for_each(|node| wake.add(node));
                }
            }
        });
        let wake = queue.clone();
        cluster.volume_attachments.on_change(move |old, new| {
            for attachment in old.into_iter().chain(new) {
                wake.add(Key::new("", &attachment.spec.node_name));
            }
        });
        let (wake, pods) = (queue.clone(), cluster.pods.clone());
        cluster.persistent_volume_claims.on_change(move |_, new| {
            let Some(claim) = new else { return };
            let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
            for pod in pods.list(&namespace) {
                if crate::volume_protection::claims_of(&pod).any(|c| c == name) {
                    node_of(&pod).into_iter().for_each(|node| wake.add(node));
                }
            }
        });
        let wake = queue.clone();
        cluster.nodes.on_change(move |old, new| {
            let facts = |n: &Arc<Node>| {
                (n.status.as_ref().and_then(|s| s.volumes_in_use.clone()), is_out_of_service(n))
            };
            if let Some(node) = new.or(old)
                && old.map(facts) != new.map(facts)
            {
                wake.add(key_of(&**node));
            }
        });
        let (wake, nodes) = (queue.clone(), cluster.nodes.clone());
        cluster.csi_drivers.on_change(move |_, _| {
            nodes.list("").iter().for_each(|node| wake.add(key_of(&**node)));
        });
        Self {
            pods: cluster.pods.clone(),
            claims: cluster.persistent_volume_claims.clone(),
            volumes: cluster.persistent_volumes.clone(),
            nodes: cluster.nodes.clone(),
            drivers: cluster.csi_drivers.clone(),
            attachments: cluster.volume_attachments.clone(),
            force_detach,
            client,
            recorder,
        }
    }

    /// Every node there is, and every one that something is attached to.
    pub(crate) fn nodes(&self) -> Vec<Key> {
        let nodes = self.nodes.list("");
        let attached = self.attachments.list("");
        let gone = attached.iter().map(|attachment| Key::new("", &attachment.spec.node_name));
        nodes.iter().map(|node| key_of(&**node)).chain(gone).collect()
    }

    /// What the node's pods want attached, by attachment, and who wants it.
    fn wanted(&self, node: &str) -> BTreeMap<String, (DesiredAttachment, Vec<Arc<Pod>>)> {
        let mut wanted: BTreeMap<String, (DesiredAttachment, Vec<Arc<Pod>>)> = BTreeMap::new();
        let here = |pod: &&Arc<Pod>| {
            let over =
                matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
            !over && pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
        };
        for pod in self.pods.list("").iter().filter(here) {
            for claim in crate::volume_protection::claims_of(pod) {
                let key = Key::new(&pod.namespace().unwrap_or_default(), &claim);
                let claim = self.claims.get(&key);
                let name = claim.as_ref().and_then(|c| c.spec.as_ref()).and_then(|s| s.volume_name.clone());
                let Some(volume) = name.and_then(|n| self.volumes.get(&Key::new("", &n))) else { continue };
                if volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_deref())
                    != claim.as_ref().and_then(|c| c.metadata.uid.as_deref())
                {
                    continue;
                }
                if let Some(one) =
                    DesiredAttachment::new(&volume, node).filter(|w| self.is_attached_by(&w.driver))
                {
                    wanted.entry(one.name.clone()).or_insert_with(|| (one, Vec::new())).1.push(pod.clone());
                }
            }
        }
        wanted
    }

    /// Whether the driver's volumes are attached at all: they are, where it does not say otherwise.
    fn is_attached_by(&self, driver: &str) -> bool {
        let found = self.drivers.get(&Key::new("", driver));
        found.is_none_or(|d| d.spec.attach_required != Some(false))
    }

    /// The attachments of our making; the others' are none of our business.
    fn attachments(&self) -> Vec<Attachment> {
        let all = self.attachments.list("");
        all.iter().filter_map(|a| Attachment::new(a)).filter(|a| self.is_ours(a)).collect()
    }

    /// Pods on these nodes that want a volume, by namespace and name.
    fn users(&self, volume: &str, nodes: &[String]) -> Vec<(String, String)> {
        let wanted = nodes.iter().flat_map(|node| self.wanted(node).into_values());
        let pods = wanted.filter(|(one, _)| one.volume == volume).flat_map(|(_, pods)| pods);
        pods.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())).collect()
    }

    fn is_ours(&self, attachment: &Attachment) -> bool {
        let volume = self.volumes.get(&Key::new("", &attachment.volume));
        let node = self.nodes.get(&Key::new("", &attachment.node));
        let status = node.as_ref().and_then(|n| n.status.as_ref());
        let attached = status.and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
        let in_use = status.and_then(|s| s.volumes_in_use.as_deref()).unwrap_or_default();
        let shown: Vec<String> =
            attached.iter().map(|v| v.name.clone()).chain(in_use.iter().cloned()).collect();
        plan::is_ours(attachment, volume.as_deref(), &shown)
    }

    async fn attach(&self, wanted: &DesiredAttachment, node: &str) -> Result<(), Error> {
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(wanted.name.clone()), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec {
                attacher: wanted.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(wanted.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &attachment).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop).doing(|| format!("create volume attachment {}", wanted.name)),
        }
    }

    async fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let own = Preconditions { uid: Some(attachment.uid.clone()), resource_version: None };
        let deleted = api.delete(&attachment.name, &DeleteParams::default().preconditions(own)).await;
        found(deleted).map(drop).doing(|| format!("delete volume attachment {}", attachment.name))
    }

    /// Shows on the Node what is attached.
    async fn show(&self, node: &Node, attached: &[String]) -> Result<(), Error> {
        let shown = node.status.as_ref().and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
        let shown: Vec<&str> = shown.iter().map(|v| v.name.as_str()).collect();
        if shown == attached {
            return Ok(());
        }
        let list: Vec<_> = attached.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "status": {"volumesAttached": if list.is_empty() { json!(null) } else { json!(list) }},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let name = node.name_any();
        let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(written).map(drop).doing(|| format!("show what is attached to node {name}"))
    }
}

/// Whether somebody has said that the node is down for good: what it has mounted is not waited for.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service")
}

/// Since when the node is not ready; nothing while it is.
fn down_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready").filter(|c| c.status != "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Whether the node's mounts are not waited for: it is out of service, or with `force` silent for long.
fn is_lost(node: &Node, force: bool, now: Timestamp) -> bool {
    let silent = || down_since(node).is_some_and(|since| now.duration_since(since) >= FORCE_DETACH);
    is_out_of_service(node) || (force && silent())
}

impl Reconcile for AttachDetach {
    const NAME: &'static str = "persistentvolume-attach-detach-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let node = self.nodes.get(key);
        let wanted = self.wanted(&key.name);
        let all = self.attachments();
        let status = node.as_ref().and_then(|n| n.status.as_ref());
        let in_use = status.and_then(|s| s.volumes_in_use.clone()).unwrap_or_default();
        let lost = node.as_ref().is_none_or(|node| is_lost(node, self.force_detach, Timestamp::now()));
        let names: Vec<&DesiredAttachment> = wanted.values().map(|(w, _)| w).collect();
        let Plan { attach, refuse, failed, detach, attached, waits } =
            plan::plan(&key.name, &names, &all, &in_use, lost);
        let tell = |name: &str, severity, reason, text: String| {
            for pod in wanted.get(name).iter().flat_map(|(_, pods)| pods) {
                self.recorder.record(COMPONENT, &**pod, severity, reason, text.clone());
            }
        };
        if node.is_some() {
            for one in &attach {
                self.attach(one, &key.name).await?;
            }
        }
        for (one, nodes) in &refuse {
            let users = self.users(&one.volume, nodes);
            for pod in wanted.get(&one.name).iter().flat_map(|(_, pods)| pods) {
                let text = plan::multi_attach(&one.volume, &pod.namespace().unwrap_or_default(), &users);
                self.recorder.record(COMPONENT, &**pod, Severity::Warning, "FailedAttachVolume", text);
            }
        }
        for (one, why) in &failed {
            let text = format!("AttachVolume.Attach failed for volume {:?} : {why}", one.volume);
            tell(&one.name, Severity::Warning, "FailedAttachVolume", text);
        }
        for one in &detach {
            self.detach(one).await?;
        }
        if let Some(node) = &node {
            let before = status.and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default();
            for (unique, name) in &attached {
                if !before.iter().any(|v| v.name == *unique)
                    && let Some((one, _)) = wanted.get(name)
                {
                    let text = format!("AttachVolume.Attach succeeded for volume {:?} ", one.volume);
                    tell(name, Severity::Normal, "SuccessfulAttachVolume", text);
                }
            }
            let shown: Vec<String> = attached.into_keys().collect();
            self.show(node, &shown).await?;
        }
        Ok((waits || !refuse.is_empty()).then_some(PERIOD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_out_of_service_must_not_hold_its_volumes() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let ready = |status: &str| json!([{ "type": "Ready", "status": status, "lastTransitionTime": "1970-01-01T00:00:00Z" }]);
        let node = |status: &str, taint: Option<&str>| -> Node {
            let taints = taint.map(|key| json!([{ "key": key, "effect": "NoExecute" }]));
            serde_json::from_value(json!({ "metadata": {}, "spec": { "taints": taints },
                "status": { "conditions": ready(status) } }))
            .unwrap()
        };
        assert!(is_lost(&node("True", Some("node.kubernetes.io/out-of-service")), true, at(1)));
        assert!(!is_lost(&node("Unknown", Some("node.kubernetes.io/unreachable")), true, at(1)));
        assert!(is_lost(&node("Unknown", None), true, at(360)), "silent for six minutes");
        assert!(!is_lost(&node("Unknown", None), false, at(360)), "nobody is to detach by force");
        assert!(is_lost(&node("Unknown", Some("node.kubernetes.io/out-of-service")), false, at(1)));
        assert!(!is_lost(&node("True", None), true, at(360)));
    }
}
