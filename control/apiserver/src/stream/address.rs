//! Where nodes, pods and services are, from their objects.

use crate::objects::{list, text};
use machinery::goformat::go_quote;
use machinery::status::Status;
use serde_json::Value;
use std::net::IpAddr;

/// The kubelet's port where a node does not say.
pub const KUBELET_PORT: u16 = 10250;

/// A node's address of the first preferred type it has.
pub fn node(node: &Value, preferred: &[String]) -> Result<String, String> {
    let addresses = list(node, "/status/addresses");
    let of_type = |kind: &String| {
        addresses
            .iter()
            .find(|a| text(a, "/type") == kind)
            .map(|a| text(a, "/address"))
            .filter(|a| !a.is_empty())
    };
    preferred.iter().find_map(of_type).map(str::to_owned).ok_or_else(|| {
        let known: Vec<String> =
            addresses.iter().map(|a| format!("{{{} {}}}", text(a, "/type"), text(a, "/address"))).collect();
        format!("no preferred addresses found; known addresses: [{}]", known.join(" "))
    })
}

/// The port a node's kubelet listens on.
#[must_use]
pub fn kubelet_port(node: &Value) -> u16 {
    node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
        .unwrap_or(KUBELET_PORT)
}

/// `[scheme:]name[:port]`, as proxy paths name pods, services and nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `http`, `https` or empty.
    pub scheme: String,
    /// Name of the object.
    pub name: String,
    /// Number or name of the port, or empty.
    pub port: String,
}

impl Named {
    /// Parses; `None` for any other form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let fits = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        fits.then(|| Named { scheme: scheme.into(), name: name.into(), port: port.into() })
    }
}

/// A pod's address, if the cluster may be reached through it.
pub fn pod(pod: &Value) -> Result<IpAddr, Status> {
    let ip = text(pod, "/status/podIP");
    let ip: IpAddr = ip.parse().map_err(|_| Status::bad_request("address not allowed"))?;
    proxyable(ip)
}

/// Addresses of the server's own machine must not be reached by who can write a pod's status or endpoints.
fn proxyable(ip: IpAddr) -> Result<IpAddr, Status> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_loopback() || link_local || ip.is_multicast() || ip.is_unspecified() {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(ip)
}

/// The port a pod is proxied to where none is named: its first container port.
#[must_use]
pub fn first_container_port(pod: &Value) -> Option<u16> {
    list(pod, "/spec/containers")
        .iter()
        .find_map(|c| list(c, "/ports").iter().find_map(|p| p.get("containerPort")?.as_u64()))
        .and_then(|p| u16::try_from(p).ok())
}

/// One ready endpoint of a service, chosen at random. `port` is a port's name or number as the service has it.
pub fn endpoint(
    endpoints: Option<&Value>,
    service: &Value,
    name: &str,
    port: &str,
) -> Result<(IpAddr, u16), Status> {
    let none =
        || Status::service_unavailable(format!("no endpoints available for service {}", go_quote(name)));
    // A number is a port of the service, a name is the same at both ends.
    let port_name = match port.parse::<u64>() {
        Ok(number) => list(service, "/spec/ports")
            .iter()
            .find(|p| p.get("port").and_then(Value::as_u64) == Some(number))
            .map(|p| text(p, "/name").to_owned())
            .ok_or_else(|| {
                Status::service_unavailable(format!(
                    "no service port {port} found for service {}",
                    go_quote(name)
                ))
            })?,
        Err(_) => port.to_owned(),
    };
    let subsets = endpoints.map(|e| list(e, "/subsets")).filter(|s| !s.is_empty()).ok_or_else(none)?;
    let mut candidates = Vec::new();
    for subset in subsets {
        let matching = list(subset, "/ports").iter().filter(|p| text(p, "/name") == port_name);
        let Some(port) = matching.filter_map(|p| p.get("port")?.as_u64()).find_map(|p| u16::try_from(p).ok())
        else {
            continue;
        };
        candidates.extend(
            list(subset, "/addresses")
                .iter()
                .filter_map(|a| Some((text(a, "/ip").parse::<IpAddr>().ok()?, port))),
        );
    }
    if candidates.is_empty() {
        return Err(none());
    }
    let (ip, port) = candidates[random() % candidates.len()];
    proxyable(ip).map(|ip| (ip, port))
}

fn random() -> usize {
    let mut bytes = [0u8; 4];
    // Without randomness the first endpoint serves.
    let _ = getrandom::fill(&mut bytes);
    u32::from_le_bytes(bytes) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nodes_address_is_the_most_preferred() {
        let object = json!({"status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 4}}}});
        assert_eq!(node(&object, &crate::stream::default_node_addresses()).unwrap(), "10.0.0.1");
        assert_eq!(kubelet_port(&object), 4);
        assert_eq!(kubelet_port(&json!({})), KUBELET_PORT);
        assert_eq!(
            node(&object, &["ExternalIP".into()]).unwrap_err(),
            "no preferred addresses found; known addresses: [{Hostname h} {InternalIP 10.0.0.1}]"
        );
    }

    #[test]
    fn names_carry_scheme_and_port() {
        let named =
            |s: &str, n: &str, p: &str| Some(Named { scheme: s.into(), name: n.into(), port: p.into() });
        assert_eq!(Named::parse("web"), named("", "web", ""));
        assert_eq!(Named::parse("web:80"), named("", "web", "80"));
        assert_eq!(Named::parse("https:web:api"), named("https", "web", "api"));
        assert_eq!(Named::parse("https:web:"), named("https", "web", ""));
        for bad in ["ftp:web:1", "", ":80", "a:b:c:d"] {
            assert_eq!(Named::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_service_reaches_its_endpoints_by_name_and_number() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"port": 81}]}});
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.1.0.5"}], "ports": [{"name": "http", "port": 8080}]}]});
        let at = ("10.1.0.5".parse().unwrap(), 8080);
        assert_eq!(endpoint(Some(&endpoints), &service, "web", "http").unwrap(), at);
        assert_eq!(endpoint(Some(&endpoints), &service, "web", "80").unwrap(), at);
        let no_port = endpoint(Some(&endpoints), &service, "web", "9").unwrap_err();
        assert_eq!(
            (no_port.code, no_port.message.as_str()),
            (503, "no service port 9 found for service \"web\"")
        );
        let nobody = endpoint(None, &service, "web", "http").unwrap_err();
        assert_eq!(
            (nobody.code, nobody.message.as_str()),
            (503, "no endpoints available for service \"web\"")
        );
        assert_eq!(endpoint(Some(&endpoints), &service, "web", "").unwrap_err().code, 503);
    }

    #[test]
    fn the_servers_own_machine_is_out_of_reach() {
        for ip in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", ""] {
            assert_eq!(
                pod(&json!({"status": {"podIP": ip}})).unwrap_err().message,
                "address not allowed",
                "{ip}"
            );
        }
    }
}
