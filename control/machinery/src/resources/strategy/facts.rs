//! How kinds differ in what a server keeps, resets and counts: a table.

use crate::resources::Resource;

/// What becomes of an object's dependents where its deleter did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// Deleted in the background.
    Delete,
    /// Left behind without an owner.
    Orphan,
    /// The kind has none; it never waits for them (events).
    Unsupported,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// A created object's status is not the client's, and an update of the object keeps the old one.
    pub(super) resets_status: bool,
    /// A created object's status is the client's, but an update keeps the old one (nodes).
    pub(super) keeps_status_on_update: bool,
    /// Paths whose change raises the generation; none where the kind has no generation.
    pub(super) generation: Option<&'static [&'static str]>,
    /// A new object has the generation 1.
    pub(super) counts_from_one: bool,
    /// A status update leaves the metadata alone.
    pub(super) status_keeps_metadata: bool,
    pub(super) creates_on_update: bool,
    pub(super) unconditional_update: bool,
}

const SPEC: &[&str] = &["spec"];

/// Kinds whose new objects have no generation yet; their first change gives them one.
const UNCOUNTED_AT_FIRST: &[&str] = &["CSIDriver"];

/// Which part of which kinds is counted by `metadata.generation`.
const GENERATIONS: &[(&str, &[&str])] = &[
    ("CSIDriver", SPEC),
    ("CronJob", SPEC),
    ("CustomResourceDefinition", SPEC),
    ("DaemonSet", SPEC),
    ("Deployment", &["spec", "metadata.annotations"]),
    ("DeviceClass", SPEC),
    ("DeviceTaintRule", SPEC),
    ("EndpointSlice", &["addressType", "endpoints", "ports", "metadata.labels"]),
    ("FlowSchema", SPEC),
    ("Ingress", SPEC),
    ("IngressClass", SPEC),
    ("Job", SPEC),
    ("MutatingAdmissionPolicy", SPEC),
    ("MutatingAdmissionPolicyBinding", SPEC),
    ("MutatingWebhookConfiguration", &["webhooks"]),
    ("NetworkPolicy", SPEC),
    ("Pod", SPEC),
    ("PodDisruptionBudget", SPEC),
    ("PodTemplate", &["template"]),
    ("PriorityClass", &[]),
    ("PriorityLevelConfiguration", SPEC),
    ("ReplicaSet", SPEC),
    ("ReplicationController", SPEC),
    ("ResourceSlice", SPEC),
    ("StatefulSet", SPEC),
    ("ValidatingAdmissionPolicy", SPEC),
    ("ValidatingAdmissionPolicyBinding", SPEC),
    ("ValidatingWebhookConfiguration", &["webhooks"]),
];

const CREATES_ON_UPDATE: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "Endpoints",
    "Event",
    "Lease",
    "LeaseCandidate",
    "LimitRange",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Service",
];

const NO_UNCONDITIONAL_UPDATE: &[&str] = &[
    "APIService",
    "CSIDriver",
    "CSINode",
    "CSIStorageCapacity",
    "ClusterTrustBundle",
    "CustomResourceDefinition",
    "Lease",
    "LeaseCandidate",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "PodCertificateRequest",
    "PodDisruptionBudget",
    "RuntimeClass",
    "StorageVersionMigration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

const STATUS_KEEPS_METADATA: &[&str] = &[
    "APIService",
    "DeviceTaintRule",
    "FlowSchema",
    "PodCertificateRequest",
    "PriorityLevelConfiguration",
    "ResourceClaim",
    "ServiceCIDR",
    "StorageVersionMigration",
    "ValidatingAdmissionPolicy",
    "VolumeAttachment",
];

pub(super) fn facts(resource: &Resource) -> Facts {
    let kind = resource.kind;
    // A node registers with the status its kubelet has found.
    let keeps_created = kind == "Node";
    let generation = GENERATIONS.iter().find(|(name, _)| *name == kind).map(|(_, paths)| *paths);
    Facts {
        resets_status: resource.has_status() && !keeps_created,
        keeps_status_on_update: keeps_created,
        generation,
        counts_from_one: generation.is_some() && !UNCOUNTED_AT_FIRST.contains(&kind),
        status_keeps_metadata: STATUS_KEEPS_METADATA.contains(&kind),
        creates_on_update: CREATES_ON_UPDATE.contains(&kind),
        unconditional_update: !NO_UNCONDITIONAL_UPDATE.contains(&kind),
    }
}
