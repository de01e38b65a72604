//! Endpoints and endpoint slices.

use std::{collections::BTreeSet, net::IpAddr};

use super::cursor::Cursor;
use crate::{address, names, schema::Format};

impl Cursor<'_> {
    /// An address pods can be reached at: not the sender's own, nor everybody's.
    pub(super) fn endpoint_ip(self) {
        let value = self.str();
        let Some(ip) = address::parse(value) else { return self.invalid("must be a valid IP address") };
        if ip.is_unspecified() {
            self.invalid(format!("may not be unspecified ({value})"));
        }
        if ip.is_loopback() {
            self.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
        }
        let (local, multicast) = match ip {
            IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
            IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
        };
        if local {
            self.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        }
        if multicast {
            self.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
        }
    }
}

/// Subsets an object has already are not judged again.
pub(super) fn endpoints(endpoints: Cursor<'_>) {
    let subsets = endpoints.field("subsets");
    if endpoints.is_update() && !subsets.changed() {
        return;
    }
    for subset in subsets.items() {
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.list(list).is_empty()) {
            subset.missing("must specify `addresses` or `notReadyAddresses`");
        }
        lists.into_iter().flat_map(|list| subset.each(list)).for_each(subset_address);
        let several = subset.list("ports").len() > 1;
        for port in subset.each("ports") {
            let name = port.field("name");
            if several && name.is_empty() {
                name.missing("");
            } else {
                name.optional_format(names::dns1123_label);
            }
            port.field("port").port_number();
            port.plain(&["protocol", "appProtocol"]);
        }
    }
}

fn subset_address(address: Cursor<'_>) {
    address.field("ip").ip(&[]);
    address.plain(&["hostname", "nodeName"]);
    address.field("ip").endpoint_ip();
}

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

/// No more items than so many.
fn at_most(list: Cursor<'_>, max: usize) -> bool {
    let count = list.value.as_object().map_or(list.values().len(), serde_json::Map::len);
    if count > max {
        list.too_many(count, max);
    }
    count <= max
}

/// Endpoints a slice has already are not judged again.
pub(super) fn endpoint_slice(slice: Cursor<'_>) {
    slice.plain(&["addressType"]);
    if at_most(slice.field("ports"), PORTS_MAX) {
        slice_ports(slice.field("ports"));
    }
    let endpoints = slice.field("endpoints");
    if (!slice.is_update() || endpoints.changed()) && at_most(endpoints, ENDPOINTS_MAX) {
        endpoints.items().for_each(|endpoint| self::endpoint(endpoint, slice.text("addressType")));
    }
}

fn endpoint(endpoint: Cursor<'_>, kind: &str) {
    let addresses = endpoint.field("addresses");
    if addresses.required_with("must contain at least 1 address") {
        at_most(addresses, ADDRESSES_MAX);
    }
    for address in addresses.items() {
        let six = address::parse(address.str()).is_some_and(|ip| ip.is_ipv6());
        match kind {
            "IPv4" if address.ip(&[]) => {
                if six {
                    address.reported_at(addresses).invalid("must be an IPv4 address");
                }
                address.endpoint_ip();
            }
            "IPv6" if address.canonical_ip() => {
                if !six {
                    address.reported_at(addresses).invalid("must be an IPv6 address");
                }
                address.endpoint_ip();
            }
            "FQDN" => full_domain(address),
            _ => {}
        }
    }
    endpoint.plain(&["nodeName"]);
    let topology = endpoint.field("deprecatedTopology");
    at_most(topology, TOPOLOGY_MAX);
    topology.labels();
    endpoint.plain(&["hostname"]);
    let lists: [(&str, Format); 2] =
        [("forZones", names::label_value), ("forNodes", names::dns1123_subdomain)];
    for (list, format) in lists.map(|(list, format)| (endpoint.field("hints").field(list), format)) {
        if !at_most(list, HINTS_MAX) {
            return;
        }
        let mut seen = BTreeSet::new();
        for name in list.items().map(|hint| hint.field("name")) {
            if !seen.insert(name.str()) {
                name.duplicate();
            }
            name.format(format);
        }
    }
}

/// A name of two parts at least, each of them a label; a closing dot is fine.
fn full_domain(address: Cursor<'_>) {
    if !address.required() {
        return;
    }
    let name = address.str().strip_suffix('.').unwrap_or(address.str());
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        address.invalid_value(name, messages.join(","));
    } else if !name.contains('.') {
        address.invalid_value(name, "should be a domain with at least two segments separated by dots");
    } else if let Some((label, messages)) =
        name.split('.').map(|label| (label, names::dns1123_label(label))).find(|(_, found)| !found.is_empty())
    {
        address.invalid_value(label, messages.join(","));
    }
}

fn slice_ports(ports: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            name.label();
        }
        if !seen.insert(name.str()) {
            name.duplicate_value(name.str(), "");
        }
        port.field("protocol").required_plain();
        port.plain(&["appProtocol"]);
    }
}
