//! One service and its slices to the rules the kernel should have. Pure.
//!
//! Which endpoints may take a connection, and when the source is rewritten, follow upstream's proxy
//! (`pkg/proxy/topology.go`, KEP-1669 for terminating endpoints).

use crate::numbers::GROUPS;
pub use crate::service::Front;
use crate::service::{Port, Protocol, Service, Slice, SliceEndpoint};
use crate::slots::assign;
use ipnet::IpNet;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Where a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address of the pod or host.
    pub address: IpAddr,
    /// Target port.
    pub port: u16,
}

/// What happens to a connection to a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It goes to one of the endpoints.
    Balance {
        /// Source rewritten to the node's, so that the answer comes back through this node.
        masquerade: bool,
        /// Clients stay with their endpoint.
        sticky: Option<Sticky>,
        /// Endpoints by slot, each once, never empty.
        slots: Vec<Endpoint>,
    },
    /// Refused: there is no endpoint at all.
    Refuse,
    /// Dropped: there are endpoints, but none here, and the policy is Local. A load balancer's health check keeps it away.
    Drop,
}

/// How clients of a service's port stay with their endpoints, by whichever of its fronts they come. Upstream: the sets of
/// `affinityPolicy`'s endpoints, of a ServicePort each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Seconds a client stays after its last connection.
    pub seconds: u32,
    /// The service's port.
    pub port: (Protocol, u16),
    /// Its number among all such ports of the node.
    pub group: u32,
    /// A number from 1 for each of its endpoints, which stays the same while the endpoint lives.
    pub ids: Arc<BTreeMap<Endpoint, u32>>,
}

/// Counts of ports without endpoints here, of IPv4 and IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// By `internalTrafficPolicy`.
    pub internal: [i64; 2],
    /// By `externalTrafficPolicy`.
    pub external: [i64; 2],
}

impl NoLocal {
    /// Counts one service as `new`, which was counted as `old`.
    pub(crate) fn change(&mut self, old: Self, new: Self) {
        for index in 0..2 {
            self.internal[index] += new.internal[index] - old.internal[index];
            self.external[index] += new.external[index] - old.external[index];
        }
    }
}

/// All of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Fronts and what they do. A cluster IP without endpoints has no front: [`Rules::cluster_ips`] refuses it.
    pub fronts: BTreeMap<Front, Target>,
    /// Where pods and the node itself get to by a front whose policy is Local for everybody else: to any endpoint, as if they went out
    /// of the cluster and came in by the best way.
    pub inside: BTreeMap<Front, Target>,
    /// The service's cluster IPs.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Addresses of endpoints that are, or may be, on this node: they may reach themselves through the service.
    pub local_endpoints: BTreeSet<IpAddr>,
    /// Every endpoint behind a UDP front that still serves, whether new flows go to it or not.
    pub serving: BTreeMap<Front, Arc<BTreeSet<Endpoint>>>,
    /// Ports whose policy is Local and that have endpoints, but none here.
    pub no_local: NoLocal,
    /// Fronts that are reached from these ranges only, which do not overlap.
    pub guarded: BTreeMap<Front, Vec<IpNet>>,
}

impl Rules {
    /// Without the fronts that are another service's.
    pub(crate) fn keep(&mut self, owned: impl Fn(&Front) -> bool) {
        self.fronts.retain(|front, _| owned(front));
        self.inside.retain(|front, _| owned(front));
        self.serving.retain(|front, _| owned(front));
        self.guarded.retain(|front, _| owned(front));
    }
}

/// Where the proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// This node's name: endpoints on it are local.
    pub node: String,
    /// Its zone, empty when it has none.
    pub zone: String,
}

/// The rules for `service`, whose slices are `slices`, on the node at `place`; `old` is what it had, so that slots stay where they are.
#[must_use]
pub fn model<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a Slice> + Clone),
    place: &'a Place,
    old: &Rules,
) -> Rules {
    let mut rules = Rules { cluster_ips: service.cluster_ips.iter().copied().collect(), ..Rules::default() };
    for port in &service.ports {
        for v6 in service.families() {
            let candidates = Candidates::collect(slices.clone(), port, v6, place);
            rules.local_endpoints.extend(candidates.local_addresses());
            let (everywhere, here) = (candidates.everywhere(), candidates.here());
            if port.protocol == Protocol::Udp {
                let serving = Arc::new(candidates.selected(|e| e.serving));
                let fronts = service.fronts_of(port).into_keys().filter(|front| front.is_ipv6() == v6);
                rules.serving.extend(fronts.map(|front| (front, serving.clone())));
            }
            let sticky = service.affinity.map(|seconds| {
                let known = known(service, port, v6, old);
                let ids = Arc::new(number(&everywhere | &here, known));
                Sticky { seconds, port: (port.protocol, port.port), group: 0, ids }
            });
            let sticky = sticky.as_ref();
            for ip in service.cluster_ips.iter().filter(|ip| ip.is_ipv6() == v6) {
                let front = Front::Address(*ip, port.protocol, port.port);
                let chosen = if service.internal_local { &here } else { &everywhere };
                if !chosen.is_empty() {
                    let target = balance(chosen, false, sticky, old.fronts.get(&front));
                    rules.fronts.insert(front, target);
                } else if !everywhere.is_empty() {
                    rules.fronts.insert(front, Target::Drop);
                }
            }
            let addresses = service.external_ips.iter().filter(|ip| ip.is_ipv6() == v6);
            let mut outside: Vec<Front> =
                addresses.map(|ip| Front::Address(*ip, port.protocol, port.port)).collect();
            if port.node_port != 0 {
                outside.push(Front::NodePort(v6, port.protocol, port.node_port));
            }
            if here.is_empty() && !everywhere.is_empty() {
                let NoLocal { internal, external } = &mut rules.no_local;
                internal[usize::from(v6)] += i64::from(service.internal_local);
                external[usize::from(v6)] += i64::from(service.external_local && !outside.is_empty());
            }
            for front in outside {
                let before = old.fronts.get(&front);
                let target = match service.external_local {
                    _ if everywhere.is_empty() => Target::Refuse,
                    false => balance(&everywhere, true, sticky, before),
                    true if here.is_empty() => Target::Drop,
                    true => balance(&here, false, sticky, before),
                };
                rules.fronts.insert(front, target);
                if service.external_local && !everywhere.is_empty() {
                    let target = balance(&everywhere, false, sticky, old.inside.get(&front));
                    rules.inside.insert(front, target);
                }
            }
        }
    }
    rules
}

/// Ready endpoints of a service on this node, for a load balancer that asks. A pod of two families is in slices of both and one all the
/// same: the family with more of them counts.
#[must_use]
pub(crate) fn ready_here<'a>(slices: impl Iterator<Item = &'a Slice>, node: &str) -> usize {
    let all = slices.flat_map(|slice| &slice.endpoints).filter(|e| e.ready && e.node == node);
    let (v4, v6): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = all.map(|e| e.address).partition(IpAddr::is_ipv4);
    v4.len().max(v6.len())
}

fn balance(
    chosen: &BTreeSet<Endpoint>,
    masquerade: bool,
    sticky: Option<&Sticky>,
    old: Option<&Target>,
) -> Target {
    let old = match old {
        Some(Target::Balance { slots, .. }) => slots.as_slice(),
        _ => &[],
    };
    Target::Balance { masquerade, sticky: sticky.cloned(), slots: assign(old, chosen) }
}

/// The numbers that the endpoints behind any of a port's fronts had.
fn known(service: &Service, port: &Port, v6: bool, old: &Rules) -> BTreeMap<Endpoint, u32> {
    let fronts = service.fronts_of(port).into_keys().filter(|front| front.is_ipv6() == v6);
    let targets = fronts.flat_map(|front| [old.fronts.get(&front), old.inside.get(&front)]).flatten();
    let mut known = BTreeMap::new();
    for target in targets {
        if let Target::Balance { sticky: Some(before), .. } = target {
            known.extend(before.ids.iter().map(|(endpoint, id)| (*endpoint, *id)));
        }
    }
    known
}

/// Survivors keep their number, newcomers get the smallest free ones. Endpoints beyond the last number have none.
fn number(endpoints: BTreeSet<Endpoint>, old: BTreeMap<Endpoint, u32>) -> BTreeMap<Endpoint, u32> {
    let mut used = BTreeSet::new();
    // Two fronts that were two services' may have had one number for two endpoints.
    let mut ids: BTreeMap<Endpoint, u32> =
        old.into_iter().filter(|(e, id)| endpoints.contains(e) && used.insert(*id)).collect();
    let mut free = (1..GROUPS.inside).filter(|id| !used.contains(id));
    for endpoint in endpoints {
        if let Entry::Vacant(vacant) = ids.entry(endpoint)
            && let Some(id) = free.next()
        {
            vacant.insert(id);
        }
    }
    ids
}

/// The endpoints behind one port in one family.
struct Candidates<'a> {
    all: Vec<(Endpoint, &'a SliceEndpoint)>,
    place: &'a Place,
}

/// What hints ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference {
    None,
    Zone,
    Node,
}

impl<'a> Candidates<'a> {
    fn collect(slices: impl Iterator<Item = &'a Slice>, port: &Port, v6: bool, place: &'a Place) -> Self {
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
        Self { all, place }
    }

    fn is_local(&self, endpoint: &SliceEndpoint) -> bool {
        endpoint.node == self.place.node
    }

    /// Those that may be here: slices that others write need not say where an endpoint is.
    fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.all.iter().filter(|(_, e)| e.node.is_empty() || self.is_local(e)).map(|(e, _)| e.address)
    }

    fn selected(&self, wanted: impl Fn(&SliceEndpoint) -> bool) -> BTreeSet<Endpoint> {
        self.all.iter().filter(|(_, e)| wanted(e)).map(|(p, _)| *p).collect()
    }

    /// Ready ones that hints prefer for this place; when none is ready, those still serving while they terminate.
    fn everywhere(&self) -> BTreeSet<Endpoint> {
        let preference = self.preference();
        let ready = self.selected(|e| e.ready && self.preferred(e, preference));
        if ready.is_empty() { self.selected(|e| e.serving && e.terminating) } else { ready }
    }

    /// The same of those on this node, whatever hints say.
    fn here(&self) -> BTreeSet<Endpoint> {
        let ready = self.selected(|e| e.ready && self.is_local(e));
        if ready.is_empty() {
            self.selected(|e| e.serving && e.terminating && self.is_local(e))
        } else {
            ready
        }
    }

    /// Hints hold if every ready endpoint has them and one is for this place.
    fn preference(&self) -> Preference {
        let ready = || self.all.iter().map(|(_, e)| *e).filter(|e| e.ready);
        let holds = |hints: fn(&SliceEndpoint) -> &Vec<String>, own: &String| {
            !own.is_empty()
                && ready().all(|e| !hints(e).is_empty())
                && ready().any(|e| hints(e).contains(own))
        };
        if holds(|e| &e.for_nodes, &self.place.node) {
            Preference::Node
        } else if holds(|e| &e.for_zones, &self.place.zone) {
            Preference::Zone
        } else {
            Preference::None
        }
    }

    fn preferred(&self, endpoint: &SliceEndpoint, preference: Preference) -> bool {
        match preference {
            Preference::None => true,
            Preference::Zone => endpoint.for_zones.contains(&self.place.zone),
            Preference::Node => endpoint.for_nodes.contains(&self.place.node),
        }
    }
}

#[cfg(test)]
mod tests;
