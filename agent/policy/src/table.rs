//! A difference as a transaction over the table `windlass-policy`. Pure.
//!
//! ```text
//! table inet windlass-policy {
//!   set neighbours { type icmpv6_type; elements = { 133-137 } }
//!   set own4 { type ipv4_addr . ipv4_addr; }        # each judged address with itself
//!   map egress4 { type ipv4_addr : verdict; }       # 10.244.1.2 : goto selected/9
//!   map ingress4 { type ipv4_addr : verdict; }      # and all of these for IPv6
//!   set peers3v4 { type ipv4_addr; }                # a term's pods
//!   set peers5v4 { type ipv4_addr; flags interval; } # address blocks
//!   set ports6 { type inet_proto . inet_service; flags interval; }
//!   set named7v4 { type ipv4_addr . inet_proto . inet_service; }
//!   chain egress { type filter hook forward priority filter;
//!     ct state established,related accept
//!     icmpv6 type @neighbours accept
//!     ip saddr . ip daddr @own4 accept
//!     tcp flags & (fin | syn | rst | ack) != syn ip saddr . ip saddr @own4 drop
//!     tcp flags & (fin | syn | rst | ack) != syn ip daddr . ip daddr @own4 drop
//!     ip saddr vmap @egress4
//!   }
//!   chain ingress { type filter hook forward priority filter + 1;
//!     ct state established,related accept
//!     icmpv6 type @neighbours accept
//!     ip saddr . ip daddr @own4 accept
//!     ip daddr vmap @ingress4
//!   }
//!   chain ingress/8/default/web { ip saddr @peers3v4 meta l4proto . th dport @ports6 accept }
//!   chain selected/9 { jump ingress/8/default/web; drop }
//! }
//! ```
//!
//! Two base chains, so that what leaves a pod and what reaches one are judged apart, and `accept` of the first goes on to the second. Both are
//! where packets are forwarded: after a Service's address became a pod's, before the source becomes the node's. Pods of one node reach
//! each other over the bridge, whose packets come by here because the pod network has bridged packets shown to these hooks (`br_netfilter`).
//! What the node itself sends or gets does not come by.
//!
//! Pods are elements of plain sets, of which any may come or go by itself; address blocks, whose ranges must not overlap, are sets of their own
//! that are made with their elements and never change.
//!
//! A connection in its midst that connection tracking does not know, to or from a judged pod, is one that was cut: its other side must
//! not begin it again in the opposite direction, which may be open.

use crate::ruleset::{Body, Chain, Difference, Direction, Id, Kind, Line, Member, Port, Ruleset};
use ipnet::IpNet;
use netlink::nft::expression::{Base, Conntrack, Expression as E, Is, Meta, Register};
use netlink::nft::{self, Batch, Bytes, Element, Family, Field, Hook, Table, Value, Verdict};
use std::net::IpAddr;

/// Our table, of both families.
pub(crate) const TABLES: &[Table] = &[TABLE];
const TABLE: Table = Table { family: Family::Inet, name: "windlass-policy" };

const NEIGHBOURS: &str = "neighbours";
/// Looking for routers and neighbours, their answers, and redirects.
const NEIGHBOUR_TYPES: std::ops::RangeInclusive<u8> = 133..=137;
/// The bits of the states established and related.
const KNOWN: u32 = 2 | 4;
const FIRST: Register = Register(0);
const TCP: u8 = 6;
const ICMP6: u8 = 58;
const SYN: u8 = 0x02;
/// FIN, SYN, RST, ACK.
const FLAGS: u8 = 0x17;

/// What differs between the families.
struct Half {
    ipv6: bool,
    /// `NFPROTO_*`
    protocol: u8,
    address: Field,
    source: u32,
    destination: u32,
    size: u32,
    own: &'static str,
    egress: &'static str,
    ingress: &'static str,
    suffix: &'static str,
}

const HALVES: [Half; 2] = [
    Half {
        ipv6: false,
        protocol: 2,
        address: Field::Ipv4,
        source: 12,
        destination: 16,
        size: 4,
        own: "own4",
        egress: "egress4",
        ingress: "ingress4",
        suffix: "v4",
    },
    Half {
        ipv6: true,
        protocol: 10,
        address: Field::Ipv6,
        source: 8,
        destination: 24,
        size: 16,
        own: "own6",
        egress: "egress6",
        ingress: "ingress6",
        suffix: "v6",
    },
];

impl Half {
    /// Registers an address takes.
    fn words(&self) -> u8 {
        if self.ipv6 { 4 } else { 1 }
    }

    fn map(&self, direction: Direction) -> &'static str {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// The packet is of this family.
    fn only(&self) -> [E; 2] {
        [E::Meta(FIRST, Meta::NetworkProtocol), E::Compare(FIRST, Is::Equal, vec![self.protocol])]
    }

    fn load(&self, offset: u32, to: u8) -> E {
        E::Payload(Register(to), Base::Network, offset, self.size)
    }

    /// These two addresses are one that is judged.
    fn is_own(&self, one: u32, other: u32) -> Vec<E> {
        let pair = [self.load(one, 0), self.load(other, self.words())];
        [&self.only()[..], &pair, &[E::Member(self.own.into(), FIRST, Is::Equal)]].concat()
    }
}

/// Makes the table anew: empty maps, and the chains that read them.
pub(crate) fn replace(batch: &mut Batch) {
    batch.replace_table(TABLE);
    batch.add_set(TABLE, &nft::Set::new(NEIGHBOURS, &[Field::Icmp6Type]));
    let types: Vec<Element> = NEIGHBOUR_TYPES.map(|kind| Element::member(Bytes(vec![kind]))).collect();
    batch.add_elements(TABLE, NEIGHBOURS, &types);
    for half in &HALVES {
        batch.add_set(TABLE, &nft::Set::new(half.own, &[half.address, half.address]));
        batch.add_set(TABLE, &nft::Set::new(half.egress, &[half.address]).to_verdicts());
        batch.add_set(TABLE, &nft::Set::new(half.ingress, &[half.address]).to_verdicts());
    }
    for (direction, priority) in [(Direction::Egress, Hook::FILTER), (Direction::Ingress, Hook::FILTER + 1)] {
        let hook = Some(Hook { kind: "filter", number: Hook::FORWARD, priority });
        batch.add_chain(TABLE, &nft::Chain { name: direction.name().into(), hook });
        for rule in base(direction) {
            batch.add_rule(TABLE, direction.name(), &rule);
        }
    }
}

/// Takes the table away, whether it is there or not.
pub(crate) fn remove(batch: &mut Batch) {
    batch.add_table(TABLE);
    batch.delete_table(TABLE);
}

fn base(direction: Direction) -> Vec<Vec<E>> {
    let accept = || E::Verdict(Verdict::Accept);
    let [_, v6] = &HALVES;
    let mut rules = vec![
        vec![
            E::Conntrack(FIRST, Conntrack::State),
            E::Mask(FIRST, KNOWN.to_ne_bytes().to_vec()),
            E::Compare(FIRST, Is::Different, vec![0; 4]),
            accept(),
        ],
        [
            &v6.only()[..],
            &is_protocol(ICMP6),
            &[
                E::Payload(FIRST, Base::Transport, 0, 1),
                E::Member(NEIGHBOURS.into(), FIRST, Is::Equal),
                accept(),
            ],
        ]
        .concat(),
    ];
    for half in &HALVES {
        rules.push([&half.is_own(half.source, half.destination)[..], &[accept()]].concat());
    }
    if direction == Direction::Egress {
        let midst = [
            E::Payload(FIRST, Base::Transport, 13, 1),
            E::Mask(FIRST, vec![FLAGS]),
            E::Compare(FIRST, Is::Different, vec![SYN]),
        ];
        for half in &HALVES {
            for side in [half.source, half.destination] {
                let own = half.is_own(side, side);
                rules.push([&is_protocol(TCP)[..], &midst, &own, &[E::Verdict(Verdict::Drop)]].concat());
            }
        }
    }
    for half in &HALVES {
        let side = if direction == Direction::Egress { half.source } else { half.destination };
        let judge = [half.load(side, 0), E::VerdictLookup(half.map(direction).into(), FIRST)];
        rules.push([&half.only()[..], &judge].concat());
    }
    rules
}

fn is_protocol(number: u8) -> [E; 2] {
    [E::Meta(FIRST, Meta::Protocol), E::Compare(FIRST, Is::Equal, vec![number])]
}

/// Appends what a difference does; `rules` are what it leads to.
pub(crate) fn change(batch: &mut Batch, difference: &Difference, rules: &Ruleset) {
    for (id, kind) in &difference.new_sets {
        sets(*id, *kind).iter().for_each(|set| batch.add_set(TABLE, set));
    }
    for (id, kind, members) in &difference.leave {
        for (set, elements) in elements(*id, *kind, members) {
            batch.delete_elements(TABLE, &set, &elements);
        }
    }
    for (id, kind, members) in &difference.come {
        for (set, elements) in elements(*id, *kind, members) {
            batch.add_new_elements(TABLE, &set, &elements);
        }
    }
    for (_, Chain { name, body }) in &difference.chains {
        batch.add_chain(TABLE, &nft::Chain { name: name.to_string().into(), hook: None });
        match body {
            Body::Policy(direction, lines) => {
                batch.flush_chain(TABLE, name);
                for rule in lines.iter().flat_map(|line| line_rules(*direction, line)) {
                    batch.add_rule(TABLE, name, &rule);
                }
            }
            Body::Selection(policies) => {
                for policy in policies.iter().filter_map(|id| rules.chains().get(id)) {
                    batch.add_rule(TABLE, name, &[E::Verdict(Verdict::Jump(policy.name.to_string().into()))]);
                }
                batch.add_rule(TABLE, name, &[E::Verdict(Verdict::Drop)]);
            }
        }
    }
    targets(batch, difference);
    difference.gone_chains.iter().for_each(|name| batch.delete_chain(TABLE, name));
    for (id, kind) in &difference.gone_sets {
        sets(*id, *kind).iter().for_each(|set| batch.delete_set(TABLE, &set.name));
    }
}

/// Which address is judged by whom.
fn targets(batch: &mut Batch, difference: &Difference) {
    for direction in Direction::ALL {
        for half in &HALVES {
            let of = |at: &Direction, ip: &IpAddr| *at == direction && ip.is_ipv6() == half.ipv6;
            let key = |ip: &IpAddr| Element::member(Bytes::default().address(*ip));
            let released: Vec<Element> =
                difference.released.iter().filter(|(at, ip)| of(at, ip)).map(|(_, ip)| key(ip)).collect();
            batch.delete_elements(TABLE, half.map(direction), &released);
            let judged = difference.judged.iter().filter(|(at, ip, _)| of(at, ip)).map(|(_, ip, chain)| {
                Element { value: Some(Value::Verdict(Verdict::Goto(chain.to_string().into()))), ..key(ip) }
            });
            batch.add_new_elements(TABLE, half.map(direction), &judged.collect::<Vec<_>>());
        }
    }
    let pair = |ip: &IpAddr| Element::member(Bytes::default().address(*ip).address(*ip));
    for half in &HALVES {
        let of = |all: &[IpAddr]| -> Vec<Element> {
            all.iter().filter(|ip| ip.is_ipv6() == half.ipv6).map(pair).collect()
        };
        batch.delete_elements(TABLE, half.own, &of(&difference.freed));
        batch.add_new_elements(TABLE, half.own, &of(&difference.isolated));
    }
}

fn name(id: Id, kind: Kind, half: &Half) -> String {
    let kind = match kind {
        // a line asks both in one way
        Kind::Pods | Kind::Blocks => "peers",
        Kind::Named => "named",
        Kind::Ports => return ports_name(id),
    };
    format!("{kind}{id}{}", half.suffix)
}

fn ports_name(id: Id) -> String {
    format!("ports{id}")
}

/// The kernel's sets for one of ours: one a family, or one alone where families are alike.
fn sets(id: Id, kind: Kind) -> Vec<nft::Set> {
    if kind == Kind::Ports {
        return vec![nft::Set::new(ports_name(id), &[Field::Protocol, Field::Port]).ranges()];
    }
    let of = |half: &Half| {
        let name = name(id, kind, half);
        match kind {
            Kind::Named => nft::Set::new(name, &[half.address, Field::Protocol, Field::Port]),
            Kind::Blocks => nft::Set::new(name, &[half.address]).intervals(),
            _ => nft::Set::new(name, &[half.address]),
        }
    };
    HALVES.iter().map(of).collect()
}

/// The elements for members, by the kernel's sets. Ranges of addresses come all at once, or not at all.
fn elements(id: Id, kind: Kind, members: &[Member]) -> Vec<(String, Vec<Element>)> {
    if kind == Kind::Ports {
        return vec![(ports_name(id), members.iter().filter_map(port_range).collect())];
    }
    let of = |half: &Half| {
        let elements = match kind {
            Kind::Blocks => {
                let nets = members.iter().filter_map(|member| match member {
                    Member::Net(net) => Some(*net),
                    _ => None,
                });
                nft::interval::intervals(nets.collect::<Vec<IpNet>>(), half.ipv6)
            }
            _ => members.iter().filter_map(|member| plain(member, half.ipv6)).collect(),
        };
        (name(id, kind, half), elements)
    };
    HALVES.iter().map(of).collect()
}

fn plain(member: &Member, ipv6: bool) -> Option<Element> {
    let key = match member {
        Member::Address(ip) if ip.is_ipv6() == ipv6 => Bytes::default().address(*ip),
        Member::Port(ip, protocol, port) if ip.is_ipv6() == ipv6 => {
            Bytes::default().address(*ip).protocol(*protocol).port(*port)
        }
        _ => return None,
    };
    Some(Element::member(key))
}

fn port_range(member: &Member) -> Option<Element> {
    let Member::Range(range) = member else { return None };
    let key = |port| Bytes::default().protocol(range.protocol).port(port);
    Some(Element { end: Some(key(range.last)), ..Element::member(key(range.first)) })
}

/// A line as rules: one a family, or one alone where no address matters.
fn line_rules(direction: Direction, line: &Line) -> Vec<Vec<E>> {
    let port = [E::Meta(FIRST, Meta::Protocol), E::Payload(Register(1), Base::Transport, 2, 2)];
    let mut ports = Vec::new();
    if let Port::In(id) = line.port {
        ports.extend(port);
        ports.push(E::Member(ports_name(id).into(), FIRST, Is::Equal));
    }
    let accept = [E::Verdict(Verdict::Accept)];
    if line.peer.is_none() && !matches!(line.port, Port::Named(_)) {
        return vec![[&ports[..], &accept].concat()];
    }
    let of = |half: &Half| {
        let mut rule = half.only().to_vec();
        if let Some(id) = line.peer {
            let side = if direction == Direction::Ingress { half.source } else { half.destination };
            rule.push(half.load(side, 0));
            rule.push(E::Member(name(id, Kind::Pods, half).into(), FIRST, Is::Equal));
        }
        if let Port::Named(id) = line.port {
            let next = half.words();
            rule.push(half.load(half.destination, 0));
            rule.push(E::Meta(Register(next), Meta::Protocol));
            rule.push(E::Payload(Register(next + 1), Base::Transport, 2, 2));
            rule.push(E::Member(name(id, Kind::Named, half).into(), FIRST, Is::Equal));
        }
        [&rule[..], &ports, &accept].concat()
    };
    HALVES.iter().map(of).collect()
}
