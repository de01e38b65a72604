//! Binds PersistentVolumeClaims to PersistentVolumes, asks outside provisioners for what is missing, and takes volumes back.
//!
//! Woken by: a claim or volume that changes or goes, a class that comes, and a period as the retry of what waits. Reads: claims,
//! volumes, classes and pods; a claim that seems gone once more from the API server. Writes: both sides of a binding (the volume
//! first, so that two claims can never hold it), phases, the annotations provisioners wait for. Promises: each write names the version it
//! was decided on, so that a stale view costs a retry and nothing else; a volume is taken back only when its claim is truly gone.
//!
//! - [`plan`] decides (pure); [`mod@write`] does; [`reclaim`] takes volumes back; [`migration`]: plugins whose drivers took over

pub(crate) mod migration;
pub(crate) mod plan;
mod reclaim;
mod write;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::options::{Volumes, paced};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Client, Resource, ResourceExt};
use machinery::binding::{Claim, Volume};
use parking_lot::RwLock;
use plan::{Around, Class, ForClaim, ForVolume, Word};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use write::Writer;

/// Upstream's name for events of both.
const COMPONENT: &str = "persistentvolume-controller";

/// The binder as claims see it.
pub(crate) struct ClaimBinder {
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    pods: Arc<Informer<Pod>>,
    /// Every volume in its compact form, kept by the informer's handler.
    compact: Arc<RwLock<BTreeMap<String, Arc<Volume>>>>,
    options: Volumes,
    recorder: Recorder,
    write: Writer,
}

impl ClaimBinder {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: Volumes,
        queue: &Arc<Queue>,
    ) -> Self {
        let binder = Self {
            claims: cluster.persistent_volume_claims.clone(),
            volumes: cluster.persistent_volumes.clone(),
            classes: cluster.storage_classes.clone(),
            pods: cluster.pods.clone(),
            compact: Arc::default(),
            options,
            recorder,
            write: Writer::new(client),
        };
        let wake = queue.clone();
        cluster.persistent_volume_claims.on_change(move |_, new| {
            if let Some(claim) = new {
                wake.add(key_of(&**claim));
            }
        });
        let (wake, claims, compacted) = (queue.clone(), binder.claims.clone(), binder.compact.clone());
        cluster.persistent_volumes.on_change(move |old, new| {
            let holder = |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.claim_ref.clone());
            let volume = new.and_then(|v| compact(&**v, Volume::new).ok()).map(Arc::new);
            let name = new.or(old).map(|v| v.name_any()).unwrap_or_default();
            match &volume {
                Some(volume) => drop(compacted.write().insert(name, volume.clone())),
                None => drop(compacted.write().remove(&name)),
            }
            // The claim on either side of a binding, and whoever may want a free volume.
            for held in old.into_iter().chain(new).filter_map(|v| holder(v)) {
                let name = held.name.unwrap_or_default();
                wake.add(Key::new(&held.namespace.unwrap_or_default(), &name));
            }
            if let Some(free) = volume.filter(|v| v.claim.is_none() && v.phase == "Available") {
                for claim in claims.list("").iter().filter(|c| wants(c, &free)) {
                    wake.add(key_of(&**claim));
                }
            }
        });
        let (wake, claims) = (queue.clone(), binder.claims.clone());
        cluster.storage_classes.on_change(move |_, _| {
            for claim in claims.list("").iter().filter(|c| is_pending(c)) {
                wake.add(key_of(&**claim));
            }
        });
        binder
    }

    fn classes(&self) -> Vec<Class> {
        self.classes.list("").iter().map(|class| class_of(class)).collect()
    }

    /// Pods without a node that name the claim.
    fn waiting(&self, key: &Key) -> Vec<String> {
        let names = |pod: &Pod| crate::volume_protection::claims_of(pod).any(|claim| *claim == *key.name);
        let unplaced = |pod: &Pod| {
            !is_over(pod)
                && pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref().unwrap_or_default().is_empty())
        };
        let pods = self.pods.list(&key.namespace);
        pods.iter().filter(|p| unplaced(p) && names(p)).map(|p| p.name_any()).collect()
    }
}

impl Reconcile for ClaimBinder {
    const NAME: &'static str = "persistentvolume-binder-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(None) };
        if let Some(mark) = migration_of(&claim) {
            self.write.annotate_claim(&claim, &[(migration::MIGRATED_TO, mark)]).await?;
            return Ok(None);
        }
        let view = compact(&*claim, Claim::new)?;
        let outcome = {
            let volumes: Vec<Arc<Volume>> = self.compact.read().values().cloned().collect();
            let volumes: Vec<&Volume> = volumes.iter().map(|v| &**v).collect();
            let (classes, waiting) = (self.classes(), self.waiting(key));
            let around = Around {
                volumes: &volumes,
                classes: &classes,
                waiting: &waiting,
                provisions: self.options.provisions,
            };
            plan::for_claim(&view, &around)
        };
        match outcome {
            ForClaim::Bind(volume) => {
                let Some(volume) = self.volumes.get(&Key::new("", &volume)) else {
                    return Ok(Some(paced(self.options.bind_period)));
                };
                self.write.bind(&volume, &claim).await?;
                return Ok(None);
            }
            ForClaim::Pending(word) => {
                if let Some(word) = word {
                    say(&self.recorder, &*claim, word);
                }
                self.write.claim_phase(&claim, "Pending", None).await?;
            }
            ForClaim::Lost(word) => {
                if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
                    self.write.claim_phase(&claim, "Lost", None).await?;
                    say(&self.recorder, &*claim, word);
                }
                return Ok(None);
            }
            ForClaim::Assign(class) => {
                self.write.assign_class(&claim, &class).await?;
                return Ok(None);
            }
            ForClaim::Provision(provisioner, word) => {
                let claim = self.write.ask(&claim, &provisioner).await?;
                say(&self.recorder, &claim, word);
            }
            ForClaim::Say(word) => say(&self.recorder, &*claim, word),
        }
        Ok(Some(paced(self.options.bind_period)))
    }
}

/// The binder as volumes see it.
pub(crate) struct VolumeBinder {
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    pods: Arc<Informer<Pod>>,
    client: Client,
    recorder: Recorder,
    write: Writer,
    claim_queue: Arc<Queue>,
    /// What waits is looked at again this often.
    period: Duration,
}

impl VolumeBinder {
    /// Registers for what wakes it; `claims` is the queue of the [`ClaimBinder`].
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: Volumes,
        claims: &Arc<Queue>,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.persistent_volumes.on_change(move |_, new| {
            if let Some(volume) = new {
                wake.add(key_of(&**volume));
            }
        });
        let wake = queue.clone();
        cluster.persistent_volume_claims.on_change(move |old, new| {
            // A claim that goes or gets its volume tells its volume so.
            for claim in old.into_iter().chain(new) {
                let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
                if !name.is_empty() {
                    wake.add(Key::new("", name));
                }
            }
        });
        Self {
            claims: cluster.persistent_volume_claims.clone(),
            volumes: cluster.persistent_volumes.clone(),
            pods: cluster.pods.clone(),
            write: Writer::new(client.clone()),
            client,
            recorder,
            claim_queue: claims.clone(),
            period: paced(options.bind_period),
        }
    }

    /// The claim a volume points at; asked of the API server where the map's word would end a binding.
    async fn claim_of(&self, volume: &Volume) -> Result<Option<Claim>, Error> {
        let Some(holder) = volume.claim.as_ref().filter(|holder| !holder.uid.is_empty()) else {
            return Ok(None);
        };
        let key = Key::new(&holder.namespace, &holder.name);
        if let Some(known) = self.claims.get(&key)
            && known.metadata.uid.as_deref() == Some(&holder.uid)
        {
            return compact(&*known, Claim::new).map(Some);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &holder.namespace);
        let fresh = found(api.get(&holder.name).await).doing(|| format!("read claim {key}"))?;
        fresh.map(|claim| compact(&claim, Claim::new)).transpose()
    }

    /// Pods that still use the volume's claim.
    fn users(&self, namespace: &str, claim: &str) -> Vec<String> {
        let names = |pod: &Pod| crate::volume_protection::claims_of(pod).any(|name| name == claim);
        let pods = self.pods.list(namespace);
        pods.iter().filter(|p| !is_over(p) && names(p)).map(|p| key_of(&**p).to_string()).collect()
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<Option<Duration>, Error> {
        let phase =
            |v: &PersistentVolume| v.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        let volume = match phase(volume).as_str() {
            "Released" | "Failed" => volume.clone(),
            _ => self.write.volume_phase(volume, "Released", "").await?,
        };
        let (word, again) = match reclaim::decide(&volume) {
            reclaim::Step::Nothing => return Ok(None),
            reclaim::Step::Fail(word) => (word, Duration::MAX),
            reclaim::Step::Recycle => {
                let holder = volume.spec.as_ref().and_then(|s| s.claim_ref.clone()).unwrap_or_default();
                let (namespace, name) =
                    (holder.namespace.unwrap_or_default(), holder.name.unwrap_or_default());
                let users = self.users(&namespace, &name);
                if !users.is_empty() && self.claims.get(&Key::new(&namespace, &name)).is_none() {
                    let message = format!("Volume is used by pods: {}", users.join(","));
                    let word = Word { severity: Severity::Normal, reason: "VolumeFailedRecycle", message };
                    say(&self.recorder, &volume, word);
                    return Ok(Some(self.period));
                }
                let message = "No recycler plugin found for the volume!".to_owned();
                (Word { severity: Severity::Warning, reason: "VolumeFailedRecycle", message }, self.period)
            }
            reclaim::Step::DeleteHostPath(path) => match reclaim::delete_host_path(path).await {
                Ok(()) => {
                    if let Some(finalizers) = migration::released(&volume.metadata) {
                        self.write.volume_finalizers(&volume, finalizers).await?;
                    }
                    self.write.delete_volume(&volume).await?;
                    return Ok(None);
                }
                Err(message) => {
                    (Word { severity: Severity::Warning, reason: "VolumeFailedDelete", message }, self.period)
                }
            },
        };
        if phase(&volume) != "Failed" {
            let failed = self.write.volume_phase(&volume, "Failed", &word.message).await?;
            say(&self.recorder, &failed, word);
        }
        Ok((again != Duration::MAX).then_some(again))
    }
}

impl Reconcile for VolumeBinder {
    const NAME: &'static str = "persistentvolume-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(None) };
        let spec = volume.spec.clone().unwrap_or_default();
        let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
        let provisioner = volume.metadata.annotations.as_ref().and_then(|a| a.get(migration::PROVISIONED_BY));
        let mark =
            migration::annotation(volume.metadata.annotations.as_ref(), provisioner.map(String::as_str));
        let finalizers = migration::finalizers(&volume.metadata, policy);
        if mark.is_some() || finalizers.is_some() {
            self.write.migrate_volume(&volume, mark, finalizers).await?;
            return Ok(None);
        }
        let view = compact(&*volume, Volume::new)?;
        let claim = self.claim_of(&view).await?;
        let provisioned = provisioner.is_some() && policy == "Delete";
        match plan::for_volume(&view, claim.as_ref(), provisioned) {
            ForVolume::Phase(phase) => {
                self.write.volume_phase(&volume, phase, "").await?;
            }
            ForVolume::Wake => {
                if let Some(claim) = claim {
                    self.claim_queue.add(Key::new(&claim.namespace, &claim.name));
                }
            }
            ForVolume::Mismatch(of_volume, of_claim) => {
                say(&self.recorder, &*volume, of_volume);
                let known = claim.and_then(|c| self.claims.get(&Key::new(&c.namespace, &c.name)));
                if let Some(claim) = known {
                    say(&self.recorder, &*claim, of_claim);
                }
                return Ok(Some(self.period));
            }
            ForVolume::Unbind => self.write.unbind(&volume).await?,
            ForVolume::Reclaim => return self.reclaim(&volume).await,
        }
        Ok(None)
    }
}

fn is_pending(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    !matches!(phase, Some("Bound" | "Lost"))
}

/// Whether the claim might take a free volume: a quick look before the thorough one.
fn wants(claim: &PersistentVolumeClaim, free: &Volume) -> bool {
    let spec = claim.spec.as_ref();
    let named = spec.and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    is_pending(claim) && (named.is_empty() || named == free.name)
}

/// Whether a pod is over.
fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn class_of(class: &StorageClass) -> Class {
    let marks =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let annotations = class.metadata.annotations.as_ref();
    Class {
        name: class.name_any(),
        provisioner: class.provisioner.clone(),
        late: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        default: annotations.is_some_and(|a| marks.iter().any(|m| a.get(*m).is_some_and(|v| v == "true"))),
        created: class.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_nanosecond()),
    }
}

/// The mark of a migrated plugin that the claim should have.
fn migration_of(claim: &PersistentVolumeClaim) -> Option<Option<&'static str>> {
    let annotations = claim.metadata.annotations.as_ref()?;
    let provisioner =
        annotations.get(migration::PROVISIONER).or_else(|| annotations.get(migration::BETA_PROVISIONER));
    migration::annotation(Some(annotations), provisioner.map(String::as_str))
}

/// The compact form of an API object.
pub(crate) fn compact<T: Serialize, C>(
    object: &T,
    read: impl Fn(&serde_json::Value) -> C,
) -> Result<C, Error> {
    let value = serde_json::to_value(object).map_err(|e| Error::Unusable(format!("read object: {e}")))?;
    Ok(read(&value))
}

fn say<K>(recorder: &Recorder, object: &K, word: Word)
where
    K: Resource,
    K::DynamicType: Default,
{
    recorder.record(COMPONENT, object, word.severity, word.reason, word.message);
}
