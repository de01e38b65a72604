//! What the kernel has of routes and overlay links, and the steps that change it.

use std::collections::{BTreeMap, BTreeSet};

use netlink::{
    Error, Kernel, Request, Socket, address, link, neighbour,
    route::{self, MAIN, Route, UNICAST},
    vxlan,
};
use nix::libc;

use crate::{
    difference::Step,
    overlay::{Device, Present},
    plan::{ForeignRoute, Observed, Out, PodRoute},
    sysctl,
};

/// Marks routes as ours, also to whoever runs after us: not in `/etc/iproute2/rt_protos`, so shown as a number.
const PROTOCOL: u8 = 87;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("list links, addresses and routes")]
    List(#[from] Error),
    #[error("look at link {0}")]
    Link(String, #[source] Error),
    #[error("{0}")]
    Step(Step, #[source] Error),
    #[error("{0}: the link is not there")]
    NoLink(Step),
}

pub(crate) async fn observe(kernel: &mut Kernel, bridge: &str) -> Result<Observed, KernelError> {
    let bridge = bridge.to_owned();
    kernel.call(move |socket| look(socket, &bridge)).await
}

fn look(socket: &mut Socket, bridge: &str) -> Result<Observed, KernelError> {
    let mut observed = Observed { addresses: address::list_all(socket)?, ..Observed::default() };
    let mut named: BTreeSet<Device> = BTreeSet::new();
    for link in link::list(socket)? {
        observed.mtus.insert(link.index, link.mtu);
        if link.name == bridge {
            observed.pod_links.push(link.index);
        }
        named.extend(Device::ALL.into_iter().filter(|device| device.name() == link.name));
    }
    for device in named {
        let failed = |error| KernelError::Link(device.name().to_owned(), error);
        if let Some(present) = overlay(socket, device, &observed).map_err(failed)? {
            observed.pod_links.push(present.index);
            observed.overlays.insert(device, present);
        }
    }
    for ipv6 in [false, true] {
        route::list(socket, ipv6)?.iter().for_each(|route| sort_in(route, &mut observed));
    }
    Ok(observed)
}

fn overlay(socket: &mut Socket, device: Device, observed: &Observed) -> Result<Option<Present>, Error> {
    let Some((link, vxlan)) = vxlan::by_name(socket, device.name(), device.is_ipv6())? else {
        return Ok(None);
    };
    let mut neighbours = BTreeMap::new();
    for ipv6 in [false, true] {
        let listed = neighbour::list(socket, link.index, ipv6)?.into_iter().filter(|one| one.permanent);
        neighbours.extend(listed.map(|one| (one.address, one.mac)));
    }
    let forwarding = neighbour::list_forwarding(socket, link.index)?;
    let addresses = observed.addresses.iter().filter(|(index, _)| *index == link.index);
    Ok(Some(Present {
        index: link.index,
        up: link.up,
        mtu: link.mtu,
        mac: link.mac,
        vxlan,
        // the kernel's own is nobody's affair
        addresses: addresses.map(|(_, net)| *net).filter(|net| !is_link_local(net)).collect(),
        neighbours,
        forwarding: forwarding.into_iter().map(|one| (one.mac, one.address)).collect(),
    }))
}

fn is_link_local(net: &ipnet::IpNet) -> bool {
    matches!(net, ipnet::IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn sort_in(route: &Route, observed: &mut Observed) {
    if route.kind != UNICAST || route.table != MAIN {
        return;
    }
    // Several next hops have no link of the route's own; such a route is nobody's neighbour.
    let Some(link) = route.link else { return };
    let dst = route.dst;
    match route.gateway {
        Some(via) if route.protocol == PROTOCOL => {
            let mut overlays = observed.overlays.iter();
            let overlay = overlays.find(|(_, present)| present.index == link && present.vxlan.is_some());
            let out = overlay.map_or(Out::Link(link), |(device, _)| Out::Overlay(*device));
            observed.ours.push(PodRoute { dst, via, out });
        }
        gateway => observed.foreign.push(ForeignRoute { dst, link, gateway, mtu: route.mtu }),
    }
}

/// What became of steps.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) done: Vec<Step>,
    pub(crate) failed: Vec<KernelError>,
    /// Links that were not made, and the kernel's words.
    pub(crate) refused: BTreeMap<Device, String>,
}

/// Carries out all steps it can: one that fails costs only those that need its link.
pub(crate) async fn apply(
    kernel: &mut Kernel,
    steps: Vec<Step>,
    observed: &Observed,
) -> Result<Outcome, KernelError> {
    let links: BTreeMap<Device, u32> =
        observed.overlays.iter().map(|(device, present)| (*device, present.index)).collect();
    kernel.call(move |socket| Ok(carry_out(socket, steps, links))).await
}

fn carry_out(socket: &mut Socket, steps: Vec<Step>, mut links: BTreeMap<Device, u32>) -> Outcome {
    let mut outcome = Outcome::default();
    for step in steps {
        if step_device(&step).is_some_and(|device| outcome.refused.contains_key(&device)) {
            continue;
        }
        match take(socket, &step, &mut links) {
            Ok(()) => outcome.done.push(step),
            Err(error) => {
                if let (Step::AddLink { device, .. }, KernelError::Step(_, source)) = (&step, &error) {
                    outcome.refused.insert(*device, source.to_string());
                }
                outcome.failed.push(error);
            }
        }
    }
    outcome
}

fn step_device(step: &Step) -> Option<Device> {
    match step {
        Step::AddLink { device, .. } => Some(*device),
        Step::RemoveLink(device)
        | Step::SetLocal(device, _)
        | Step::SetMtu(device, _)
        | Step::Raise(device)
        | Step::AddAddress(device, _)
        | Step::RemoveAddress(device, _)
        | Step::SetForwarding(device, ..)
        | Step::RemoveForwarding(device, _)
        | Step::SetNeighbour(device, ..)
        | Step::RemoveNeighbour(device, _) => Some(*device),
        Step::Remove(route) | Step::Add(route) | Step::Replace(route) => match route.out {
            Out::Overlay(device) => Some(device),
            Out::Link(_) => None,
        },
    }
}

fn take(socket: &mut Socket, step: &Step, links: &mut BTreeMap<Device, u32>) -> Result<(), KernelError> {
    let failed = |error| KernelError::Step(step.clone(), error);
    if let Step::AddLink { device, mac, mtu, vxlan } = step {
        socket.request(vxlan::add(device.name(), *mac, *mtu, vxlan)).map_err(failed)?;
        let made = link::by_name(socket, device.name()).map_err(failed)?;
        links.insert(*device, made.ok_or_else(|| KernelError::NoLink(step.clone()))?.index);
        // It works without, where nobody has set the machine's defaults otherwise.
        for error in sysctl::set_overlay(device.name()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "packets of an overlay may be dropped");
        }
        return Ok(());
    }
    let known = |device: &Device| links.get(device).copied().ok_or_else(|| KernelError::NoLink(step.clone()));
    let wanted = |pods: &PodRoute| -> Result<Route, KernelError> {
        let (link, onlink) = match &pods.out {
            Out::Link(link) => (*link, false),
            Out::Overlay(device) => (known(device)?, true),
        };
        Ok(Route { protocol: PROTOCOL, onlink, ..Route::new(pods.dst, Some(pods.via), link) })
    };
    // What is gone already, and what is there already, is as it should be.
    let (request, fine): (Request, &[i32]) = match step {
        Step::AddLink { .. } => return Ok(()),
        Step::RemoveLink(device) => (link::delete(device.name()), &[libc::ENODEV]),
        Step::SetLocal(device, local) => (vxlan::set_local(known(device)?, *local), &[]),
        Step::SetMtu(device, mtu) => (link::set_mtu(known(device)?, *mtu), &[]),
        Step::Raise(device) => (link::raise(known(device)?, false), &[]),
        Step::AddAddress(device, net) => (address::add(known(device)?, *net), &[libc::EEXIST]),
        Step::RemoveAddress(device, net) => {
            (address::delete(known(device)?, *net), &[libc::EADDRNOTAVAIL, libc::ENODEV])
        }
        Step::SetForwarding(device, mac, machine) => {
            (neighbour::replace_forwarding(known(device)?, *mac, *machine), &[])
        }
        Step::RemoveForwarding(device, mac) => {
            (neighbour::delete_forwarding(known(device)?, *mac), &[libc::ENOENT, libc::ENODEV])
        }
        Step::SetNeighbour(device, hop, mac) => (neighbour::replace(known(device)?, *hop, *mac), &[]),
        Step::RemoveNeighbour(device, hop) => {
            (neighbour::delete(known(device)?, *hop), &[libc::ENOENT, libc::ENODEV])
        }
        Step::Add(route) => (route::add(&wanted(route)?), &[]),
        Step::Replace(route) => (route::replace(&wanted(route)?), &[]),
        // It went with its link.
        Step::Remove(route) => (route::delete(&wanted(route)?), &[libc::ESRCH]),
    };
    match socket.request(request) {
        Err(error) if fine.contains(&error.errno()) => Ok(()),
        done => done.map_err(failed),
    }
}
