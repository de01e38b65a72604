//! Server-side printing: the columns and cells of a `meta.k8s.io/v1` Table, which is what `kubectl get` shows.
//!
//! Columns are data (`data/columns.txt`); a kind's cells are a function of the stored object and of the time, in the
//! columns' order, the wide ones included.

mod age;
mod core;
mod format;
mod networking;
mod node;
mod pod;
mod policy;
mod storage;
mod workloads;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Resource;
use crate::access::Get;

pub(crate) use self::age::since;
pub use self::pod::conditions;

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As it is headed, in kubectl's upper case.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the column that names the object.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// As a Table's `columnDefinitions` has it.
    pub fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format, "priority": self.priority,
            "description": self.description(),
        })
    }

    fn description(&self) -> String {
        match (self.name, self.format) {
            (_, "name") => "Name must be unique within a namespace.".to_owned(),
            ("Age" | "Created At", _) => "Time since, or at which, the object was created.".to_owned(),
            (name, _) => name.to_owned(),
        }
    }
}

type Cells = fn(&Value, Timestamp) -> Vec<Value>;

struct Printer {
    group: &'static str,
    kind: &'static str,
    columns: Vec<Column>,
}

static PRINTERS: LazyLock<Vec<Printer>> = LazyLock::new(|| parse(include_str!("../../data/columns.txt")));

const NAME: Column = Column { name: "Name", kind: "string", format: "name", priority: 0 };
const CREATED: Column = Column { name: "Created At", kind: "date", format: "", priority: 0 };
static DEFAULT: [Column; 2] = [NAME, CREATED];

fn parse(text: &'static str) -> Vec<Printer> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (kind, columns) = line.split_once(" = ")?;
            let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
            Some(Printer { group, kind, columns: columns.split(", ").map(column).collect() })
        })
        .collect()
}

fn column(text: &'static str) -> Column {
    let (text, priority) = match text.strip_suffix('*') {
        Some(text) => (text, 1),
        None => (text, 0),
    };
    let (name, kind) = text.split_once(':').unwrap_or((text, "string"));
    Column { name, kind, format: if name == "Name" { "name" } else { "" }, priority }
}

/// The columns of a resource's table.
pub fn columns(resource: &Resource) -> &'static [Column] {
    columns_of(resource.group, resource.kind)
}

/// The columns of a kind's table, be it one that is no resource's own, as a Scale is.
pub fn columns_of(group: &str, kind: &str) -> &'static [Column] {
    PRINTERS
        .iter()
        .find(|printer| printer.group == group && printer.kind == kind)
        .map_or(&DEFAULT, |printer| printer.columns.as_slice())
}

/// One object's row: as many cells as there are columns.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    cells_of(resource.group, resource.kind, object, now)
}

/// As [`cells`], of a kind that may be no resource's own.
pub fn cells_of(group: &str, kind: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    let printer = CELLS.iter().find(|(g, k, _)| (*g, *k) == (group, kind));
    match printer {
        Some((_, _, cells)) => cells(object, now),
        None => vec![format::name(object), json!(object.text("metadata.creationTimestamp"))],
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static CELLS: &[(&str, &str, Cells)] = &[
    ("", "ComponentStatus", core::component_status),
    ("", "ConfigMap", core::config_map),
    ("", "Endpoints", networking::endpoints),
    ("", "Event", core::event),
    ("", "Namespace", core::namespace),
    ("", "Node", node::node),
    ("", "PersistentVolume", storage::persistent_volume),
    ("", "PersistentVolumeClaim", storage::claim),
    ("", "Pod", pod::pod),
    ("", "PodTemplate", workloads::pod_template),
    ("", "ReplicationController", workloads::replica_set),
    ("", "ResourceQuota", core::resource_quota),
    ("", "Secret", core::secret),
    ("", "Service", networking::service),
    ("", "ServiceAccount", core::service_account),
    (ADMISSION, "MutatingAdmissionPolicy", policy::mutating_policy),
    (ADMISSION, "MutatingAdmissionPolicyBinding", policy::policy_binding),
    (ADMISSION, "MutatingWebhookConfiguration", policy::webhooks),
    (ADMISSION, "ValidatingAdmissionPolicy", policy::validating_policy),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", policy::policy_binding),
    (ADMISSION, "ValidatingWebhookConfiguration", policy::webhooks),
    ("apiregistration.k8s.io", "APIService", policy::api_service),
    ("apps", "ControllerRevision", workloads::controller_revision),
    ("apps", "DaemonSet", workloads::daemon_set),
    ("apps", "Deployment", workloads::deployment),
    ("apps", "ReplicaSet", workloads::replica_set),
    ("apps", "StatefulSet", workloads::stateful_set),
    ("autoscaling", "HorizontalPodAutoscaler", policy::horizontal_pod_autoscaler),
    ("autoscaling", "Scale", policy::scale),
    ("batch", "CronJob", workloads::cron_job),
    ("batch", "Job", workloads::job),
    ("certificates.k8s.io", "CertificateSigningRequest", policy::signing_request),
    ("certificates.k8s.io", "ClusterTrustBundle", policy::trust_bundle),
    ("certificates.k8s.io", "PodCertificateRequest", policy::pod_certificate_request),
    ("coordination.k8s.io", "Lease", policy::lease),
    ("coordination.k8s.io", "LeaseCandidate", policy::lease_candidate),
    ("discovery.k8s.io", "EndpointSlice", networking::endpoint_slice),
    ("events.k8s.io", "Event", core::event),
    (FLOW, "FlowSchema", policy::flow_schema),
    (FLOW, "PriorityLevelConfiguration", policy::priority_level),
    (NETWORKING, "IPAddress", networking::ip_address),
    (NETWORKING, "Ingress", networking::ingress),
    (NETWORKING, "IngressClass", networking::ingress_class),
    (NETWORKING, "NetworkPolicy", networking::network_policy),
    (NETWORKING, "ServiceCIDR", networking::service_cidr),
    ("node.k8s.io", "RuntimeClass", policy::runtime_class),
    ("policy", "PodDisruptionBudget", policy::disruption_budget),
    (RBAC, "ClusterRoleBinding", policy::role_binding),
    (RBAC, "RoleBinding", policy::role_binding),
    (RESOURCE, "DeviceClass", policy::name_and_age),
    (RESOURCE, "DeviceTaintRule", policy::device_taint_rule),
    (RESOURCE, "ResourceClaim", policy::resource_claim),
    (RESOURCE, "ResourceClaimTemplate", policy::name_and_age),
    (RESOURCE, "ResourceSlice", policy::resource_slice),
    ("scheduling.k8s.io", "PriorityClass", policy::priority_class),
    (STORAGE, "CSIDriver", storage::csi_driver),
    (STORAGE, "CSINode", storage::csi_node),
    (STORAGE, "CSIStorageCapacity", storage::csi_capacity),
    (STORAGE, "StorageClass", storage::storage_class),
    (STORAGE, "VolumeAttachment", storage::volume_attachment),
    (STORAGE, "VolumeAttributesClass", storage::attributes_class),
    ("storagemigration.k8s.io", "StorageVersionMigration", policy::migration),
];

#[cfg(test)]
mod tests;
