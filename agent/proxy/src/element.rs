//! Rules as elements of nftables sets and maps, and the difference between two. Pure.

use crate::model::{Endpoint, Front, Rules, Target};
use crate::numbers::GROUPS;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// Where the numbers of slots and sticky endpoints begin. A packet carries one in its priority while it is looked for an endpoint, since its
/// mark is routed by and belongs to others; no class of traffic has such a number.
pub(crate) const SLOTS: u32 = 0xfff0_0000;
/// Added to the numbers of a front whose connections get the node's address as their source.
pub(crate) const MASQUERADE: u32 = 0x1_0000;
/// Added for a connection that comes from inside the cluster to a front whose policy is Local for others.
pub(crate) const INSIDE: u32 = 0x4_0000;

/// A chain that balances over `slots` endpoints; made once, shared by every front with that many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Balancer {
    /// Keyed by port alone, for node ports.
    pub node_port: bool,
    /// The source of its connections is rewritten.
    pub masquerade: bool,
    /// For connections from inside the cluster.
    pub inside: bool,
    /// Seconds a client stays with its endpoint.
    pub sticky: Option<u32>,
    pub slots: usize,
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.node_port { "port" } else { "address" };
        let masquerade = if self.masquerade { "-masq" } else { "" };
        let inside = if self.inside { "-inside" } else { "" };
        write!(f, "{kind}{masquerade}{inside}-{}", self.slots)?;
        self.sticky.map_or(Ok(()), |seconds| write!(f, "-sticky-{seconds}"))
    }
}

impl Balancer {
    /// What is added to the slots' numbers.
    #[must_use]
    pub fn base(&self) -> u32 {
        base(self.masquerade, self.inside)
    }
}

/// What is added to the slots' numbers of a front.
#[must_use]
pub(crate) fn base(masquerade: bool, inside: bool) -> u32 {
    SLOTS | (if masquerade { MASQUERADE } else { 0 }) | (if inside { INSIDE } else { 0 })
}

/// What an element's key maps to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A set's element has none.
    Member,
    /// `goto` a balancer.
    Balance(Balancer),
    /// `goto refuse`.
    Refuse,
    /// `drop`.
    Drop,
    Endpoint(Endpoint),
    /// The number of a sticky endpoint, or of a port with such ones.
    Number(u32),
}

/// The sets and maps of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Addresses to refuse when no front took the packet.
    ClusterIps,
    /// Pairs of one address with itself.
    Hairpin,
    /// Front to balancer, by address.
    Services,
    /// Front to balancer, by node port.
    NodePorts,
    /// Front to balancer for those inside the cluster, by address.
    Inside,
    /// Front to balancer for those inside the cluster, by node port.
    InsidePorts,
    /// Front and slot to endpoint, by address.
    Endpoints,
    /// Front and slot to endpoint, by node port.
    PortEndpoints,
    /// Front and slot to a sticky endpoint's number, by address.
    Sticky,
    /// Front and slot to a sticky endpoint's number, by node port.
    PortSticky,
    /// Front to the number of its service's port, by address.
    Affinity,
    /// Front to the number of its service's port, by node port.
    PortAffinity,
    /// Front to refuse or drop, by address.
    Closed,
    /// Front to refuse or drop, by node port.
    ClosedPorts,
    /// Fronts that not everybody may reach.
    Guarded,
    /// Those fronts and from where they are reached.
    Allowed,
}

/// One element of one set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// In the IPv6 table.
    pub ipv6: bool,
    pub set: Set,
    pub key: Key,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Address(IpAddr),
    /// Source and destination are the same: a hairpin.
    Pair(IpAddr),
    Front(Front),
    /// A front and a slot.
    Slot(Front, u32),
    /// A front and a range of sources.
    Source(Front, IpNet),
}

/// All elements of one service.
#[must_use]
pub fn elements(rules: &Rules) -> BTreeSet<Element> {
    let mut out = BTreeSet::new();
    let address = |set, ip: &IpAddr, key| Element { ipv6: ip.is_ipv6(), set, key, value: Value::Member };
    out.extend(rules.cluster_ips.iter().map(|ip| address(Set::ClusterIps, ip, Key::Address(*ip))));
    out.extend(rules.local_endpoints.iter().map(|ip| address(Set::Hairpin, ip, Key::Pair(*ip))));
    for (front, ranges) in &rules.guarded {
        let mut put = |set, key| {
            out.insert(Element { ipv6: front.is_ipv6(), set, key, value: Value::Member });
        };
        put(Set::Guarded, Key::Front(*front));
        ranges.iter().for_each(|range| put(Set::Allowed, Key::Source(*front, *range)));
    }
    for (front, target) in &rules.fronts {
        of_front(front, target, false, &mut out);
    }
    for (front, target) in &rules.inside {
        of_front(front, target, true, &mut out);
    }
    out
}

fn of_front(front: &Front, target: &Target, inside: bool, out: &mut BTreeSet<Element>) {
    let node_port = matches!(front, Front::NodePort(..));
    let pick = |by_address, by_port| if node_port { by_port } else { by_address };
    let mut put = |set, key, value| {
        out.insert(Element { ipv6: front.is_ipv6(), set, key, value });
    };
    let closed = pick(Set::Closed, Set::ClosedPorts);
    let (masquerade, sticky, slots) = match target {
        Target::Balance { masquerade, sticky, slots } => (*masquerade, sticky.as_ref(), slots),
        Target::Refuse => return put(closed, Key::Front(*front), Value::Refuse),
        Target::Drop => return put(closed, Key::Front(*front), Value::Drop),
    };
    let seconds = sticky.map(|own| own.seconds);
    let balancer = Balancer { node_port, masquerade, inside, sticky: seconds, slots: slots.len() };
    let fronts =
        if inside { pick(Set::Inside, Set::InsidePorts) } else { pick(Set::Services, Set::NodePorts) };
    put(fronts, Key::Front(*front), Value::Balance(balancer));
    let endpoints = pick(Set::Endpoints, Set::PortEndpoints);
    if let Some(own) = sticky {
        let port = Value::Number(GROUPS.of(own.group, 0));
        put(pick(Set::Affinity, Set::PortAffinity), Key::Front(*front), port);
    }
    for (slot, endpoint) in (balancer.base()..).zip(slots) {
        let number = sticky.and_then(|own| Some(GROUPS.of(own.group, *own.ids.get(endpoint)?)));
        let Some(number) = number else {
            put(endpoints, Key::Slot(*front, slot), Value::Endpoint(*endpoint));
            continue;
        };
        put(pick(Set::Sticky, Set::PortSticky), Key::Slot(*front, slot), Value::Number(number));
        let looked_for = if inside { number | GROUPS.inside } else { number };
        put(endpoints, Key::Slot(*front, looked_for), Value::Endpoint(*endpoint));
    }
}

/// What one transaction changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Elements to delete, before anything is added: a key's value changes by delete and add.
    pub delete: Vec<Element>,
    /// Elements to add, after the deletions.
    pub add: Vec<Element>,
}

impl Difference {
    /// From `old` to `new`.
    #[must_use]
    pub fn between(old: &BTreeSet<Element>, new: &BTreeSet<Element>) -> Self {
        Self { delete: old.difference(new).cloned().collect(), add: new.difference(old).cloned().collect() }
    }

    /// True when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }
}
