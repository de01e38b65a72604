//! One service and its slices to the rules the kernel shall have. Pure.
//!
//! Which endpoints may take a connection, and when the source is rewritten, follow upstream's proxy
//! (`pkg/proxy/topology.go`, KEP-1669 for terminating endpoints).

use crate::service::{Port, Protocol, Service, Slice, SliceEndpoint};
use crate::slots::assign;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address of the pod or host.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    /// An address of the service.
    Address(IpAddr, Protocol, u16),
    /// A port on any of the node's own addresses; the flag says IPv6.
    NodePort(bool, Protocol, u16),
}

impl Front {
    /// Whether the front belongs to the IPv6 table.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address(ip, ..) => ip.is_ipv6(),
            Self::NodePort(v6, ..) => *v6,
        }
    }

    /// Protocol and port.
    #[must_use]
    pub fn port(&self) -> (Protocol, u16) {
        match *self {
            Self::Address(_, protocol, port) | Self::NodePort(_, protocol, port) => (protocol, port),
        }
    }
}

/// What happens to a connection to a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It goes to one of the endpoints.
    Balance {
        /// Source rewritten to the node's, so that the answer comes back through this node.
        masquerade: bool,
        /// Clients stay with an endpoint for this many seconds.
        sticky: Option<u32>,
        /// Endpoints by slot, each once, never empty.
        slots: Vec<Endpoint>,
        /// With `sticky`: a number for each endpoint that stays the same while it lives.
        ids: BTreeMap<Endpoint, u32>,
    },
    /// Refused: there is no endpoint at all.
    Refuse,
    /// Dropped: there are endpoints, but none here, and the policy is Local. A load balancer's health check keeps it away.
    Drop,
}

/// All of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Fronts and what they do. A cluster IP without endpoints has no front: [`Rules::cluster_ips`] refuses it.
    pub fronts: BTreeMap<Front, Target>,
    /// The service's cluster IPs.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Addresses of endpoints on this node, which may reach themselves through the service.
    pub local_endpoints: BTreeSet<IpAddr>,
}

/// The rules for `service`, whose slices are `slices`, on node `node`; `old` is what it had, so that slots stay where they are.
#[must_use]
pub fn model<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    node: &'a str,
    old: &Rules,
) -> Rules {
    let mut rules = Rules { cluster_ips: service.cluster_ips.iter().copied().collect(), ..Rules::default() };
    for port in &service.ports {
        for v6 in families(service) {
            let candidates = Candidates::collect(slices.clone(), port, v6, node);
            rules.local_endpoints.extend(candidates.local_addresses());
            let mut put = |front: Front, local: bool, outside: bool| {
                let chosen = candidates.choose(local);
                let target = match (chosen.is_empty(), outside) {
                    (true, false) => return,
                    (true, true) if local && !candidates.choose(false).is_empty() => Target::Drop,
                    (true, true) => Target::Refuse,
                    (false, _) => {
                        balance(&chosen, outside && !local, service.affinity, old.fronts.get(&front))
                    }
                };
                rules.fronts.insert(front, target);
            };
            for ip in service.cluster_ips.iter().filter(|ip| ip.is_ipv6() == v6) {
                put(Front::Address(*ip, port.protocol, port.port), service.internal_local, false);
            }
            for ip in service.external_ips.iter().filter(|ip| ip.is_ipv6() == v6) {
                put(Front::Address(*ip, port.protocol, port.port), service.external_local, true);
            }
            if port.node_port != 0 {
                put(Front::NodePort(v6, port.protocol, port.node_port), service.external_local, true);
            }
        }
    }
    rules
}

fn families(service: &Service) -> BTreeSet<bool> {
    service.cluster_ips.iter().map(IpAddr::is_ipv6).collect()
}

fn balance(
    chosen: &BTreeSet<Endpoint>,
    masquerade: bool,
    sticky: Option<u32>,
    old: Option<&Target>,
) -> Target {
    let none = (Vec::new(), BTreeMap::new());
    let (old_slots, old_ids) = match old {
        Some(Target::Balance { slots, ids, .. }) => (slots, ids),
        _ => (&none.0, &none.1),
    };
    let ids = if sticky.is_some() { number(chosen, old_ids) } else { BTreeMap::new() };
    Target::Balance { masquerade, sticky, slots: assign(old_slots, chosen), ids }
}

/// Survivors keep their number, newcomers get the smallest free ones.
fn number(chosen: &BTreeSet<Endpoint>, old: &BTreeMap<Endpoint, u32>) -> BTreeMap<Endpoint, u32> {
    let mut ids: BTreeMap<Endpoint, u32> =
        old.iter().filter(|(e, _)| chosen.contains(e)).map(|(e, n)| (*e, *n)).collect();
    let used: BTreeSet<u32> = ids.values().copied().collect();
    let mut free = (0..).filter(|n| !used.contains(n));
    for endpoint in chosen {
        if !ids.contains_key(endpoint) {
            ids.insert(*endpoint, free.next().unwrap_or(u32::MAX));
        }
    }
    ids
}

/// The endpoints behind one port in one family.
struct Candidates<'a> {
    all: Vec<(Endpoint, &'a SliceEndpoint)>,
    node: &'a str,
}

impl<'a> Candidates<'a> {
    fn collect(slices: impl Iterator<Item = &'a Slice>, port: &Port, v6: bool, node: &'a str) -> Self {
        let mut all = Vec::new();
        for slice in slices {
            let number = slice
                .ports
                .iter()
                .find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
            let Some((_, _, number)) = number else { continue };
            let here = slice.endpoints.iter().filter(|e| e.address.is_ipv6() == v6);
            all.extend(here.map(|e| (Endpoint { address: e.address, port: *number }, e)));
        }
        Self { all, node }
    }

    fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.all.iter().filter(|(_, e)| e.node == self.node).map(|(e, _)| e.address)
    }

    /// Ready ones; when there are none, those still serving while they terminate.
    fn choose(&self, local: bool) -> BTreeSet<Endpoint> {
        let here = || self.all.iter().filter(|(_, e)| !local || e.node == self.node);
        let ready: BTreeSet<Endpoint> = here().filter(|(_, e)| e.ready).map(|(p, _)| *p).collect();
        if !ready.is_empty() {
            return ready;
        }
        here().filter(|(_, e)| e.serving && e.terminating).map(|(p, _)| *p).collect()
    }
}
