//! What the network needs of a Node object.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::condition;

/// A node's place in the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its addresses of type InternalIP.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// What it claims and cannot be read.
    pub(crate) malformed: Vec<String>,
    /// Its network part said that it reaches no other node's pods.
    pub(crate) unavailable: bool,
}

impl Member {
    pub(crate) fn of(node: &Node) -> Self {
        let mut member = Self::default();
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        for address in status.into_iter().flatten().filter(|address| address.type_ == "InternalIP") {
            match address.address.parse() {
                Ok(parsed) => member.addresses.push(parsed),
                Err(_) => member.malformed.push(address.address.clone()),
            }
        }
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        member.unavailable = conditions.into_iter().flatten().any(condition::is_ours);
        if let Some(spec) = &node.spec {
            // podCIDR is the first of podCIDRs, where both are set.
            let cidrs = spec.pod_cidrs.iter().flatten();
            let fallback = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
            for cidr in cidrs.chain(fallback) {
                match cidr.parse::<IpNet>() {
                    // A range of everything would take the node's own way out.
                    Ok(parsed) if parsed.prefix_len() > 0 => member.pod_cidrs.push(parsed.trunc()),
                    _ => member.malformed.push(cidr.clone()),
                }
            }
        }
        member
    }
}
