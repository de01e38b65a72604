//! Which addresses a Service gets. Pure.
//!
//! What a Service has it keeps, as long as it asks for nothing else, and no older Service has the address. An address that no pool has any
//! more stays with who has it: it is given to nobody else, and clients know it.

use crate::address_pools::Pool;
use crate::queue::Key;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Families, `true` for IPv6, in the order of the Service.
    pub families: Vec<bool>,
    /// One of several families is enough (`PreferDualStack`).
    pub any_family: bool,
    /// The addresses it must have.
    pub addresses: Vec<IpAddr>,
    /// The pool they come from.
    pub pool: Option<String>,
}

/// A Service that has addresses, or is to get some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub key: Key,
    /// When it was made; the name decides between two of one moment.
    pub created: Timestamp,
    /// With whom it shares addresses.
    pub sharing: Option<String>,
    /// Protocol and port.
    pub ports: BTreeSet<(String, i32)>,
    /// Only nodes with an endpoint of it can be sent its traffic.
    pub local: bool,
}

impl Holder {
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        (self.created, &self.key) < (other.created, &other.key)
    }

    /// Whether two Services can have one address: both say so, want no port twice, and any node will do for both.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        let together = self.sharing.is_some() && self.sharing == other.sharing;
        together && !self.local && !other.local && self.ports.is_disjoint(&other.ports)
    }
}

/// Who has which address, less whoever asks.
pub(super) type Taken = BTreeMap<IpAddr, Vec<Holder>>;

/// Why a Service gets no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("there is no pool {0:?}")]
    NoPool(String),
    #[error("{0} is in no pool that this Service may use")]
    NotInPool(IpAddr),
    #[error("{address} belongs to {by}")]
    Held { address: IpAddr, by: String },
    #[error("port {port} of the nodes belongs to service {by}")]
    Port { port: String, by: Key },
    #[error("no {} address is free in {pools}", if *ipv6 { "IPv6" } else { "IPv4" })]
    Full { ipv6: bool, pools: String },
    #[error("no node takes traffic from outside")]
    NoNode,
    #[error("{0:?} is no address")]
    NoAddress(String),
    #[error("{0} is of a family that the Service does not have")]
    Family(IpAddr),
}

/// Where a Service's addresses come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    Ranges(Vec<&'a Pool>),
    Nodes,
}

/// The pools that are open to a Service; nodes' own addresses only where they are asked for, or there is nothing else.
pub(super) fn origin<'a>(pools: &'a [Pool], wish: &Wish) -> Result<Origin<'a>, Unavailable> {
    if let Some(name) = &wish.pool {
        let named = pools.iter().find(|pool| pool.name == *name);
        let named = named.ok_or_else(|| Unavailable::NoPool(name.clone()))?;
        return Ok(if named.is_nodes() { Origin::Nodes } else { Origin::Ranges(vec![named]) });
    }
    let asked = !wish.addresses.is_empty();
    let open = pools.iter().filter(|pool| !pool.is_nodes() && (pool.auto_assign || asked));
    let ranges: Vec<&Pool> = open.collect();
    let nodes = pools.iter().any(|pool| pool.is_nodes() && pool.auto_assign);
    Ok(if ranges.is_empty() && nodes { Origin::Nodes } else { Origin::Ranges(ranges) })
}

/// Those of `held` that are nobody else's for longer: all that may stay where nothing else is to be had.
pub(super) fn undisputed(who: &Holder, held: &[IpAddr], taken: &Taken) -> Vec<IpAddr> {
    let disputed = |address: &IpAddr| {
        taken.get(address).is_some_and(|all| {
            all.is_empty() || all.iter().any(|other| other.is_older_than(who) && !who.shares_with(other))
        })
    };
    held.iter().filter(|address| !disputed(address)).copied().collect()
}

/// The addresses for `who`, which has `held`.
///
/// # Errors
/// Not all it must have is to be had; then it gets nothing, and should lose nothing.
pub(super) fn allocate(
    pools: &[&Pool],
    wish: &Wish,
    who: &Holder,
    held: &[IpAddr],
    taken: &Taken,
) -> Result<Vec<IpAddr>, Unavailable> {
    let mut given = Vec::new();
    let mut missing = None;
    for &ipv6 in &wish.families {
        match one(pools, wish, who, held, taken, ipv6) {
            Ok(address) => given.push(address),
            Err(why @ Unavailable::Full { .. }) if wish.any_family => missing = Some(why),
            Err(why) => return Err(why),
        }
    }
    match missing {
        Some(why) if given.is_empty() => Err(why),
        _ => Ok(given),
    }
}

/// The address of one family.
fn one(
    pools: &[&Pool],
    wish: &Wish,
    who: &Holder,
    held: &[IpAddr],
    taken: &Taken,
    ipv6: bool,
) -> Result<IpAddr, Unavailable> {
    let holders = |address: IpAddr| taken.get(&address).into_iter().flatten();
    // Whoever has had it for longer, and cannot share it.
    let rival = |address: IpAddr| {
        let had = held.contains(&address);
        holders(address).find(|other| !who.shares_with(other) && (!had || other.is_older_than(who)))
    };
    let wanted = wish.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
    if let Some(address) = wanted {
        if !held.contains(&address) && !pools.iter().any(|pool| pool.contains(address)) {
            return Err(Unavailable::NotInPool(address));
        }
        let held_by = |by: &Holder| Unavailable::Held { address, by: format!("service {}", by.key) };
        if taken.get(&address).is_some_and(Vec::is_empty) {
            return Err(Unavailable::Held { address, by: "a node".to_owned() });
        }
        return rival(address).map_or(Ok(address), |by| Err(held_by(by)));
    }
    let named = |address: IpAddr| wish.pool.is_none() || pools.iter().any(|pool| pool.contains(address));
    let keeps = |address: &&IpAddr| {
        address.is_ipv6() == ipv6
            && named(**address)
            && taken.get(*address).is_none_or(|all| !all.is_empty())
            && rival(**address).is_none()
    };
    if let Some(address) = held.iter().find(keeps) {
        return Ok(*address);
    }
    let shared = taken.iter().find(|(address, holders)| {
        address.is_ipv6() == ipv6
            && !holders.is_empty()
            && holders.iter().all(|other| who.shares_with(other))
            && pools.iter().any(|pool| pool.contains(**address))
    });
    if let Some((address, _)) = shared {
        return Ok(*address);
    }
    let full = || {
        let names: Vec<&str> =
            pools.iter().filter(|pool| pool.has_family(ipv6)).map(|pool| pool.name.as_str()).collect();
        let pools =
            if names.is_empty() { "any pool".to_owned() } else { format!("pool {}", names.join(", ")) };
        Unavailable::Full { ipv6, pools }
    };
    pools.iter().find_map(|pool| pool.first_free(ipv6, taken)).ok_or_else(full)
}

#[cfg(test)]
mod tests;
