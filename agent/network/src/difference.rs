//! What is to be done so that the kernel has what is desired. Pure.
//!
//! The order is that of packets: a link and its entries are there before the route that leads by it, a route moves in place (the kernel
//! replaces it in one step), and what was before goes last. So a change of the way loses no packet of our own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use netlink::{link::Mac, vxlan::Vxlan};

use crate::{
    overlay::{Device, Overlay, Present},
    plan::{Desired, Observed, Out, PodRoute},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    AddLink {
        device: Device,
        mac: Mac,
        mtu: u32,
        vxlan: Vxlan,
    },
    RemoveLink(Device),
    SetLocal(Device, IpAddr),
    SetMtu(Device, u32),
    Raise(Device),
    AddAddress(Device, IpNet),
    RemoveAddress(Device, IpNet),
    SetForwarding(Device, Mac, IpAddr),
    RemoveForwarding(Device, Mac),
    SetNeighbour(Device, IpAddr, Mac),
    RemoveNeighbour(Device, IpAddr),
    Remove(PodRoute),
    Add(PodRoute),
    /// In place of the one route of ours to the same destination.
    Replace(PodRoute),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLink { device, mtu, vxlan, .. } => {
                write!(f, "make link {device} (VXLAN {}, port {}, MTU {mtu})", vxlan.id, vxlan.port)
            }
            Self::RemoveLink(device) => write!(f, "remove link {device}"),
            Self::SetLocal(device, local) => write!(f, "have link {device} send from {local}"),
            Self::SetMtu(device, mtu) => write!(f, "set the MTU of link {device} to {mtu}"),
            Self::Raise(device) => write!(f, "set link {device} up"),
            Self::AddAddress(device, net) => write!(f, "add address {net} to link {device}"),
            Self::RemoveAddress(device, net) => write!(f, "remove address {net} from link {device}"),
            Self::SetForwarding(device, mac, machine) => {
                write!(f, "have link {device} send {mac} to {machine}")
            }
            Self::RemoveForwarding(device, mac) => write!(f, "have link {device} forget where {mac} is"),
            Self::SetNeighbour(device, hop, mac) => write!(f, "tell link {device} that {hop} is {mac}"),
            Self::RemoveNeighbour(device, hop) => write!(f, "have link {device} forget {hop}"),
            Self::Remove(PodRoute { dst, via, .. }) => write!(f, "remove route {dst} via {via}"),
            Self::Add(PodRoute { dst, via, .. }) => write!(f, "add route {dst} via {via}"),
            Self::Replace(PodRoute { dst, via, .. }) => write!(f, "replace route {dst} via {via}"),
        }
    }
}

/// The steps from what is there to what is desired, in order.
pub(crate) fn difference(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let (mut steps, mut last) = (Vec::new(), Vec::new());
    // With their links, routes by them are gone.
    let mut remade = BTreeSet::new();
    for device in Device::ALL {
        let present = observed.overlays.get(&device).filter(|present| present.vxlan.is_some());
        match (desired.overlays.get(&device), present) {
            (Some(wanted), Some(present)) if is_kept(wanted, present) => {
                adjust(device, wanted, present, &mut steps);
                entries(device, wanted, present, &mut steps, &mut last);
            }
            (Some(wanted), present) => {
                if present.is_some() {
                    remade.insert(device);
                    steps.push(Step::RemoveLink(device));
                }
                let Overlay { mac, mtu, vxlan, .. } = *wanted;
                steps.push(Step::AddLink { device, mac, mtu, vxlan });
                entries(device, wanted, &nothing(), &mut steps, &mut last);
            }
            (None, Some(_)) => last.push(Step::RemoveLink(device)),
            (None, None) => {}
        }
    }
    let gone = |route: &&PodRoute| matches!(route.out, Out::Overlay(device) if remade.contains(&device));
    routes(desired, observed.ours.iter().filter(|route| !gone(route)), &mut steps);
    steps.extend(last);
    steps
}

/// What cannot be changed is as it should be.
fn is_kept(wanted: &Overlay, present: &Present) -> bool {
    let same = |there: Vxlan| Vxlan { local: wanted.vxlan.local, ..there } == wanted.vxlan;
    present.mac == Some(wanted.mac) && present.vxlan.is_some_and(same)
}

fn adjust(device: Device, wanted: &Overlay, present: &Present, steps: &mut Vec<Step>) {
    if present.vxlan.is_some_and(|there| there.local != wanted.vxlan.local) {
        steps.push(Step::SetLocal(device, wanted.vxlan.local));
    }
    if present.mtu != wanted.mtu {
        steps.push(Step::SetMtu(device, wanted.mtu));
    }
    if !present.up {
        steps.push(Step::Raise(device));
    }
}

fn nothing() -> Present {
    Present {
        index: 0,
        up: true,
        mtu: 0,
        mac: None,
        vxlan: None,
        addresses: BTreeSet::new(),
        neighbours: BTreeMap::new(),
        forwarding: BTreeSet::new(),
    }
}

fn entries(device: Device, wanted: &Overlay, present: &Present, steps: &mut Vec<Step>, last: &mut Vec<Step>) {
    let missing = wanted.addresses.difference(&present.addresses);
    steps.extend(missing.map(|address| Step::AddAddress(device, *address)));
    for (mac, machine) in &wanted.forwarding {
        let there: Vec<IpAddr> =
            present.forwarding.iter().filter(|(of, _)| of == mac).map(|(_, machine)| *machine).collect();
        if there == [*machine] {
            continue;
        }
        // Replacing changes one of several, and leaves the others.
        if there.len() > 1 {
            steps.push(Step::RemoveForwarding(device, *mac));
        }
        steps.push(Step::SetForwarding(device, *mac, *machine));
    }
    for (hop, mac) in &wanted.neighbours {
        if present.neighbours.get(hop) != Some(mac) {
            steps.push(Step::SetNeighbour(device, *hop, *mac));
        }
    }
    let hops = present.neighbours.keys().filter(|hop| !wanted.neighbours.contains_key(hop));
    last.extend(hops.map(|hop| Step::RemoveNeighbour(device, *hop)));
    let known: BTreeSet<Mac> = present.forwarding.iter().map(|(mac, _)| *mac).collect();
    let stale = known.into_iter().filter(|mac| !wanted.forwarding.contains_key(mac));
    last.extend(stale.map(|mac| Step::RemoveForwarding(device, mac)));
    let left = present.addresses.difference(&wanted.addresses);
    last.extend(left.map(|address| Step::RemoveAddress(device, *address)));
}

fn routes<'a>(desired: &Desired, ours: impl Iterator<Item = &'a PodRoute>, steps: &mut Vec<Step>) {
    let mut there: BTreeMap<IpNet, Vec<PodRoute>> = BTreeMap::new();
    for route in ours {
        there.entry(route.dst).or_default().push(*route);
    }
    for (dst, present) in &there {
        match desired.routes.get(dst) {
            Some(route) if present.contains(route) => {
                let others = present.iter().filter(|other| *other != route);
                steps.extend(others.copied().map(Step::Remove));
            }
            // In place, so that packets find a way at any time.
            Some(route) if present.len() == 1 => steps.push(Step::Replace(*route)),
            _ => steps.extend(present.iter().copied().map(Step::Remove)),
        }
    }
    for (dst, route) in &desired.routes {
        if there.get(dst).is_none_or(|present| present.len() > 1 && !present.contains(route)) {
            steps.push(Step::Add(*route));
        }
    }
}

#[cfg(test)]
mod tests;
