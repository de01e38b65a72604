//! What to attach to a node and what to detach. Pure.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A volume that a node's pods want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredAttachment {
    /// The name of its attachment to the node.
    pub name: String,
    pub volume: String,
    pub driver: String,
    /// As the Node's status names it.
    pub unique: String,
    /// It may be on several nodes.
    pub shared: bool,
}

impl DesiredAttachment {
    /// A volume of a driver for a node; `None` for other volumes.
    #[must_use]
    pub(crate) fn new(volume: &PersistentVolume, node: &str) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let source = spec.csi.as_ref()?;
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        Some(Self {
            name: name(&source.volume_handle, &source.driver, node),
            volume: volume.metadata.name.clone()?,
            driver: source.driver.clone(),
            unique: format!("kubernetes.io/csi/{}^{}", source.driver, source.volume_handle),
            shared: modes.is_empty() || modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany"),
        })
    }
}

/// A VolumeAttachment of a PersistentVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub volume: String,
    /// The attacher says it is done.
    pub attached: bool,
    /// It is being undone.
    pub terminating: bool,
    /// Why the attacher could not do it.
    pub error: Option<String>,
}

impl Attachment {
    /// Reads one; `None` for inline volumes, which are not ours.
    #[must_use]
    pub(crate) fn new(attachment: &VolumeAttachment) -> Option<Self> {
        let meta = &attachment.metadata;
        Some(Self {
            name: meta.name.clone()?,
            uid: meta.uid.clone().unwrap_or_default(),
            node: attachment.spec.node_name.clone(),
            volume: attachment.spec.source.persistent_volume_name.clone()?,
            attached: attachment.status.as_ref().is_some_and(|s| s.attached),
            terminating: meta.deletion_timestamp.is_some(),
            error: attachment.status.as_ref().and_then(|s| s.attach_error.as_ref()?.message.clone()),
        })
    }
}

/// The name of our attachments (upstream's `getAttachmentName`).
fn name(handle: &str, driver: &str, node: &str) -> String {
    let text = format!("{handle}{driver}{node}");
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("csi-{hash}")
}

/// Whether an attachment is of our making, which its name says: others may attach volumes to nodes for purposes of their own. `volume`
/// is the one it is of; where that is gone, `shown` may tell: what its node's status names as attached.
#[must_use]
pub(crate) fn is_ours(attachment: &Attachment, volume: Option<&PersistentVolume>, shown: &[String]) -> bool {
    let Attachment { name, node, .. } = attachment;
    let by_volume =
        volume.and_then(|volume| DesiredAttachment::new(volume, node)).is_some_and(|w| w.name == *name);
    by_volume || shown.iter().any(|unique| attachment_of(unique, node) == *name)
}

/// What to do for a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub attach: Vec<DesiredAttachment>,
    /// These cannot be, as other nodes have their volumes: which nodes.
    pub refuse: Vec<(DesiredAttachment, Vec<String>)>,
    /// These could not be: what the attacher says.
    pub failed: Vec<(DesiredAttachment, String)>,
    pub detach: Vec<Attachment>,
    /// What is attached and wanted: as the Node's status names it, to the attachment's name.
    pub attached: BTreeMap<String, String>,
    /// Something should be detached and is still in use.
    pub waits: bool,
}

/// Decides. `all` are the attachments of our making; `in_use` is what the Node says it has mounted; `lost`: the node is gone, silent for long
/// or out of service.
#[must_use]
pub(crate) fn plan(
    node: &str,
    wanted: &[&DesiredAttachment],
    all: &[Attachment],
    in_use: &[String],
    lost: bool,
) -> Plan {
    let mut plan = Plan::default();
    for one in wanted {
        match all.iter().find(|a| a.name == one.name) {
            Some(known) => {
                if known.attached && !known.terminating {
                    plan.attached.insert(one.unique.clone(), one.name.clone());
                } else if let Some(why) = known.error.as_ref().filter(|_| !known.terminating) {
                    plan.failed.push(((*one).clone(), why.clone()));
                }
                // One that is being undone is made again once it is gone.
                plan.waits |= known.terminating;
            }
            None => {
                let elsewhere = all.iter().filter(|a| a.volume == one.volume && a.node != node);
                let elsewhere: Vec<String> = elsewhere.map(|a| a.node.clone()).collect();
                if !elsewhere.is_empty() && !one.shared {
                    plan.refuse.push(((*one).clone(), elsewhere));
                } else {
                    plan.attach.push((*one).clone());
                }
            }
        }
    }
    for known in all.iter().filter(|a| a.node == node && !a.terminating) {
        if wanted.iter().any(|w| w.name == known.name) {
            continue;
        }
        let used = in_use.iter().any(|unique| attachment_of(unique, node) == known.name);
        if used && !lost {
            plan.waits = true;
        } else {
            plan.detach.push(known.clone());
        }
    }
    plan
}

/// What a pod in `namespace` is told of a volume that other nodes have: the names of the pods there that are in its own namespace, and how
/// many are not. `users` are all of them, by namespace and name.
#[must_use]
pub(crate) fn multi_attach(volume: &str, namespace: &str, users: &[(String, String)]) -> String {
    let near = users.iter().filter(|(of, _)| of == namespace).map(|(_, name)| name.as_str());
    let near: Vec<&str> = near.collect();
    let far = users.len() - near.len();
    let why = match (near.is_empty(), far) {
        (true, 0) => {
            "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
        }
        (true, far) => format!("Volume is already used by {far} pod(s) in different namespaces"),
        (false, 0) => format!("Volume is already used by pod(s) {}", near.join(", ")),
        (false, far) => format!(
            "Volume is already used by pod(s) {} and {far} pod(s) in different namespaces",
            near.join(", ")
        ),
    };
    format!("Multi-Attach error for volume {volume:?} {why}")
}

/// The attachment's name of what the Node's status names.
fn attachment_of(unique: &str, node: &str) -> String {
    let rest = unique.strip_prefix("kubernetes.io/csi/").unwrap_or_default();
    let (driver, handle) = rest.split_once('^').unwrap_or_default();
    name(handle, driver, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(volume: &str, node: &str, mode: &str) -> DesiredAttachment {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": volume},
            "spec": {"accessModes": [mode], "csi": {"driver": "d", "volumeHandle": format!("h-{volume}")}},
        }))
        .unwrap();
        DesiredAttachment::new(&volume, node).unwrap()
    }

    fn attachment(of: &DesiredAttachment, node: &str, attached: bool) -> Attachment {
        Attachment {
            name: of.name.clone(),
            uid: "u".into(),
            node: node.into(),
            volume: of.volume.clone(),
            attached,
            terminating: false,
            error: None,
        }
    }

    #[test]
    fn what_is_wanted_is_attached_once() {
        let one = wanted("v", "n1", "ReadWriteOnce");
        assert_eq!(plan("n1", &[&one], &[], &[], false).attach, std::slice::from_ref(&one));
        let waiting = plan("n1", &[&one], &[attachment(&one, "n1", false)], &[], false);
        assert!(waiting.attach.is_empty() && waiting.attached.is_empty() && waiting.detach.is_empty());
        let done = plan("n1", &[&one], &[attachment(&one, "n1", true)], &[], false);
        assert_eq!(done.attached.keys().collect::<Vec<_>>(), ["kubernetes.io/csi/d^h-v"]);
    }

    #[test]
    fn a_volume_for_one_node_is_on_one_node() {
        let (here, there) = (wanted("v", "n2", "ReadWriteOnce"), wanted("v", "n1", "ReadWriteOnce"));
        let all = [attachment(&there, "n1", true)];
        let refused = plan("n2", &[&here], &all, &[], false);
        assert!(refused.attach.is_empty());
        assert_eq!(refused.refuse[0].1, ["n1"]);
        let shared = wanted("v", "n2", "ReadWriteMany");
        assert_eq!(plan("n2", &[&shared], &all, &[], false).attach.len(), 1);
    }

    #[test]
    fn what_the_attacher_could_not_do_must_not_stay_unsaid() {
        let one = wanted("v", "n1", "ReadWriteOnce");
        let refused = Attachment { error: Some("no such disk".into()), ..attachment(&one, "n1", false) };
        let said = |known: Attachment| plan("n1", &[&one], &[known], &[], false).failed;
        assert_eq!(said(refused.clone()), [(one.clone(), "no such disk".to_owned())]);
        assert!(said(Attachment { attached: true, ..refused.clone() }).is_empty(), "it succeeded since");
        assert!(said(Attachment { terminating: true, ..refused }).is_empty(), "it is given up");
    }

    #[test]
    fn a_pod_must_not_learn_the_names_of_pods_in_other_namespaces() {
        let user = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let told = |users: &[(String, String)]| {
            multi_attach("v", "mine", users)
                .strip_prefix("Multi-Attach error for volume \"v\" ")
                .unwrap()
                .to_owned()
        };
        let both = [user("mine", "a"), user("other", "secret"), user("mine", "b")];
        assert_eq!(told(&both[..1]), "Volume is already used by pod(s) a");
        assert_eq!(told(&both), "Volume is already used by pod(s) a, b and 1 pod(s) in different namespaces");
        assert_eq!(told(&both[1..2]), "Volume is already used by 1 pod(s) in different namespaces");
        assert!(told(&[]).starts_with("Volume is already exclusively attached to one node"));
    }

    #[test]
    fn what_is_in_use_is_not_detached_while_the_node_lives() {
        let one = wanted("v", "n1", "ReadWriteOnce");
        let all = [attachment(&one, "n1", true)];
        let in_use = [one.unique];
        let held = plan("n1", &[], &all, &in_use, false);
        assert!(held.detach.is_empty() && held.waits);
        assert_eq!(plan("n1", &[], &all, &in_use, true).detach.len(), 1);
        assert_eq!(plan("n1", &[], &all, &[], false).detach.len(), 1);
        assert!(plan("n2", &[], &all, &[], false).detach.is_empty(), "another node's");
    }

    #[test]
    fn an_attachment_that_others_made_must_not_be_ours() {
        let csi = |driver: &str| -> PersistentVolume {
            serde_json::from_value(json!({ "metadata": {"name": "v"},
                "spec": {"csi": {"driver": driver, "volumeHandle": "h-v"}} }))
            .unwrap()
        };
        let mine = attachment(&wanted("v", "n1", "ReadWriteOnce"), "n1", true);
        assert!(is_ours(&mine, Some(&csi("d")), &[]));
        let theirs = Attachment { name: "backup-of-v".into(), ..mine.clone() };
        assert!(!is_ours(&theirs, Some(&csi("d")), &["kubernetes.io/csi/d^h-v".into()]));
        let on_another_node = Attachment { node: "n2".into(), ..mine.clone() };
        assert!(!is_ours(&on_another_node, Some(&csi("d")), &[]));
        assert!(!is_ours(&mine, Some(&csi("other")), &[]), "of another driver");
        assert!(!is_ours(&mine, None, &[]), "nothing tells");
        assert!(is_ours(&mine, None, &["kubernetes.io/csi/d^h-v".into()]), "the node's status does");
    }
}
