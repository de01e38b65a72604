//! Pods, and the pod specs inside templates.

mod container;
mod env;
mod handler;
mod resize;
mod restart;
mod scheduling;
mod security;
mod update;
mod volume;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, address, meta, quantities, rules};
use crate::{
    field::{FieldError, Path},
    names,
    quantity::Quantity,
    resources::access::Get,
};

pub(super) use self::resize::resize;
pub(super) use self::update::{changed, update, update_ephemeral_containers, update_status};
pub(super) use self::{
    container::{descending, no_backsteps},
    scheduling::{node_selector, tolerations},
    volume::host_path,
};

/// What holds for every pod, new or changed.
pub(super) fn pod(pod: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), pod.at("spec"));
    self::spec(&path, spec, true, errors);
    if spec.text("serviceAccountName").is_empty() {
        for (index, volume) in spec.items("volumes").iter().enumerate() {
            for (source_index, source) in volume.items("projected.sources").iter().enumerate() {
                if source.has("serviceAccountToken") {
                    let path = path.child("volumes").index(index).child("projected").child("sources");
                    let path = path.index(source_index).child("serviceAccountToken");
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(&path, detail));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        container::only_for_pods(&path.child(list), spec.items(list), errors);
    }
}

/// What holds for new pods.
pub(super) fn create(pod: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), pod.at("spec"));
    if !spec.items("ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.text("nodeName").is_empty() && !spec.items("schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&path.child("nodeName"), detail));
    }
}

/// The template of another kind.
pub(super) fn template(path: &Path, template: &Value, errors: &mut Errors) {
    // Upstream leaves `metadata` out of these paths.
    rules::labels(&path.child("labels"), template.at("metadata.labels"), errors);
    meta::annotations(&path.child("annotations"), template.at("metadata.annotations"), errors);
    spec(&path.child("spec"), template.at("spec"), false, errors);
    if !template.items("spec.ephemeralContainers").is_empty() {
        let path = path.child("spec").child("ephemeralContainers");
        errors.push(FieldError::forbidden(&path, "ephemeral containers not allowed in pod template"));
    }
}

/// A pod spec, in upstream's order.
fn spec(path: &Path, spec: &Value, in_pod: bool, errors: &mut Errors) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volume::volumes(&path.child("volumes"), spec.items("volumes"), errors);
    let claims = resource_claims(&path.child("resourceClaims"), spec, errors);
    let context = container::Context { spec, volumes: &volumes, claims: &claims };
    container::containers(&path.child("containers"), &context, errors);
    container::init_containers(&path.child("initContainers"), &context, errors);
    container::ephemeral_containers(&path.child("ephemeralContainers"), &context, errors);
    pod_resources(&path.child("resources"), spec, errors);
    host_network_ports(path, spec, in_pod, errors);
    let policies = ["Always", "OnFailure", "Never"];
    rules::one_of(&path.child("restartPolicy"), spec.text("restartPolicy"), &policies, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    rules::one_of(&path.child("dnsPolicy"), spec.text("dnsPolicy"), &policies, errors);
    rules::labels(&path.child("nodeSelector"), spec.at("nodeSelector"), errors);
    security::pod(&path.child("securityContext"), spec, errors);
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        let path = path.child("imagePullSecrets").index(index);
        let name = secret.text("name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
    }
    scheduling::affinity(&path.child("affinity"), spec.at("affinity"), errors);
    dns_config(&path.child("dnsConfig"), spec, errors);
    for (index, gate) in spec.items("readinessGates").iter().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        rules::qualified(&path, gate.text("conditionType"), errors);
    }
    scheduling::gates(&path.child("schedulingGates"), spec.items("schedulingGates"), errors);
    scheduling::spread(
        &path.child("topologySpreadConstraints"),
        spec.items("topologySpreadConstraints"),
        errors,
    );
    host_users(path, spec, errors);
    host_name(path, spec, errors);
    for key in ["serviceAccountName", "nodeName"] {
        let name = spec.text(key);
        if !name.is_empty() {
            rules::subdomain(&path.child(key), name, errors);
        }
    }
    let deadline = "activeDeadlineSeconds";
    rules::between(&path.child(deadline), spec.at(deadline), 1, i64::from(i32::MAX), errors);
    for key in ["hostname", "subdomain"] {
        let name = spec.text(key);
        if !name.is_empty() {
            rules::label(&path.child(key), name, errors);
        }
    }
    tolerations(&path.child("tolerations"), spec.items("tolerations"), errors);
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        address::ip(&path.child("ip"), alias.text("ip"), &[], errors);
        for (index, hostname) in alias.items("hostnames").iter().enumerate() {
            let path = path.child("hostnames").index(index);
            rules::subdomain(&path, hostname.as_str().unwrap_or_default(), errors);
        }
    }
    for key in ["priorityClassName", "runtimeClassName"] {
        let name = spec.text(key);
        if !name.is_empty() {
            rules::subdomain(&path.child(key), name, errors);
        }
    }
    let policies = ["PreemptLowerPriority", "Never"];
    rules::supported_or_empty(
        &path.child("preemptionPolicy"),
        spec.text("preemptionPolicy"),
        &policies,
        errors,
    );
    for (name, value) in spec.fields("overhead").into_iter().flatten() {
        quantities::integral(&path.child("overhead").key(name), name, value, errors);
    }
    if spec.has("os") {
        let (path, name) = (path.child("os"), spec.text("os.name"));
        if rules::required(&path.child("name"), name, errors) && !["linux", "windows"].contains(&name) {
            // Upstream leaves `name` out of this path.
            errors.push(FieldError::not_supported(&path, name, &["linux", "windows"]));
        }
    }
    if spec.has("schedulingGroup") {
        let path = path.child("schedulingGroup").child("podGroupName");
        match spec.at("schedulingGroup.podGroupName").as_str() {
            Some(name) => rules::subdomain(&path, name, errors),
            None => {
                let detail = "must specify one of: `podGroupName`";
                errors.push(FieldError::invalid(&path, Value::Null, detail));
            }
        }
    }
}

fn resource_claims<'s>(path: &Path, spec: &'s Value, errors: &mut Errors) -> BTreeSet<&'s str> {
    let mut names = BTreeSet::new();
    for (index, claim) in spec.items("resourceClaims").iter().enumerate() {
        let path = path.index(index);
        let name = claim.text("name");
        if rules::required(&path.child("name"), name, errors) {
            if names.insert(name) {
                rules::label(&path.child("name"), name, errors);
            } else {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.at(key).as_str() {
                rules::subdomain(&path.child(key), name, errors);
            }
        }
        let detail = match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => continue,
        };
        errors.push(FieldError::invalid(&path, claim.clone(), detail));
    }
    names
}

/// On the host's network a container's port is the host's. In templates it may still be filled in.
fn host_network_ports(path: &Path, spec: &Value, in_pod: bool, errors: &mut Errors) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for (index, container) in spec.items("containers").iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let host = port.int("hostPort").unwrap_or_default();
            let own = port.int("containerPort").unwrap_or_default();
            if (in_pod || host != 0) && host != own {
                let path = path.child("containers").index(index).child("ports").index(port_index);
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path.child("hostPort"), host, detail));
            }
        }
    }
}

/// A host name of the pod's own, instead of one made from its name.
fn host_name(path: &Path, spec: &Value, errors: &mut Errors) {
    let Some(name) = spec.at("hostnameOverride").as_str() else { return };
    let path = path.child("hostnameOverride");
    for (key, detail) in [
        ("setHostnameAsFQDN", "may not be specified when setHostnameAsFQDN is true"),
        ("hostNetwork", "may not be specified when hostNetwork is true"),
    ] {
        if spec.flag(key) {
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    if name.len() > 64 {
        errors.push(FieldError::too_long(&path, 64));
    }
    rules::subdomain(&path, name, errors);
}

/// What a whole pod asks for: as much as its containers together, and no container more than it.
fn pod_resources(path: &Path, spec: &Value, errors: &mut Errors) {
    let resources = spec.at("resources");
    if resources.is_null() {
        return;
    }
    if spec.text("os.name") == "windows" {
        errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
        return;
    }
    if resources.has("claims") {
        let detail = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), detail));
    }
    quantities::pod_requirements(path, resources, errors);
    for (list, noun) in [("requests", "requests"), ("limits", "limits")] {
        for (name, value) in resources.fields(list).into_iter().flatten() {
            if list == "limits" && !name.starts_with("hugepages-") {
                continue;
            }
            let (Some(whole), Some(sum)) = (quantities::parse(value), aggregate(spec, list, name)) else {
                continue;
            };
            if sum > whole {
                let detail = format!(
                    "must be greater than or equal to aggregate container {noun} of {}",
                    sum.canonical()
                );
                errors.push(FieldError::invalid(&path.child(list).key(name), whole.canonical(), detail));
            }
        }
    }
    for (index, container) in spec.items("containers").iter().enumerate() {
        for (name, value) in container.fields("resources.limits").into_iter().flatten() {
            let whole =
                resources.fields("limits").and_then(|limits| limits.get(name)).and_then(quantities::parse);
            let (Some(own), Some(whole)) = (quantities::parse(value), whole) else { continue };
            if own > whole {
                let path = path.child("containers").index(index).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {}", whole.canonical());
                errors.push(FieldError::invalid(&path, own.canonical(), detail));
            }
        }
    }
}

/// What the containers of a pod ask of a resource at most at any one time: those that run together summed, those that run
/// before them one by one, beside the sidecars started until then.
fn aggregate(spec: &Value, list: &str, name: &str) -> Option<Quantity> {
    let of = |container: &Value| {
        container
            .at("resources")
            .fields(list)
            .and_then(|amounts| amounts.get(name))
            .and_then(quantities::parse)
    };
    let together = |sum: Option<Quantity>, amount: Option<Quantity>| match (sum, amount) {
        (Some(sum), Some(amount)) => Some(sum.add(&amount)),
        (sum, amount) => sum.or(amount),
    };
    let mut sum = spec.items("containers").iter().map(of).fold(None, together);
    let (mut sidecars, mut most): (Option<Quantity>, Option<Quantity>) = (None, None);
    for container in spec.items("initContainers") {
        let now = if container.text("restartPolicy") == "Always" {
            sum = together(sum, of(container));
            sidecars = together(sidecars, of(container));
            sidecars.clone()
        } else {
            together(sidecars.clone(), of(container))
        };
        most = match (most, now) {
            (Some(most), Some(now)) => Some(if now > most { now } else { most }),
            (most, now) => most.or(now),
        };
    }
    match (sum, most) {
        (Some(sum), Some(most)) => Some(if most > sum { most } else { sum }),
        (sum, most) => sum.or(most),
    }
}

fn host_users(path: &Path, spec: &Value, errors: &mut Errors) {
    if spec.at("hostUsers") != &Value::Bool(false) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(key) {
            errors.push(FieldError::forbidden(&path.child(shown), "when `hostUsers` is false"));
        }
    }
}

/// What libc's resolver takes.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn dns_config(path: &Path, spec: &Value, errors: &mut Errors) {
    let config = spec.at("dnsConfig");
    let none = spec.text("dnsPolicy") == "None";
    if config.is_null() {
        if none {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(path, detail));
        }
        return;
    }
    let servers = config.items("nameservers");
    let servers_path = path.child("nameservers");
    if none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&servers_path, detail));
        return;
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(FieldError::invalid(&servers_path, config.at("nameservers").clone(), detail));
    }
    for (index, server) in servers.iter().enumerate() {
        address::ip(&servers_path.index(index), server.as_str().unwrap_or_default(), &[], errors);
    }
    let (searches, searches_path) = (config.items("searches"), path.child("searches"));
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.push(FieldError::invalid(&searches_path, config.at("searches").clone(), detail));
    }
    let texts: Vec<&str> = searches.iter().map(|search| search.as_str().unwrap_or_default()).collect();
    if texts.join(" ").len() > SEARCH_CHARACTERS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
        );
        errors.push(FieldError::invalid(&searches_path, config.at("searches").clone(), detail));
    }
    for (index, search) in texts.iter().enumerate() {
        // A lone dot is the root; a closing dot is dropped; underscores are let through.
        let trimmed = search.strip_suffix('.').unwrap_or(search);
        if !(*search == "." || names::dns1123_subdomain(&trimmed.replace('_', "a")).is_empty()) {
            rules::subdomain(&searches_path.index(index), trimmed, errors);
        }
    }
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.push(FieldError::required(&path.child("options").index(index), "must not be empty"));
        }
    }
}
