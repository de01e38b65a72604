//! What a kubelet may say of a pod (upstream: `ValidatePodStatusUpdate`, in its order).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{annotations, security};
use crate::{
    access::Get as _,
    resources::validate::{core::one_a_family, cursor::Cursor},
};

/// The longest message about a device's health, in bytes.
const HEALTH_MESSAGE_MAX: usize = 1024;
/// Statuses of containers, and the containers they are of.
const LISTS: [(&str, &str); 2] =
    [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")];
const EPHEMERAL: &str = "ephemeralContainerStatuses";
/// What a container's status says of its devices.
const HEALTH: &str = "allocatedResourcesStatus";

/// A status may be anything its kubelet says, but containers that ended for good stay ended, and what is said is said of what the pod
/// has.
pub(in crate::resources::validate) fn update_status(pod: Cursor<'_>) {
    let (spec, status) = (pod.field("spec"), pod.field("status"));
    let at = pod.field("metadata.annotations");
    annotations::kept(at);
    annotations::specific(at, spec);
    conditions(status);
    if spec.text("nodeName") != spec.old.text("nodeName") {
        status.field("nodeName").forbidden("may not be changed directly");
    }
    nominated(status.field("nominatedNodeName"), spec.old.text("nodeName"));
    observed(status);
    status.field("qosClass").immutable();
    ended(spec.old, status);
    claims(spec, status.field("resourceClaimStatuses"));
    if let Some(claim) = status.field("extendedResourceClaimStatus").if_set() {
        extended_claim(spec, claim);
    }
    addresses(status.field("podIPs"));
    addresses(status.field("hostIPs"));
    users(pod, status);
    for (list, containers) in LISTS {
        health(status.field(list), spec.list(containers));
    }
    // Debugging containers are given no resources.
    for container in status.each(EPHEMERAL).filter(|container| !container.list(HEALTH).is_empty()) {
        container.field(HEALTH).forbidden("must not be specified in container status");
    }
}

fn observed(of: Cursor<'_>) {
    let seen = of.field("observedGeneration");
    if seen.number().is_some_and(|seen| seen < 0) {
        seen.invalid("must be a non-negative integer");
    }
}

fn conditions(status: Cursor<'_>) {
    for condition in status.each("conditions") {
        observed(condition);
        if !["PodScheduled", "Ready", "Initialized"].contains(&condition.text("type")) {
            condition.field("type").named("Type").qualified();
        }
    }
}

fn nominated(node: Cursor<'_>, bound_to: &str) {
    if node.changed() && !node.is_empty() {
        node.subdomain();
        if !bound_to.is_empty() {
            node.forbidden("may not be set on pods that are already bound to a node");
        }
    }
}

/// Containers that ended and do not start again stay ended.
fn ended(spec: &Value, status: Cursor<'_>) {
    let starts_all = |container: &Value| {
        container.items("restartPolicyRules").iter().any(|rule| rule.text("action") == "RestartAllContainers")
    };
    let mut containers = LISTS.iter().flat_map(|(_, containers)| spec.items(containers));
    if !containers.any(starts_all) {
        for (list, containers) in LISTS {
            stay_ended(status.field(list), |name, code| {
                let mut of_spec = spec.items(containers).iter();
                let of_name = of_spec.find(|container| container.text("name") == name);
                of_name.is_some_and(|container| restarts(container, spec.text("restartPolicy"), code))
            });
        }
    }
    stay_ended(status.field(EPHEMERAL), |_, _| false);
}

/// Refuses what is no longer ended, unless a container of this name and exit code may start again. Upstream names a status by its place
/// in the old list.
fn stay_ended(statuses: Cursor<'_>, may_start: impl Fn(&str, i64) -> bool) {
    for (index, before) in statuses.old.items("").iter().enumerate() {
        let (ended, name) = (before.at("state.terminated"), before.text("name"));
        let goes_on = |now: &Value| now.text("name") == name && !now.has("state.terminated");
        if !ended.is_null()
            && statuses.values().iter().any(goes_on)
            && !may_start(name, ended.int("exitCode").unwrap_or_default())
        {
            let state = statuses.item(index).field("state");
            state.forbidden("may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container of a pod of this policy starts again when it ended with `code` (upstream: `ContainerShouldRestart`).
fn restarts(container: &Value, pod_policy: &str, code: i64) -> bool {
    let own = container.text("restartPolicy");
    let matches = |rule: &&Value| {
        let listed = rule.items("exitCodes.values").iter().any(|value| value.as_i64() == Some(code));
        match rule.text("exitCodes.operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let rule = container.items("restartPolicyRules").iter().find(matches);
    if !own.is_empty() && rule.is_some_and(|rule| rule.text("action") == "Restart") {
        return true;
    }
    let policy = if own.is_empty() { pod_policy } else { own };
    match policy {
        "OnFailure" => code != 0,
        "Never" => false,
        _ => true,
    }
}

/// What claims were made for a pod: each of one it has, once.
fn claims(spec: Cursor<'_>, statuses: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for status in statuses.items() {
        let (name, made) = (status.field("name"), status.field("resourceClaimName"));
        if !spec.list("resourceClaims").iter().any(|claim| claim.text("name") == name.str()) {
            name.invalid("must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.str()) {
            name.duplicate();
        }
        if made.is_set() {
            made.subdomain();
        }
    }
}

/// The claim made for what containers ask of extended resources. Upstream names a request's path without its mapping.
fn extended_claim(spec: Cursor<'_>, claim: Cursor<'_>) {
    claim.field("requestMappings").required_with("at least one request mapping is required");
    let containers: Vec<&Value> = LISTS.iter().flat_map(|(_, list)| spec.list(list)).collect();
    let mut seen = BTreeSet::new();
    for mapping in claim.each("requestMappings") {
        let parts = ["containerName", "resourceName", "requestName"];
        let [container, resource, request] = parts.map(|part| mapping.field(part));
        match containers.iter().find(|of| of.text("name") == container.str()) {
            Some(of) if of.at("resources.requests").get(resource.str()).is_none() => resource.invalid(
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                 spec.containers.resources.requests",
            ),
            Some(_) => {}
            None => container
                .invalid("must match the name of an entry in spec.initContainers.name or spec.containers.name"),
        }
        request.reported_at(claim.field("requestName")).label();
        if !seen.insert([container.str(), resource.str(), request.str()]) {
            for part in [container, resource, request] {
                part.duplicate();
            }
        }
    }
    let name = claim.field("resourceClaimName");
    if name.required() {
        name.subdomain();
    }
}

/// A pod's or its host's addresses: one of each family at most. Those reported before are not judged again.
fn addresses(list: Cursor<'_>) {
    let known: Vec<&str> = list.old.items("").iter().map(|ip| ip.text("ip")).collect();
    for address in list.items() {
        address.field("ip").reported_at(address).ip(&known);
    }
    if !one_a_family(&list.items().map(|address| address.text("ip")).collect::<Vec<_>>()) {
        list.invalid("may specify no more than one IP for each IP family");
    }
}

/// As whom containers run: what a pod's system knows, and ids the kernel knows.
fn users(pod: Cursor<'_>, status: Cursor<'_>) {
    let lists = LISTS.iter().map(|(list, _)| *list).chain([EPHEMERAL]);
    for user in lists.flat_map(|list| status.each(list)).map(|of| of.field("user.linux")) {
        match pod.text("spec.os.name") {
            "windows" if user.is_set() => user.forbidden("cannot be set for a windows pod"),
            "" | "linux" if user.is_set() => security::linux_user(user),
            _ => {}
        }
    }
}

/// How the devices of containers do: each of a resource its container asks for, each device once.
fn health(statuses: Cursor<'_>, containers: &[Value]) {
    for status in statuses.items() {
        let container = containers.iter().find(|container| container.text("name") == status.text("name"));
        for resource in status.each(HEALTH) {
            let name = resource.field("name");
            if let Some(why) = container.and_then(|container| unasked(container, name.str())) {
                name.invalid(why);
            }
            let mut seen = BTreeSet::new();
            for device in resource.each("resources") {
                device.field("health").supported(&["Healthy", "Unhealthy", "Unknown"]);
                let (id, message) = (device.field("resourceID"), device.field("message"));
                match message.str().len() {
                    0 if message.is_set() => message.missing("must be non-empty if specified"),
                    length if length > HEALTH_MESSAGE_MAX => message.too_long(HEALTH_MESSAGE_MAX),
                    _ => {}
                }
                if !seen.insert(id.str()) {
                    id.duplicate();
                }
            }
        }
    }
}

/// Why a container has no such resource; none where it asks for it.
fn unasked(container: &Value, name: &str) -> Option<&'static str> {
    let Some(claim) = name.strip_prefix("claim:") else {
        let asked = container.at("resources.requests").get(name).is_some();
        return (!asked).then_some("must match one of the container's resource requests");
    };
    let asked = container.items("resources.claims").iter().any(|of| match of.text("request") {
        "" => of.text("name") == claim,
        request => {
            claim.strip_suffix(request).and_then(|rest| rest.strip_suffix('/')) == Some(of.text("name"))
        }
    });
    (!asked).then_some(
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
         'claim:<claimName>' if request is empty",
    )
}
