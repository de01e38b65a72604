//! The table `windlass-cni` and its elements.
//!
//! ```text
//! table inet windlass-cni {
//!   map hostports4    { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map hostports4at  { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   set hairpin4      { type inet_proto . inet_service . ipv4_addr . ipv4_addr; flags interval }
//!   map masquerade4   { type ipv4_addr : verdict }
//!   chain localnet    { type filter hook prerouting priority -301; iif != "lo" ip daddr 127.0.0.0/8 drop }
//!   chain prerouting  { type nat hook prerouting priority -101; fib daddr type local jump hostports }
//!   chain output      { type nat hook output priority -101;     fib daddr type local jump hostports }
//!   chain hostports   { dnat ip to ip daddr . meta l4proto . th dport map @hostports4at
//!                       dnat ip to meta l4proto . th dport map @hostports4 }
//!   chain postrouting { type nat hook postrouting priority 99
//!                       ct status dnat meta l4proto . ct original proto-dst . ip saddr . ip daddr @hairpin4 masquerade
//!                       ip saddr vmap @masquerade4 }
//!   chain subnet-10.88.0.0/24 { ip daddr 10.88.0.0/24 return; ip daddr 224.0.0.0/4 return; masquerade }
//! }
//! ```
//!
//! and the same again for IPv6. `localnet` is there because the host's 127.0.0.1 can use host ports only if the bridge
//! has `route_localnet`, which by itself would open the host's loopback services to every container (CVE-2020-8558).
//!
//! A container is some elements, whose comment says whose they are; the rules never
//! change. So an ADD is one small transaction, and only the first one on a node (the kernel knows no such set) sends
//! the whole table, which is idempotent: whoever else does so at the same time does no harm.

use ipnet::IpNet;
use netlink::{
    Protocol, Socket,
    nft::{
        self, Batch, Bytes, Chain, Element, Expression as E, Field, Hook, Register, Set, Table, Verdict,
        expression::{Base, Conntrack, Is, Meta},
        transaction::{commit, elements},
    },
};

use crate::{Error, error::IoContext};

const TABLE: Table = Table { family: nft::Family::Inet, name: "windlass-cni" };

/// The names of the sets of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    v4: bool,
    /// Host ports on every address of the host.
    pub(crate) hostports: &'static str,
    /// Host ports on one address.
    pub(crate) hostports_at: &'static str,
    /// Whose traffic to a host port must be seen to come from the host.
    pub(crate) hairpin: &'static str,
    /// Whose traffic must be seen to come from the host, whatever it is.
    pub(crate) masquerade: &'static str,
}

pub(crate) const FAMILY4: Family = Family {
    v4: true,
    hostports: "hostports4",
    hostports_at: "hostports4at",
    hairpin: "hairpin4",
    masquerade: "masquerade4",
};

pub(crate) const FAMILY6: Family = Family {
    v4: false,
    hostports: "hostports6",
    hostports_at: "hostports6at",
    hairpin: "hairpin6",
    masquerade: "masquerade6",
};

impl Family {
    pub(crate) fn of(v4: bool) -> &'static Self {
        if v4 { &FAMILY4 } else { &FAMILY6 }
    }

    fn sets(&self) -> [Set; 4] {
        let address = if self.v4 { Field::Ipv4 } else { Field::Ipv6 };
        let (protocol, port) = (Field::Protocol, Field::Port);
        [
            Set::new(self.hostports, &[protocol, port]).to(&[address, port]),
            Set::new(self.hostports_at, &[address, protocol, port]).to(&[address, port]),
            Set::new(self.hairpin, &[protocol, port, address, address]).ranges(),
            Set::new(self.masquerade, &[address]).to_verdicts(),
        ]
    }

    /// How many registers an address takes.
    fn width(&self) -> u8 {
        if self.v4 { 1 } else { 4 }
    }

    /// The rule is for this family, or it ends.
    fn only(&self) -> [E; 2] {
        let protocol = if self.v4 { 2 } else { 10 };
        [E::Meta(Register(0), Meta::NetworkProtocol), E::Compare(Register(0), Is::Equal, vec![protocol])]
    }

    fn source(&self, into: Register) -> E {
        let (offset, size) = if self.v4 { (12, 4) } else { (8, 16) };
        E::Payload(into, Base::Network, offset, size)
    }

    fn destination(&self, into: Register) -> E {
        let (offset, size) = if self.v4 { (16, 4) } else { (24, 16) };
        E::Payload(into, Base::Network, offset, size)
    }
}

/// An element with the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) set: &'static str,
    pub(crate) element: Element,
}

/// Adds elements, and the table if it is not there; `subnets` get their masquerading chains.
pub(crate) fn add(placed: &[Placed], subnets: &[IpNet]) -> Result<(), nft::Error> {
    if placed.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let put = |batch: &mut Batch| {
        for Placed { set, element } in placed {
            batch.add_new_elements(TABLE, set, std::slice::from_ref(element));
        }
    };
    let mut batch = Batch::default();
    put(&mut batch);
    match commit(&mut socket, batch) {
        Err(error) if error.errno() == libc::ENOENT => {}
        other => return other,
    }
    let mut whole = Batch::default();
    build(&mut whole, subnets);
    put(&mut whole);
    commit(&mut socket, whole)
}

/// The elements of these sets for which `wanted` says so.
pub(crate) fn find(
    sets: &[&'static str],
    wanted: impl Fn(&Element) -> bool,
) -> Result<Vec<Placed>, nft::Error> {
    find_on(&mut Socket::open(Protocol::Netfilter)?, sets, &wanted)
}

fn find_on(
    socket: &mut Socket,
    sets: &[&'static str],
    wanted: &impl Fn(&Element) -> bool,
) -> Result<Vec<Placed>, nft::Error> {
    let mut found = Vec::new();
    for set in sets {
        let there = elements(socket, TABLE, set)?.into_iter().filter(wanted);
        found.extend(there.map(|element| Placed { set, element }));
    }
    Ok(found)
}

/// Removes the elements of these sets for which `wanted` says so, and returns them.
pub(crate) fn remove(sets: &[&'static str], wanted: impl Fn(&Element) -> bool) -> Result<Vec<Placed>, Error> {
    let during = || format!("remove elements from nftables table {}", TABLE.name);
    let mut socket = Socket::open(Protocol::Netfilter).during(during)?;
    // Another call may remove an element between finding and removing it; then everything is as it was, and again.
    let mut attempts = 0;
    loop {
        let found = find_on(&mut socket, sets, &wanted).during(during)?;
        let mut batch = Batch::default();
        for Placed { set, element } in &found {
            batch.delete_elements(TABLE, set, &[element.without_value()]);
        }
        match commit(&mut socket, batch) {
            Err(error) if error.errno() == libc::ENOENT && attempts < 10 => attempts += 1,
            other => return other.map(|()| found).during(during),
        }
    }
}

/// The whole table, less elements.
fn build(batch: &mut Batch, subnets: &[IpNet]) {
    // Before connection tracking: answers to the host itself are translated back to 127.0.0.1 only after it.
    const LOCALNET: Hook = Hook { kind: "filter", number: Hook::PREROUTING, priority: -301 };
    const PREROUTING: Hook = Hook { kind: "nat", number: Hook::PREROUTING, priority: Hook::DSTNAT - 1 };
    const OUTPUT: Hook = Hook { kind: "nat", number: Hook::OUTPUT, priority: Hook::DSTNAT - 1 };
    const POSTROUTING: Hook = Hook { kind: "nat", number: Hook::POSTROUTING, priority: Hook::SRCNAT - 1 };
    batch.add_table(TABLE);
    for set in [FAMILY4, FAMILY6].iter().flat_map(Family::sets) {
        batch.add_set(TABLE, &set);
    }
    for (name, hook) in [
        ("localnet", Some(LOCALNET)),
        ("prerouting", Some(PREROUTING)),
        ("output", Some(OUTPUT)),
        ("postrouting", Some(POSTROUTING)),
        ("hostports", None),
    ] {
        chain(batch, name.to_owned(), hook);
    }
    batch.add_rule(TABLE, "localnet", &from_elsewhere_to_loopback());
    for name in ["prerouting", "output"] {
        batch.add_rule(TABLE, name, &to_this_host());
    }
    for family in [&FAMILY4, &FAMILY6] {
        hostport_rules(batch, family);
        postrouting_rules(batch, family);
    }
    for subnet in subnets {
        subnet_chain(batch, subnet);
    }
}

fn chain(batch: &mut Batch, name: String, hook: Option<Hook>) {
    let chain = Chain { name: name.into(), hook };
    batch.add_chain(TABLE, &chain);
    batch.flush_chain(TABLE, &chain.name);
}

/// `iif != "lo" ip daddr 127.0.0.0/8 drop`
fn from_elsewhere_to_loopback() -> Vec<E> {
    const LOOPBACK_LINK: u32 = 1;
    let first = Register(0);
    let mut rule = vec![
        E::Meta(first, Meta::InputInterface),
        E::Compare(first, Is::Different, LOOPBACK_LINK.to_ne_bytes().to_vec()),
    ];
    rule.extend(FAMILY4.only());
    rule.extend([
        FAMILY4.destination(first),
        E::Mask(first, vec![255, 0, 0, 0]),
        E::Compare(first, Is::Equal, vec![127, 0, 0, 0]),
        E::Verdict(Verdict::Drop),
    ]);
    rule
}

/// `fib daddr type local jump hostports`
fn to_this_host() -> [E; 3] {
    const LOCAL: u32 = 2;
    [
        E::DestinationType(Register(0)),
        E::Compare(Register(0), Is::Equal, LOCAL.to_ne_bytes().to_vec()),
        E::Verdict(Verdict::Jump("hostports".into())),
    ]
}

fn hostport_rules(batch: &mut Batch, family: &Family) {
    let (first, width) = (Register(0), family.width());
    let port = |into| E::Payload(into, Base::Transport, 2, 2);
    let translate = E::Dnat { ipv6: !family.v4, address: first, port: Register(width) };
    let at = [
        family.destination(first),
        E::Meta(Register(width), Meta::Protocol),
        port(Register(width + 1)),
        E::Lookup(family.hostports_at.into(), first, first),
    ];
    let anywhere =
        [E::Meta(first, Meta::Protocol), port(Register(1)), E::Lookup(family.hostports.into(), first, first)];
    for key in [at.to_vec(), anywhere.to_vec()] {
        batch.add_rule(TABLE, "hostports", &[family.only().to_vec(), key, vec![translate.clone()]].concat());
    }
}

fn postrouting_rules(batch: &mut Batch, family: &Family) {
    const DESTINATION_TRANSLATED: u32 = 1 << 5;
    let (first, width) = (Register(0), family.width());
    let translated = [
        E::Conntrack(first, Conntrack::Status),
        E::Mask(first, DESTINATION_TRANSLATED.to_ne_bytes().to_vec()),
        E::Compare(first, Is::Different, vec![0; 4]),
    ];
    let back = [
        E::Meta(first, Meta::Protocol),
        E::Conntrack(Register(1), Conntrack::OriginalDestinationPort),
        family.source(Register(2)),
        family.destination(Register(2 + width)),
        E::Member(family.hairpin.into(), first, Is::Equal),
        E::Masquerade,
    ];
    let rule = [translated.as_slice(), &family.only(), &back].concat();
    batch.add_rule(TABLE, "postrouting", &rule);
    let beyond = [family.source(first), E::VerdictLookup(family.masquerade.into(), first)];
    batch.add_rule(TABLE, "postrouting", &[family.only(), beyond].concat());
}

/// Traffic within the subnet and multicast stay as they are.
fn subnet_chain(batch: &mut Batch, subnet: &IpNet) {
    let name = chain_of(subnet);
    chain(batch, name.clone(), None);
    let family = Family::of(subnet.addr().is_ipv4());
    let multicast = if family.v4 { "224.0.0.0/4" } else { "ff00::/8" };
    for direct in [Some(subnet.trunc()), multicast.parse().ok()].into_iter().flatten() {
        let bytes = |address| Bytes::default().address(address).0;
        let within = [
            family.destination(Register(0)),
            E::Mask(Register(0), bytes(direct.netmask())),
            E::Compare(Register(0), Is::Equal, bytes(direct.network())),
            E::Verdict(Verdict::Return),
        ];
        batch.add_rule(TABLE, &name, &[family.only().as_slice(), &within].concat());
    }
    batch.add_rule(TABLE, &name, &[E::Masquerade]);
}

/// The name of a subnet's chain, such as nft itself would read.
pub(crate) fn chain_of(subnet: &IpNet) -> String {
    format!("subnet-{}", subnet.trunc()).replace(':', "_")
}
