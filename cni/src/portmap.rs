//! `portmap`: ports of the host that lead to a container.

mod conf;
mod elements;

use ipnet::IpNet;
use netlink::{Protocol as Netlink, Socket, conntrack, link, route};
use serde_json::Value;

use self::{
    conf::{Conf, Protocol},
    elements::elements,
};
use crate::{
    Call, Command, Error,
    alias::{alias, alias_prefix},
    error::{IoContext, with_causes},
    result::Attachment,
    ruleset::{self, FAMILY4, FAMILY6},
    sysctl,
};

/// Reads the configuration and does nothing else.
pub(crate) fn read(call: &Call) -> Result<(), Error> {
    Conf::read(call).map(drop)
}

/// The plugin's answer to a command.
pub(crate) fn answer(call: &Call) -> Result<Option<Value>, Error> {
    match call.environment.command {
        Command::Add => return add(call).map(Some),
        Command::Del => del(call)?,
        Command::Check => check(call)?,
        Command::Gc => gc(call)?,
        Command::Status => status(call)?,
        Command::Version => {}
    }
    Ok(None)
}

fn sets() -> [&'static str; 6] {
    let [a, b] = [FAMILY4, FAMILY6];
    [a.hostports, a.hostports_at, a.hairpin, b.hostports, b.hostports_at, b.hairpin]
}

fn add(call: &Call) -> Result<Value, Error> {
    let conf = Conf::read(call)?;
    let missing = || Error::config("prevResult", "portmap must be called as chained plugin");
    let previous = call.previous()?.ok_or_else(missing)?;
    if !conf.mappings.is_empty() {
        let addresses = container_addresses(&previous);
        if addresses.is_empty() {
            return Err(Error::config("prevResult.ips", "got no container IPs"));
        }
        let comment = alias(&call.network, &call.owner());
        ruleset::add(&elements(&conf, &addresses, &comment), &[]).map_err(|source| {
            let in_use = if source.errno() == libc::EEXIST { " (in use by another container)" } else { "" };
            Error::Nftables { operation: format!("map host ports {}{in_use}", describe(&conf)), source }
        })?;
        if let Err(error) = let_through(&conf, &addresses) {
            drop(del(call));
            return Err(error);
        }
    }
    // Whatever a later version of the specification added to it goes on untouched.
    Ok(call.configuration["prevResult"].clone())
}

fn describe(conf: &Conf) -> String {
    let ports =
        conf.mappings.iter().map(|mapping| format!("{}/{}", mapping.host_port, mapping.protocol.name()));
    ports.collect::<Vec<_>>().join(", ")
}

/// The first address of each family that is the container's.
fn container_addresses(previous: &Attachment) -> Vec<IpNet> {
    let own =
        |index: usize| previous.interfaces.get(index).is_some_and(|interface| !interface.sandbox.is_empty());
    let own: Vec<IpNet> =
        previous.ips.iter().filter(|ip| ip.interface.is_none_or(own)).map(|ip| ip.address).collect();
    let first = |v4| own.iter().copied().find(|address| address.addr().is_ipv4() == v4);
    [first(true), first(false)].into_iter().flatten().collect()
}

fn let_through(conf: &Conf, addresses: &[IpNet]) -> Result<(), Error> {
    if let Some(address) = addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() && conf.snat) {
        // The host's 127.0.0.1 may leave by the container's bridge only if that says so.
        let mut socket = Socket::open(Netlink::Route).during(|| "open a netlink socket".to_owned())?;
        let way = || format!("find the way to {address}");
        if let Some(index) = route::link_towards(&mut socket, address).during(way)?
            && let Some(name) = link::name_of(&mut socket, index).during(way)?
        {
            sysctl::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        }
    }
    forget_udp(
        conf.mappings
            .iter()
            .filter(|mapping| mapping.protocol == Protocol::UDP)
            .map(|mapping| mapping.host_port),
    )
}

/// A UDP client that never stops sending would keep the translation, or the lack of one, that it began with.
fn forget_udp(ports: impl Iterator<Item = u16>) -> Result<(), Error> {
    let ports: Vec<u16> = ports.collect();
    if ports.is_empty() {
        return Ok(());
    }
    let stale =
        |flow: &conntrack::Flow| flow.protocol == conntrack::UDP && ports.contains(&flow.destination.1);
    Socket::open(Netlink::Netfilter)
        .and_then(|mut socket| conntrack::forget(&mut socket, stale))
        .map(drop)
        .during(|| "delete stale UDP connections from conntrack".to_owned())
}

fn del(call: &Call) -> Result<(), Error> {
    let comment = alias(&call.network, &call.owner());
    let removed = ruleset::remove(&sets(), |element| element.comment.as_ref() == Some(&comment))?;
    // A key ends with protocol and port, four bytes each.
    let hostports = [FAMILY4.hostports, FAMILY4.hostports_at, FAMILY6.hostports, FAMILY6.hostports_at];
    let udp =
        removed.iter().filter(|placed| hostports.contains(&placed.set)).filter_map(|placed| {
            match placed.element.key.0.last_chunk::<8>()? {
                [17, _, _, _, high, low, _, _] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            }
        });
    forget_udp(udp)
}

fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let previous = call.previous()?.ok_or_else(|| Error::config("prevResult", "required for CHECK"))?;
    if conf.mappings.is_empty() {
        return Ok(());
    }
    let comment = alias(&call.network, &call.owner());
    let there = ruleset::find(&sets(), |element| element.comment.as_ref() == Some(&comment))
        .during(|| "list host ports".to_owned())?;
    for wanted in elements(&conf, &container_addresses(&previous), &comment) {
        if !there.iter().any(|placed| placed.set == wanted.set && placed.element == wanted.element) {
            return Err(Error::NotAsAdded(format!("{} of {} lacks an element", wanted.set, describe(&conf))));
        }
    }
    Ok(())
}

/// Fails if there is no nftables to keep host ports in.
fn status(call: &Call) -> Result<(), Error> {
    Conf::read(call)?;
    ruleset::find(&sets()[..1], |_| false)
        .map(drop)
        .map_err(|error| Error::Unavailable(format!("nftables cannot be used: {}", with_causes(&error))))
}

fn gc(call: &Call) -> Result<(), Error> {
    Conf::read(call)?;
    let prefix = alias_prefix(&call.network);
    let kept: Vec<String> =
        call.valid_attachments()?.iter().map(|owner| alias(&call.network, owner)).collect();
    ruleset::remove(&sets(), |element| {
        element
            .comment
            .as_ref()
            .is_some_and(|comment| comment.starts_with(&prefix) && !kept.contains(comment))
    })
    .map(drop)
}
