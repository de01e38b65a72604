//! `bandwidth`: how much a container may send and receive, by token buckets on the host.
//!
//! What it receives is what the host's end of its veth sends: a bucket there. What it sends arrives at that end, is led by an intermediate
//! device (ifb) of the container's own, and sent on by that: a bucket there.

mod conf;

use netlink::{Protocol, Socket, link, traffic};
use serde_json::{Value, json};

use self::conf::{Conf, Limit};
use crate::{
    Call, Command, Error,
    alias::{alias, alias_prefix, fnv},
    call::Owner,
    error::IoContext,
    netns::Netns,
    result::Attachment,
};

/// Reads the configuration and does nothing else.
pub(crate) fn read(call: &Call) -> Result<(), Error> {
    Conf::read(call).map(drop)
}

/// The plugin's answer to a command.
pub(crate) fn answer(call: &Call) -> Result<Option<Value>, Error> {
    match call.environment.command {
        Command::Add => return add(call).map(Some),
        Command::Del => remove(&mut open()?, &device_name(&call.network, &call.owner()))?,
        Command::Check => check(call)?,
        Command::Gc => gc(call)?,
        Command::Status => {
            Conf::read(call)?;
        }
        Command::Version => {}
    }
    Ok(None)
}

fn open() -> Result<Socket, Error> {
    Socket::open(Protocol::Route).during(|| "open a netlink socket".to_owned())
}

/// The intermediate device's name: 48 bits of a hash of the attachment, as many as fit.
fn device_name(network: &str, owner: &Owner) -> String {
    let parts = [network, &owner.container, &owner.interface];
    let hash = fnv(parts.iter().flat_map(|part| part.bytes().chain([b'/'])));
    format!("bwp{:012x}", hash >> 16)
}

fn previous(call: &Call) -> Result<Attachment, Error> {
    let missing = || Error::config("prevResult", "must be called as chained plugin");
    call.previous()?.ok_or_else(missing)
}

fn add(call: &Call) -> Result<Value, Error> {
    let conf = Conf::read(call)?;
    let previous = previous(call)?;
    // Whatever a later version of the specification added to it goes on untouched.
    let mut result = call.configuration["prevResult"].clone();
    if conf == Conf::default() {
        return Ok(result);
    }
    let mut socket = open()?;
    let host = host_end(call, &previous, &mut socket)?;
    if let Some(limit) = conf.ingress {
        hold(&mut socket, host.index, &host.name, limit)?;
    }
    let Some(limit) = conf.egress else { return Ok(result) };
    let name = device_name(&call.network, &call.owner());
    let made = lead_through(call, &mut socket, &host, &name, limit);
    if made.is_err() {
        // The first error is what matters; the DEL that follows a failed ADD removes it again.
        drop(remove(&mut socket, &name));
    }
    let mac = made?.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if let Some(interfaces) = result.get_mut("interfaces").and_then(Value::as_array_mut) {
        interfaces.push(json!({ "name": name, "mac": mac }));
    }
    Ok(result)
}

/// The host's end of the container's interface, among those that the plugins before this one made.
fn host_end(call: &Call, previous: &Attachment, socket: &mut Socket) -> Result<link::Link, Error> {
    let interface = &call.environment.interface;
    let look = || format!("look up {interface} in the container");
    let inside = Netns::open(&call.environment.netns)?
        .enter(|| link::by_name(&mut open()?, interface).during(look))?
        .ok_or_else(|| Error::NotAsAdded(format!("container interface {interface} is missing")))?;
    for made in previous.interfaces.iter().filter(|made| made.sandbox.is_empty()) {
        let found = link::by_name(socket, &made.name).during(|| format!("look up {}", made.name))?;
        if let Some(host) = found.filter(|link| Some(link.index) == inside.peer && link.kind == "veth") {
            return Ok(host);
        }
    }
    Err(Error::config("prevResult.interfaces", format!("no host interface found of {interface}")))
}

fn hold(socket: &mut Socket, link: u32, name: &str, limit: Limit) -> Result<(), Error> {
    socket.request(traffic::limit(link, &limit.bucket())).during(|| format!("limit what {name} sends"))
}

fn lead_through(
    call: &Call,
    socket: &mut Socket,
    host: &link::Link,
    name: &str,
    limit: Limit,
) -> Result<link::Link, Error> {
    let alias = alias(&call.network, &call.owner());
    socket
        .batch(&link::add_intermediate(name, host.mtu, &alias))
        .during(|| format!("create intermediate device {name}"))?;
    let device = link::by_name(socket, name)
        .during(|| format!("look up {name}"))?
        .ok_or_else(|| Error::NotAsAdded(format!("{name} went away during the ADD")))?;
    hold(socket, device.index, name, limit)?;
    socket
        .batch(&traffic::redirect(host.index, device.index))
        .during(|| format!("lead what {} receives through {name}", host.name))?;
    Ok(device)
}

fn remove(socket: &mut Socket, name: &str) -> Result<(), Error> {
    match socket.request(link::delete(name)) {
        Err(error) if error.errno() != libc::ENODEV => {
            Err(error).during(|| format!("delete intermediate device {name}"))
        }
        _ => Ok(()),
    }
}

fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let previous = previous(call)?;
    if conf == Conf::default() {
        return Ok(());
    }
    let mut socket = open()?;
    let host = host_end(call, &previous, &mut socket)?;
    if let Some(limit) = conf.ingress {
        check_rate(&mut socket, &host, limit)?;
    }
    let Some(limit) = conf.egress else { return Ok(()) };
    let name = device_name(&call.network, &call.owner());
    let device = link::by_name(&mut socket, &name)
        .during(|| format!("look up {name}"))?
        .ok_or_else(|| Error::NotAsAdded(format!("intermediate device {name} is missing")))?;
    check_rate(&mut socket, &device, limit)?;
    let led = traffic::is_redirected(&mut socket, host.index, device.index);
    if led.during(|| format!("list the filters of {}", host.name))? {
        Ok(())
    } else {
        Err(Error::NotAsAdded(format!("what {} receives is not led through {name}", host.name)))
    }
}

fn check_rate(socket: &mut Socket, link: &link::Link, limit: Limit) -> Result<(), Error> {
    let found = traffic::rate(socket, link.index)
        .during(|| format!("list the queueing disciplines of {}", link.name))?;
    if found == Some(limit.bucket().rate) {
        return Ok(());
    }
    Err(Error::NotAsAdded(format!("what {} sends is not limited to {} bit/s", link.name, limit.rate)))
}

fn gc(call: &Call) -> Result<(), Error> {
    Conf::read(call)?;
    let prefix = alias_prefix(&call.network);
    let kept: Vec<String> =
        call.valid_attachments()?.iter().map(|owner| alias(&call.network, owner)).collect();
    let mut socket = open()?;
    let links = link::list(&mut socket).during(|| "list links".to_owned())?;
    let lost = |link: &&link::Link| {
        link.kind == "ifb" && link.alias.starts_with(&prefix) && !kept.contains(&link.alias)
    };
    links.iter().filter(lost).try_for_each(|link| remove(&mut socket, &link.name))
}
