//! Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Errors, rules};
use crate::{
    field::{FieldError, Path},
    resources::access::{Get, same},
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// A day, the longest a client stays with its endpoint.
const AFFINITY_SECONDS_MAX: i64 = 86400;

fn is_headless(spec: &Value) -> bool {
    spec.text("clusterIP") == "None"
}

pub(super) fn service(service: &Value, errors: &mut Errors) {
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
    cluster_ips(&path, spec, errors);
    for (index, ip) in spec.items("externalIPs").iter().enumerate() {
        external_ip(&path.child("externalIPs").index(index), ip.as_str().unwrap_or_default(), errors);
    }
    rules::one_of(&path.child("type"), kind, &TYPES, errors);
    node_ports(&path, kind, ports, errors);
    duplicates(&path, ports, errors);
    source_ranges(&path, spec, errors);
    load_balancer_only(&path, spec, errors);
    traffic_policies(&path, spec, errors);
}

fn external_name(path: &Path, spec: &Value, errors: &mut Errors) {
    if !spec.items("clusterIPs").is_empty() {
        let detail = "may not be set for ExternalName services";
        errors.push(FieldError::forbidden(&path.child("clusterIPs"), detail));
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if spec.has(key) && !same(spec.at(key), &Value::Null) {
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
    let protocol = port.text("appProtocol");
    if !protocol.is_empty() {
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

fn cluster_ips(path: &Path, spec: &Value, errors: &mut Errors) {
    if spec.text("type") == "ExternalName" {
        return;
    }
    let (ip, ips, ips_path) = (spec.text("clusterIP"), spec.items("clusterIPs"), path.child("clusterIPs"));
    if !ip.is_empty() && ips.is_empty() {
        errors.push(FieldError::required(&ips_path, ""));
    } else if let Some(first) = ips.first()
        && first != ip
    {
        let detail = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&ips_path, spec.at("clusterIPs").clone(), detail));
    }
    if ips.len() > 2 {
        let detail = "may only hold up to 2 values";
        errors.push(FieldError::invalid(&ips_path, spec.at("clusterIPs").clone(), detail));
    }
    for (index, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let path = ips_path.index(index);
        if ip == "None" {
            if ips.len() > 1 {
                let detail = "'None' must be the first and only value";
                errors.push(FieldError::invalid(&ips_path, spec.at("clusterIPs").clone(), detail));
            }
        } else if !ip.is_empty() {
            rules::ip(&path, ip, errors);
        }
    }
    let families = spec.items("ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        let path = path.child("ipFamilies").index(index);
        if !["IPv4", "IPv6"].contains(&family) {
            errors.push(FieldError::not_supported(&path, family, &["IPv4", "IPv6"]));
        }
        if families.iter().take(index).any(|other| other == family) {
            errors.push(FieldError::duplicate(&path, family));
        }
    }
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    rules::supported_or_empty(&path.child("ipFamilyPolicy"), spec.text("ipFamilyPolicy"), &policies, errors);
}

/// An address from outside must be one the outside can send to.
fn external_ip(path: &Path, value: &str, errors: &mut Errors) {
    if !rules::ip(path, value, errors) {
        return;
    }
    let Ok(ip) = value.parse::<std::net::IpAddr>() else { return };
    let detail = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if matches!(ip, std::net::IpAddr::V4(v4) if v4.is_link_local())
        || matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
    {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, value, detail));
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

fn source_ranges(path: &Path, spec: &Value, errors: &mut Errors) {
    let ranges = spec.items("loadBalancerSourceRanges");
    if ranges.is_empty() {
        return;
    }
    // Upstream spells this path as its Go field.
    let path = path.child("LoadBalancerSourceRanges");
    if spec.text("type") != "LoadBalancer" {
        errors.push(FieldError::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
    }
    for (index, range) in ranges.iter().enumerate() {
        rules::cidr(&path.index(index), range.as_str().unwrap_or_default().trim(), errors);
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
    let class = spec.text("loadBalancerClass");
    if !class.is_empty() {
        let path = path.child("loadBalancerClass");
        rules::qualified(&path, class, errors);
        if !balanced {
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
    if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        let internal = spec.text("internalTrafficPolicy");
        rules::one_of(&path.child("internalTrafficPolicy"), internal, &["Cluster", "Local"], errors);
    }
    let distribution = spec.text("trafficDistribution");
    let supported = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    rules::supported_or_empty(&path.child("trafficDistribution"), distribution, &supported, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    cluster_ips_update(&path, spec, before, errors);
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
    for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
        refuse(index, "may not change once set");
    }
    if new.len() == 1 && old.len() > 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        let value = spec.at("ipFamilyPolicy").clone();
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), value, detail));
    }
}
