//! Pods, and the pod specs inside templates.

mod annotations;
mod container;
mod env;
mod handler;
mod resize;
mod resources;
mod restart;
mod scheduling;
mod security;
mod status;
mod update;
mod volume;
mod windows;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{cursor::Cursor, meta};
use crate::{access::Get as _, names};

pub(super) use self::resize::resize;
pub(super) use self::scheduling::tolerations;
pub(super) use self::status::update_status;
pub(super) use self::update::{update, update_ephemeral_containers};

/// What holds for every pod, new or changed.
pub(super) fn pod(pod: Cursor<'_>) {
    let spec = pod.field("spec");
    annotations::specific(pod.field("metadata.annotations"), spec);
    self::spec(spec, Some(pod.text("metadata.name")));
    if spec.text("serviceAccountName").is_empty() {
        for source in spec.each("volumes").flat_map(|volume| volume.field("projected").each("sources")) {
            if source.has("serviceAccountToken") {
                let detail = "must not be specified when serviceAccountName is not set";
                source.field("serviceAccountToken").forbidden(detail);
            }
        }
    }
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec.each(list))
        .for_each(container::only_in_pods);
}

/// What holds for new pods.
pub(super) fn create(pod: Cursor<'_>) {
    let spec = pod.field("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers").forbidden("cannot be set on create");
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        spec.field("nodeName").forbidden("cannot be set until all schedulingGates have been cleared");
    }
    annotations::match_fields(pod.field("metadata.annotations"), spec);
}

/// The template of another kind.
pub(super) fn template(template: Cursor<'_>) {
    // Upstream leaves `metadata` out of these paths.
    template.field("metadata.labels").named("labels").labels();
    let annotations = template.field("metadata.annotations").named("annotations");
    meta::annotations(annotations);
    let spec = template.field("spec");
    annotations::specific(annotations, spec);
    self::spec(spec, None);
    annotations::match_fields(annotations, spec);
    if !spec.list("ephemeralContainers").is_empty() {
        spec.field("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template");
    }
}

/// All containers, in the order upstream visits them in.
fn containers(spec: Cursor<'_>) -> impl Iterator<Item = Cursor<'_>> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| spec.each(list))
}

/// A pod spec, in upstream's order; `pod` is the name of the pod it is of, none in a template.
fn spec(spec: Cursor<'_>, pod: Option<&str>) {
    let in_pod = pod.is_some();
    spec.field("terminationGracePeriodSeconds").required();
    let volumes = volume::volumes(spec.field("volumes"), pod.unwrap_or_default());
    let claims = resource_claims(spec.field("resourceClaims"));
    let context = container::Context { spec, volumes, claims };
    container::containers(&context);
    container::init_containers(&context);
    container::ephemeral_containers(&context);
    resources::whole_pod(spec);
    host_network_ports(spec, in_pod);
    spec.plain(&["restartPolicy", "dnsPolicy"]);
    spec.field("nodeSelector").labels();
    security::pod(spec);
    scheduling::affinity(spec.field("affinity"));
    dns_config(spec);
    for gate in spec.each("readinessGates") {
        gate.field("conditionType").qualified();
    }
    scheduling::gates(spec.field("schedulingGates"));
    scheduling::spread(spec.field("topologySpreadConstraints"));
    windows::host_process(spec);
    host_users(spec);
    host_name(spec);
    spec.plain(&["serviceAccountName", "nodeName", "activeDeadlineSeconds", "hostname", "subdomain"]);
    tolerations(spec.field("tolerations"));
    for alias in spec.each("hostAliases") {
        alias.field("ip").ip(&[]);
        for hostname in alias.each("hostnames") {
            hostname.subdomain();
        }
    }
    spec.plain(&["priorityClassName", "runtimeClassName", "preemptionPolicy"]);
    for (name, amount) in spec.field("overhead").entries() {
        amount.integral(name);
    }
    if let Some(os) = spec.field("os").if_set() {
        // Upstream leaves `name` out of the second path.
        if os.field("name").required() && !os.field("name").is_enumerated() {
            os.field("name").reported_at(os).enumerated();
        }
        match os.text("name") {
            "linux" => windows::no_options(spec),
            "windows" => windows::no_linux(spec),
            _ => {}
        }
    }
    if let Some(group) = spec.field("schedulingGroup").if_set() {
        let name = group.field("podGroupName");
        if name.is_set() {
            name.subdomain();
        } else {
            name.invalid_value(Value::Null, "must specify one of: `podGroupName`");
        }
    }
    env::file_keys(spec);
}

fn resource_claims(claims: Cursor<'_>) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.field("name");
        if name.required() {
            if names.insert(name.str()) {
                name.label();
            } else {
                name.duplicate();
            }
        }
        claim.plain(&["resourceClaimName", "resourceClaimTemplateName"]);
        match (claim.has("resourceClaimName"), claim.has("resourceClaimTemplateName")) {
            (true, true) => claim.invalid(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => {
                claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
    }
    names
}

/// On the host's network a container's port is the host's. In templates it may still be filled in.
fn host_network_ports(spec: Cursor<'_>, in_pod: bool) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for port in spec.each("containers").flat_map(|container| container.each("ports")) {
        let host = port.int("hostPort");
        if (in_pod || host != 0) && host != port.int("containerPort") {
            port.field("hostPort").invalid("must match `containerPort` when `hostNetwork` is true");
        }
    }
}

/// A host name of the pod's own, instead of one made from its name.
fn host_name(spec: Cursor<'_>) {
    let Some(name) = spec.field("hostnameOverride").if_set() else { return };
    for key in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.flag(key) {
            name.forbidden(format!("may not be specified when {key} is true"));
        }
    }
    name.bounded(64);
    name.subdomain();
}

fn host_users(spec: Cursor<'_>) {
    if spec.at("hostUsers") != &Value::Bool(false) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(key) {
            spec.field(shown).forbidden("when `hostUsers` is false");
        }
    }
    // What an older server let through may still be changed.
    let mapped = |spec: &Value| {
        spec.at("hostUsers") == &Value::Bool(false)
            && ["initContainers", "containers", "ephemeralContainers"]
                .iter()
                .any(|list| spec.items(list).iter().any(|c| !c.items("volumeDevices").is_empty()))
    };
    if mapped(spec.old) {
        return;
    }
    for container in containers(spec).filter(|container| !container.list("volumeDevices").is_empty()) {
        container.field("volumeDevices").forbidden("when `hostUsers` is false");
    }
}

/// What libc's resolver takes.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn dns_config(spec: Cursor<'_>) {
    let config = spec.field("dnsConfig");
    let none = spec.text("dnsPolicy") == "None";
    if !config.is_set() {
        if none {
            config.missing("must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    }
    let (servers, searches) = (config.field("nameservers"), config.field("searches"));
    if none && servers.is_empty() {
        return servers.missing("must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.values().len() > NAMESERVERS_MAX {
        servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    servers.items().for_each(|server| {
        server.ip(&[]);
    });
    if searches.values().len() > SEARCHES_MAX {
        searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if searches.strs().join(" ").len() > SEARCH_CHARACTERS_MAX {
        searches.invalid(format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
        ));
    }
    for search in searches.items().filter(|search| search.str() != ".") {
        // A closing dot is dropped; underscores are let through.
        let name = search.str().strip_suffix('.').unwrap_or(search.str());
        if !names::dns1123_subdomain(&name.replace('_', "a")).is_empty() {
            search.format_of(name, names::dns1123_subdomain);
        }
    }
    for option in config.each("options").filter(|option| option.text("name").is_empty()) {
        option.missing("must not be empty");
    }
}
