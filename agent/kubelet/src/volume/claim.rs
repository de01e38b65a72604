//! From a pod's claim to the volume behind it, as the API server has them now. Upstream:
//! `volumemanager/populator`, whose error texts these are.
//!
//! What was found is remembered as long as the pod is here: neither a claim's volume nor a volume's source ever changes.
//! What does change, the volume's size, is [`super::growth`]'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::api::Api;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Handles};

/// How long the size of a volume that was asked for is good enough: less than a quiet pod's syncs are apart.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// A claim of a pod and what it is bound to.
#[derive(Debug)]
pub struct Claimed {
    pub volume: PersistentVolume,
    pub claim: String,
    /// The pod may only read.
    pub read_only: bool,
    /// It is a device, no filesystem.
    pub block: bool,
    /// The claim is for one pod on the node (`ReadWriteOncePod`).
    pub exclusive: bool,
    /// When the API server was last asked how large the volume is.
    pub asked: Mutex<Option<Instant>>,
}

impl Claimed {
    pub fn name(&self) -> &str {
        self.volume.metadata.name.as_deref().unwrap_or_default()
    }

    /// The API server is to be asked how large the volume is: not at every sync, of which a pod in trouble has many.
    pub(super) fn take_turn(&self, now: Instant) -> bool {
        let mut asked = self.asked.lock();
        let due = asked.is_none_or(|last| now.duration_since(last) >= ASKED_AGAIN);
        if due {
            *asked = Some(now);
        }
        due
    }
}

/// By the pod's UID and the volume's name in it.
type ClaimedVolumes = HashMap<(String, String), Arc<Claimed>>;

/// A shared handle to the claims of this node's pods.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<ClaimedVolumes>>);

impl Claims {
    /// What a volume of a pod was found to be.
    pub fn known(&self, uid: &str, volume: &str) -> Option<Arc<Claimed>> {
        self.0.lock().get(&(uid.to_owned(), volume.to_owned())).cloned()
    }

    /// Everything found for a pod.
    pub fn of_pod(&self, uid: &str) -> BTreeMap<String, Arc<Claimed>> {
        let all = self.0.lock();
        all.iter().filter(|((pod, _), _)| pod == uid).map(|((_, v), c)| (v.clone(), Arc::clone(c))).collect()
    }

    /// Forgets a pod's claims.
    pub fn forget(&self, uid: &str) {
        self.0.lock().retain(|(pod, _), _| pod != uid);
    }
}

/// The volume behind a pod's claim; `None` for volumes that need no claim.
pub async fn resolve(handles: &Handles, pod: &Pod, volume: &Volume) -> Result<Option<Arc<Claimed>>, Error> {
    let (name, read_only, ephemeral) = match volume {
        Volume { persistent_volume_claim: Some(source), .. } => {
            (source.claim_name.clone(), source.read_only == Some(true), false)
        }
        Volume { ephemeral: Some(_), .. } => {
            (format!("{}-{}", crate::pod::name(pod), volume.name), false, true)
        }
        _ => return Ok(None),
    };
    let uid = crate::pod::uid(pod);
    if let Some(known) = handles.claims.known(uid, &volume.name) {
        return Ok(Some(known));
    }
    let namespace = crate::pod::namespace(pod);
    let client = handles.objects.client().cloned().ok_or_else(|| Error::Claim {
        claim: format!("{namespace}/{name}"),
        reason: "failed to fetch PVC from API server: there is no API server".to_owned(),
    })?;
    let failed = |reason: String| Error::Claim { claim: format!("{namespace}/{name}"), reason };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(&name).await;
    let claim = claim.map_err(|e| failed(format!("failed to fetch PVC from API server: {}", told(&e))))?;
    let of_claim = bound_to(&claim).map_err(|why| failed(why.to_owned()))?;
    if ephemeral && controller(&claim) != Some(uid) {
        let of_pod = format!("{namespace}/{}", crate::pod::name(pod));
        return Err(Error::NotOwned { claim: format!("{namespace}/{name}"), pod: of_pod });
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = volumes.get(&of_claim).await;
    let found =
        found.map_err(|e| failed(format!("failed to fetch PV {of_claim} from API server: {}", told(&e))))?;
    is_for(&found, &claim).map_err(failed)?;
    let spec = found.spec.clone().unwrap_or_default();
    let block = spec.volume_mode.as_deref() == Some("Block");
    check_mode(pod, &volume.name, block)?;
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    let claimed = Arc::new(Claimed {
        claim: name,
        read_only,
        block,
        exclusive: modes.iter().any(|m| m == "ReadWriteOncePod"),
        volume: found,
        asked: Mutex::default(),
    });
    check_node(handles, client, &claimed).await?;
    let key = (uid.to_owned(), volume.name.clone());
    handles.claims.0.lock().insert(key, Arc::clone(&claimed));
    Ok(Some(claimed))
}

/// What the API server said.
pub(super) fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn controller(claim: &PersistentVolumeClaim) -> Option<&str> {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
}

/// The name of the volume a claim is bound to.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<String, &'static str> {
    let held = claim.metadata.finalizers.iter().flatten().any(|f| f == "kubernetes.io/pvc-protection");
    if claim.metadata.deletion_timestamp.is_some() && !held {
        return Err("PVC is being deleted");
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound");
    }
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty());
    name.ok_or("PVC has empty pvc.Spec.VolumeName")
}

/// The volume says that it is the claim's.
pub(super) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let Some(holder) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    let (held, wanted) = (holder.uid.as_deref().unwrap_or_default(), claim.metadata.uid.as_deref());
    if Some(held) == wanted {
        return Ok(());
    }
    Err(format!(
        "found PV object {name} but its pv.Spec.ClaimRef.UID {held} does not point to claim.UID {}",
        wanted.unwrap_or_default()
    ))
}

/// Filesystems are mounted, devices are not.
fn check_mode(pod: &Pod, volume: &str, block: bool) -> Result<(), Error> {
    let used =
        |field: &'static str, mode: &'static str| Error::Mode { volume: volume.to_owned(), mode, field };
    for (_, container) in crate::pod::containers(pod) {
        if block && container.volume_mounts.iter().flatten().any(|m| m.name == volume) {
            return Err(used("volumeMounts", "Block"));
        }
        if !block && container.volume_devices.iter().flatten().any(|d| d.name == volume) {
            return Err(used("volumeDevices", "Filesystem"));
        }
    }
    Ok(())
}

/// The volume's node affinity allows this node; the pod may have come here without the scheduler.
async fn check_node(handles: &Handles, client: kube::Client, claimed: &Claimed) -> Result<(), Error> {
    let affinity = claimed.volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|a| a.required.as_ref()) else { return Ok(()) };
    let name = &handles.config.node_name;
    let failed = |reason: String| Error::NodeAffinity { volume: claimed.name().to_owned(), reason };
    let node = Api::<Node>::all(client).get(name).await.map_err(|e| failed(told(&e)))?;
    let labels = node.metadata.labels.unwrap_or_default();
    match machinery::node_terms::selects(required, name, &labels) {
        true => Ok(()),
        false => Err(failed("no matching NodeSelectorTerms".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_size_of_a_volume_must_not_be_asked_for_at_every_sync() {
        let claimed = Claimed {
            volume: PersistentVolume::default(),
            claim: "c".into(),
            read_only: false,
            block: false,
            exclusive: false,
            asked: Mutex::default(),
        };
        let now = Instant::now();
        let turns = [0, 1, 29, 30, 31, 61].map(|second| claimed.take_turn(now + Duration::from_secs(second)));
        assert_eq!(turns, [true, false, false, true, false, true]);
    }

    fn claim(change: &Value) -> PersistentVolumeClaim {
        let mut object = json!({
            "metadata": {"name": "c", "uid": "u"},
            "spec": {"volumeName": "v"},
            "status": {"phase": "Bound"},
        });
        machinery::patch::merge::apply(&mut object, change.to_string().as_bytes()).unwrap();
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_bound_claims_are_used() {
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let mut held = deleted.clone();
        held["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
        for (change, want) in [
            (json!({}), Ok("v".to_owned())),
            (json!({"metadata": held}), Ok("v".to_owned())),
            (json!({"metadata": deleted}), Err("PVC is being deleted")),
            (json!({"status": {"phase": "Pending"}}), Err("PVC is not bound")),
            (json!({"spec": {"volumeName": null}}), Err("PVC has empty pvc.Spec.VolumeName")),
        ] {
            assert_eq!(bound_to(&claim(&change)), want, "{change}");
        }
    }

    #[test]
    fn the_volume_must_point_back() {
        let volume = |reference: Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference}}))
                .unwrap()
        };
        let claim = claim(&json!({}));
        assert_eq!(is_for(&volume(json!({"uid": "u"})), &claim), Ok(()));
        assert!(is_for(&volume(Value::Null), &claim).unwrap_err().contains("nil pv.Spec.ClaimRef"));
        assert_eq!(
            is_for(&volume(json!({"uid": "w"})), &claim).unwrap_err(),
            "found PV object v but its pv.Spec.ClaimRef.UID w does not point to claim.UID u"
        );
    }

    #[test]
    fn devices_are_not_mounted() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "volumeMounts": [{"name": "fs", "mountPath": "/x"}]},
            {"name": "b", "volumeDevices": [{"name": "raw", "devicePath": "/dev/x"}]}]}}))
        .unwrap();
        assert!(check_mode(&pod, "fs", false).is_ok());
        assert!(check_mode(&pod, "raw", true).is_ok());
        assert_eq!(
            check_mode(&pod, "fs", true).unwrap_err().to_string(),
            "volume fs has volumeMode Block, but is specified in volumeMounts"
        );
        assert_eq!(
            check_mode(&pod, "raw", false).unwrap_err().to_string(),
            "volume raw has volumeMode Filesystem, but is specified in volumeDevices"
        );
    }
}
