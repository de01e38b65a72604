//! Which objects are refused, and in which words: upstream's, in upstream's order, as clients match on them.
//!
//! Objects have the stored version's form, are defaulted and prepared ([`super::strategy`]). Metadata is checked for every
//! kind, then the kind's own rules.

pub(in crate::resources) mod address;
mod admission;
mod autoscaling;
mod batch;
mod certificates;
mod classes;
mod core;
mod endpoints;
mod event;
mod extensions;
mod flowcontrol;
mod meta;
mod networking;
mod pod;
mod policy;
mod quantities;
mod quota;
mod rules;
mod selector;
mod service;
mod storage;
mod volume_source;
mod workloads;

use serde_json::Value;

use super::{Resource, access::Get as _};
use crate::custom;
use crate::field::{FieldError, Path};

type Errors = Vec<FieldError>;
type Check = fn(&Value, &mut Errors);
type CheckUpdate = fn(&Value, &Value, &mut Errors);

/// What is wrong with an object that is to be created; empty where nothing is.
pub fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::create(resource, object, &mut errors);
    if let Some(rules) = rules_of(resource) {
        rules.whole(object, &Value::Null, &mut errors);
        if let Some(check) = rules.create {
            check(object, &mut errors);
        }
    }
    errors
}

/// What is wrong with an object that is to replace another.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(resource, new, old, &mut errors);
    if let Some(rules) = rules_of(resource) {
        rules.whole(new, old, &mut errors);
        if let Some(check) = rules.update {
            check(new, old, &mut errors);
        }
    }
    errors
}

/// What is wrong with an object whose subresource is to be written: the metadata, and what that subresource may hold.
pub fn subresource_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(resource, new, old, &mut errors);
    let check = match (resource.kind, subresource) {
        (_, "status") => rules_of(resource).and_then(|rules| rules.status),
        ("Pod", "ephemeralcontainers") => Some(pod::update_ephemeral_containers as CheckUpdate),
        ("Pod", "resize") => Some(pod::resize as CheckUpdate),
        ("CertificateSigningRequest", "approval") => {
            Some(certificates::signing_request_approval as CheckUpdate)
        }
        ("Namespace", "finalize") => Some(core::namespace_finalize as CheckUpdate),
        _ => None,
    };
    if let Some(check) = check {
        check(new, old, &mut errors);
    }
    errors
}

/// What is wrong with an object's metadata, whatever its kind; `old` where it is to replace another.
pub(crate) fn metadata(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::new();
    match old {
        Some(old) => meta::update(resource, object, old, &mut errors),
        None => meta::create(resource, object, &mut errors),
    }
    errors
}

/// What is wrong with the metadata of an object that is part of another.
pub(crate) fn embedded_metadata(object: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    meta::embedded(path, object.at("metadata"), errors);
}

struct Rules {
    group: &'static str,
    kind: &'static str,
    /// What holds for every object of the kind.
    object: Option<Check>,
    /// The same where an object may keep what it had before; the second is null for a new one.
    lasting: Option<CheckUpdate>,
    /// What holds for new ones only.
    create: Option<Check>,
    /// What may not change.
    update: Option<CheckUpdate>,
    /// What a status may be.
    status: Option<CheckUpdate>,
}

impl Rules {
    const fn create(self, check: Check) -> Self {
        Rules { create: Some(check), ..self }
    }

    const fn update(self, check: CheckUpdate) -> Self {
        Rules { update: Some(check), ..self }
    }

    const fn status(self, check: CheckUpdate) -> Self {
        Rules { status: Some(check), ..self }
    }

    fn whole(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if let Some(check) = self.object {
            check(object, errors);
        }
        if let Some(check) = self.lasting {
            check(object, old, errors);
        }
    }
}

const fn none(group: &'static str, kind: &'static str) -> Rules {
    Rules { group, kind, object: None, lasting: None, create: None, update: None, status: None }
}

const fn rules(group: &'static str, kind: &'static str, object: Check) -> Rules {
    Rules { object: Some(object), ..none(group, kind) }
}

const fn lasting(group: &'static str, kind: &'static str, object: CheckUpdate) -> Rules {
    Rules { lasting: Some(object), ..none(group, kind) }
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
const STORAGE: &str = "storage.k8s.io";

static RULES: &[Rules] = &[
    rules("", "ConfigMap", core::config_map).update(core::config_map_update),
    lasting("", "Endpoints", endpoints::endpoints),
    rules("", "Event", event::core_event),
    rules("events.k8s.io", "Event", event::event).create(event::create).update(event::update),
    rules("", "LimitRange", quota::limit_range),
    none("", "Namespace").create(core::namespace_create).status(core::namespace_status),
    rules("", "Node", core::node)
        .create(core::node_create)
        .update(core::node_update)
        .status(core::node_status),
    rules("", "PersistentVolume", storage::persistent_volume).update(storage::persistent_volume_update),
    lasting("", "PersistentVolumeClaim", storage::claim)
        .update(storage::claim_update)
        .status(storage::claim_status),
    rules("", "Pod", pod::pod).create(pod::create).update(pod::update).status(pod::update_status),
    rules("", "PodTemplate", workloads::pod_template),
    rules("", "ReplicationController", workloads::replication_controller)
        .status(workloads::controller_status),
    rules("", "ResourceQuota", quota::resource_quota)
        .update(quota::resource_quota_update)
        .status(quota::resource_quota_status),
    rules("", "Secret", core::secret).update(core::secret_update),
    lasting("", "Service", service::service).update(service::update).status(service::status),
    rules(ADMISSION, "MutatingAdmissionPolicy", admission::policy::mutating),
    rules(ADMISSION, "MutatingAdmissionPolicyBinding", admission::policy::mutating_binding),
    rules(ADMISSION, "MutatingWebhookConfiguration", admission::webhooks),
    rules(ADMISSION, "ValidatingAdmissionPolicy", admission::policy::validating),
    rules(ADMISSION, "ValidatingAdmissionPolicyBinding", admission::policy::validating_binding),
    rules(ADMISSION, "ValidatingWebhookConfiguration", admission::webhooks),
    rules(FLOWCONTROL, "FlowSchema", flowcontrol::flow_schema).status(flowcontrol::status),
    rules(FLOWCONTROL, "PriorityLevelConfiguration", flowcontrol::priority_level).status(flowcontrol::status),
    none("apiextensions.k8s.io", "CustomResourceDefinition")
        .create(|crd, errors| errors.extend(custom::check::create(crd)))
        .update(|new, old, errors| errors.extend(custom::check::update(new, old)))
        .status(|new, _, errors| errors.extend(custom::check::update_status(new))),
    rules("apiregistration.k8s.io", "APIService", extensions::api_service),
    rules("apps", "ControllerRevision", workloads::controller_revision)
        .create(workloads::controller_revision_create)
        .update(workloads::controller_revision_update),
    rules("apps", "DaemonSet", workloads::daemon_set)
        .update(workloads::selector_update)
        .status(workloads::daemon_set_status),
    rules("apps", "Deployment", workloads::deployment)
        .update(workloads::selector_update)
        .status(workloads::deployment_status),
    rules("apps", "ReplicaSet", workloads::replica_set)
        .update(workloads::selector_update)
        .status(workloads::controller_status),
    lasting("apps", "StatefulSet", workloads::stateful_set)
        .update(workloads::stateful_set_update)
        .status(workloads::stateful_set_status),
    lasting("autoscaling", "HorizontalPodAutoscaler", autoscaling::horizontal_pod_autoscaler)
        .status(autoscaling::status),
    rules("batch", "CronJob", batch::cron_job),
    rules("batch", "Job", batch::job).create(batch::job_create).update(batch::job_update),
    lasting(CERTIFICATES, "CertificateSigningRequest", certificates::signing_request)
        .update(certificates::signing_request_update)
        .status(certificates::signing_request_status),
    lasting(CERTIFICATES, "ClusterTrustBundle", certificates::trust_bundle)
        .update(certificates::trust_bundle_update),
    none(CERTIFICATES, "PodCertificateRequest")
        .create(certificates::pod_certificate_request)
        .update(certificates::pod_certificate_request_update),
    rules(COORDINATION, "Lease", policy::lease),
    rules(COORDINATION, "LeaseCandidate", policy::lease_candidate).update(policy::lease_candidate_update),
    lasting("discovery.k8s.io", "EndpointSlice", endpoints::endpoint_slice)
        .update(endpoints::endpoint_slice_update),
    none(NETWORKING, "IPAddress").create(networking::ip_address).update(networking::ip_address_update),
    lasting(NETWORKING, "Ingress", networking::ingress)
        .create(networking::ingress_create)
        .status(networking::ingress_status),
    rules(NETWORKING, "IngressClass", networking::ingress_class).update(networking::ingress_class_update),
    lasting(NETWORKING, "NetworkPolicy", networking::network_policy),
    none(NETWORKING, "ServiceCIDR")
        .create(networking::service_cidr_create)
        .update(networking::service_cidr_update),
    rules("node.k8s.io", "RuntimeClass", policy::runtime_class).update(policy::runtime_class_update),
    rules("policy", "PodDisruptionBudget", policy::disruption_budget)
        .status(policy::disruption_budget_status),
    rules(RBAC, "ClusterRole", policy::role),
    rules(RBAC, "ClusterRoleBinding", policy::role_binding).update(policy::role_binding_update),
    rules(RBAC, "Role", policy::role),
    rules(RBAC, "RoleBinding", policy::role_binding).update(policy::role_binding_update),
    rules("scheduling.k8s.io", "PriorityClass", policy::priority_class).update(policy::priority_class_update),
    rules(STORAGE, "CSIDriver", classes::csi_driver).update(classes::csi_driver_update),
    rules(STORAGE, "CSINode", classes::csi_node).update(classes::csi_node_update),
    none(STORAGE, "CSIStorageCapacity")
        .create(classes::csi_storage_capacity)
        .update(classes::csi_storage_capacity_update),
    rules(STORAGE, "StorageClass", classes::storage_class).update(classes::storage_class_update),
    rules(STORAGE, "VolumeAttachment", classes::volume_attachment)
        .update(classes::volume_attachment_update)
        .status(classes::volume_attachment_status),
    rules(STORAGE, "VolumeAttributesClass", classes::volume_attributes_class)
        .update(classes::volume_attributes_class_update),
];

#[cfg(test)]
mod tests;
