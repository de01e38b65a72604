//! Which names and addresses a kubelet's serving certificate may bear without anybody having looked at it.
//!
//! Upstream leaves these requests to people. Here one is granted where nobody else can be taken for by it. A node writes its addresses
//! itself, so that it has one is no proof: it must not be anybody else's either, as far as the cluster knows. Pure.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use pki::request::CertificateRequest;
use std::net::IpAddr;
use std::sync::Arc;

/// A label that admission (NodeRestriction) keeps nodes from giving themselves.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Whom a certificate must not be taken for.
pub(super) struct Others<'o> {
    /// Every node, the one that asks among them.
    pub(super) nodes: &'o [Arc<Node>],
    pub(super) services: &'o [Arc<Service>],
    /// Where addresses of Services are from.
    pub(super) service_ranges: &'o [IpNet],
    /// Names and addresses of API servers.
    pub(super) api_servers: &'o [String],
}

/// Why the request is left to people; `None` where it is not.
pub(super) fn objection(node: &Node, asked: &CertificateRequest, others: &Others<'_>) -> Option<String> {
    let name = node.name_any();
    let is_server = node.labels().contains_key(CONTROL_PLANE);
    for dns in &asked.dns_names {
        if *dns != name {
            return Some(format!("{dns} is not the node's name"));
        }
        if is_of_service(dns, others.services) || (is_api_server(dns, others.api_servers) && !is_server) {
            return Some(format!("{dns} is a name of the API server or of a Service"));
        }
    }
    if others.api_servers.is_empty() && !asked.ips.is_empty() {
        return Some("no address of an API server is known, which none of the node's may be".to_owned());
    }
    let own = addresses(node);
    // Clients take an IPv4 address that is written as IPv6 for the IPv4 address it is.
    asked.ips.iter().map(IpAddr::to_canonical).find_map(|ip| {
        if !own.contains(&ip) {
            return Some(format!("{ip} is not an address of the node"));
        }
        let whose = owner(&name, ip, is_server, others)?;
        Some(format!("{ip} is an address of {whose}"))
    })
}

/// Who else has the address.
fn owner(name: &str, ip: IpAddr, is_server: bool, others: &Others<'_>) -> Option<String> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        // An IPv4 address embedded in the old manner (RFC 4291, 2.5.5.1) is nobody's either.
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.segments().starts_with(&[0; 6]),
    };
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local {
        return Some("every machine, or of none".to_owned());
    }
    let mut nodes = others.nodes.iter();
    if let Some(other) = nodes.find(|node| node.name_any() != name && addresses(node).contains(&ip)) {
        return Some(format!("node {}, too", other.name_any()));
    }
    let pods = others.nodes.iter().flat_map(|node| pod_ranges(node));
    if pods.into_iter().any(|range| range.contains(&ip)) {
        return Some("pods".to_owned());
    }
    let of_services = others.service_ranges.iter().any(|range| range.contains(&ip));
    if of_services || others.services.iter().any(|service| is_external(service, ip)) {
        return Some("Services".to_owned());
    }
    let mut servers = others.api_servers.iter();
    (!is_server && servers.any(|server| address(server) == Some(ip))).then(|| "an API server".to_owned())
}

/// The address a text is, whichever way it is written; nobody is told apart by the way.
fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

/// Whether a name is one of the API servers', in which case and a final dot say nothing.
fn is_api_server(name: &str, api_servers: &[String]) -> bool {
    let bare = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    api_servers.iter().any(|server| bare(server) == bare(name))
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter(|address| address.type_.ends_with("IP")).filter_map(|a| address(&a.address)).collect()
}

fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let all = node.spec.iter().flat_map(|spec| spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten()));
    all.filter_map(|range| range.parse().ok()).collect()
}

/// Whether `ip` leads to the Service from outside the cluster, or is its own.
fn is_external(service: &Service, ip: IpAddr) -> bool {
    let spec = service.spec.iter();
    let own = spec.flat_map(|s| {
        s.cluster_ip.iter().chain(s.cluster_ips.iter().flatten()).chain(s.external_ips.iter().flatten())
    });
    let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let balanced =
        balancer.flat_map(|b| b.ingress.iter().flatten()).filter_map(|ingress| ingress.ip.as_ref());
    own.chain(balanced).any(|known| address(known) == Some(ip))
}

/// Whether a name leads to a Service somewhere in the cluster, whose DNS completes what is not whole.
fn is_of_service(name: &str, services: &[Arc<Service>]) -> bool {
    let name = name.to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    match labels.as_slice() {
        ["localhost" | "kubernetes"] | ["kubernetes", "default", ..] | [_, _, "svc", ..] => true,
        [service] => services.iter().any(|known| known.name_any() == *service),
        [service, namespace] => services
            .iter()
            .any(|known| known.name_any() == *service && known.namespace().as_deref() == Some(namespace)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, ips: &[&str], labels: Value) -> Arc<Node> {
        let addresses: Vec<Value> = ips
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip}))
            .chain([json!({"type": "Hostname", "address": "kubernetes"})])
            .collect();
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"podCIDRs": ["10.244.0.0/24"]},
            "status": {"addresses": addresses},
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn asked(dns: &[&str], ips: &[&str]) -> CertificateRequest {
        let mut request = CertificateRequest::default();
        request.dns_names.extend(dns.iter().map(|name| (*name).to_owned()));
        request.ips.extend(ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()));
        request
    }

    /// What is said to a node of these addresses that asks for a certificate.
    fn said(node: &Arc<Node>, asked: &CertificateRequest) -> Option<String> {
        let other = self::node("n2", &["192.0.2.2"], json!({}));
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "198.51.100.7", "externalIPs": ["203.0.113.1", "2001:DB8::E"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}, {"ip": "2001:db8:0::f"}]}},
        });
        objection(
            node,
            asked,
            &Others {
                nodes: &[node.clone(), other],
                services: &[Arc::new(serde_json::from_value(service).unwrap())],
                service_ranges: &["10.96.0.0/12".parse().unwrap()],
                api_servers: &["192.0.2.9", "2001:DB8:0:0::9", "api.example", "API2.example."]
                    .map(str::to_owned),
            },
        )
    }

    #[test]
    fn a_node_gets_its_own_name_and_addresses() {
        let n1 = node("n1", &["192.0.2.1", "2001:db8::1"], json!({}));
        assert_eq!(said(&n1, &asked(&["n1"], &["192.0.2.1", "2001:db8::1"])), None);
        assert_eq!(said(&n1, &asked(&[], &["192.0.2.1"])), None);
    }

    #[test]
    fn an_address_that_a_node_gave_itself_must_not_make_it_somebody_else() {
        for (ip, whose) in [
            ("192.0.2.3", "not an address of the node"),
            ("192.0.2.2", "of node n2, too"),
            ("192.0.2.9", "of an API server"),
            ("10.96.0.1", "of Services"),
            ("198.51.100.7", "of Services"),
            ("203.0.113.1", "of Services"),
            ("203.0.113.2", "of Services"),
            ("10.244.0.5", "of pods"),
            ("127.0.0.1", "of every machine"),
            ("::1", "of every machine"),
            ("0.0.0.0", "of every machine"),
            // What clients take for the same addresses.
            ("::ffff:10.96.0.1", "of Services"),
            ("::ffff:192.0.2.2", "of node n2, too"),
            ("::ffff:192.0.2.9", "of an API server"),
            ("::ffff:203.0.113.2", "of Services"),
            ("::ffff:10.244.0.5", "of pods"),
            ("::ffff:127.0.0.1", "of every machine"),
            ("::ffff:169.254.169.254", "of every machine"),
            ("::10.96.0.1", "of every machine"),
            ("2001:db8::e", "of Services"),
            ("2001:db8::f", "of Services"),
            ("2001:db8::9", "of an API server"),
        ] {
            let claimed: Vec<&str> = [ip].into_iter().filter(|ip| *ip != "192.0.2.3").collect();
            let why = said(&node("n1", &claimed, json!({})), &asked(&["n1"], &[ip])).unwrap();
            assert!(why.contains(whose), "{ip}: {why}");
        }
        // Who runs API servers is not the node's to say, and nodes cannot write it.
        let server = node("n1", &["192.0.2.9"], json!({CONTROL_PLANE: ""}));
        assert_eq!(said(&server, &asked(&["n1"], &["192.0.2.9"])), None);
    }

    #[test]
    fn an_address_must_not_be_judged_while_no_api_server_is_known() {
        let n1 = node("n1", &["192.0.2.1"], json!({}));
        let others =
            Others { nodes: std::slice::from_ref(&n1), services: &[], service_ranges: &[], api_servers: &[] };
        let why = objection(&n1, &asked(&["n1"], &["192.0.2.1"]), &others).unwrap();
        assert!(why.contains("no address of an API server is known"), "{why}");
        // A mapped address of the node's own is the node's own.
        assert_eq!(said(&n1, &asked(&["n1"], &["::ffff:192.0.2.1"])), None);
    }

    #[test]
    fn a_name_of_the_api_server_or_of_a_service_must_not_be_a_nodes() {
        for name in [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "web",
            "web.shop",
            "web.shop.svc",
            "later.shop.svc.cluster.local",
            "api.example",
            "API.EXAMPLE",
            "api2.example",
            "WEB.shop.svc",
        ] {
            let why = said(&node(name, &[], json!({})), &asked(&[name], &[])).expect(name);
            assert!(why.contains("of the API server or of a Service"), "{name}: {why}");
        }
        let n1 = node("n1", &["192.0.2.1"], json!({}));
        let why = said(&n1, &asked(&["n1", "kubernetes"], &["192.0.2.1"])).unwrap();
        assert_eq!(why, "kubernetes is not the node's name", "though its status has it");
        assert_eq!(said(&node("n1.shop", &[], json!({})), &asked(&["n1.shop"], &[])), None);
    }
}
