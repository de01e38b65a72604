//! An IPAddress: who has a cluster IP. Its name is the address.

use machinery::access::Get as _;
use machinery::object;
use serde_json::{Value, json};
use std::net::IpAddr;

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Who makes those of Services.
pub(crate) const MANAGER: &str = "ipallocator.k8s.io";

/// The name of an address's family.
pub(crate) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The IPAddress that says that a Service has `ip`.
pub(crate) fn of(ip: IpAddr, namespace: &str, service: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": ip.to_string(), "labels": {(FAMILY): family(ip), (MANAGED_BY): MANAGER}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": service}},
    })
}

/// Whether it is one of the allocator's.
pub(crate) fn is_managed(address: &Value) -> bool {
    object::label(address, MANAGED_BY).unwrap_or_default() == MANAGER
}

/// Whether it has the labels the allocator gives.
pub(crate) fn is_labelled(address: &Value) -> bool {
    let ip = object::name(address).parse::<IpAddr>();
    is_managed(address) && ip.is_ok_and(|ip| object::label(address, FAMILY).unwrap_or_default() == family(ip))
}

/// Namespace and name of the Service it names.
pub(crate) fn parent(address: &Value) -> Option<(&str, &str)> {
    let of = |field: &str| address.at("spec.parentRef").text(field);
    (of("group").is_empty() && of("resource") == "services").then(|| (of("namespace"), of("name")))
}
