//! The few fields of Pod and NetworkPolicy that matter, read from the API's types. Pure.
//!
//! What of a policy cannot be read (no API server takes it) allows nothing; a policy whose own selector cannot be read selects nothing.

use crate::ranges::{self, PortRange};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::labels::Selector;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// By labels' keys.
pub type Labels = BTreeMap<String, String>;

/// Where the kubelet says which static pod a mirror pod shows.
const STATIC: &str = "kubernetes.io/config.hash";

/// A pod of the pod network that is not at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`
    pub uid: String,
    /// The uid its node knows it by, where it is a static pod's mirror.
    pub static_uid: Option<String>,
    /// It is on this node.
    pub local: bool,
    /// `metadata.labels`
    pub labels: Labels,
    /// `status.podIPs`
    pub addresses: Vec<IpAddr>,
    /// The named ports of its containers.
    pub ports: Vec<NamedPort>,
}

/// A port of a container that policies may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// `http`
    pub name: String,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// What it is.
    pub port: u16,
}

impl Pod {
    /// Whether the container runtime means this pod by `uid`; an empty one is anybody's.
    #[must_use]
    pub fn is(&self, uid: &str) -> bool {
        uid.is_empty() || self.uid == uid || self.static_uid.as_deref() == Some(uid)
    }
}

/// `None` for what policies do not speak of: a pod on its node's network, which is the node to everybody, and one that has ended, whose
/// address may be another's.
#[must_use]
pub fn read_pod(pod: &core::Pod, node: &str) -> Option<Pod> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let several = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let single = status.and_then(|status| status.pod_ip.as_deref());
    let texts = several.iter().map(|ip| ip.ip.as_str()).chain(single.filter(|_| several.is_empty()));
    // an init container that stays is as good as any other
    let stays = |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(stays));
    let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone()?,
            protocol: ranges::protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.container_port).ok()?,
        })
    });
    let annotations = pod.metadata.annotations.as_ref();
    Some(Pod {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        static_uid: annotations.and_then(|all| all.get(STATIC)).cloned(),
        local: spec.node_name.as_deref() == Some(node),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        addresses: texts.filter_map(|text| text.parse().ok()).collect(),
        ports: ports.collect(),
    })
}

/// Pods that a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Those of a namespace with these labels.
    Namespace(Arc<str>, Selector),
    /// Those with these labels, in namespaces with those.
    Namespaces(Selector, Selector),
    /// Those with an address in one of these.
    Within(Vec<IpNet>),
}

impl Term {
    /// Every pod there is.
    #[must_use]
    pub fn everybody() -> Self {
        Self::Namespaces(Selector::everything(), Selector::everything())
    }

    /// The same text for terms that mean the same pods; another for any other.
    pub(crate) fn canonical(&self) -> String {
        let text = |selector: &Selector| match selector {
            Selector::Nothing => "-".to_owned(),
            some @ Selector::All(_) => some.to_string(),
        };
        match self {
            Self::Namespace(name, pods) => format!("in {name}: {}", text(pods)),
            Self::Namespaces(spaces, pods) => format!("of {}: {}", text(spaces), text(pods)),
            Self::Within(nets) => format!("{nets:?}"),
        }
    }
}

/// What is on the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Pods.
    pub terms: Vec<Term>,
    /// Addresses, whoever has them; these ranges do not overlap.
    pub blocks: Vec<IpNet>,
}

/// Ports of the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// By number; these ranges do not overlap.
    pub ranges: Vec<PortRange>,
    /// By protocol and name, which is another number on each pod.
    pub names: Vec<(u8, String)>,
}

/// What one rule allows: `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `from` or `to`.
    pub peers: Option<Peers>,
    /// `ports`
    pub ports: Option<Ports>,
}

/// A policy. `None`: it says nothing of that direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The pods of its namespace that it is for.
    pub pods: Selector,
    /// What may come in.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out.
    pub egress: Option<Vec<Rule>>,
}

/// Reads a policy of a namespace.
#[must_use]
pub fn read_policy(policy: &NetworkPolicy, namespace: &Arc<str>) -> Policy {
    let nothing = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&nothing);
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let (ingress, egress) =
        (spec.ingress.as_deref().unwrap_or_default(), spec.egress.as_deref().unwrap_or_default());
    let named = |kind: &str| types.iter().any(|given| given == kind);
    // what the API server writes down where nothing was said
    let incoming = named("Ingress") || types.is_empty();
    let outgoing = named("Egress") || (types.is_empty() && !egress.is_empty());
    let rule = |peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>| Rule {
        peers: peers.filter(|all| !all.is_empty()).map(|all| read_peers(all, namespace)),
        ports: ports.filter(|all| !all.is_empty()).map(|all| read_ports(all)),
    };
    Policy {
        pods: spec.pod_selector.as_ref().map_or_else(Selector::everything, read_selector),
        ingress: incoming.then(|| ingress.iter().map(|r| rule(r.from.as_ref(), r.ports.as_ref())).collect()),
        egress: outgoing.then(|| egress.iter().map(|r| rule(r.to.as_ref(), r.ports.as_ref())).collect()),
    }
}

fn read_selector(selector: &LabelSelector) -> Selector {
    let value = serde_json::to_value(selector).unwrap_or_default();
    Selector::from_label_selector(&value).unwrap_or(Selector::Nothing)
}

fn read_peers(peers: &[NetworkPolicyPeer], namespace: &Arc<str>) -> Peers {
    let mut out = Peers::default();
    let mut blocks = Vec::new();
    for peer in peers {
        let pods = peer.pod_selector.as_ref().map(read_selector);
        let term = match (&peer.ip_block, peer.namespace_selector.as_ref().map(read_selector), pods) {
            (Some(block), ..) => {
                blocks.extend(ranges::block(&block.cidr, block.except.as_deref().unwrap_or_default()));
                continue;
            }
            (None, Some(spaces), pods) => Term::Namespaces(spaces, pods.unwrap_or_else(Selector::everything)),
            (None, None, Some(pods)) => Term::Namespace(namespace.clone(), pods),
            (None, None, None) => continue,
        };
        out.terms.push(term);
    }
    out.blocks = IpNet::aggregate(&blocks);
    out
}

fn read_ports(ports: &[NetworkPolicyPort]) -> Ports {
    let mut out = Ports::default();
    let mut numbers = Vec::new();
    for port in ports {
        let Some(protocol) = ranges::protocol(port.protocol.as_deref()) else { continue };
        match &port.port {
            None => numbers.push(PortRange { protocol, first: 0, last: u16::MAX }),
            Some(IntOrString::String(name)) => out.names.push((protocol, name.clone())),
            Some(IntOrString::Int(first)) => {
                let last = port.end_port.unwrap_or(*first);
                let Some((first, last)) = u16::try_from(*first).ok().zip(u16::try_from(last).ok()) else {
                    continue;
                };
                if first <= last {
                    numbers.push(PortRange { protocol, first, last });
                }
            }
        }
    }
    out.ranges = ranges::merge(numbers);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(extra: Value) -> Option<Pod> {
        let mut pod = json!({
            "metadata": {"uid": "u", "labels": {"app": "web"}, "annotations": {"kubernetes.io/config.hash": "h"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 8080}, {"containerPort": 9}]}],
                "initContainers": [
                    {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                    {"name": "stays", "restartPolicy": "Always", "ports": [{"name": "dns", "protocol": "UDP", "containerPort": 53}]}]},
            "status": {"phase": "Running", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}]}
        });
        machinery::patch::merge::apply(&mut pod, extra.to_string().as_bytes()).unwrap();
        read_pod(&serde_json::from_value(pod).unwrap(), "n1")
    }

    #[test]
    fn a_pod_that_is_the_node_or_has_ended_must_not_be_a_pod_here() {
        let own = pod(json!({})).unwrap();
        let names: Vec<&str> = own.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["http", "dns"], "an init container that ends serves nobody");
        assert_eq!((own.ports[0].protocol, own.ports[1].protocol), (6, 17));
        assert_eq!(own.addresses.len(), 2);
        assert!(own.local && own.is("u") && own.is("h") && own.is("") && !own.is("other"));
        assert!(!pod(json!({"spec": {"nodeName": "n2"}})).unwrap().local);
        assert_eq!(pod(json!({"status": {"podIPs": null}})).unwrap().addresses.len(), 1);
        for ended in [
            json!({"spec": {"hostNetwork": true}}),
            json!({"status": {"phase": "Failed"}}),
            json!({"status": {"phase": "Succeeded"}}),
        ] {
            assert_eq!(pod(ended.clone()), None, "{ended}");
        }
        assert!(pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})).is_some(), "it runs");
    }

    fn policy(spec: Value) -> Policy {
        let policy: NetworkPolicy = serde_json::from_value(json!({"spec": spec})).unwrap();
        read_policy(&policy, &"default".into())
    }

    #[test]
    fn a_direction_nobody_named_must_not_be_closed() {
        let directions = |spec: Value| {
            let policy = policy(spec);
            (policy.ingress.is_some(), policy.egress.is_some())
        };
        assert_eq!(directions(json!({"podSelector": {}})), (true, false));
        assert_eq!(directions(json!({"podSelector": {}, "egress": []})), (true, false));
        assert_eq!(directions(json!({"podSelector": {}, "egress": [{}]})), (true, true));
        assert_eq!(
            directions(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]})),
            (false, true)
        );
        assert_eq!(
            directions(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]})),
            (true, false)
        );
    }

    #[test]
    fn an_empty_list_is_anybody_and_an_unreadable_one_nobody() {
        let rule =
            |rule: Value| policy(json!({"podSelector": {}, "ingress": [rule]})).ingress.unwrap().remove(0);
        assert_eq!(rule(json!({})), Rule::default());
        assert_eq!(rule(json!({"from": [], "ports": []})), Rule::default());
        assert_eq!(rule(json!({"from": [{"ipBlock": {"cidr": "nonsense"}}]})).peers, Some(Peers::default()));
        assert_eq!(rule(json!({"from": [{}]})).peers, Some(Peers::default()));
        assert_eq!(
            rule(json!({"ports": [{"port": 70000}, {"protocol": "ICMP"}, {"port": 9, "endPort": 8}]})).ports,
            Some(Ports::default())
        );
        let ports = rule(
            json!({"ports": [{"port": 80}, {"port": 81, "endPort": 90}, {"port": "http"}, {"protocol": "SCTP"}]}),
        );
        let ports = ports.ports.unwrap();
        assert_eq!(ports.names, [(6, "http".to_owned())]);
        let range = |protocol, first, last| PortRange { protocol, first, last };
        assert_eq!(ports.ranges, [range(6, 80, 90), range(132, 0, u16::MAX)], "neighbours are one");
    }

    #[test]
    fn selectors_mean_the_policys_namespace_unless_namespaces_are_selected() {
        let peers = policy(json!({"podSelector": {}, "ingress": [{"from": [
            {"podSelector": {"matchLabels": {"a": "b"}}},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"n": "m"}}, "podSelector": {"matchLabels": {"a": "b"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9"]}},
        ]}]}));
        let peers = peers.ingress.unwrap().remove(0).peers.unwrap();
        let texts: Vec<String> = peers.terms.iter().map(Term::canonical).collect();
        assert_eq!(texts, ["in default: a=b", "of : ", "of n=m: a=b"]);
        assert_eq!(peers.blocks, ["10.128.0.0/9".parse::<IpNet>().unwrap()]);
        let nothing = Term::Namespaces(Selector::Nothing, Selector::everything());
        assert_ne!(nothing.canonical(), Term::everybody().canonical());
    }
}
