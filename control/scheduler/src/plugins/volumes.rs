//! VolumeBinding, as far as bound claims go: the claim exists and is bound, and its volume can be reached from the node. Claims
//! whose class waits for the first pod need a provisioner's help and are left to it.

use crate::fit::{Plugin, Refusal};
use crate::model::{NodeInfo, Pod, Snapshot};

/// What is wrong with the pod's claims on any node.
pub(super) fn check_claims(snapshot: &Snapshot, pod: &Pod) -> Result<(), (Plugin, String)> {
    let refuse = |why: String| Err((Plugin::VolumeBinding, why));
    let late = |class: &String| snapshot.late_classes.contains(class);
    for name in &pod.claims {
        match snapshot.claims.get(&format!("{}/{name}", pod.namespace)) {
            None => return refuse(format!("persistentvolumeclaim \"{name}\" not found")),
            Some(c) if c.terminating => {
                return refuse(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            Some(c) if c.volume.is_none() && !c.class.as_ref().is_some_and(late) => {
                return refuse("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(super) fn filter(snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    for name in &pod.claims {
        let claim = snapshot.claims.get(&format!("{}/{name}", pod.namespace));
        let Some(volume) = claim.and_then(|c| c.volume.as_ref()) else { continue };
        match snapshot.volumes.get(volume) {
            None => {
                let reason = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                return Err(Refusal::final_(Plugin::VolumeBinding, reason));
            }
            Some(Some(terms)) if !terms.iter().any(|t| t.matches(&node.name, &node.labels)) => {
                let reason = "node(s) didn't match PersistentVolume's node affinity";
                return Err(Refusal::final_(Plugin::VolumeBinding, reason));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
