//! `bridge`: joins a container to a bridge on the host by a veth pair.
//!
//! ADD asks the IPAM, looks at the bridge, plans (`plan`, pure) and carries the plan out (`apply`). The veth pair is
//! made in one datagram, its peer already in the container and its host end already a port, named after the
//! attachment: so DEL, and the DEL after an ADD that was killed, finds it without entering the container, which may be
//! gone. The host end's alias says whose it is, for GC.
//!
//! Before anything is made, whoever judges pods' packets is asked (`policy`), where the configuration names a socket.

mod apply;
mod check;
mod conf;
mod plan;
mod policy;

use std::net::IpAddr;

use netlink::{Socket, address, link};
use serde_json::Value;

use self::{
    apply::{apply, open_socket},
    conf::{Conf, Ipam},
    plan::{Observed, complete, plan},
};
use crate::{
    Call, Command, Error,
    alias::{alias, alias_prefix, fnv},
    call::Owner,
    delegate,
    error::IoContext,
    ipam, masquerade,
    netns::Netns,
    result::{Attachment, Dns},
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
        Command::Check => check::check(call, &Conf::read(call)?)?,
        Command::Gc => gc(call)?,
        Command::Status => status(call)?,
        Command::Version => {}
    }
    Ok(None)
}

fn add(call: &Call) -> Result<Value, Error> {
    let conf = Conf::read(call)?;
    call.dns()?;
    let netns = Netns::open(&call.environment.netns)?;
    if !call.environment.netns_override {
        netns.refuse_own()?;
    }
    let mut host = open_socket()?;
    let granted = grant(call, &conf)?;
    let attached =
        granted.as_ref().map(|granted| complete(&conf, granted.clone())).transpose().and_then(|granted| {
            if let (Some(socket), Some(granted)) = (&conf.policy_socket, &granted) {
                policy::ask(call, socket, granted)?;
            }
            attach(call, &conf, &netns, &mut host, granted)
        });
    if attached.is_err() && granted.is_some() {
        // The first error is what matters; the DEL that follows a failed ADD releases again.
        drop(release(call, &conf));
    }
    attached.map(|attachment| attachment.to_json(call.version))
}

fn attach(
    call: &Call,
    conf: &Conf,
    netns: &Netns,
    host: &mut Socket,
    granted: Option<Attachment>,
) -> Result<Attachment, Error> {
    let mut observed = Observed::default();
    let look = || format!("look up bridge {}", conf.bridge);
    if let Some(bridge) = link::by_name(host, &conf.bridge).during(look)? {
        let addresses = address::list(host, bridge.index).during(look)?;
        let addresses = addresses.into_iter().filter(|address| !is_link_local(address.addr())).collect();
        observed.bridge = Some((bridge, addresses));
    }
    let owner = call.owner();
    let veth = link::Veth {
        host: host_name(&owner),
        container: owner.interface.clone(),
        mtu: conf.mtu,
        mac: conf.mac,
        alias: alias(&call.network, &owner),
        hairpin: conf.hairpin,
        isolated: conf.isolated,
    };
    let steps = plan(conf, &observed, granted.as_ref(), veth)?;
    let interfaces = apply(call, conf, &steps, observed.bridge.map(|(bridge, _)| bridge), host, netns)?;
    let mut attachment = Attachment { interfaces, ..granted.unwrap_or_default() };
    // What the configuration says wins over what the IPAM said.
    if let Some(dns) = call.dns()?.filter(|dns| *dns != Dns::default()) {
        attachment.dns = dns;
    }
    Ok(attachment)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let owner = call.owner();
    // The lease goes last: an address must not be granted again while its link or its rule is still there.
    remove_link(call, &owner)?;
    if conf.masquerade {
        masquerade::remove(&call.network, &owner)?;
    }
    release(call, &conf)
}

fn remove_link(call: &Call, owner: &Owner) -> Result<(), Error> {
    let mut host = open_socket()?;
    let name = host_name(owner);
    match host.request(link::delete(&name)) {
        Ok(_) => return Ok(()),
        Err(error) if error.errno() == libc::ENODEV => {}
        Err(error) => return Err(error).during(|| format!("delete link {name}")),
    }
    // Gone with its namespace, removed before, or made by upstream's bridge plugin under another name.
    let netns = &call.environment.netns;
    if netns.is_empty() {
        return Ok(());
    }
    let Some(netns) = Netns::open_if_there(netns)? else { return Ok(()) };
    if netns.refuse_own().is_err() {
        return Ok(());
    }
    netns.enter(|| {
        let mut socket = open_socket()?;
        let interface = &owner.interface;
        let look = || format!("look up {interface} in the container");
        match link::by_name(&mut socket, interface).during(look)? {
            Some(link) if link.kind == "veth" => match socket.request(link::delete(interface)) {
                Err(error) if error.errno() != libc::ENODEV => {
                    Err(error).during(|| format!("delete {interface} in the container"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    })
}

fn gc(call: &Call) -> Result<(), Error> {
    let (conf, valid) = (Conf::read(call)?, call.valid_attachments()?);
    let mut host = open_socket()?;
    let prefix = alias_prefix(&call.network);
    let kept: Vec<String> = valid.iter().map(|owner| alias(&call.network, owner)).collect();
    let links = link::list(&mut host).during(|| "list links".to_owned())?;
    for link in links.iter().filter(|link| link.alias.starts_with(&prefix) && !kept.contains(&link.alias)) {
        match host.request(link::delete(&link.name)) {
            Err(error) if error.errno() != libc::ENODEV => {
                return Err(error).during(|| format!("delete link {}", link.name));
            }
            _ => {}
        }
    }
    if conf.masquerade {
        masquerade::retain(&call.network, &valid)?;
    }
    match &conf.ipam {
        Ipam::None => Ok(()),
        Ipam::HostLocal => ipam::gc(call),
        Ipam::Foreign(name) => delegate::run(call, name, "GC").map(drop),
    }
}

fn status(call: &Call) -> Result<(), Error> {
    match &Conf::read(call)?.ipam {
        Ipam::None => Ok(()),
        Ipam::HostLocal => ipam::status(call),
        Ipam::Foreign(name) => delegate::run(call, name, "STATUS").map(drop),
    }
}

fn grant(call: &Call, conf: &Conf) -> Result<Option<Attachment>, Error> {
    match &conf.ipam {
        Ipam::None => Ok(None),
        Ipam::HostLocal => ipam::add(call).map(Some),
        Ipam::Foreign(name) => {
            let result = delegate::run(call, name, "ADD")?
                .ok_or_else(|| Error::decode(format!("result of plugin {name}"), &"nothing printed"))?;
            Attachment::parse(&format!("result of plugin {name}"), &result).map(Some)
        }
    }
}

fn release(call: &Call, conf: &Conf) -> Result<(), Error> {
    match &conf.ipam {
        Ipam::None => Ok(()),
        Ipam::HostLocal => ipam::del(call).map(drop),
        Ipam::Foreign(name) => delegate::run(call, name, "DEL").map(drop),
    }
}

/// The host end's name: 44 bits of a hash of the attachment, as many as fit.
pub(crate) fn host_name(owner: &Owner) -> String {
    let hash = fnv(owner.container.bytes().chain([b'/']).chain(owner.interface.bytes()));
    format!("veth{:011x}", hash >> 20)
}
