//! VolumeRestrictions, VolumeBinding and VolumeZone: the pod's claims can have their volumes on the node.

use crate::fit::{Plugin, Refusal};
use crate::model::pod::ClaimUse;
use crate::model::storage::{Disk, Needs};
use crate::model::{NodeInfo, Pod, Snapshot};
use crate::profile::Set;
use machinery::binding::{Claim, NO_PROVISIONER, Search, Volume, best};
use machinery::goformat::go_quote;
use std::sync::Arc;

/// What is wrong with the pod's claims on any node.
pub(super) fn check_claims(snapshot: &Snapshot, pod: &Pod) -> Result<(), (Plugin, String)> {
    if !snapshot.profile.is_on(Set::PreFilter, "VolumeBinding") {
        return Ok(());
    }
    let refuse = |why: String| Err((Plugin::VolumeBinding, why));
    for used in &pod.claims {
        let Some(claim) = claim_of(snapshot, pod, used) else {
            return refuse(match used.ephemeral {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {}",
                    go_quote(&used.name)
                ),
                false => format!("persistentvolumeclaim {} not found", go_quote(&used.name)),
            });
        };
        if claim.phase == "Lost" {
            return refuse(format!(
                "persistentvolumeclaim {} bound to non-existent persistentvolume {}",
                go_quote(&claim.name),
                go_quote(&claim.volume)
            ));
        }
        if claim.terminating {
            return refuse(format!("persistentvolumeclaim {} is being deleted", go_quote(&claim.name)));
        }
        if used.ephemeral && claim.pod.as_ref() != Some(&pod.uid) {
            return refuse(format!(
                "PVC {} was not created for pod {} (pod is not owner)",
                claim.key(),
                pod.key()
            ));
        }
    }
    let unbound = |claim: &&Arc<Claim>| !claim.is_bound() && !is_late(snapshot, claim);
    let mut claims = pod.claims.iter().filter_map(|used| claim_of(snapshot, pod, used));
    if claims.any(|claim| unbound(&claim)) {
        return refuse("pod has unbound immediate PersistentVolumeClaims".to_owned());
    }
    Ok(())
}

fn claim_of<'a>(snapshot: &'a Snapshot, pod: &Pod, used: &ClaimUse) -> Option<&'a Arc<Claim>> {
    snapshot.storage.claims.get(&format!("{}/{}", pod.namespace, used.name))
}

/// Whether the claim's volume is found when its pod is scheduled; one the user has named is not.
fn is_late(snapshot: &Snapshot, claim: &Claim) -> bool {
    claim.volume.is_empty() && snapshot.storage.classes.get(claim.class()).is_some_and(|c| c.late)
}

pub(super) fn filter(snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    if pod.claims.is_empty() {
        return Ok(());
    }
    let on = |plugin| snapshot.profile.filters(plugin);
    if on(Plugin::VolumeRestrictions) {
        alone(snapshot, pod)?;
    }
    if on(Plugin::VolumeBinding) {
        needs(snapshot, pod, node)?;
    }
    if on(Plugin::VolumeZone) {
        zone(snapshot, pod, node)?;
    }
    Ok(())
}

/// A claim for one pod only is not in use.
fn alone(snapshot: &Snapshot, pod: &Pod) -> Result<(), Refusal> {
    let only = |used: &&ClaimUse| {
        !used.ephemeral && claim_of(snapshot, pod, used).is_some_and(|c| c.modes.contains("ReadWriteOncePod"))
    };
    for used in pod.claims.iter().filter(only) {
        let names = |other: &Arc<Pod>| {
            other.namespace == pod.namespace
                && other.uid != pod.uid
                && other.claims.iter().any(|c| c.name == used.name)
        };
        if snapshot.nodes.iter().any(|n| n.pods.iter().any(names)) {
            let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already \
                          in-use by another pod";
            return Err(Refusal::curable(Plugin::VolumeRestrictions, reason));
        }
    }
    Ok(())
}

/// What the pod's claims need on the node.
pub(crate) fn needs(snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<Needs, Refusal> {
    let refuse = |reason: &str| Err(Refusal::final_(Plugin::VolumeBinding, reason));
    let mut late: Vec<&Arc<Claim>> = Vec::new();
    for claim in pod.claims.iter().filter_map(|used| claim_of(snapshot, pod, used)) {
        if !claim.is_bound() {
            late.push(claim);
            continue;
        }
        match snapshot.storage.volumes.get(&claim.volume) {
            None => {
                return refuse("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
            }
            Some(disk) if !disk.is_reached_by(&node.name, &node.labels) => {
                return refuse("node(s) didn't match PersistentVolume's node affinity");
            }
            Some(_) => {}
        }
    }
    let unmatched = "node(s) didn't find available persistent volumes to bind";
    // The smallest claim chooses first: it gets the smallest volume.
    late.sort_by(|a, b| a.request.cmp(&b.request));
    let mut needs = Needs::default();
    let mut search = Vec::new();
    for claim in late {
        match &claim.node {
            Some(chosen) if *chosen != node.name => return refuse(unmatched),
            Some(_) => needs.provision.push(claim.clone()),
            None => search.push(claim),
        }
    }
    for claim in search {
        match free_volume(snapshot, claim, node, &needs) {
            Some(disk) => needs.bind.push((disk, claim.clone())),
            None => needs.provision.push(claim.clone()),
        }
    }
    for claim in &needs.provision {
        let class = snapshot.storage.classes.get(claim.class());
        let makes = |c: &crate::model::storage::Class| {
            !c.provisioner.is_empty() && c.provisioner != NO_PROVISIONER && c.allows(&node.labels)
        };
        if !class.is_some_and(makes) {
            return refuse(unmatched);
        }
    }
    Ok(needs)
}

/// The volume a claim gets on the node, of those its pod's other claims leave.
fn free_volume(snapshot: &Snapshot, claim: &Arc<Claim>, node: &NodeInfo, needs: &Needs) -> Option<Arc<Disk>> {
    let taken = |disk: &&Arc<Disk>| needs.bind.iter().any(|(d, _)| d.volume.name == disk.volume.name);
    let of_class = |disk: &&Arc<Disk>| disk.volume.class == claim.class();
    let disks = snapshot.storage.volumes.values().filter(|d| of_class(d) && !taken(d));
    let reaches = |volume: &Volume| {
        let disk = snapshot.storage.volumes.get(&volume.name);
        disk.is_some_and(|disk| disk.is_reached_by(&node.name, &node.labels))
    };
    let found = best(claim, disks.map(|disk| &disk.volume), &Search::Node(&reaches))?;
    snapshot.storage.volumes.get(&found.name).cloned()
}

/// The zones and regions on the labels of bound volumes are the node's, where the node has any.
fn zone(snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    use crate::model::storage::ZONES;
    if !ZONES.iter().any(|z| node.labels.contains_key(*z)) {
        return Ok(());
    }
    let bound = pod.claims.iter().filter(|used| !used.ephemeral);
    let volumes = bound.filter_map(|used| claim_of(snapshot, pod, used).map(|c| &c.volume));
    for (label, values) in volumes.filter_map(|v| snapshot.storage.volumes.get(v)).flat_map(|d| &d.zones) {
        let newer = match *label {
            "failure-domain.beta.kubernetes.io/zone" => ZONES[0],
            "failure-domain.beta.kubernetes.io/region" => ZONES[1],
            own => own,
        };
        let own = node.labels.get(*label).or_else(|| node.labels.get(newer));
        if !own.is_some_and(|own| values.contains(own)) {
            return Err(Refusal::final_(Plugin::VolumeZone, "node(s) had no available volume zone"));
        }
    }
    Ok(())
}
