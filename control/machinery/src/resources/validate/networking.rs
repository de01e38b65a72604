//! Endpoints, slices, ingresses, network policies.

use serde_json::Value;

use super::{Errors, rules, selector};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::Get,
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// An address pods can be reached at: not the sender's own, nor everybody's.
fn endpoint_ip(path: &Path, value: &str, errors: &mut Errors) {
    if !rules::ip(path, value, errors) {
        return;
    }
    let Ok(ip) = value.parse::<std::net::IpAddr>() else { return };
    let details = [
        (ip.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (
            matches!(ip, std::net::IpAddr::V4(v4) if v4.is_link_local())
                || matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local()),
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            matches!(ip, std::net::IpAddr::V4(v4) if v4.octets()[..3] == [224, 0, 0])
                || matches!(ip, std::net::IpAddr::V6(v6) if v6.segments()[0] == 0xff02),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ];
    for (_, detail) in details.iter().filter(|(applies, _)| *applies) {
        errors.push(FieldError::invalid(path, value, *detail));
    }
}

pub(super) fn endpoints(endpoints: &Value, errors: &mut Errors) {
    for (index, subset) in endpoints.items("subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&path, detail));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (index, address) in subset.items(list).iter().enumerate() {
                let path = path.child(list).index(index);
                endpoint_ip(&path.child("ip"), address.text("ip"), errors);
                if !address.text("hostname").is_empty() {
                    rules::label(&path.child("hostname"), address.text("hostname"), errors);
                }
                if !address.text("nodeName").is_empty() {
                    rules::subdomain(&path.child("nodeName"), address.text("nodeName"), errors);
                }
            }
        }
        let ports = subset.items("ports");
        for (index, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(index);
            let name = port.text("name");
            if ports.len() > 1 && name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), ""));
            } else if !name.is_empty() {
                rules::label(&path.child("name"), name, errors);
            }
            rules::port_number(&path.child("port"), port.at("port"), errors);
            rules::one_of(&path.child("protocol"), port.text("protocol"), &PROTOCOLS, errors);
        }
    }
}

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

pub(super) fn endpoint_slice(slice: &Value, errors: &mut Errors) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let kind = slice.text("addressType");
    rules::one_of(&Path::new("addressType"), kind, &kinds, errors);
    let (endpoints, path) = (slice.items("endpoints"), Path::new("endpoints"));
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = endpoint.items("addresses");
        if addresses.is_empty() {
            let detail = "must contain at least 1 address";
            errors.push(FieldError::required(&path.child("addresses"), detail));
        } else if addresses.len() > ADDRESSES_MAX {
            errors.push(FieldError::too_many(&path.child("addresses"), addresses.len(), ADDRESSES_MAX));
        }
        for (index, address) in addresses.iter().enumerate() {
            let (path, address) =
                (path.child("addresses").index(index), address.as_str().unwrap_or_default());
            match kind {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    errors.push(FieldError::invalid(&path, address, "must be an IPv4 address"));
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    errors.push(FieldError::invalid(&path, address, "must be an IPv6 address"));
                }
                "IPv4" | "IPv6" => endpoint_ip(&path, address, errors),
                _ => rules::subdomain(&path, address, errors),
            }
        }
        let hostname = endpoint.text("hostname");
        if !hostname.is_empty() {
            rules::label(&path.child("hostname"), hostname, errors);
        }
        let node = endpoint.text("nodeName");
        if !node.is_empty() {
            rules::subdomain(&path.child("nodeName"), node, errors);
        }
    }
    let (ports, path) = (slice.items("ports"), Path::new("ports"));
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many(&path, ports.len(), PORTS_MAX));
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            rules::label(&path.child("name"), name, errors);
        }
        if ports.iter().take(index).any(|other| other.text("name") == name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        rules::one_of(&path.child("protocol"), port.text("protocol"), &PROTOCOLS, errors);
    }
}

pub(super) fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    let key = "addressType";
    rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
}

pub(super) fn ingress(ingress: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), ingress.at("spec"));
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, spec.clone(), detail));
    }
    if spec.has("defaultBackend") {
        backend(&path.child("defaultBackend"), spec.at("defaultBackend"), errors);
    }
    for (index, rule) in spec.items("rules").iter().enumerate() {
        let path = path.child("rules").index(index);
        let host = rule.text("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(&path.child("host"), host, detail));
        } else if host.contains('*') {
            rules::text(&path.child("host"), host, names::wildcard_dns1123_subdomain(host), errors);
        } else if !host.is_empty() {
            rules::subdomain(&path.child("host"), host, errors);
        }
        if rule.has("http") {
            let path = path.child("http").child("paths");
            if rule.items("http.paths").is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            for (index, http) in rule.items("http.paths").iter().enumerate() {
                http_path(&path.index(index), http, errors);
            }
        }
    }
    for (index, tls) in spec.items("tls").iter().enumerate() {
        let path = path.child("tls").index(index).child("hosts");
        for (index, host) in tls.items("hosts").iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            let messages = if host.contains('*') {
                names::wildcard_dns1123_subdomain(host)
            } else {
                names::dns1123_subdomain(host)
            };
            rules::text(&path.index(index), host, messages, errors);
        }
    }
    let class = spec.text("ingressClassName");
    if !class.is_empty() {
        rules::subdomain(&path.child("ingressClassName"), class, errors);
    }
}

/// What may not be part of a path, so that nobody reads it in two ways.
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

fn http_path(path: &Path, http: &Value, errors: &mut Errors) {
    let kind = http.at("pathType");
    let value = http.text("path");
    match kind.as_str() {
        None => errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified")),
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), value, "must be an absolute path"));
            }
            for part in BAD_PARTS.iter().filter(|part| value.contains(**part)) {
                errors.push(FieldError::invalid(
                    &path.child("path"),
                    value,
                    format!("must not contain '{part}'"),
                ));
            }
            for end in BAD_ENDS.iter().filter(|end| value.ends_with(**end)) {
                errors.push(FieldError::invalid(
                    &path.child("path"),
                    value,
                    format!("cannot end with '{end}'"),
                ));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), value, "must be an absolute path"));
            }
        }
        Some(other) => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&path.child("pathType"), other, &kinds));
        }
    }
    backend(&path.child("backend"), http.at("backend"), errors);
}

fn backend(path: &Path, backend: &Value, errors: &mut Errors) {
    match (backend.has("service"), backend.has("resource")) {
        (true, true) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", detail));
        }
        (false, false) => {
            errors.push(FieldError::required(path, "resource or service backend is required"));
        }
        (false, true) => {
            rules::required(&path.child("resource").child("kind"), backend.text("resource.kind"), errors);
            rules::required(&path.child("resource").child("name"), backend.text("resource.name"), errors);
        }
        (true, false) => {
            let (path, service) = (path.child("service"), backend.at("service"));
            let name = service.text("name");
            if rules::required(&path.child("name"), name, errors) {
                rules::text(&path.child("name"), name, names::dns1035_label(name), errors);
            }
            let (named, number) = (service.text("port.name"), service.int("port.number").unwrap_or_default());
            if !named.is_empty() && number != 0 {
                errors.push(FieldError::invalid(&path, "", "cannot set both port name & port number"));
            } else if !named.is_empty() {
                rules::text(&path.child("port").child("name"), named, names::port_name(named), errors);
            } else if number != 0 {
                rules::port_number(&path.child("port").child("number"), service.at("port.number"), errors);
            } else {
                errors.push(FieldError::required(&path, "port name or number is required"));
            }
        }
    }
}

pub(super) fn ingress_class(class: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let controller = class.text("spec.controller");
    if controller.len() > 250 {
        errors.push(FieldError::too_long(&path.child("controller"), 250));
    }
    rules::qualified(&path.child("controller"), controller, errors);
}

pub(super) fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("controller");
    rules::immutable(&path, new.at("spec.controller"), old.at("spec.controller"), errors);
}

pub(super) fn network_policy(policy: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), policy.at("spec"));
    selector::label_selector(&path.child("podSelector"), spec.at("podSelector"), errors);
    for (rules_key, peers_key) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in spec.items(rules_key).iter().enumerate() {
            let path = path.child(rules_key).index(index);
            for (index, port) in rule.items("ports").iter().enumerate() {
                policy_port(&path.child("ports").index(index), port, errors);
            }
            for (index, peer) in rule.items(peers_key).iter().enumerate() {
                policy_peer(&path.child(peers_key).index(index), peer, errors);
            }
        }
    }
    let types = spec.items("policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(&path.child("policyTypes"), spec.at("policyTypes").clone(), detail));
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        if !["Egress", "Ingress"].contains(&kind) {
            let path = path.child("policyTypes").index(index);
            errors.push(FieldError::not_supported(&path, kind, &["Egress", "Ingress"]));
        }
    }
}

fn policy_port(path: &Path, port: &Value, errors: &mut Errors) {
    let protocol = port.text("protocol");
    if port.has("protocol") && !PROTOCOLS.contains(&protocol) {
        errors.push(FieldError::not_supported(&path.child("protocol"), protocol, &PROTOCOLS));
    }
    if port.has("port") {
        rules::port(&path.child("port"), port.at("port"), errors);
        if let Some(end) = port.int("endPort") {
            match port.int("port") {
                Some(start) if end < start => {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&path.child("endPort"), start, detail));
                }
                Some(_) => rules::port_number(&path.child("endPort"), port.at("endPort"), errors),
                None => {
                    let detail = "may not be specified when `port` is non-numeric";
                    errors.push(FieldError::invalid(&path.child("endPort"), end, detail));
                }
            }
        }
    } else if let Some(end) = port.int("endPort") {
        let detail = "may not be specified when `port` is not specified";
        errors.push(FieldError::invalid(&path.child("endPort"), end, detail));
    }
}

fn policy_peer(path: &Path, peer: &Value, errors: &mut Errors) {
    let mut kinds = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if peer.has(key) {
            kinds += 1;
            selector::label_selector(&path.child(key), peer.at(key), errors);
        }
    }
    if peer.has("ipBlock") {
        let (path, block) = (path.child("ipBlock"), peer.at("ipBlock"));
        if rules::required(&path.child("cidr"), block.text("cidr"), errors) {
            rules::cidr(&path.child("cidr"), block.text("cidr"), errors);
        }
        for (index, except) in block.items("except").iter().enumerate() {
            rules::cidr(&path.child("except").index(index), except.as_str().unwrap_or_default(), errors);
        }
        if kinds > 0 {
            let detail = "may not specify both ipBlock and another peer";
            errors.push(FieldError::forbidden(&path, detail));
        }
    } else if kinds == 0 {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
}
