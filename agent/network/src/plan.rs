//! Which routes to other nodes' pods are to be added, replaced and removed. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;

use crate::node::Member;

/// A route of ours: to the pods of another node, by its address, on a link it shares with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodRoute {
    pub(crate) dst: IpNet,
    pub(crate) via: IpAddr,
    pub(crate) link: u32,
}

/// A route of somebody else, in the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignRoute {
    pub(crate) dst: IpNet,
    pub(crate) link: u32,
    /// Without one, what it leads to is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) ours: Vec<PodRoute>,
    pub(crate) foreign: Vec<ForeignRoute>,
    /// Links that lead to our own pods, never to a node.
    pub(crate) pod_links: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Remove(PodRoute),
    Add(PodRoute),
    /// In place of the one route of ours to the same destination.
    Replace(PodRoute),
}

/// Why a node's pods cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    NoAddress { node: String, cidr: IpNet },
    OtherLink { node: String, cidr: IpNet, address: IpAddr },
    Overlaps { node: String, cidr: IpNet, with: String },
    TakenByOther { node: String, cidr: IpNet },
    Malformed { node: String, text: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { node, cidr } => {
                write!(formatter, "no route to pods {cidr}: node {node} has no InternalIP of that family")
            }
            Self::OtherLink { node, cidr, address } => write!(
                formatter,
                "no route to pods {cidr}: node {node} at {address} is not on a directly connected link"
            ),
            Self::Overlaps { node, cidr, with } => {
                write!(formatter, "no route to pods {cidr} of node {node}: the range overlaps with {with}")
            }
            Self::TakenByOther { node, cidr } => {
                write!(formatter, "no route to pods {cidr} of node {node}: another program has a route there")
            }
            Self::Malformed { node, text } => {
                write!(formatter, "node {node} claims {text:?}, which is no pod range or address")
            }
        }
    }
}

/// What is to be done and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) problems: BTreeSet<Problem>,
    /// The addresses of nodes that pods reach without being masqueraded: they know the way back.
    pub(crate) direct: BTreeSet<IpAddr>,
}

/// Plans the routes of node `own` to the pods of all others.
pub(crate) fn plan(nodes: &BTreeMap<String, Member>, own: &str, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let wanted = wanted(nodes, own, observed, &mut plan);
    let mut there: BTreeMap<IpNet, Vec<PodRoute>> = BTreeMap::new();
    for route in &observed.ours {
        there.entry(route.dst).or_default().push(*route);
    }
    for (dst, present) in &there {
        match wanted.get(dst) {
            Some(route) if present.contains(route) => {
                let others = present.iter().filter(|other| *other != route);
                plan.steps.extend(others.copied().map(Step::Remove));
            }
            // In place, so that packets find a way at any time.
            Some(route) if present.len() == 1 => plan.steps.push(Step::Replace(*route)),
            _ => plan.steps.extend(present.iter().copied().map(Step::Remove)),
        }
    }
    for (dst, route) in &wanted {
        if there.get(dst).is_none_or(|present| present.len() > 1 && !present.contains(route)) {
            plan.steps.push(Step::Add(*route));
        }
    }
    plan
}

fn wanted(
    nodes: &BTreeMap<String, Member>,
    own: &str,
    observed: &Observed,
    plan: &mut Plan,
) -> BTreeMap<IpNet, PodRoute> {
    let mut wanted: BTreeMap<IpNet, PodRoute> = BTreeMap::new();
    // Our own range comes first, then the others' by name: the same on every node, whatever order they came in.
    let mut claimed: Vec<(IpNet, &str)> = Vec::new();
    let mine = nodes.get(own);
    claimed.extend(mine.into_iter().flat_map(|member| &member.pod_cidrs).map(|cidr| (*cidr, own)));
    for (name, member) in nodes.iter().filter(|(name, _)| *name != own) {
        let malformed = member.malformed.iter().cloned();
        plan.problems.extend(malformed.map(|text| Problem::Malformed { node: name.clone(), text }));
        for cidr in &member.pod_cidrs {
            let node = || name.clone();
            let overlapping = claimed.iter().find(|(other, _)| cidr.contains(other) || other.contains(cidr));
            if let Some((_, with)) = overlapping {
                let with = format!("that of {with}");
                plan.problems.insert(Problem::Overlaps { node: node(), cidr: *cidr, with });
                continue;
            }
            // A claim to where a node is would cut that node off.
            let swallowed =
                nodes.iter().find(|(_, member)| member.addresses.iter().any(|ip| cidr.contains(ip)));
            if let Some((with, _)) = swallowed {
                let with = format!("the address of {with}");
                plan.problems.insert(Problem::Overlaps { node: node(), cidr: *cidr, with });
                continue;
            }
            claimed.push((*cidr, name));
            let v4 = cidr.addr().is_ipv4();
            let Some(address) = member.addresses.iter().copied().find(|address| address.is_ipv4() == v4)
            else {
                plan.problems.insert(Problem::NoAddress { node: node(), cidr: *cidr });
                continue;
            };
            let Some(link) = direct_link(observed, address) else {
                plan.problems.insert(Problem::OtherLink { node: node(), cidr: *cidr, address });
                continue;
            };
            if observed.foreign.iter().any(|route| route.dst == *cidr) {
                plan.problems.insert(Problem::TakenByOther { node: node(), cidr: *cidr });
                continue;
            }
            plan.direct.insert(address);
            wanted.insert(*cidr, PodRoute { dst: *cidr, via: address, link });
        }
    }
    wanted
}

/// The link that `address` is on, if the best route to it has no gateway.
fn direct_link(observed: &Observed, address: IpAddr) -> Option<u32> {
    let best = observed
        .foreign
        .iter()
        .filter(|route| route.dst.contains(&address))
        .max_by_key(|route| route.dst.prefix_len())?;
    (best.gateway.is_none() && best.dst.prefix_len() > 0 && !observed.pod_links.contains(&best.link))
        .then_some(best.link)
}

#[cfg(test)]
mod tests;
