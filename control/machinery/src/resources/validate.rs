//! Which objects are refused, and in which words: upstream's, in upstream's order, as clients match on them.
//!
//! Objects have the stored version's form, are defaulted and prepared ([`super::strategy`]). Metadata is checked for every
//! kind, then the kind's own rules.

mod address;
mod admission;
mod autoscaling;
mod batch;
mod certificates;
mod checks;
mod claim;
mod classes;
mod core;
mod cursor;
mod devices;
mod difference;
mod endpoints;
mod event;
mod extensions;
mod flowcontrol;
mod meta;
mod networking;
mod plain;
mod pod;
mod policy;
mod quantities;
mod quota;
mod selector;
mod service;
mod storage;
mod volume_source;
mod workloads;

use serde_json::Value;

use self::cursor::{Cursor, look, look_at};
use super::Resource;
use crate::{
    field::{FieldError, Path},
    schema::{self, TypeId},
};

type Check = for<'v> fn(Cursor<'v>);

/// What is wrong with an object that is to be created; empty where nothing is.
pub(crate) fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    look(kind(resource), object, None, |object| {
        meta::create(resource, object);
        if let Some(rules) = rules_of(resource) {
            run(rules.object, object);
            run(rules.create, object);
        }
    })
}

/// What is wrong with an object that is to replace another.
pub(crate) fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    look(kind(resource), new, Some(old), |object| {
        meta::update(resource, object);
        let rules = rules_of(resource);
        run(rules.and_then(|rules| rules.object), object);
        object.fixed();
        run(rules.and_then(|rules| rules.update), object);
    })
}

/// What is wrong with an object whose subresource is to be written: the metadata, and what that subresource may hold.
pub(crate) fn subresource_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let check = match (resource.kind, subresource) {
        (_, "status") => rules_of(resource).and_then(|rules| rules.status),
        ("Pod", "ephemeralcontainers") => Some(pod::update_ephemeral_containers as Check),
        ("Pod", "resize") => Some(pod::resize as Check),
        ("CertificateSigningRequest", "approval") => Some(certificates::signing_request_approval as Check),
        ("Namespace", "finalize") => Some(core::namespace_finalize as Check),
        _ => None,
    };
    look(kind(resource), new, Some(old), |object| {
        meta::update(resource, object);
        run(check, object);
    })
}

/// What is wrong with an object's metadata, whatever its kind; `old` where it is to replace another.
pub(crate) fn metadata(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let check = if old.is_some() { meta::update } else { meta::create };
    look(None, object, old, |object| check(resource, object))
}

/// What is wrong with the metadata of an object that is part of another.
pub(crate) fn embedded_metadata(object: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    look_at(path, crate::access::Get::at(object, "metadata"), errors, meta::embedded);
}

/// The type of a kind's objects in the field table.
fn kind(resource: &Resource) -> Option<TypeId> {
    schema::builtin().named(&resource.storage_api_version(), resource.kind)
}

fn run(check: Option<Check>, object: Cursor<'_>) {
    if let Some(check) = check {
        check(object);
    }
}

struct Rules {
    group: &'static str,
    kind: &'static str,
    /// What holds for every object of the kind; what it had before (nothing for a new one) it may often keep.
    object: Option<Check>,
    /// What holds for new ones only.
    create: Option<Check>,
    /// What may not change, beside what the field table calls fixed.
    update: Option<Check>,
    /// What a status may be.
    status: Option<Check>,
}

impl Rules {
    const fn create(self, check: Check) -> Self {
        Rules { create: Some(check), ..self }
    }

    const fn update(self, check: Check) -> Self {
        Rules { update: Some(check), ..self }
    }

    const fn status(self, check: Check) -> Self {
        Rules { status: Some(check), ..self }
    }
}

const fn none(group: &'static str, kind: &'static str) -> Rules {
    Rules { group, kind, object: None, create: None, update: None, status: None }
}

const fn rules(group: &'static str, kind: &'static str, object: Check) -> Rules {
    Rules { object: Some(object), ..none(group, kind) }
}

fn rules_of(resource: &Resource) -> Option<&'static Rules> {
    RULES.iter().find(|rules| rules.group == resource.group && rules.kind == resource.kind)
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const FLOWCONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static RULES: &[Rules] = &[
    rules("", "ConfigMap", core::config_map).update(core::config_map_update),
    rules("", "Endpoints", endpoints::endpoints),
    rules("", "Event", event::core_event),
    rules("events.k8s.io", "Event", event::event).create(event::create).update(event::update),
    rules("", "LimitRange", quota::limit_range),
    none("", "Namespace").create(core::namespace_create).status(core::namespace_status),
    rules("", "Node", core::node)
        .create(core::node_create)
        .update(core::node_update)
        .status(core::node_status),
    rules("", "PersistentVolume", storage::persistent_volume).update(storage::persistent_volume_update),
    rules("", "PersistentVolumeClaim", claim::claim).update(claim::update).status(claim::status),
    rules("", "Pod", pod::pod).create(pod::create).update(pod::update).status(pod::update_status),
    rules("", "PodTemplate", workloads::pod_template),
    rules("", "ReplicationController", workloads::replication_controller)
        .status(workloads::controller_status),
    rules("", "ResourceQuota", quota::resource_quota)
        .update(quota::resource_quota_update)
        .status(quota::resource_quota_status),
    rules("", "Secret", core::secret).update(core::secret_update),
    rules("", "Service", service::service).update(service::update).status(service::status),
    rules(ADMISSION, "MutatingAdmissionPolicy", admission::policy::mutating),
    rules(ADMISSION, "MutatingAdmissionPolicyBinding", admission::policy::mutating_binding),
    rules(ADMISSION, "MutatingWebhookConfiguration", admission::webhooks),
    rules(ADMISSION, "ValidatingAdmissionPolicy", admission::policy::validating),
    rules(ADMISSION, "ValidatingAdmissionPolicyBinding", admission::policy::validating_binding),
    rules(ADMISSION, "ValidatingWebhookConfiguration", admission::webhooks),
    rules(FLOWCONTROL, "FlowSchema", flowcontrol::flow_schema).status(flowcontrol::conditions),
    rules(FLOWCONTROL, "PriorityLevelConfiguration", flowcontrol::priority_level)
        .status(flowcontrol::conditions),
    rules("apiregistration.k8s.io", "APIService", extensions::api_service)
        .status(extensions::api_service_status),
    rules("apps", "ControllerRevision", workloads::controller_revision)
        .create(workloads::controller_revision_create),
    rules("apps", "DaemonSet", workloads::daemon_set).status(workloads::daemon_set_status),
    rules("apps", "Deployment", workloads::deployment).status(workloads::deployment_status),
    rules("apps", "ReplicaSet", workloads::replica_set).status(workloads::controller_status),
    rules("apps", "StatefulSet", workloads::stateful_set)
        .update(workloads::stateful_set_update)
        .status(workloads::stateful_set_status),
    rules("autoscaling", "HorizontalPodAutoscaler", autoscaling::horizontal_pod_autoscaler)
        .status(autoscaling::status),
    rules("batch", "CronJob", batch::cron_job).create(batch::cron_job_create),
    rules("batch", "Job", batch::job).update(batch::job_update).status(batch::job_status),
    rules(CERTIFICATES, "CertificateSigningRequest", certificates::signing_request)
        .update(certificates::signing_request_update)
        .status(certificates::signing_request_status),
    rules(CERTIFICATES, "ClusterTrustBundle", certificates::trust_bundle),
    none(CERTIFICATES, "PodCertificateRequest").create(certificates::pod_certificate_request),
    rules(COORDINATION, "Lease", policy::lease),
    rules(COORDINATION, "LeaseCandidate", policy::lease_candidate),
    rules("discovery.k8s.io", "EndpointSlice", endpoints::endpoint_slice),
    none(NETWORKING, "IPAddress").create(networking::ip_address),
    rules(NETWORKING, "Ingress", networking::ingress)
        .create(networking::ingress_create)
        .status(networking::ingress_status),
    rules(NETWORKING, "IngressClass", networking::ingress_class),
    rules(NETWORKING, "NetworkPolicy", networking::network_policy),
    none(NETWORKING, "ServiceCIDR").create(networking::service_cidr).update(networking::service_cidr_update),
    rules("node.k8s.io", "RuntimeClass", policy::runtime_class),
    rules("policy", "PodDisruptionBudget", policy::disruption_budget)
        .status(policy::disruption_budget_status),
    rules(RBAC, "ClusterRole", policy::role),
    rules(RBAC, "ClusterRoleBinding", policy::role_binding).update(policy::role_binding_update),
    rules(RBAC, "Role", policy::role),
    rules(RBAC, "RoleBinding", policy::role_binding).update(policy::role_binding_update),
    rules(RESOURCE, "DeviceClass", devices::claims::class),
    rules(RESOURCE, "DeviceTaintRule", devices::taints::rule).status(devices::taints::rule_status),
    none(RESOURCE, "ResourceClaim")
        .create(devices::claims::claim)
        .update(devices::claims::fixed_spec)
        .status(devices::status::status),
    rules(RESOURCE, "ResourceClaimTemplate", devices::claims::claim_template)
        .update(devices::claims::fixed_spec),
    rules(RESOURCE, "ResourceSlice", devices::slices::slice),
    rules("scheduling.k8s.io", "PriorityClass", policy::priority_class).update(policy::priority_class_update),
    rules(STORAGE, "CSIDriver", classes::csi_driver).update(classes::csi_driver_update),
    rules(STORAGE, "CSINode", classes::csi_node).update(classes::csi_node_update),
    none(STORAGE, "CSIStorageCapacity").create(classes::csi_storage_capacity),
    rules(STORAGE, "StorageClass", classes::storage_class),
    rules(STORAGE, "VolumeAttachment", classes::volume_attachment).status(classes::volume_attachment_status),
    rules(STORAGE, "VolumeAttributesClass", classes::volume_attributes_class)
        .update(classes::volume_attributes_class_update),
];

#[cfg(test)]
mod tests;
