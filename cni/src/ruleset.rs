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

use crate::{
    Error,
    error::IoContext,
    netlink::{NetlinkError, Socket},
    nft::{self, Element, Expression, Hook, Leads, Set, Transaction, concatenated, register},
};

const TABLE: &str = "windlass-cni";

// nft's numbers for types, with their lengths.
const V4: (u32, u32) = (7, 4);
const V6: (u32, u32) = (8, 16);
const PROTOCOL: (u32, u32) = (12, 1);
const PORT: (u32, u32) = (13, 2);

/// The sets of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    v4: bool,
    /// Host ports on every address of the host.
    pub(crate) hostports: Set,
    /// Host ports on one address.
    pub(crate) hostports_at: Set,
    /// Whose traffic to a host port must be seen to come from the host.
    pub(crate) hairpin: Set,
    /// Whose traffic must be seen to come from the host, whatever it is.
    pub(crate) masquerade: Set,
}

pub(crate) const FAMILY4: Family = Family {
    v4: true,
    hostports: Set {
        name: "hostports4",
        key: &[PROTOCOL, PORT],
        ranges: false,
        leads: Leads::To { datatype: concatenated(&[V4, PORT]), length: 8 },
    },
    hostports_at: Set {
        name: "hostports4at",
        key: &[V4, PROTOCOL, PORT],
        ranges: false,
        leads: Leads::To { datatype: concatenated(&[V4, PORT]), length: 8 },
    },
    hairpin: Set { name: "hairpin4", key: &[PROTOCOL, PORT, V4, V4], ranges: true, leads: Leads::Nowhere },
    masquerade: Set { name: "masquerade4", key: &[V4], ranges: false, leads: Leads::ToVerdict },
};

pub(crate) const FAMILY6: Family = Family {
    v4: false,
    hostports: Set {
        name: "hostports6",
        key: &[PROTOCOL, PORT],
        ranges: false,
        leads: Leads::To { datatype: concatenated(&[V6, PORT]), length: 20 },
    },
    hostports_at: Set {
        name: "hostports6at",
        key: &[V6, PROTOCOL, PORT],
        ranges: false,
        leads: Leads::To { datatype: concatenated(&[V6, PORT]), length: 20 },
    },
    hairpin: Set { name: "hairpin6", key: &[PROTOCOL, PORT, V6, V6], ranges: true, leads: Leads::Nowhere },
    masquerade: Set { name: "masquerade6", key: &[V6], ranges: false, leads: Leads::ToVerdict },
};

impl Family {
    pub(crate) fn of(v4: bool) -> &'static Self {
        if v4 { &FAMILY4 } else { &FAMILY6 }
    }

    pub(crate) fn sets(&self) -> [Set; 4] {
        [self.hostports, self.hostports_at, self.hairpin, self.masquerade]
    }
}

/// An element with the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) set: &'static str,
    pub(crate) element: Element,
}

/// Adds elements, and the table if it is not there; `subnets` get their masquerading chains.
pub(crate) fn add(placed: &[Placed], subnets: &[IpNet]) -> Result<(), NetlinkError> {
    if placed.is_empty() {
        return Ok(());
    }
    let mut socket = nft::open()?;
    let mut elements = Transaction::on(TABLE);
    for Placed { set, element } in placed {
        elements.add(set, element);
    }
    match elements.commit(&mut socket) {
        Err(error) if error.errno() == libc::ENOENT => {}
        other => return other,
    }
    let mut whole = Transaction::on(TABLE);
    build(&mut whole, subnets);
    for Placed { set, element } in placed {
        whole.add(set, element);
    }
    whole.commit(&mut socket)
}

/// The elements of these sets for which `wanted` says so.
pub(crate) fn find(sets: &[Set], wanted: impl Fn(&Element) -> bool) -> Result<Vec<Placed>, NetlinkError> {
    let mut socket = nft::open()?;
    find_on(&mut socket, sets, &wanted)
}

fn find_on(
    socket: &mut Socket,
    sets: &[Set],
    wanted: &impl Fn(&Element) -> bool,
) -> Result<Vec<Placed>, NetlinkError> {
    let mut found = Vec::new();
    for set in sets {
        let Some(elements) = nft::elements(socket, TABLE, set.name)? else {
            // One set missing is the whole table missing.
            return Ok(Vec::new());
        };
        found.extend(
            elements
                .into_iter()
                .filter(|element| wanted(element))
                .map(|element| Placed { set: set.name, element }),
        );
    }
    Ok(found)
}

/// Removes the elements of these sets for which `wanted` says so, and returns them.
pub(crate) fn remove(sets: &[Set], wanted: impl Fn(&Element) -> bool) -> Result<Vec<Placed>, Error> {
    let during = || format!("remove elements from nftables table {TABLE}");
    let mut socket = nft::open().during(during)?;
    // Another call may remove an element between finding and removing it; then everything is as it was, and again.
    let mut attempts = 0;
    loop {
        let found = find_on(&mut socket, sets, &wanted).during(during)?;
        let mut transaction = Transaction::on(TABLE);
        for Placed { set, element } in &found {
            transaction.delete(set, element);
        }
        if transaction.is_empty() {
            return Ok(found);
        }
        match transaction.commit(&mut socket) {
            Err(error) if error.errno() == libc::ENOENT && attempts < 10 => attempts += 1,
            other => return other.map(|()| found).during(during),
        }
    }
}

/// The whole table, less elements.
fn build(transaction: &mut Transaction, subnets: &[IpNet]) {
    // Before connection tracking: answers to the host itself are translated back to 127.0.0.1 only after it.
    const LOCALNET: Hook = Hook { kind: "filter", number: 0, priority: -301 };
    const PREROUTING: Hook = Hook { kind: "nat", number: 0, priority: -101 };
    const OUTPUT: Hook = Hook { kind: "nat", number: 3, priority: -101 };
    const POSTROUTING: Hook = Hook { kind: "nat", number: 4, priority: 99 };
    transaction.table();
    let sets = FAMILY4.sets().into_iter().chain(FAMILY6.sets());
    for (id, set) in (1..).zip(sets) {
        transaction.set(&set, id);
    }
    let base = [
        ("localnet", LOCALNET),
        ("prerouting", PREROUTING),
        ("output", OUTPUT),
        ("postrouting", POSTROUTING),
    ];
    for (name, hook) in base {
        transaction.chain(name, Some(hook));
        transaction.flush(name);
    }
    transaction.rule(
        "localnet",
        Expression::is_from_elsewhere().into_iter().chain(Expression::is_family(true)).chain([
            Expression::destination(true, register(0)),
            Expression::mask(register(0), &[255, 0, 0, 0]),
            Expression::equals(register(0), &[127, 0, 0, 0]),
            Expression::discard(),
        ]),
    );
    transaction.chain("hostports", None);
    transaction.flush("hostports");
    for chain in ["prerouting", "output"] {
        transaction
            .rule(chain, Expression::is_to_this_host().into_iter().chain([Expression::jump("hostports")]));
    }
    for family in [&FAMILY4, &FAMILY6] {
        hostport_rules(transaction, family);
        postrouting_rules(transaction, family);
    }
    for subnet in subnets {
        subnet_chain(transaction, subnet);
    }
}

fn hostport_rules(transaction: &mut Transaction, family: &Family) {
    let v4 = family.v4;
    // Registers: an address takes one or four, the protocol and the port one each.
    let width = if v4 { 1 } else { 4 };
    let (protocol, port) = (register(width), register(width + 1));
    let translate = || Expression::dnat(v4, register(0), register(width));
    transaction.rule(
        "hostports",
        Expression::is_family(v4).into_iter().chain([
            Expression::destination(v4, register(0)),
            Expression::protocol(protocol),
            Expression::destination_port(port),
            Expression::map(family.hostports_at.name, register(0), register(0)),
            translate(),
        ]),
    );
    transaction.rule(
        "hostports",
        Expression::is_family(v4).into_iter().chain([
            Expression::protocol(register(0)),
            Expression::destination_port(register(1)),
            Expression::map(family.hostports.name, register(0), register(0)),
            translate(),
        ]),
    );
}

fn postrouting_rules(transaction: &mut Transaction, family: &Family) {
    let v4 = family.v4;
    let width = if v4 { 1 } else { 4 };
    transaction.rule(
        "postrouting",
        Expression::is_dnatted().into_iter().chain(Expression::is_family(v4)).chain([
            Expression::protocol(register(0)),
            Expression::original_destination_port(register(1)),
            Expression::source(v4, register(2)),
            Expression::destination(v4, register(2 + width)),
            Expression::is_in(family.hairpin.name, register(0)),
            Expression::masquerade(),
        ]),
    );
    transaction.rule(
        "postrouting",
        Expression::is_family(v4).into_iter().chain([
            Expression::source(v4, register(0)),
            Expression::verdict_map(family.masquerade.name, register(0)),
        ]),
    );
}

/// Traffic within the subnet and multicast stay as they are.
fn subnet_chain(transaction: &mut Transaction, subnet: &IpNet) {
    let name = chain_of(subnet);
    transaction.chain(&name, None);
    transaction.flush(&name);
    let v4 = subnet.addr().is_ipv4();
    let multicast = if v4 { "224.0.0.0/4" } else { "ff00::/8" };
    for direct in [Some(subnet.trunc()), multicast.parse().ok()].into_iter().flatten() {
        transaction.rule(
            &name,
            Expression::is_family(v4).into_iter().chain([
                Expression::destination(v4, register(0)),
                Expression::mask(register(0), &octets(direct.netmask())),
                Expression::equals(register(0), &octets(direct.network())),
                Expression::give_back(),
            ]),
        );
    }
    transaction.rule(&name, [Expression::masquerade()]);
}

/// The name of a subnet's chain, such as nft itself would read.
pub(crate) fn chain_of(subnet: &IpNet) -> String {
    format!("subnet-{}", subnet.trunc()).replace(':', "_")
}

/// An address as it is in a packet.
pub(crate) fn octets(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
