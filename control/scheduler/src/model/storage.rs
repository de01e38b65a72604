//! Volumes, claims and classes as scheduling sees them.

use super::terms::Labels;
use k8s_openapi::api::{core::v1 as api, storage::v1 as storage};
use machinery::binding::{Claim, Volume};
use machinery::node_terms::NodeTerm;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

/// Labels that tell where a volume is, the older names last.
pub(crate) const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// What scheduling reads of a PersistentVolume.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// What binding looks at.
    pub volume: Volume,
    /// The nodes that reach it; `None`: all.
    pub terms: Option<Vec<NodeTerm>>,
    /// Where its labels say it is: one of these values each.
    pub zones: Vec<(&'static str, Vec<String>)>,
}

impl Disk {
    /// Reads a volume; `None` where it is not one.
    pub fn new(volume: &api::PersistentVolume) -> Option<Self> {
        let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
        let terms = affinity.and_then(|a| a.required.as_ref());
        let empty = BTreeMap::new();
        let labels = volume.metadata.labels.as_ref().unwrap_or(&empty);
        // Several zones are written as one value: a__b.
        let values = |text: &str| text.split("__").map(str::to_owned).collect();
        Some(Self {
            volume: Volume::new(&serde_json::to_value(volume).ok()?),
            terms: terms.map(|r| r.node_selector_terms.iter().map(NodeTerm::new).collect()),
            zones: ZONES.iter().filter_map(|z| Some((*z, values(labels.get(*z)?)))).collect(),
        })
    }

    /// Whether the node reaches it.
    pub fn is_reached_by(&self, node: &str, labels: &Labels) -> bool {
        self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node, labels)))
    }
}

/// What scheduling reads of a StorageClass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Its volumes are bound when the first pod is scheduled.
    pub late: bool,
    /// Who makes its volumes.
    pub provisioner: String,
    /// Where it makes them: one of the terms must hold, each a label with its values; none: anywhere.
    pub topologies: Vec<Vec<(String, Vec<String>)>>,
}

impl Class {
    /// From the API object.
    pub fn new(class: &storage::StorageClass) -> Self {
        let terms = class.allowed_topologies.iter().flatten();
        let term = |t: &api::TopologySelectorTerm| {
            let labels = t.match_label_expressions.iter().flatten();
            labels.map(|l| (l.key.clone(), l.values.clone())).collect()
        };
        Self {
            late: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: class.provisioner.clone(),
            topologies: terms.map(term).collect(),
        }
    }

    /// Whether it makes volumes for a node with these labels; an empty term is for nobody.
    pub fn allows(&self, labels: &Labels) -> bool {
        let holds =
            |(key, values): &(String, Vec<String>)| labels.get(key).is_some_and(|v| values.contains(v));
        self.topologies.is_empty() || self.topologies.iter().any(|t| !t.is_empty() && t.iter().all(holds))
    }
}

/// All of them. What is assumed of a pod that is being bound stands in for what the API says until that is newer.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// Claims by `namespace/name`.
    pub claims: Arc<HashMap<String, Arc<Claim>>>,
    /// PersistentVolumes by name.
    pub volumes: Arc<BTreeMap<String, Arc<Disk>>>,
    /// StorageClasses by name.
    pub classes: Arc<HashMap<String, Class>>,
}

/// What a pod's claims need on its node before it can be bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Volumes to keep for a claim.
    pub bind: Vec<(Arc<Disk>, Arc<Claim>)>,
    /// Claims to provision for the node.
    pub provision: Vec<Arc<Claim>>,
}

impl Needs {
    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

impl Storage {
    /// Whether everything is still what a pod's needs were read from.
    pub fn holds(&self, needs: &Needs) -> bool {
        let claims = needs.bind.iter().map(|(_, claim)| claim).chain(&needs.provision);
        needs.bind.iter().all(|(disk, _)| self.volumes.get(&disk.volume.name) == Some(disk))
            && claims.into_iter().all(|claim| self.claims.get(&claim.key()) == Some(claim))
    }

    /// Counts on a pod's needs being met; the pod's claims and volumes look so to the next pod.
    pub fn assume(&mut self, needs: &Needs, node: &str) {
        for (disk, claim) in &needs.bind {
            let mut disk = Disk::clone(disk);
            disk.volume.claim = Some(machinery::binding::ClaimRef {
                namespace: claim.namespace.clone(),
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            });
            Arc::make_mut(&mut self.volumes).insert(disk.volume.name.clone(), Arc::new(disk));
        }
        for claim in &needs.provision {
            let assumed = Claim { node: Some(node.to_owned()), ..Claim::clone(claim) };
            Arc::make_mut(&mut self.claims).insert(claim.key(), Arc::new(assumed));
        }
    }

    /// Takes an assumption back where the API has said nothing newer.
    pub fn forget(&mut self, needs: &Needs) {
        for (disk, _) in &needs.bind {
            let volumes = Arc::make_mut(&mut self.volumes);
            if volumes.get(&disk.volume.name).is_some_and(|now| now.volume.version == disk.volume.version) {
                volumes.insert(disk.volume.name.clone(), disk.clone());
            }
        }
        for claim in &needs.provision {
            let claims = Arc::make_mut(&mut self.claims);
            if claims.get(&claim.key()).is_some_and(|now| now.version == claim.version) {
                claims.insert(claim.key(), claim.clone());
            }
        }
    }
}
