//! What upstream fills in when a client leaves a field out, per kind, on the stored version's form.
//!
//! Applied to every object that is written; applying it twice changes nothing more.

mod admission;
mod amounts;
mod batch;
mod core;
mod image;
mod networking;
mod pod;
mod policy;
mod storage;
mod workloads;

use serde_json::Value;

use super::Resource;
use crate::schema;
use batch::job_labels;

/// Fills in an object's defaults. The object has the form of the version it is stored in.
pub fn apply(resource: &Resource, object: &mut Value) {
    let Some((_, _, fill)) =
        KINDS.iter().find(|(group, kind, _)| *group == resource.group && *kind == resource.kind)
    else {
        return;
    };
    fill(object);
}

/// Gives an object what upstream has it share with its template, apart from [`apply`] since what is put into the template later shows on
/// both: the labels of a job that has none of its own. True where it shares them now.
pub fn share(resource: &Resource, object: &mut Value) -> bool {
    (resource.group, resource.kind) == ("batch", "Job") && job_labels(object)
}

/// Both: what upstream makes of an object whenever it reads one.
pub fn complete(resource: &Resource, object: &mut Value) {
    apply(resource, object);
    share(resource, object);
}

/// What upstream answers a write with is what it reads back of what it stored, which has no empty lists where protobuf cannot say them,
/// and shares with its template what was put there for this object. Does that to an object that has its defaults.
pub fn read_back(resource: &Resource, object: &mut Value) {
    let types = schema::builtin();
    let id = types.named(&resource.storage_api_version(), resource.kind);
    if let Some(id) = id.filter(|_| !resource.is_stored_as_json()) {
        types.unsay_empty(id, object);
    }
    share(resource, object);
}

/// Fills in the defaults of a pod that no API server has seen.
pub fn pod(pod: &mut Value) {
    pod::pod(pod);
}

type Fill = fn(&mut Value);

const KINDS: &[(&str, &str, Fill)] = &[
    ("", "Endpoints", core::endpoints),
    ("", "LimitRange", core::limit_range),
    ("", "Namespace", core::namespace),
    ("", "Node", core::node),
    ("", "PersistentVolume", storage::persistent_volume),
    ("", "PersistentVolumeClaim", storage::persistent_volume_claim),
    ("", "Pod", pod::pod),
    ("", "PodTemplate", workloads::pod_template),
    ("", "ReplicationController", workloads::replication_controller),
    ("", "ResourceQuota", core::resource_quota),
    ("", "Secret", core::secret),
    ("", "Service", core::service),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", admission::policy),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", admission::policy_binding),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", admission::mutating_webhooks),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", admission::policy),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", admission::policy_binding),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", admission::validating_webhooks),
    ("apiextensions.k8s.io", "CustomResourceDefinition", admission::custom_resource_definition),
    ("apiregistration.k8s.io", "APIService", admission::api_service),
    ("apps", "DaemonSet", workloads::daemon_set),
    ("apps", "Deployment", workloads::deployment),
    ("apps", "ReplicaSet", workloads::replica_set),
    ("apps", "StatefulSet", workloads::stateful_set),
    ("autoscaling", "HorizontalPodAutoscaler", policy::horizontal_pod_autoscaler),
    ("batch", "CronJob", batch::cron_job),
    ("batch", "Job", batch::job),
    ("discovery.k8s.io", "EndpointSlice", networking::endpoint_slice),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", policy::flow_schema),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", policy::priority_level),
    ("networking.k8s.io", "IngressClass", networking::ingress_class),
    ("networking.k8s.io", "NetworkPolicy", networking::network_policy),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", policy::role_binding),
    ("rbac.authorization.k8s.io", "RoleBinding", policy::role_binding),
    ("resource.k8s.io", "ResourceClaim", policy::resource_claim),
    ("resource.k8s.io", "ResourceClaimTemplate", policy::resource_claim_template),
    ("scheduling.k8s.io", "PriorityClass", policy::priority_class),
    ("storage.k8s.io", "CSIDriver", storage::csi_driver),
    ("storage.k8s.io", "StorageClass", storage::storage_class),
];

#[cfg(test)]
mod tests;
