//! CHECK: is the attachment as ADD left it?

use ipnet::IpNet;
use netlink::{address, link, route};

use super::{
    apply::open_socket,
    conf::{Conf, Ipam},
    host_name,
};
use crate::{Call, Error, delegate, error::IoContext, ipam, masquerade, netns::Netns, result::Attachment};

pub(super) fn check(call: &Call, conf: &Conf) -> Result<(), Error> {
    match &conf.ipam {
        Ipam::None => {}
        Ipam::HostLocal => ipam::check(call)?,
        Ipam::Foreign(name) => drop(delegate::run(call, name, "CHECK")?),
    }
    let previous = call.previous()?.ok_or_else(|| Error::config("prevResult", "required for CHECK"))?;
    check_host(call, conf)?;
    let path = &call.environment.netns;
    Netns::open(path)?.enter(|| check_container(call, &previous))?;
    if conf.masquerade {
        let addresses: Vec<_> = own_addresses(call, &previous).iter().map(IpNet::addr).collect();
        masquerade::check(&call.network, &call.owner(), &addresses)?;
    }
    Ok(())
}

fn check_host(call: &Call, conf: &Conf) -> Result<(), Error> {
    let mut socket = open_socket()?;
    let bridge = link::by_name(&mut socket, &conf.bridge)
        .during(|| format!("look up bridge {}", conf.bridge))?
        .ok_or_else(|| Error::NotAsAdded(format!("bridge {} is missing", conf.bridge)))?;
    let name = host_name(&call.owner());
    let host = link::by_name(&mut socket, &name)
        .during(|| format!("look up {name}"))?
        .ok_or_else(|| Error::NotAsAdded(format!("host interface {name} is missing")))?;
    if host.controller != Some(bridge.index) {
        return Err(Error::NotAsAdded(format!(
            "host interface {name} is not a port of bridge {}",
            conf.bridge
        )));
    }
    for link in [&bridge, &host] {
        if !link.up {
            return Err(Error::NotAsAdded(format!("host interface {} is down", link.name)));
        }
    }
    Ok(())
}

fn own_addresses(call: &Call, previous: &Attachment) -> Vec<IpNet> {
    let netns = &call.environment.netns;
    let own =
        |index: usize| previous.interfaces.get(index).is_some_and(|interface| interface.sandbox == *netns);
    previous.ips.iter().filter(|ip| ip.interface.is_none_or(own)).map(|ip| ip.address).collect()
}

fn check_container(call: &Call, previous: &Attachment) -> Result<(), Error> {
    let name = &call.environment.interface;
    let mut socket = open_socket()?;
    let link = link::by_name(&mut socket, name)
        .during(|| format!("look up {name} in the container"))?
        .ok_or_else(|| Error::NotAsAdded(format!("container interface {name} is missing")))?;
    if !link.up {
        return Err(Error::NotAsAdded(format!("container interface {name} is down")));
    }
    let expected = previous
        .interfaces
        .iter()
        .find(|interface| interface.name == *name && interface.sandbox == call.environment.netns)
        .ok_or_else(|| Error::NotAsAdded(format!("prevResult has no interface {name} in the container")))?;
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !expected.mac.is_empty() && !expected.mac.eq_ignore_ascii_case(&mac) {
        return Err(Error::NotAsAdded(format!(
            "container interface {name} has hardware address {mac}, not {}",
            expected.mac
        )));
    }
    let addresses =
        address::list(&mut socket, link.index).during(|| format!("list the addresses of {name}"))?;
    for address in own_addresses(call, previous) {
        if !addresses.contains(&address) {
            return Err(Error::NotAsAdded(format!("container interface {name} lacks address {address}")));
        }
    }
    for v4 in [true, false] {
        let wanted: Vec<_> =
            previous.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4).collect();
        if wanted.is_empty() {
            continue;
        }
        let there = route::list(&mut socket, !v4).during(|| "list the container's routes".to_owned())?;
        for route in wanted {
            let gateway = |gw| route.gw.is_none() || gw == route.gw;
            if !there.iter().any(|found| found.dst.trunc() == route.dst.trunc() && gateway(found.gateway)) {
                return Err(Error::NotAsAdded(format!("the container lacks a route to {}", route.dst)));
            }
        }
    }
    Ok(())
}
