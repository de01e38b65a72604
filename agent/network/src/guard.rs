//! Who may send by the overlay: nodes, and no pod. Part of the table `windlass-network`.
//!
//! VXLAN believes whoever sends it. A packet inside one may claim any pod's address, and so pass any policy that lets that pod in: it must come from a node.
//! A pod must not send one either: not to its own node, from an address it made up, and not to another, which would see the pod's
//! node as the sender where its packets are masqueraded. As nft lists it, IPv4's half:
//!
//! ```text
//! chain overlay-in { type filter hook input priority filter;
//!     udp dport 4789 iifname "cni0" drop
//!     udp dport 4789 ip saddr != @nodes_ip drop
//! }
//! chain overlay-out { type filter hook forward priority filter;
//!     udp dport 4789 iifname "cni0" ip daddr @nodes_ip drop
//! }
//! ```

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink::nft::{
    Batch, Chain, Expression, Field, Hook, Register, Set, Table, Verdict,
    expression::{Base, Is, Meta},
    interval::intervals,
};

const UDP: u8 = 17;
const IN: &str = "overlay-in";
const OUT: &str = "overlay-out";

/// What it has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// UDP port of the overlay.
    pub(crate) port: u16,
    /// The pods' bridge.
    pub(crate) bridge: String,
    /// Every node's addresses.
    pub(crate) nodes: BTreeSet<IpAddr>,
}

/// What differs between the families.
struct Half {
    ipv6: bool,
    /// `NFPROTO_*`
    protocol: u8,
    address: Field,
    nodes: &'static str,
    source: u32,
    destination: u32,
    size: u32,
}

const HALVES: [Half; 2] = [
    Half {
        ipv6: false,
        protocol: 2,
        address: Field::Ipv4,
        nodes: "nodes_ip",
        source: 12,
        destination: 16,
        size: 4,
    },
    Half {
        ipv6: true,
        protocol: 10,
        address: Field::Ipv6,
        nodes: "nodes_ip6",
        source: 8,
        destination: 24,
        size: 16,
    },
];

impl Guard {
    /// Adds sets, chains and rules to a table that is made in the same transaction.
    pub(crate) fn add(&self, table: Table, batch: &mut Batch) {
        let nodes: BTreeSet<IpNet> = self.nodes.iter().copied().map(IpNet::from).collect();
        for half in &HALVES {
            batch.add_set(table, &Set::new(half.nodes, &[half.address]).intervals());
            batch.add_elements(table, half.nodes, &intervals(nodes.clone(), half.ipv6));
        }
        for (name, number) in [(IN, Hook::INPUT), (OUT, Hook::FORWARD)] {
            let hook = Hook { kind: "filter", number, priority: Hook::FILTER };
            batch.add_chain(table, &Chain { name: name.into(), hook: Some(hook) });
        }
        batch.add_rule(table, IN, &[self.sent(), self.by_pods(), dropped()].concat());
        for half in &HALVES {
            let stranger = half.address(half.source, Is::Different);
            batch.add_rule(table, IN, &[half.family(), self.sent(), stranger, dropped()].concat());
            let to_node = half.address(half.destination, Is::Equal);
            let rule = [half.family(), self.sent(), self.by_pods(), to_node, dropped()].concat();
            batch.add_rule(table, OUT, &rule);
        }
    }

    fn sent(&self) -> Vec<Expression> {
        let first = Register(0);
        vec![
            Expression::Meta(first, Meta::Protocol),
            Expression::Compare(first, Is::Equal, vec![UDP]),
            Expression::Payload(first, Base::Transport, 2, 2),
            Expression::Compare(first, Is::Equal, self.port.to_be_bytes().to_vec()),
        ]
    }

    fn by_pods(&self) -> Vec<Expression> {
        let mut name = self.bridge.clone().into_bytes();
        name.resize(16, 0);
        let first = Register(0);
        vec![Expression::Meta(first, Meta::InputName), Expression::Compare(first, Is::Equal, name)]
    }
}

impl Half {
    fn family(&self) -> Vec<Expression> {
        let first = Register(0);
        vec![
            Expression::Meta(first, Meta::NetworkProtocol),
            Expression::Compare(first, Is::Equal, vec![self.protocol]),
        ]
    }

    fn address(&self, offset: u32, is: Is) -> Vec<Expression> {
        let first = Register(0);
        vec![
            Expression::Payload(first, Base::Network, offset, self.size),
            Expression::Member(self.nodes.into(), first, is),
        ]
    }
}

fn dropped() -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Drop)]
}
