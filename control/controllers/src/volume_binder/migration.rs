//! In-tree provisioners whose work CSI drivers do: since 1.31 every one that is left. Upstream:
//! `csi-translation-lib/plugins` and `pv_controller_base.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// On a claim or volume: the driver that does the work of the in-tree plugin it names.
pub(crate) const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a claim: who is to provision it.
pub(crate) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as older provisioners read it.
pub(crate) const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume: who provisioned it.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Keeps a volume until its in-tree plugin has deleted what is behind it.
const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";
/// The same for outside provisioners.
const EXTERNAL_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

const DRIVERS: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The driver that took over an in-tree plugin.
#[must_use]
pub(crate) fn driver_of(plugin: &str) -> Option<&'static str> {
    DRIVERS.iter().find(|(name, _)| *name == plugin).map(|(_, driver)| *driver)
}

/// What [`MIGRATED_TO`] must become for something that `provisioner` provisions: `Some(None)` to take it away, `None` where it is
/// right.
#[must_use]
pub(crate) fn annotation(
    annotations: Option<&BTreeMap<String, String>>,
    provisioner: Option<&str>,
) -> Option<Option<&'static str>> {
    let provisioner = provisioner?;
    let now = annotations.and_then(|a| a.get(MIGRATED_TO)).map(String::as_str).unwrap_or_default();
    match driver_of(provisioner) {
        Some(driver) if now != driver => Some(Some(driver)),
        None if !now.is_empty() => Some(None),
        _ => None,
    }
}

/// The finalizers a provisioned volume should have, where they differ from what it has.
#[must_use]
pub(crate) fn finalizers(meta: &ObjectMeta, policy: &str) -> Option<Vec<String>> {
    let provisioner = meta.annotations.as_ref()?.get(PROVISIONED_BY)?;
    let has = meta.finalizers.clone().unwrap_or_default();
    let mut wanted = has.clone();
    if driver_of(provisioner).is_some() {
        wanted.retain(|f| f != IN_TREE_FINALIZER);
    } else if provisioner.starts_with("kubernetes.io/") {
        match policy {
            "Delete" if !wanted.iter().any(|f| f == IN_TREE_FINALIZER) => {
                wanted.push(IN_TREE_FINALIZER.to_owned());
            }
            "Retain" | "Recycle" => wanted.retain(|f| f != IN_TREE_FINALIZER),
            _ => {}
        }
        wanted.retain(|f| f != EXTERNAL_FINALIZER);
    }
    (wanted != has).then_some(wanted)
}

/// The finalizers left once the plugin has deleted what is behind the volume.
#[must_use]
pub(crate) fn released(meta: &ObjectMeta) -> Option<Vec<String>> {
    let has = meta.finalizers.as_ref()?;
    let left: Vec<String> = has.iter().filter(|f| *f != IN_TREE_FINALIZER).cloned().collect();
    (left.len() != has.len()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(provisioner: &str, finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), provisioner.to_owned())])),
            finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn only_plugins_that_moved_are_marked() {
        let marked = BTreeMap::from([(MIGRATED_TO.to_owned(), "ebs.csi.aws.com".to_owned())]);
        assert_eq!(annotation(None, Some("kubernetes.io/aws-ebs")), Some(Some("ebs.csi.aws.com")));
        assert_eq!(annotation(Some(&marked), Some("kubernetes.io/aws-ebs")), None);
        assert_eq!(annotation(Some(&marked), Some("example.com/x")), Some(None));
        assert_eq!(annotation(None, Some("example.com/x")), None);
        assert_eq!(annotation(Some(&marked), None), None, "not provisioned: not ours to judge");
    }

    #[test]
    fn in_tree_volumes_are_held_while_they_are_to_be_deleted() {
        let held = |m: &ObjectMeta, policy| finalizers(m, policy);
        assert_eq!(held(&meta("example.com/x", &[EXTERNAL_FINALIZER]), "Delete"), None);
        let in_tree = meta("kubernetes.io/host-path", &[EXTERNAL_FINALIZER]);
        assert_eq!(held(&in_tree, "Delete"), Some(vec![IN_TREE_FINALIZER.to_owned()]));
        let own = meta("kubernetes.io/host-path", &["x", IN_TREE_FINALIZER]);
        assert_eq!(held(&own, "Retain"), Some(vec!["x".to_owned()]));
        assert_eq!(held(&own, "Delete"), None);
        assert_eq!(held(&meta("kubernetes.io/aws-ebs", &[IN_TREE_FINALIZER]), "Delete"), Some(vec![]));
        assert_eq!(released(&own), Some(vec!["x".to_owned()]));
        assert_eq!(released(&meta("a", &["x"])), None);
    }
}
