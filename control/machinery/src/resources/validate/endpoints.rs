//! Endpoints and endpoint slices.

use serde_json::{Value, json};

use super::{Errors, address, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// An address pods can be reached at: not the sender's own, nor everybody's.
pub(super) fn endpoint_ip(path: &Path, value: &str, errors: &mut Errors) {
    use std::net::IpAddr;
    let Some(ip) = address::parse(value) else {
        errors.push(FieldError::invalid(path, value, "must be a valid IP address"));
        return;
    };
    if ip.is_unspecified() {
        errors.push(FieldError::invalid(path, value, format!("may not be unspecified ({value})")));
    }
    let details = [
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (
            matches!(ip, IpAddr::V4(v4) if v4.is_link_local())
                || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()),
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            matches!(ip, IpAddr::V4(v4) if v4.octets()[..3] == [224, 0, 0])
                || matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xff0f == 0xff02),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ];
    for (_, detail) in details.iter().filter(|(applies, _)| *applies) {
        errors.push(FieldError::invalid(path, value, *detail));
    }
}

/// Subsets an object has already are not judged again.
pub(super) fn endpoints(endpoints: &Value, old: &Value, errors: &mut Errors) {
    if !old.is_null() && same(endpoints.at("subsets"), old.at("subsets")) {
        return;
    }
    for (index, subset) in endpoints.items("subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&path, detail));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (index, address) in subset.items(list).iter().enumerate() {
                subset_address(&path.child(list).index(index), address, errors);
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
            if let Some(protocol) = port.at("appProtocol").as_str() {
                rules::qualified(&path.child("appProtocol"), protocol, errors);
            }
        }
    }
}

fn subset_address(path: &Path, address: &Value, errors: &mut Errors) {
    let (ip_path, ip) = (path.child("ip"), address.text("ip"));
    address::ip(&ip_path, ip, &[], errors);
    if !address.text("hostname").is_empty() {
        rules::label(&path.child("hostname"), address.text("hostname"), errors);
    }
    if let Some(node) = address.at("nodeName").as_str() {
        rules::subdomain(&path.child("nodeName"), node, errors);
    }
    endpoint_ip(&ip_path, ip, errors);
}

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

/// Endpoints a slice has already are not judged again.
pub(super) fn endpoint_slice(slice: &Value, old: &Value, errors: &mut Errors) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let kind = slice.text("addressType");
    rules::one_of(&Path::new("addressType"), kind, &kinds, errors);
    slice_ports(slice.items("ports"), errors);
    if !old.is_null() && same(slice.at("endpoints"), old.at("endpoints")) {
        return;
    }
    let (endpoints, path) = (slice.items("endpoints"), Path::new("endpoints"));
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(&path.index(index), kind, endpoint, errors);
    }
}

fn endpoint(path: &Path, kind: &str, endpoint: &Value, errors: &mut Errors) {
    let (addresses, addresses_path) = (endpoint.items("addresses"), path.child("addresses"));
    if addresses.is_empty() {
        errors.push(FieldError::required(&addresses_path, "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(&addresses_path, addresses.len(), ADDRESSES_MAX));
    }
    for (index, address) in addresses.iter().enumerate() {
        let (path, address) = (addresses_path.index(index), address.as_str().unwrap_or_default());
        let six = address::parse(address).is_some_and(|ip| ip.is_ipv6());
        match kind {
            "IPv4" if address::ip(&path, address, &[], errors) => {
                if six {
                    errors.push(FieldError::invalid(&addresses_path, address, "must be an IPv4 address"));
                }
                endpoint_ip(&path, address, errors);
            }
            "IPv6" if address::canonical_ip(&path, address, errors) => {
                if !six {
                    errors.push(FieldError::invalid(&addresses_path, address, "must be an IPv6 address"));
                }
                endpoint_ip(&path, address, errors);
            }
            "FQDN" => full_domain(&path, address, errors),
            _ => {}
        }
    }
    if let Some(node) = endpoint.at("nodeName").as_str() {
        rules::subdomain(&path.child("nodeName"), node, errors);
    }
    let (topology, topology_path) = (endpoint.at("deprecatedTopology"), path.child("deprecatedTopology"));
    let count = topology.as_object().map_or(0, serde_json::Map::len);
    if count > TOPOLOGY_MAX {
        errors.push(FieldError::too_many(&topology_path, count, TOPOLOGY_MAX));
    }
    rules::labels(&topology_path, topology, errors);
    if let Some(hostname) = endpoint.at("hostname").as_str() {
        rules::label(&path.child("hostname"), hostname, errors);
    }
    hints(&path.child("hints"), endpoint.at("hints"), errors);
}

/// A name of two parts at least, each of them a label; a closing dot is fine.
fn full_domain(path: &Path, name: &str, errors: &mut Errors) {
    if !rules::required(path, name, errors) {
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(FieldError::invalid(path, name, messages.join(",")));
    } else if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    } else if let Some((label, messages)) =
        name.split('.').map(|label| (label, names::dns1123_label(label))).find(|(_, found)| !found.is_empty())
    {
        errors.push(FieldError::invalid(path, label, messages.join(",")));
    }
}

fn slice_ports(ports: &[Value], errors: &mut Errors) {
    let path = Path::new("ports");
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many(&path, ports.len(), PORTS_MAX));
        return;
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
        let (protocol, protocol_path) = (port.at("protocol"), path.child("protocol"));
        match protocol.as_str() {
            None => errors.push(FieldError::required(&protocol_path, "")),
            Some(known) if PROTOCOLS.contains(&known) => {}
            Some(other) => errors.push(FieldError::not_supported(&protocol_path, other, &PROTOCOLS)),
        }
        if let Some(protocol) = port.at("appProtocol").as_str() {
            rules::qualified(&path.child("appProtocol"), protocol, errors);
        }
    }
}

fn hints(path: &Path, hints: &Value, errors: &mut Errors) {
    type Rule = fn(&str) -> Vec<String>;
    let lists: [(&str, Rule); 2] = [("forZones", names::label_value), ("forNodes", names::dns1123_subdomain)];
    for (key, rule) in lists {
        let (list, path) = (hints.items(key), path.child(key));
        if list.len() > HINTS_MAX {
            errors.push(FieldError::too_many(&path, list.len(), HINTS_MAX));
            return;
        }
        for (index, hint) in list.iter().enumerate() {
            let (path, name) = (path.index(index).child("name"), hint.text("name"));
            if list.iter().take(index).any(|other| other.text("name") == name) {
                errors.push(FieldError::duplicate(&path, json!(name)));
            }
            rules::text(&path, name, rule(name), errors);
        }
    }
}

pub(super) fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    let key = "addressType";
    rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
}
