//! Persistent volumes.

use serde_json::Value;

use super::{checks::IMMUTABLE, cursor::Cursor, difference::changed, volume_source};
use crate::{
    access::{Get as _, entries, existing, remove, same, set},
    names,
};

/// Fields of a volume's spec that do not say where its bytes are.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Where the bytes are, by key, in upstream's order.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

impl Cursor<'_> {
    /// How a volume is shared; upstream leaves the index out of these paths.
    pub(super) fn access_modes(self) {
        for mode in self.items() {
            mode.reported_at(self).enumerated();
        }
        let once = |mode: &Cursor<'_>| mode.str() == "ReadWriteOncePod";
        if self.items().any(|mode| once(&mode))
            && self.items().any(|mode| mode.is_enumerated() && !once(&mode))
        {
            self.forbidden("may not use ReadWriteOncePod with other access modes");
        }
    }

    /// A quantity that is not negative, in upstream's oldest words.
    pub(super) fn sane_quantity(self) {
        if let Some(amount) = self.quantity().filter(|amount| amount.sign() < 0) {
            self.invalid_value(amount.value(), "must be a valid resource quantity");
        }
    }
}

pub(super) fn persistent_volume(volume: Cursor<'_>) {
    volume_spec(volume.field("spec"), false);
}

const OUT_OF_PLACE: &str = "may not be specified in the context of inline volumes";

/// A volume's spec; an inline one stands in an attachment and says less.
pub(super) fn volume_spec(spec: Cursor<'_>, inline: bool) {
    let out_of_place = |field: Cursor<'_>| {
        if !field.is_empty() {
            field.forbidden(OUT_OF_PLACE);
        }
    };
    let (capacity, csi) = (spec.field("capacity"), spec.field("csi"));
    if inline {
        out_of_place(spec.field("claimRef"));
        out_of_place(capacity);
        csi.required_with("has to be specified in the context of inline volumes");
    }
    let modes = spec.field("accessModes");
    modes.required();
    modes.access_modes();
    if !inline {
        self::capacity(capacity);
    }
    let reclaim = spec.field("persistentVolumeReclaimPolicy");
    if !inline {
        reclaim.is_plain();
    } else if !matches!(reclaim.str(), "" | "Retain") {
        reclaim.forbidden("may only be Retain in the context of inline volumes");
    }
    let affinity = spec.field("nodeAffinity");
    if inline {
        out_of_place(affinity);
    } else if affinity.is_set()
        && affinity.field("required").required_with("must specify required node constraints")
    {
        affinity.field("required").node_selector();
    }
    source(spec);
    if ["/", "//", "/."].contains(&spec.text("hostPath.path")) && reclaim.str() == "Recycle" {
        reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.field("storageClassName");
    if inline {
        out_of_place(class);
    } else {
        class.is_plain();
    }
    let mode = spec.field("volumeMode");
    if !inline {
        mode.is_plain();
    } else if !matches!(mode.str(), "" | "Filesystem") {
        mode.forbidden("may not specify volumeMode other than Filesystem in the context of inline volumes");
    }
    if let Some(class) = spec.field("volumeAttributesClassName").if_set() {
        if class.required_with("an empty string is disallowed") {
            class.format(names::dns1123_subdomain);
        }
        csi.required_with("has to be specified when using volumeAttributesClassName");
    }
}

fn capacity(capacity: Cursor<'_>) {
    capacity.required();
    if !(capacity.has("storage") && capacity.entries().count() == 1) {
        capacity.unsupported(&["storage"]);
    }
    for (_, amount) in capacity.entries() {
        amount.sane_quantity();
        amount.positive();
    }
}

fn source(spec: Cursor<'_>) {
    let mut sources = SOURCES.iter().map(|key| (key, spec.field(key))).filter(|(_, source)| source.is_set());
    let Some((kind, first)) = sources.next() else { return spec.missing("must specify a volume type") };
    volume_source::persistent(kind, first);
    if *kind == "local" {
        spec.field("nodeAffinity").required_with("Local volume requires node affinity");
    }
    sources.for_each(|(_, source)| source.forbidden("may not specify more than 1 volume type"));
}

pub(super) fn persistent_volume_update(volume: Cursor<'_>) {
    let source = |spec: &Value| {
        let mut spec = spec.clone();
        NOT_SOURCES.iter().for_each(|key| drop(remove(&mut spec, key)));
        spec
    };
    let spec = volume.field("spec");
    let (mut wanted, before) = (source(spec.value), source(spec.old));
    // A secret for growing the volume may be named later.
    if before.has("csi")
        && !before.has("csi.controllerExpandSecretRef")
        && let Some(csi) = existing(&mut wanted, "csi")
    {
        remove(csi, "controllerExpandSecretRef");
    }
    if !same(&wanted, &before) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        spec.field("persistentvolumesource").forbidden(format!("{detail}\n{}", changed(&wanted, &before)));
    }
    // Upstream leaves `spec` out of these two paths.
    volume.field("spec.volumeMode").named("volumeMode").immutable();
    let affinity = volume.field("spec.nodeAffinity");
    if !affinity.old.is_null() && !same(&stable_labels(affinity.value), &stable_labels(affinity.old)) {
        let detail = format!("{IMMUTABLE}, except for updating from beta label to GA");
        affinity.named("nodeAffinity").invalid(detail);
    }
    let class = spec.field("volumeAttributesClassName");
    if !class.old.is_null() && !class.is_set() {
        class.forbidden("update from non-nil value to nil is forbidden");
    }
}

/// Node labels that have had another name for long, by their old one.
const RENAMED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

fn stable_labels(affinity: &Value) -> Value {
    let mut affinity = affinity.clone();
    for term in entries(&mut affinity, "required.nodeSelectorTerms") {
        for requirement in entries(term, "matchExpressions") {
            let renamed = RENAMED_LABELS.iter().find(|(old, _)| *old == requirement.text("key"));
            if let Some((_, new)) = renamed {
                set(requirement, "key", *new);
            }
        }
    }
    affinity
}
