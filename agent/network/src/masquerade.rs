//! What pods send beyond the cluster seems to come from their node: the table `windlass-network`.
//!
//! It is a table of its own, so that the service proxy's resynchronisation never touches it. As nft lists it, IPv4's half:
//! `ip saddr @pods_ip ip daddr != @direct_ip ip daddr != 224.0.0.0/4 masquerade fully-random`

use std::{collections::BTreeSet, net::IpAddr};

use crate::guard::Guard;

use ipnet::IpNet;
use netlink::nft::{
    Batch, Chain, Expression, Family, Field, Hook, Register, Set, Table,
    expression::{Base, Is, Meta},
    interval::intervals,
};

const TABLE: Table = Table { family: Family::Inet, name: "windlass-network" };
/// What there is once it is applied.
pub(crate) const TABLES: &[Table] = &[TABLE];
const CHAIN: &str = "postrouting";

/// What the table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Masquerade {
    /// This node's pods' ranges.
    pods: Vec<IpNet>,
    /// Traffic there keeps its source.
    direct: BTreeSet<IpNet>,
    /// Who may send by the overlay, where there is one.
    guard: Option<Guard>,
}

/// What differs between the families.
struct Half {
    ipv6: bool,
    /// `NFPROTO_*`
    protocol: u8,
    address: Field,
    pods: &'static str,
    direct: &'static str,
    source: u32,
    destination: u32,
    size: u32,
    /// Multicast addresses: a mask of their first bytes and what is left under it, of the length nft reads as a prefix.
    multicast: (&'static [u8], &'static [u8]),
}

const HALVES: [Half; 2] = [
    Half {
        ipv6: false,
        protocol: 2,
        address: Field::Ipv4,
        pods: "pods_ip",
        direct: "direct_ip",
        source: 12,
        destination: 16,
        size: 4,
        multicast: (&[0xf0, 0, 0, 0], &[0xe0, 0, 0, 0]),
    },
    Half {
        ipv6: true,
        protocol: 10,
        address: Field::Ipv6,
        pods: "pods_ip6",
        direct: "direct_ip6",
        source: 8,
        destination: 24,
        size: 16,
        multicast: (&[0xff], &[0xff]),
    },
];

impl Masquerade {
    /// `pods` are this node's pods' ranges; traffic to `ranges` and `addresses` keeps its source.
    pub(crate) fn new(
        pods: &[IpNet],
        ranges: &BTreeSet<IpNet>,
        addresses: &BTreeSet<IpAddr>,
        guard: Option<Guard>,
    ) -> Self {
        let direct = ranges.iter().copied().chain(addresses.iter().copied().map(IpNet::from));
        Self { pods: pods.to_vec(), direct: direct.collect(), guard }
    }

    /// The whole table, as one transaction that replaces the one before.
    pub(crate) fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        batch.replace_table(TABLE);
        for half in &HALVES {
            for (name, ranges) in
                [(half.pods, self.pods.iter().copied().collect()), (half.direct, self.direct.clone())]
            {
                batch.add_set(TABLE, &Set::new(name, &[half.address]).intervals());
                batch.add_elements(TABLE, name, &intervals(ranges, half.ipv6));
            }
        }
        let hook = Hook { kind: "nat", number: Hook::POSTROUTING, priority: Hook::SRCNAT };
        batch.add_chain(TABLE, &Chain { name: CHAIN.into(), hook: Some(hook) });
        for half in &HALVES {
            batch.add_rule(TABLE, CHAIN, &half.rule());
        }
        if let Some(guard) = &self.guard {
            guard.add(TABLE, &mut batch);
        }
        batch
    }
}

impl Half {
    fn rule(&self) -> Vec<Expression> {
        let first = Register(0);
        let load = |offset, size| Expression::Payload(first, Base::Network, offset, size);
        let (mask, multicast) = self.multicast;
        vec![
            Expression::Meta(first, Meta::NetworkProtocol),
            Expression::Compare(first, Is::Equal, vec![self.protocol]),
            load(self.source, self.size),
            Expression::Member(self.pods.into(), first, Is::Equal),
            load(self.destination, self.size),
            Expression::Member(self.direct.into(), first, Is::Different),
            load(self.destination, mask.len() as u32),
            Expression::Mask(first, mask.to_vec()),
            Expression::Compare(first, Is::Different, multicast.to_vec()),
            Expression::MasqueradeFullyRandom,
        ]
    }
}
