//! Which routes and overlay links to other nodes' pods there are to be. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netlink::{link::Mac, vxlan::Vxlan};

use crate::{
    node::Member,
    overlay::{Device, Overlay, Present, mac, next_hop, own_address},
    problem::Problem,
    settings::{Backend, Settings},
};

/// What IPv6 needs of every link, in bytes.
const LEAST_MTU: u32 = 1280;
/// The loopback's is more, and no packet's.
const LARGEST_MTU: u32 = 65535;
/// What a link has of which nothing is known, in bytes.
const USUAL_MTU: u32 = 1500;

/// By which link a route goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Out {
    /// One that is there, by its number.
    Link(u32),
    /// One of ours, which may not be there yet.
    Overlay(Device),
}

/// A route of ours: to the pods of another node, by its address, on a link it shares with us or on one we made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodRoute {
    pub(crate) dst: IpNet,
    pub(crate) via: IpAddr,
    pub(crate) out: Out,
}

/// A route of somebody else, in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRoute {
    pub(crate) dst: IpNet,
    pub(crate) link: u32,
    /// Without one, what it leads to is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    /// Bytes, where the route has a measure of its own.
    pub(crate) mtu: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) ours: Vec<PodRoute>,
    pub(crate) foreign: Vec<ForeignRoute>,
    /// Links that lead to our own pods, never to a node.
    pub(crate) pod_links: Vec<u32>,
    /// The MTU of each link, in bytes.
    pub(crate) mtus: BTreeMap<u32, u32>,
    /// Addresses of this machine, each with its link.
    pub(crate) addresses: Vec<(u32, IpNet)>,
    /// What there is of our names.
    pub(crate) overlays: BTreeMap<Device, Present>,
}

/// What is to be known beside the nodes and the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) settings: Settings,
    /// Links the kernel refused to make, and its words.
    pub(crate) refused: BTreeMap<Device, String>,
    /// Links nobody is reached by, for so long that no other node still is on its way to the same setting.
    pub(crate) idle: BTreeSet<Device>,
}

/// Packets of this node's pods, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mtu {
    /// Their interfaces'; absent: the kernel's choice.
    pub(crate) link: Option<u32>,
    /// Their default routes', where that is less.
    pub(crate) route: Option<u32>,
}

/// What is to be, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) routes: BTreeMap<IpNet, PodRoute>,
    pub(crate) overlays: BTreeMap<Device, Overlay>,
    pub(crate) problems: BTreeSet<Problem>,
    /// The addresses of nodes that pods reach without being masqueraded: they know the way back.
    pub(crate) direct: BTreeSet<IpAddr>,
    pub(crate) mtu: Mtu,
}

/// Plans what leads from node `own` to the pods of all others.
pub(crate) fn plan(
    nodes: &BTreeMap<String, Member>,
    own: &str,
    observed: &Observed,
    known: &Known,
) -> Desired {
    let mut planner =
        Planner { nodes, own, observed, known, wanted: Desired::default(), hardware: BTreeMap::new() };
    planner.hardware.insert(mac(own), own);
    for (node, cidr) in planner.claims() {
        planner.place(node, cidr);
    }
    planner.keep_those_others_may_still_use();
    planner.wanted.mtu = planner.pods_mtu();
    planner.wanted
}

struct Planner<'a> {
    nodes: &'a BTreeMap<String, Member>,
    own: &'a str,
    observed: &'a Observed,
    known: &'a Known,
    wanted: Desired,
    /// Whose each hardware address on overlay links is.
    hardware: BTreeMap<Mac, &'a str>,
}

impl<'a> Planner<'a> {
    /// The others' ranges that can be theirs. Our own comes first, then the others' by name: the same on every node, whatever order they came in.
    fn claims(&mut self) -> Vec<(&'a str, IpNet)> {
        let nodes = self.nodes;
        let problems = &mut self.wanted.problems;
        let mine = nodes.get(self.own).into_iter().flat_map(|member| &member.pod_cidrs);
        let mut claimed: Vec<(&str, IpNet)> = mine.map(|cidr| (self.own, *cidr)).collect();
        let first = claimed.len();
        for (name, member) in nodes.iter().filter(|(name, _)| *name != self.own) {
            let node = || name.clone();
            let malformed = member.malformed.iter().cloned();
            problems.extend(malformed.map(|text| Problem::Malformed { node: node(), text }));
            for cidr in &member.pod_cidrs {
                let mut others = claimed.iter();
                let overlapping = others.find(|(_, other)| cidr.contains(other) || other.contains(cidr));
                if let Some((with, _)) = overlapping {
                    let with = format!("that of {with}");
                    problems.insert(Problem::Overlaps { node: node(), cidr: *cidr, with });
                    continue;
                }
                // A claim to where a node is would cut that node off.
                let swallowed =
                    nodes.iter().find(|(_, member)| member.addresses.iter().any(|ip| cidr.contains(ip)));
                if let Some((with, _)) = swallowed {
                    let with = format!("the address of {with}");
                    problems.insert(Problem::Overlaps { node: node(), cidr: *cidr, with });
                    continue;
                }
                claimed.push((name.as_str(), *cidr));
            }
        }
        claimed.split_off(first)
    }

    /// Finds the way to one range of a node.
    fn place(&mut self, node: &'a str, cidr: IpNet) {
        let way = match self.known.settings.backend {
            Backend::Direct => self.direct(node, cidr),
            Backend::Vxlan => self.overlay(node, cidr),
            Backend::Auto => self.direct(node, cidr).or_else(|_| self.overlay(node, cidr)),
        };
        let taken = self.observed.foreign.iter().any(|route| route.dst == cidr);
        match way {
            Ok(_) if taken => {
                self.wanted.problems.insert(Problem::TakenByOther { node: node.to_owned(), cidr });
            }
            Ok(Way::Link(link, address)) => {
                self.wanted.direct.insert(address);
                let route = PodRoute { dst: cidr, via: address, out: Out::Link(link) };
                self.wanted.routes.insert(cidr, route);
            }
            Ok(Way::Overlay(device, machine)) => {
                let hardware = mac(node);
                let hop = next_hop(&cidr, hardware);
                self.hardware.insert(hardware, node);
                let route = PodRoute { dst: cidr, via: hop, out: Out::Overlay(device) };
                self.wanted.routes.insert(cidr, route);
                let mtu = self.mtu_towards(machine).saturating_sub(device.overhead()).max(LEAST_MTU);
                let bare = self.bare(device, mtu);
                let overlay = self.wanted.overlays.entry(device).or_insert(bare);
                overlay.mtu = overlay.mtu.min(mtu);
                overlay.neighbours.insert(hop, hardware);
                overlay.forwarding.insert(hardware, machine);
            }
            Err(problem) => {
                self.wanted.problems.insert(problem);
            }
        }
    }

    /// By a link of ours that the node's address of that family is on.
    fn direct(&self, node: &str, cidr: IpNet) -> Result<Way, Problem> {
        let Some(address) = self.address(node, cidr.addr().is_ipv6()) else {
            return Err(Problem::NoAddress { node: node.to_owned(), cidr });
        };
        self.refuse_ours(node, cidr, address)?;
        match direct_link(self.observed, address) {
            Some(link) => Ok(Way::Link(link, address)),
            None => Err(Problem::OtherLink { node: node.to_owned(), cidr, address }),
        }
    }

    /// By VXLAN, between addresses of the range's own family, or else of the other.
    fn overlay(&self, node: &'a str, cidr: IpNet) -> Result<Way, Problem> {
        let name = || node.to_owned();
        let first = cidr.addr().is_ipv6();
        let both = |ipv6: bool| {
            let ours = self.nodes.get(self.own).map_or(&[][..], |member| &member.addresses);
            let have = ours.is_empty() || ours.iter().any(|address| address.is_ipv6() == ipv6);
            self.address(node, ipv6).filter(|_| have)
        };
        let Some(machine) = [first, !first].into_iter().find_map(both) else {
            return Err(Problem::NoAddress { node: name(), cidr });
        };
        self.refuse_ours(node, cidr, machine)?;
        let device = Device::towards(machine.is_ipv6());
        if let Some(why) = self.known.refused.get(&device) {
            return Err(Problem::NoOverlay { node: name(), cidr, device, why: why.clone() });
        }
        if self.observed.overlays.get(&device).is_some_and(|present| present.vxlan.is_none()) {
            return Err(Problem::NameTaken { device });
        }
        match self.hardware.get(&mac(node)) {
            Some(with) if *with != node => {
                Err(Problem::SameHardware { node: name(), cidr, with: (*with).to_owned() })
            }
            _ => Ok(Way::Overlay(device, machine)),
        }
    }

    fn address(&self, node: &str, ipv6: bool) -> Option<IpAddr> {
        let addresses = self.nodes.get(node).into_iter().flat_map(|member| &member.addresses);
        addresses.copied().find(|address| address.is_ipv6() == ipv6)
    }

    /// A Node that is left of an earlier name of this machine leads nowhere.
    fn refuse_ours(&self, node: &str, cidr: IpNet, address: IpAddr) -> Result<(), Problem> {
        if self.observed.addresses.iter().any(|(_, own)| own.addr() == address) {
            return Err(Problem::OurAddress { node: node.to_owned(), cidr, address });
        }
        Ok(())
    }

    /// An overlay link that leads to nobody yet.
    fn bare(&self, device: Device, mtu: u32) -> Overlay {
        let ranges = self.nodes.get(self.own).into_iter().flat_map(|member| &member.pod_cidrs);
        let Settings { vxlan_id: id, vxlan_port: port, .. } = self.known.settings;
        // An address of the node that is another machine's, which translates it, is no source of packets of ours.
        let own = self.address(self.own, device.is_ipv6());
        let here = |ip: &IpAddr| self.observed.addresses.iter().any(|(_, net)| net.addr() == *ip);
        let local = own.filter(here).unwrap_or(device.unspecified());
        Overlay {
            mtu,
            mac: mac(self.own),
            vxlan: Vxlan { id, port, local, learning: false },
            addresses: ranges.map(|range| IpNet::from(own_address(range))).collect(),
            neighbours: BTreeMap::new(),
            forwarding: BTreeMap::new(),
        }
    }

    /// When all nodes change their ways some are first, and the others still send by the old way: the link goes later than its last route.
    fn keep_those_others_may_still_use(&mut self) {
        for (device, present) in &self.observed.overlays {
            let leads = self.wanted.overlays.contains_key(device);
            if !leads && present.vxlan.is_some() && !self.known.idle.contains(device) {
                self.wanted.overlays.insert(*device, self.bare(*device, present.mtu));
            }
        }
    }

    /// The longest packet to `address`, in bytes, as far as our own links go.
    fn mtu_towards(&self, address: IpAddr) -> u32 {
        let of_link = |link: u32| self.observed.mtus.get(&link).copied();
        let by_route = best_route(self.observed, address).and_then(|route| match route.mtu {
            Some(mtu) => Some(of_link(route.link).map_or(mtu, |of_link| of_link.min(mtu))),
            None => of_link(route.link),
        });
        self.known.settings.mtu.or(by_route).or_else(|| self.own_mtu()).unwrap_or(USUAL_MTU)
    }

    /// The least of the links that this node's addresses are on, but for the loopback.
    fn own_mtu(&self) -> Option<u32> {
        let own = self.nodes.get(self.own).map_or(&[][..], |member| &member.addresses);
        let links = self.observed.addresses.iter().filter(|(_, net)| own.contains(&net.addr()));
        let mtus = links.filter_map(|(link, _)| self.observed.mtus.get(link)).copied();
        mtus.filter(|mtu| *mtu <= LARGEST_MTU).min()
    }

    fn pods_mtu(&self) -> Mtu {
        let link = self.known.settings.mtu.or_else(|| self.own_mtu()).map(|mtu| mtu.max(LEAST_MTU));
        let leading = self.wanted.overlays.values().filter(|overlay| !overlay.forwarding.is_empty());
        let route = leading.map(|overlay| overlay.mtu).min();
        Mtu { link, route: route.filter(|route| link.is_none_or(|link| *route < link)) }
    }
}

enum Way {
    /// A link of ours, and the node's address on it.
    Link(u32, IpAddr),
    /// An overlay, and the address packets are sent to in it.
    Overlay(Device, IpAddr),
}

fn best_route(observed: &Observed, address: IpAddr) -> Option<&ForeignRoute> {
    let leading = observed.foreign.iter().filter(|route| route.dst.contains(&address));
    leading.max_by_key(|route| route.dst.prefix_len())
}

/// The link that `address` is on, if the best route to it has no gateway.
fn direct_link(observed: &Observed, address: IpAddr) -> Option<u32> {
    let best = best_route(observed, address)?;
    (best.gateway.is_none() && best.dst.prefix_len() > 0 && !observed.pod_links.contains(&best.link))
        .then_some(best.link)
}

#[cfg(test)]
pub(crate) mod tests;
