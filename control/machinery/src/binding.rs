//! Which PersistentVolume serves a PersistentVolumeClaim. The volume binder and the scheduler decide by the same rules
//! (upstream: `component-helpers/storage/volume`).

use crate::access::Get as _;
use crate::labels::Selector;
use crate::object;
use crate::quantity::Quantity;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// On a claim: its binding was finished once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the binding is a controller's work, not the user's.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node its first pod will run on; from then on it is provisioned.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes that have none.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The class of a claim or volume, as it was given before the field came.
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A claim as binding sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// The uid of the pod it was made for, where it is controlled by one.
    pub pod: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
    /// The class asked for; `None`: none was named, not even the empty one.
    pub class: Option<String>,
    /// `spec.volumeName`, empty where there is none.
    pub volume: String,
    /// It was bound once.
    pub completed: bool,
    /// [`SELECTED_NODE`].
    pub node: Option<String>,
    /// Bytes asked for.
    pub request: Quantity,
    /// `spec.accessModes`.
    pub modes: BTreeSet<String>,
    /// `spec.volumeMode` is `Block`.
    pub block: bool,
    /// `spec.volumeAttributesClassName`.
    pub attributes: String,
    /// Which volumes it takes; `None`: any. A selector that does not parse takes none.
    pub selector: Option<Selector>,
    /// `status.phase`.
    pub phase: String,
}

/// `spec.claimRef` of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRef {
    /// Namespace of the claim.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Its uid; empty where the volume is only reserved.
    pub uid: String,
}

/// A volume as binding sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.labels`.
    pub labels: Map<String, Value>,
    /// It is being deleted.
    pub terminating: bool,
    /// Its class, empty where it has none.
    pub class: String,
    /// The claim it is bound to or kept for.
    pub claim: Option<ClaimRef>,
    /// Bytes it holds.
    pub capacity: Quantity,
    /// `spec.accessModes`.
    pub modes: BTreeSet<String>,
    /// `spec.volumeMode` is `Block`.
    pub block: bool,
    /// `spec.volumeAttributesClassName`.
    pub attributes: String,
    /// `status.phase`.
    pub phase: String,
}

impl Claim {
    /// From the API object.
    #[must_use]
    pub fn new(claim: &Value) -> Self {
        let spec_class = claim.at("spec.storageClassName").as_str();
        let selector = Some(claim.at("spec.selector")).filter(|s| !s.is_null());
        let owner = object::controller_of(claim).filter(|o| o.text("kind") == "Pod");
        Self {
            namespace: object::namespace(claim).to_owned(),
            name: object::name(claim).to_owned(),
            uid: object::uid(claim).to_owned(),
            version: object::resource_version(claim).to_owned(),
            pod: owner.map(|o| o.text("uid").to_owned()),
            terminating: object::deletion_timestamp(claim).is_some(),
            class: object::annotation(claim, BETA_CLASS).or(spec_class).map(str::to_owned),
            volume: claim.text("spec.volumeName").to_owned(),
            completed: object::annotation(claim, BIND_COMPLETED).is_some(),
            node: object::annotation(claim, SELECTED_NODE).map(str::to_owned),
            request: quantity(claim, "spec.resources.requests.storage"),
            modes: modes(claim),
            block: claim.text("spec.volumeMode") == "Block",
            attributes: claim.text("spec.volumeAttributesClassName").to_owned(),
            selector: selector.map(|s| Selector::from_label_selector(s).unwrap_or(Selector::Nothing)),
            phase: claim.text("status.phase").to_owned(),
        }
    }

    /// The class asked for, empty where none was.
    #[must_use]
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or_default()
    }

    /// Whether the claim has its volume and both say so.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.completed
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Volume {
    /// From the API object.
    #[must_use]
    pub fn new(volume: &Value) -> Self {
        let spec_class = volume.text("spec.storageClassName");
        let reference = Some(volume.at("spec.claimRef")).filter(|r| r.is_object());
        Self {
            name: object::name(volume).to_owned(),
            uid: object::uid(volume).to_owned(),
            version: object::resource_version(volume).to_owned(),
            labels: object::labels(volume).cloned().unwrap_or_default(),
            terminating: object::deletion_timestamp(volume).is_some(),
            class: object::annotation(volume, BETA_CLASS).unwrap_or(spec_class).to_owned(),
            claim: reference.map(|r| ClaimRef {
                namespace: r.text("namespace").to_owned(),
                name: r.text("name").to_owned(),
                uid: r.text("uid").to_owned(),
            }),
            capacity: quantity(volume, "spec.capacity.storage"),
            modes: modes(volume),
            block: volume.text("spec.volumeMode") == "Block",
            attributes: volume.text("spec.volumeAttributesClassName").to_owned(),
            phase: volume.text("status.phase").to_owned(),
        }
    }

    /// Whether the volume is bound to this very claim, or kept for one of its name.
    #[must_use]
    pub fn is_of(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|r| {
            r.name == claim.name && r.namespace == claim.namespace && (r.uid.is_empty() || r.uid == claim.uid)
        })
    }

    /// Why a volume that the claim names cannot be its own; the texts are upstream's.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn satisfies(&self, claim: &Claim) -> Result<(), String> {
        if self.terminating {
            return Err(format!(
                "the volume is marked for deletion {}",
                crate::goformat::go_quote(&self.name)
            ));
        }
        let refusals = [
            (self.capacity.value() < claim.request.value(), "requested PV is too small"),
            (self.class != claim.class(), "storageClassName does not match"),
            (self.attributes != claim.attributes, "volumeAttributesClassName does not match"),
            (self.block != claim.block, "incompatible volumeMode"),
            (!claim.modes.is_subset(&self.modes), "incompatible accessMode"),
        ];
        match refusals.iter().find(|(refused, _)| *refused) {
            Some((_, why)) => Err((*why).to_owned()),
            None => Ok(()),
        }
    }
}

fn quantity(object: &Value, path: &str) -> Quantity {
    Quantity::parse(object.text(path)).unwrap_or_else(|_| Quantity::zero())
}

fn modes(object: &Value) -> BTreeSet<String> {
    object.items("spec.accessModes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Who asks for the best volume.
pub enum Search<'a> {
    /// The binder. With `late`, the claim waits for the scheduler: only a volume kept for it is given.
    Binder {
        /// The claim's class binds when its first pod is scheduled.
        late: bool,
    },
    /// The scheduler, for a node that is said to reach a volume.
    Node(&'a dyn Fn(&Volume) -> bool),
}

/// The volume for a claim: one that is kept for it, else the smallest that fits; of equally small ones the first.
pub fn best<'a>(
    claim: &Claim,
    volumes: impl IntoIterator<Item = &'a Volume>,
    search: &Search<'_>,
) -> Option<&'a Volume> {
    let reachable = |volume: &Volume| match search {
        Search::Binder { .. } => true,
        Search::Node(reaches) => reaches(volume),
    };
    let mut smallest: Option<&Volume> = None;
    for volume in volumes {
        let fits = volume.capacity >= claim.request
            && volume.block == claim.block
            && volume.attributes == claim.attributes
            && !volume.terminating;
        if !fits || (volume.claim.is_some() && !volume.is_of(claim)) {
            continue;
        }
        if volume.is_of(claim) {
            return reachable(volume).then_some(volume);
        }
        if matches!(search, Search::Binder { late: true })
            || volume.phase != "Available"
            || claim.selector.as_ref().is_some_and(|s| !s.matches(&volume.labels))
            || volume.class != claim.class()
            || !reachable(volume)
            || (matches!(search, Search::Node(_)) && !claim.modes.is_subset(&volume.modes))
        {
            continue;
        }
        if smallest.is_none_or(|best| volume.capacity < best.capacity) {
            smallest = Some(volume);
        }
    }
    smallest
}

/// The binder's choice: volumes are tried by their sets of access modes, the smallest set first, so that a claim gets the
/// least that serves it.
#[must_use]
pub fn best_for_binder<'a>(claim: &Claim, volumes: &[&'a Volume], late: bool) -> Option<&'a Volume> {
    let mut sets: Vec<&BTreeSet<String>> =
        volumes.iter().map(|v| &v.modes).filter(|m| claim.modes.is_subset(m)).collect();
    sets.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    sets.dedup();
    sets.into_iter().find_map(|modes| {
        let of_modes = volumes.iter().copied().filter(|v| v.modes == *modes);
        best(claim, of_modes, &Search::Binder { late })
    })
}

#[cfg(test)]
mod tests;
