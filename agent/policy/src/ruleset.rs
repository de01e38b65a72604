//! What the table holds, as data: sets, chains, and which address is judged by which chain; what of it changed since the last transaction.
//! Pure.
//!
//! ```text
//! local address --(map of its direction)--> selection --> policies, each: any line that matches accepts; else dropped
//! line: the peer is in a set, and the port is in a set
//! ```

use crate::ranges::PortRange;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The number of a set or chain; never used again while the agent lives.
pub type Id = u32;

/// As the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As chains and maps are called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What a set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Addresses of pods.
    Pods,
    /// Addresses of pods with a protocol and the port they have by some name.
    Named,
    /// Ranges of addresses.
    Blocks,
    /// Protocols with ranges of ports.
    Ports,
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Of [`Kind::Pods`].
    Address(IpAddr),
    /// Of [`Kind::Named`]: destination, protocol, port.
    Port(IpAddr, u8, u16),
    /// Of [`Kind::Blocks`].
    Net(IpNet),
    /// Of [`Kind::Ports`].
    Range(PortRange),
}

/// A set: each member with how often it is wanted, which two pods with one address may do for a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub kind: Kind,
    /// Never with a count of zero.
    pub members: BTreeMap<Member, u32>,
}

/// What a packet's destination port must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Any, or none: protocols without ports, too.
    Any,
    /// In a set of [`Kind::Ports`].
    In(Id),
    /// In a set of [`Kind::Named`], with the destination.
    Named(Id),
}

/// One way to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The other side is in this set, of [`Kind::Pods`] or [`Kind::Blocks`]; `None`: anybody.
    pub peer: Option<Id>,
    /// Which ports.
    pub port: Port,
}

/// What a chain does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Accepts what a line matches, and else returns.
    Policy(Direction, Vec<Line>),
    /// Asks these chains of policies in turn and drops what none accepts.
    Selection(Vec<Id>),
}

/// A chain with its name, which is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// As nft shows it.
    pub name: Arc<str>,
    /// What it does.
    pub body: Body,
}

/// The first packet of a connection, with the addresses between translation of its destination and of its source.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// `IPPROTO_*`
    pub protocol: u8,
    /// The destination's port; 0 where the protocol has none.
    pub port: u16,
}

/// What the table should hold, and notes of what changed.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    sets: BTreeMap<Id, Set>,
    chains: BTreeMap<Id, Chain>,
    targets: BTreeMap<(Direction, IpAddr), Id>,
    notes: Notes,
}

/// What each thing that was touched was at the last transaction.
#[derive(Clone, Debug, Default)]
struct Notes {
    new_sets: BTreeSet<Id>,
    gone_sets: BTreeMap<Id, Kind>,
    members: BTreeMap<Id, BTreeMap<Member, bool>>,
    chains: BTreeMap<Id, Option<Chain>>,
    targets: BTreeMap<(Direction, IpAddr), Option<Id>>,
}

/// What one transaction does, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sets to make, empty.
    pub new_sets: Vec<(Id, Kind)>,
    /// Members that leave.
    pub leave: Vec<(Id, Kind, Vec<Member>)>,
    /// Members that come.
    pub come: Vec<(Id, Kind, Vec<Member>)>,
    /// Chains to make, or to make anew, those of policies first: by number, with all that can be asked.
    pub chains: Vec<(Id, Chain)>,
    /// Addresses that are judged no more by what judged them.
    pub released: Vec<(Direction, IpAddr)>,
    /// Addresses and what judges them.
    pub judged: Vec<(Direction, IpAddr, Arc<str>)>,
    /// Addresses that were judged in some direction, and are in none.
    pub freed: Vec<IpAddr>,
    /// Addresses that are judged in some direction, and were in none.
    pub isolated: Vec<IpAddr>,
    /// Chains to delete, selections first.
    pub gone_chains: Vec<Arc<str>>,
    /// Sets to delete.
    pub gone_sets: Vec<(Id, Kind)>,
}

impl Difference {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Ruleset ===

impl Ruleset {
    /// The sets.
    #[must_use]
    pub fn sets(&self) -> &BTreeMap<Id, Set> {
        &self.sets
    }

    /// The chains.
    #[must_use]
    pub fn chains(&self) -> &BTreeMap<Id, Chain> {
        &self.chains
    }

    /// Which selection judges which address.
    #[must_use]
    pub fn targets(&self) -> &BTreeMap<(Direction, IpAddr), Id> {
        &self.targets
    }

    pub(crate) fn add_set(&mut self, id: Id, kind: Kind, members: impl IntoIterator<Item = Member>) {
        self.notes.new_sets.insert(id);
        self.sets.insert(id, Set { kind, members: BTreeMap::new() });
        for member in members {
            self.add_member(id, member);
        }
    }

    pub(crate) fn remove_set(&mut self, id: Id) {
        let Some(set) = self.sets.remove(&id) else { return };
        self.notes.members.remove(&id);
        if !self.notes.new_sets.remove(&id) {
            self.notes.gone_sets.insert(id, set.kind);
        }
    }

    /// True where the member was not there before.
    pub(crate) fn add_member(&mut self, id: Id, member: Member) -> bool {
        let Some(set) = self.sets.get_mut(&id) else { return false };
        let count = set.members.entry(member).or_default();
        *count += 1;
        let first = *count == 1;
        if first {
            self.notes.members.entry(id).or_default().entry(member).or_insert(false);
        }
        first
    }

    /// True where the member is not there any more.
    pub(crate) fn remove_member(&mut self, id: Id, member: Member) -> bool {
        let Some(set) = self.sets.get_mut(&id) else { return false };
        let Some(count) = set.members.get_mut(&member) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            set.members.remove(&member);
            self.notes.members.entry(id).or_default().entry(member).or_insert(true);
        }
        last
    }

    pub(crate) fn set_chain(&mut self, id: Id, chain: Option<Chain>) {
        let before = match chain {
            Some(chain) => self.chains.insert(id, chain),
            None => self.chains.remove(&id),
        };
        self.notes.chains.entry(id).or_insert(before);
    }

    /// True where it changed.
    pub(crate) fn set_target(
        &mut self,
        direction: Direction,
        address: IpAddr,
        selection: Option<Id>,
    ) -> bool {
        let at = (direction, address);
        let before = match selection {
            Some(id) => self.targets.insert(at, id),
            None => self.targets.remove(&at),
        };
        if before != selection {
            self.notes.targets.entry(at).or_insert(before);
        }
        before != selection
    }

    fn is_isolated(&self, address: IpAddr) -> bool {
        Direction::ALL.iter().any(|direction| self.targets.contains_key(&(*direction, address)))
    }

    fn name_of(&self, id: Id) -> Arc<str> {
        self.chains.get(&id).map_or_else(|| "".into(), |chain| chain.name.clone())
    }

    /// What changed since this was asked last.
    #[must_use]
    pub fn take_difference(&mut self) -> Difference {
        let notes = std::mem::take(&mut self.notes);
        let mut out = Difference::default();
        for id in notes.new_sets {
            out.new_sets.extend(self.sets.get(&id).map(|set| (id, set.kind)));
        }
        for (id, touched) in notes.members {
            let Some(set) = self.sets.get(&id) else { continue };
            let (mut leave, mut come) = (Vec::new(), Vec::new());
            for (member, was) in touched {
                match (was, set.members.contains_key(&member)) {
                    (true, false) => leave.push(member),
                    (false, true) => come.push(member),
                    _ => {}
                }
            }
            if !leave.is_empty() {
                out.leave.push((id, set.kind, leave));
            }
            if !come.is_empty() {
                out.come.push((id, set.kind, come));
            }
        }
        for (id, before) in notes.chains {
            match (before, self.chains.get(&id)) {
                (before, Some(now)) if before.as_ref() != Some(now) => out.chains.push((id, now.clone())),
                (Some(before), None) => out.gone_chains.push(before.name),
                _ => {}
            }
        }
        out.chains.sort_by_key(|(id, chain)| (matches!(chain.body, Body::Selection(_)), *id));
        // a chain's number is higher than those of the chains it leads to
        out.gone_chains.reverse();
        let mut before: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for ((direction, address), was) in &notes.targets {
            let now = self.targets.get(&(*direction, *address));
            if was.as_ref() != now {
                out.released.extend(was.map(|_| (*direction, *address)));
                out.judged.extend(now.map(|id| (*direction, *address, self.name_of(*id))));
            }
            *before.entry(*address).or_default() |= was.is_some();
        }
        for (address, mut was) in before {
            for direction in Direction::ALL {
                let at = (direction, address);
                was |= !notes.targets.contains_key(&at) && self.targets.contains_key(&at);
            }
            match (was, self.is_isolated(address)) {
                (true, false) => out.freed.push(address),
                (false, true) => out.isolated.push(address),
                _ => {}
            }
        }
        out.gone_sets.extend(notes.gone_sets);
        out
    }

    /// Forgets what changed, for whoever makes everything anew.
    pub(crate) fn forget_changes(&mut self) {
        self.notes = Notes::default();
    }

    /// Everything, for an empty table; nothing is noted any more.
    #[must_use]
    pub fn whole(&mut self) -> Difference {
        self.notes = Notes::default();
        let mut out = Difference::default();
        for (id, set) in &self.sets {
            out.new_sets.push((*id, set.kind));
            if !set.members.is_empty() {
                out.come.push((*id, set.kind, set.members.keys().copied().collect()));
            }
        }
        out.chains.extend(self.chains.iter().map(|(id, chain)| (*id, chain.clone())));
        out.chains.sort_by_key(|(id, chain)| (matches!(chain.body, Body::Selection(_)), *id));
        let judged = self.targets.iter();
        out.judged.extend(judged.map(|((direction, address), id)| (*direction, *address, self.name_of(*id))));
        let addresses: BTreeSet<IpAddr> = self.targets.keys().map(|(_, address)| *address).collect();
        out.isolated.extend(addresses);
        out
    }

    /// Whether a connection may begin, as the table says it.
    #[must_use]
    pub fn allows(&self, packet: &Packet) -> bool {
        packet.source == packet.destination
            || (self.passes(Direction::Egress, packet.source, packet)
                && self.passes(Direction::Ingress, packet.destination, packet))
    }

    fn passes(&self, direction: Direction, address: IpAddr, packet: &Packet) -> bool {
        let Some(selection) = self.targets.get(&(direction, address)) else { return true };
        let Some(Chain { body: Body::Selection(policies), .. }) = self.chains.get(selection) else {
            return false;
        };
        policies.iter().any(|id| match self.chains.get(id) {
            Some(Chain { body: Body::Policy(direction, lines), .. }) => {
                lines.iter().any(|line| self.matches(*direction, line, packet))
            }
            _ => false,
        })
    }

    fn matches(&self, direction: Direction, line: &Line, packet: &Packet) -> bool {
        let peer = match direction {
            Direction::Ingress => packet.source,
            Direction::Egress => packet.destination,
        };
        let known = line.peer.is_none_or(|id| self.sets.get(&id).is_some_and(|set| set.holds_address(peer)));
        known
            && match line.port {
                Port::Any => true,
                Port::In(id) => self.sets.get(&id).is_some_and(|set| {
                    let in_range = |member: &Member| {
                        matches!(member, Member::Range(range) if range.holds(packet.protocol, packet.port))
                    };
                    set.members.keys().any(in_range)
                }),
                Port::Named(id) => self.sets.get(&id).is_some_and(|set| {
                    let wanted = Member::Port(packet.destination, packet.protocol, packet.port);
                    set.members.contains_key(&wanted)
                }),
            }
    }
}

// === impl Set ===

impl Set {
    fn holds_address(&self, address: IpAddr) -> bool {
        match self.kind {
            Kind::Blocks => {
                self.members.keys().any(|member| matches!(member, Member::Net(net) if net.contains(&address)))
            }
            _ => self.members.contains_key(&Member::Address(address)),
        }
    }
}
