//! `loopback`: brings the container's `lo` up. containerd 1.x calls it before the first network.

use netlink::{Protocol, Socket, address, link};
use serde_json::Value;

use crate::{
    Call, Command, Error,
    error::IoContext,
    netns::Netns,
    result::{Address, Attachment, Interface},
};

/// The plugin's answer to a command.
pub(crate) fn answer(call: &Call) -> Result<Option<Value>, Error> {
    match call.environment.command {
        Command::Add => add(call).map(Some),
        Command::Check => check(call).map(|()| None),
        // The namespace takes its lo with it, and upstream's taking it down first serves nobody.
        Command::Del | Command::Gc | Command::Status | Command::Version => Ok(None),
    }
}

fn add(call: &Call) -> Result<Value, Error> {
    let path = &call.environment.netns;
    let addresses = Netns::open(path)?.enter(|| {
        let mut socket = Socket::open(Protocol::Route).during(|| "open a netlink socket".to_owned())?;
        let lo = find(&mut socket)?;
        if !lo.up {
            socket.request(link::raise(lo.index, false)).during(|| "set lo up".to_owned())?;
        }
        address::list(&mut socket, lo.index).during(|| "list the addresses of lo".to_owned())
    })?;
    if let Some(previous) = call.configuration.get("prevResult").filter(|previous| !previous.is_null()) {
        return Ok(previous.clone());
    }
    let interface = Interface {
        name: "lo".into(),
        mac: "00:00:00:00:00:00".into(),
        sandbox: path.clone(),
        ..Interface::default()
    };
    let ips =
        addresses.into_iter().map(|address| Address { interface: Some(0), address, gateway: None }).collect();
    Ok(Attachment { interfaces: vec![interface], ips, ..Attachment::default() }.to_json(call.version))
}

fn check(call: &Call) -> Result<(), Error> {
    Netns::open(&call.environment.netns)?.enter(|| {
        let mut socket = Socket::open(Protocol::Route).during(|| "open a netlink socket".to_owned())?;
        if find(&mut socket)?.up {
            Ok(())
        } else {
            Err(Error::NotAsAdded("loopback interface is down".to_owned()))
        }
    })
}

fn find(socket: &mut Socket) -> Result<link::Link, Error> {
    link::by_name(socket, "lo")
        .during(|| "look up lo".to_owned())?
        .ok_or_else(|| Error::NotAsAdded("the container has no lo".to_owned()))
}
