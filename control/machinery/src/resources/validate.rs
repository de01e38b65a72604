//! Which objects are refused, and in which words: upstream's, in upstream's order, as clients match on them.
//!
//! Objects have the stored version's form, are defaulted and prepared ([`super::strategy`]). Metadata is checked for every
//! kind, then the kind's own rules.

mod batch;
mod core;
mod extensions;
mod meta;
mod networking;
mod pod;
mod policy;
mod quantities;
mod rules;
mod selector;
mod service;
mod storage;
mod workloads;

use serde_json::Value;

use super::Resource;
use crate::field::FieldError;

type Errors = Vec<FieldError>;
type Check = fn(&Value, &mut Errors);
type CheckUpdate = fn(&Value, &Value, &mut Errors);

/// What is wrong with an object that is to be created; empty where nothing is.
pub fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::create(resource, object, &mut errors);
    if let Some(rules) = rules_of(resource) {
        (rules.object)(object, &mut errors);
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
        (rules.object)(new, &mut errors);
        if let Some(check) = rules.update {
            check(new, old, &mut errors);
        }
    }
    errors
}

/// What is wrong with an object whose subresource is to be written: the metadata, and for pods what that subresource may
/// hold.
pub fn subresource_update(
    resource: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(resource, new, old, &mut errors);
    match (resource.kind, subresource) {
        ("Pod", "status") => pod::update_status(new, old, &mut errors),
        ("Pod", "ephemeralcontainers") => pod::update_ephemeral_containers(new, old, &mut errors),
        ("Pod", "resize") => pod::resize(new, old, &mut errors),
        ("CertificateSigningRequest", "approval" | "status") => {
            policy::signing_request_conditions(new, old, &mut errors);
        }
        ("Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController" | "DaemonSet", "status") => {
            workloads::status(new, &mut errors);
        }
        _ => {}
    }
    errors
}

struct Rules {
    group: &'static str,
    kind: &'static str,
    /// What holds for every object of the kind.
    object: Check,
    /// What holds for new ones only.
    create: Option<Check>,
    /// What may not change.
    update: Option<CheckUpdate>,
}

const fn rules(group: &'static str, kind: &'static str, object: Check) -> Rules {
    Rules { group, kind, object, create: None, update: None }
}

const fn with_update(group: &'static str, kind: &'static str, object: Check, update: CheckUpdate) -> Rules {
    Rules { group, kind, object, create: None, update: Some(update) }
}

fn rules_of(resource: &Resource) -> Option<&'static Rules> {
    RULES.iter().find(|rules| rules.group == resource.group && rules.kind == resource.kind)
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

static RULES: &[Rules] = &[
    with_update("", "ConfigMap", core::config_map, core::config_map_update),
    rules("", "Endpoints", networking::endpoints),
    rules("", "Event", core::event),
    rules("events.k8s.io", "Event", core::event),
    rules("", "LimitRange", core::limit_range),
    rules("", "Namespace", core::namespace),
    with_update("", "Node", core::node, core::node_update),
    with_update("", "PersistentVolume", storage::persistent_volume, storage::persistent_volume_update),
    with_update("", "PersistentVolumeClaim", storage::claim, storage::claim_update),
    Rules { group: "", kind: "Pod", object: pod::pod, create: Some(pod::create), update: Some(pod::update) },
    rules("", "PodTemplate", workloads::pod_template),
    rules("", "ReplicationController", workloads::replication_controller),
    with_update("", "ResourceQuota", core::resource_quota, core::resource_quota_update),
    with_update("", "Secret", core::secret, core::secret_update),
    with_update("", "Service", service::service, service::update),
    rules(ADMISSION, "MutatingWebhookConfiguration", extensions::webhooks),
    rules(ADMISSION, "ValidatingWebhookConfiguration", extensions::webhooks),
    with_update(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        extensions::custom_resource_definition,
        extensions::custom_resource_definition_update,
    ),
    rules("apiregistration.k8s.io", "APIService", extensions::api_service),
    with_update(
        "apps",
        "ControllerRevision",
        workloads::controller_revision,
        workloads::controller_revision_update,
    ),
    with_update("apps", "DaemonSet", workloads::daemon_set, workloads::selector_update),
    with_update("apps", "Deployment", workloads::deployment, workloads::selector_update),
    with_update("apps", "ReplicaSet", workloads::replica_set, workloads::selector_update),
    with_update("apps", "StatefulSet", workloads::stateful_set, workloads::stateful_set_update),
    rules("autoscaling", "HorizontalPodAutoscaler", policy::horizontal_pod_autoscaler),
    rules("batch", "CronJob", batch::cron_job),
    Rules {
        group: "batch",
        kind: "Job",
        object: batch::job,
        create: Some(batch::job_create),
        update: Some(batch::job_update),
    },
    rules("certificates.k8s.io", "CertificateSigningRequest", policy::signing_request),
    rules("coordination.k8s.io", "Lease", policy::lease),
    with_update(
        "discovery.k8s.io",
        "EndpointSlice",
        networking::endpoint_slice,
        networking::endpoint_slice_update,
    ),
    rules(NETWORKING, "Ingress", networking::ingress),
    with_update(NETWORKING, "IngressClass", networking::ingress_class, networking::ingress_class_update),
    rules(NETWORKING, "NetworkPolicy", networking::network_policy),
    with_update("node.k8s.io", "RuntimeClass", policy::runtime_class, policy::runtime_class_update),
    rules("policy", "PodDisruptionBudget", policy::disruption_budget),
    rules(RBAC, "ClusterRole", policy::role),
    with_update(RBAC, "ClusterRoleBinding", policy::role_binding, policy::role_binding_update),
    rules(RBAC, "Role", policy::role),
    with_update(RBAC, "RoleBinding", policy::role_binding, policy::role_binding_update),
    with_update("scheduling.k8s.io", "PriorityClass", policy::priority_class, policy::priority_class_update),
    with_update("storage.k8s.io", "StorageClass", storage::storage_class, storage::storage_class_update),
];

#[cfg(test)]
mod tests;
