//! Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Errors, address, endpoints::endpoint_ip, rules};
use crate::{
    field::{FieldError, Path},
    resources::access::{Get, same},
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// A day, the longest a client stays with its endpoint.
const AFFINITY_SECONDS_MAX: i64 = 86400;

fn is_headless(spec: &Value) -> bool {
    matches!(spec.items("clusterIPs"), [only] if only == "None")
}

const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// What holds for every service; addresses that `old` (null for a new service) has are not judged again.
pub(super) fn service(service: &Value, old: &Value, errors: &mut Errors) {
    let annotation =
        |name: &str| service.fields("metadata.annotations").and_then(|a| a.get(name)).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (annotation(TOPOLOGY_MODE), annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let path = Path::from("metadata.annotations").key(TOPOLOGY_MODE);
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.push(FieldError::invalid(&path, mode, detail));
    }
    let (path, spec) = (Path::new("spec"), service.at("spec"));
    let kind = spec.text("type");
    if spec.items("ports").is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => external_name(&path, spec, errors),
        _ => {}
    }
    let ports = spec.items("ports");
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        self::port(&path.child("ports").index(index), port, ports.len() > 1, &mut names, errors);
    }
    rules::labels(&path.child("selector"), spec.at("selector"), errors);
    session_affinity(&path, spec, errors);
    cluster_ips(&path, spec, old.at("spec"), errors);
    let known = texts(old.items("spec.externalIPs"));
    for (index, ip) in texts(spec.items("externalIPs")).into_iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        if address::ip(&path, ip, &known, errors) {
            endpoint_ip(&path, ip, errors);
        }
    }
    rules::one_of(&path.child("type"), kind, &TYPES, errors);
    node_ports(&path, kind, ports, errors);
    duplicates(&path, ports, errors);
    source_ranges(service, old, errors);
    load_balancer_only(&path, spec, errors);
    traffic_policies(&path, spec, errors);
}

/// The strings of a list.
fn texts(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(Value::as_str).collect()
}

fn external_name(path: &Path, spec: &Value, errors: &mut Errors) {
    if !spec.items("clusterIPs").is_empty() {
        let detail = "may not be set for ExternalName services";
        errors.push(FieldError::forbidden(&path.child("clusterIPs"), detail));
    }
    for (key, set) in
        [("ipFamilies", !spec.items("ipFamilies").is_empty()), ("ipFamilyPolicy", spec.has("ipFamilyPolicy"))]
    {
        if set {
            let detail = "may not be set for ExternalName services";
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
    // A closing dot is how some resolvers are told the name is whole.
    let name = spec.text("externalName").strip_suffix('.').unwrap_or(spec.text("externalName"));
    if rules::required(&path.child("externalName"), name, errors) {
        rules::subdomain(&path.child("externalName"), name, errors);
    }
}

fn port<'s>(
    path: &Path,
    port: &'s Value,
    needs_name: bool,
    names: &mut BTreeSet<&'s str>,
    errors: &mut Errors,
) {
    let name = port.text("name");
    if needs_name && name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else if !name.is_empty() {
        rules::label(&path.child("name"), name, errors);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
    rules::port_number(&path.child("port"), port.at("port"), errors);
    rules::one_of(&path.child("protocol"), port.text("protocol"), &PROTOCOLS, errors);
    rules::port(&path.child("targetPort"), port.at("targetPort"), errors);
    if let Some(protocol) = port.at("appProtocol").as_str() {
        rules::qualified(&path.child("appProtocol"), protocol, errors);
    }
}

fn session_affinity(path: &Path, spec: &Value, errors: &mut Errors) {
    let affinity = spec.text("sessionAffinity");
    rules::one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"], errors);
    let (config, config_path) = (spec.at("sessionAffinityConfig"), path.child("sessionAffinityConfig"));
    match affinity {
        "ClientIP" => {
            let timeout_path = config_path.child("clientIP").child("timeoutSeconds");
            match config.int("clientIP.timeoutSeconds") {
                None => {
                    let detail = "when session affinity type is ClientIP";
                    errors.push(FieldError::required(&timeout_path, detail));
                }
                Some(seconds) if seconds <= 0 || seconds > AFFINITY_SECONDS_MAX => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.push(FieldError::invalid(&timeout_path, seconds, detail));
                }
                Some(_) => {}
            }
        }
        "None" if !config.is_null() => {
            let detail = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden(&config_path, detail));
        }
        _ => {}
    }
}

fn cluster_ips(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let (ip, ips, ips_path) =
        (spec.text("clusterIP"), texts(spec.items("clusterIPs")), path.child("clusterIPs"));
    let all = || spec.at("clusterIPs").clone();
    match (ip, ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(&ips_path, all(), detail));
        }
        (_, None) => errors.push(FieldError::required(&ips_path, "")),
        (ip, Some(first)) if ip != *first => {
            errors.push(FieldError::invalid(&ips_path, all(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = texts(spec.items("ipFamilies"));
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        if !["IPv4", "IPv6"].contains(family) {
            errors.push(FieldError::not_supported(&path, *family, &["IPv4", "IPv6"]));
        }
        if families.iter().take(index).any(|other| other == family) {
            errors.push(FieldError::duplicate(&path, *family));
        }
    }
    if let Some(policy) = spec.at("ipFamilyPolicy").as_str() {
        let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        if !policies.contains(&policy) {
            errors.push(FieldError::not_supported(&path.child("ipFamilyPolicy"), policy, &policies));
        }
    }
    let known = texts(before.items("clusterIPs"));
    let mut readable = true;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                readable = false;
                errors.push(FieldError::invalid(&ips_path, all(), "'None' must be the first and only value"));
            }
            continue;
        }
        readable &= address::ip(&ips_path.index(index), ip, &known, errors);
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(&ips_path, all(), "may only hold up to 2 values"));
    }
    if readable {
        families_of(&ips_path, &ips, &families, spec, errors);
    }
}

/// One address a family at most, and each of the family it stands for.
fn families_of(path: &Path, ips: &[&str], families: &[&str], spec: &Value, errors: &mut Errors) {
    let is_six = |ip: &str| address::parse(ip).is_some_and(|ip| ip.is_ipv6());
    let sixes = ips.iter().filter(|ip| is_six(ip)).count();
    if ips.len() > 1 && (sixes == 0 || sixes == ips.len()) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, spec.at("clusterIPs").clone(), detail));
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in ips.iter().zip(families).enumerate() {
        if (*family == "IPv4" && is_six(ip)) || (*family == "IPv6" && !is_six(ip)) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(&path.index(index), *ip, detail));
        }
    }
}

fn duplicates(path: &Path, ports: &[Value], errors: &mut Errors) {
    for (index, port) in ports.iter().enumerate() {
        let id = |port: &Value| (port.at("protocol").clone(), port.at("port").clone());
        if ports.iter().take(index).any(|other| id(other) == id(port)) {
            // Upstream prints its internal type, whose fields have Go's names.
            let value = json!({"Name": "", "Protocol": port.at("protocol"), "AppProtocol": null,
                "Port": port.at("port"), "TargetPort": 0, "NodePort": 0});
            errors.push(FieldError::duplicate(&path.child("ports").index(index), value));
        }
    }
}

fn node_ports(path: &Path, kind: &str, ports: &[Value], errors: &mut Errors) {
    let numbered =
        || ports.iter().enumerate().filter(|(_, port)| port.int("nodePort").unwrap_or_default() != 0);
    let at = |index: usize| path.child("ports").index(index).child("nodePort");
    if kind == "ClusterIP" {
        for (index, _) in numbered() {
            errors.push(FieldError::forbidden(&at(index), "may not be used when `type` is 'ClusterIP'"));
        }
    }
    for (index, port) in numbered() {
        let id = |port: &Value| (port.at("protocol").clone(), port.at("nodePort").clone());
        if ports.iter().take(index).any(|other| id(other) == id(port)) {
            errors.push(FieldError::duplicate(&at(index), port.at("nodePort").clone()));
        }
    }
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn source_ranges(service: &Value, old: &Value, errors: &mut Errors) {
    let balanced = service.text("spec.type") == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = texts(service.items("spec.loadBalancerSourceRanges"));
    let annotation = |object: &Value| {
        let value = object.fields("metadata.annotations").and_then(|a| a.get(SOURCE_RANGES));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    if !ranges.is_empty() {
        // Upstream spells this path as its Go field.
        let path = Path::new("spec").child("LoadBalancerSourceRanges");
        if !balanced {
            errors.push(FieldError::forbidden(&path, only));
        }
        let known = old.items("spec.loadBalancerSourceRanges");
        let known: Vec<&str> = texts(known).into_iter().map(str::trim).collect();
        for (index, range) in ranges.into_iter().enumerate() {
            address::cidr(&path.index(index), range.trim(), &known, errors);
        }
    } else if let Some(ranges) = annotation(service) {
        let path = Path::from("metadata.annotations").key(SOURCE_RANGES);
        if !balanced {
            errors.push(FieldError::forbidden(&path, only));
        }
        if annotation(old).as_ref() != Some(&ranges) && !ranges.trim().is_empty() {
            for range in ranges.split(',') {
                address::cidr(&path, range.trim(), &[], errors);
            }
        }
    }
}

fn load_balancer_only(path: &Path, spec: &Value, errors: &mut Errors) {
    let balanced = spec.text("type") == "LoadBalancer";
    let allocate = "allocateLoadBalancerNodePorts";
    match (balanced, spec.has(allocate)) {
        // Upstream leaves `spec` out of this path.
        (true, false) => errors.push(FieldError::required(&Path::new(allocate), "")),
        (false, true) => {
            let detail = "may only be used when `type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden(&path.child(allocate), detail));
        }
        _ => {}
    }
    if let Some(class) = spec.at("loadBalancerClass").as_str() {
        let path = path.child("loadBalancerClass");
        if balanced {
            rules::qualified(&path, class, errors);
        } else {
            errors.push(FieldError::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
    }
}

fn traffic_policies(path: &Path, spec: &Value, errors: &mut Errors) {
    let kind = spec.text("type");
    let open = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.items("externalIPs").is_empty());
    let (external, external_path) = (spec.text("externalTrafficPolicy"), path.child("externalTrafficPolicy"));
    if open {
        rules::one_of(&external_path, external, &["Cluster", "Local"], errors);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(&external_path, external, detail));
    }
    let checked = kind == "LoadBalancer" && external == "Local";
    let port = spec.int("healthCheckNodePort").unwrap_or_default();
    if !checked && port != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(&path.child("healthCheckNodePort"), port, detail));
    }
    if checked && port == 0 {
        errors.push(FieldError::required(&path.child("healthCheckNodePort"), ""));
    } else if checked {
        rules::port_number(&path.child("healthCheckNodePort"), spec.at("healthCheckNodePort"), errors);
    }
    let internal_path = path.child("internalTrafficPolicy");
    match spec.at("internalTrafficPolicy").as_str() {
        None if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.push(FieldError::required(&internal_path, ""));
        }
        Some(policy) if !["Cluster", "Local"].contains(&policy) => {
            errors.push(FieldError::not_supported(&internal_path, policy, &["Cluster", "Local"]));
        }
        _ => {}
    }
    if let Some(distribution) = spec.at("trafficDistribution").as_str() {
        let supported = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        if !supported.contains(&distribution) {
            let path = path.child("trafficDistribution");
            errors.push(FieldError::not_supported(&path, distribution, &supported));
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    cluster_ips_update(&path, spec, before, errors);
    families_update(&path, spec, before, errors);
    let both = |test: &dyn Fn(&Value) -> bool| test(spec) && test(before);
    if both(&|spec| spec.text("type") == "LoadBalancer")
        && !same(spec.at("loadBalancerClass"), before.at("loadBalancerClass"))
    {
        let value = spec.at("loadBalancerClass").clone();
        errors.push(FieldError::invalid(&path.child("loadBalancerClass"), value, "may not change once set"));
    }
    let checked =
        |spec: &Value| spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    if both(&checked) && spec.int("healthCheckNodePort") != before.int("healthCheckNodePort") {
        errors.push(FieldError::forbidden(&path.child("healthCheckNodePort"), rules::IMMUTABLE));
    }
}

/// Addresses stay; a second one may come and go.
fn cluster_ips_update(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) {
    let both = |test: &dyn Fn(&Value) -> bool| test(spec) && test(before);
    if spec.text("type") == "ExternalName" || before.text("type") == "ExternalName" || both(&is_headless) {
        return;
    }
    let (new, old) = (spec.items("clusterIPs"), before.items("clusterIPs"));
    let mut refuse = |index: usize, detail: &str| {
        let path = path.child("clusterIPs").index(index);
        errors.push(FieldError::invalid(&path, spec.at("clusterIPs").clone(), detail));
    };
    if new.is_empty() && !old.is_empty() {
        refuse(0, "primary clusterIP can not be unset");
        return;
    }
    // Where one was added or released the first alone is compared.
    let compared = if new.len() == old.len() { new.len() } else { 1 };
    for (index, _) in new.iter().zip(old).enumerate().take(compared).filter(|(_, (new, old))| new != old) {
        refuse(index, "may not change once set");
    }
    if new.len() == 1 && old.len() > 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        let value = spec.at("ipFamilyPolicy").clone();
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), value, detail));
    }
}

/// The first family stays; a second one may come and go.
fn families_update(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) {
    let external = |spec: &Value| spec.text("type") == "ExternalName";
    if external(spec) || external(before) || is_headless(spec) || is_headless(before) {
        return;
    }
    let (new, old) = (spec.items("ipFamilies"), before.items("ipFamilies"));
    let first = path.child("ipFamilies").index(0);
    let changed = "may not change once set";
    if new.len() == old.len() {
        for _ in new.iter().zip(old).filter(|(new, old)| new != old) {
            errors.push(FieldError::invalid(&first, spec.at("ipFamilies").clone(), changed));
        }
        return;
    }
    if old.len() > new.len() && spec.items("clusterIPs").is_empty() {
        let detail = "primary ipFamily can not be unset";
        errors.push(FieldError::invalid(&first, spec.at("ipFamilies").clone(), detail));
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        errors.push(FieldError::invalid(&first, spec.at("clusterIPs").clone(), changed));
    }
    if old.len() > new.len() && new.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        let value = spec.at("ipFamilyPolicy").clone();
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), value, detail));
    }
}

/// What a load balancer says of itself.
pub(super) fn status(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::from("status.loadBalancer.ingress");
    let list = new.items("status.loadBalancer.ingress");
    if new.text("spec.type") != "LoadBalancer" && !list.is_empty() {
        errors.push(FieldError::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (index, ingress) in list.iter().enumerate() {
        let path = path.index(index);
        ingress_point(&path, ingress, old, errors);
        let (ip, mode, mode_path) = (ingress.text("ip"), ingress.at("ipMode"), path.child("ipMode"));
        match (mode.as_str(), ip.is_empty()) {
            (None, false) => {
                errors.push(FieldError::required(&mode_path, "must be specified when `ip` is set"))
            }
            (Some(_), true) => {
                errors.push(FieldError::forbidden(&mode_path, "may not be specified when `ip` is not set"));
            }
            (Some(mode), false) if !["Proxy", "VIP"].contains(&mode) => {
                errors.push(FieldError::not_supported(&mode_path, mode, &["Proxy", "VIP"]));
            }
            _ => {}
        }
    }
}

/// Where a load balancer is reached: an address, or a name that is none.
pub(super) fn ingress_point(path: &Path, ingress: &Value, old: &Value, errors: &mut Errors) {
    let (ip, host) = (ingress.text("ip"), ingress.text("hostname"));
    if !ip.is_empty() {
        let known: Vec<&str> =
            old.items("status.loadBalancer.ingress").iter().map(|ingress| ingress.text("ip")).collect();
        address::ip(&path.child("ip"), ip, &known, errors);
    }
    if !host.is_empty() {
        rules::subdomain(&path.child("hostname"), host, errors);
        if address::parse(host).is_some() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(&path.child("hostname"), host, detail));
        }
    }
}
