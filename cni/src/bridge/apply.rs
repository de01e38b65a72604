//! Carrying out the steps of an ADD, and undoing them if one fails.

use netlink::{
    Protocol, Request, Socket, address,
    link::{self, Link, Mac, Veth},
    route,
};

use super::{conf::Conf, plan::Step};
use crate::{Call, Error, error::IoContext, masquerade, netns::Netns, result::Interface, sysctl};

pub(super) fn open_socket() -> Result<Socket, Error> {
    let socket = Socket::open(Protocol::Route).during(|| "open a netlink socket".to_owned())?;
    // Kernels before 4.20 cannot; their longer answers are filtered here as well.
    drop(socket.filter_strictly());
    Ok(socket)
}

/// The interfaces of an attachment, in the order the result has them.
pub(super) fn apply(
    call: &Call,
    conf: &Conf,
    steps: &[Step],
    bridge: Option<Link>,
    host: &mut Socket,
    netns: &Netns,
) -> Result<Vec<Interface>, Error> {
    let mut progress = Progress { call, conf, host, netns, bridge, veth: None, container: None };
    let done = steps.iter().try_for_each(|step| progress.take(step));
    match done.and_then(|()| progress.interfaces(steps)) {
        Ok(interfaces) => Ok(interfaces),
        Err(error) => {
            progress.undo();
            Err(error)
        }
    }
}

struct Progress<'a> {
    call: &'a Call,
    conf: &'a Conf,
    host: &'a mut Socket,
    netns: &'a Netns,
    bridge: Option<Link>,
    veth: Option<Veth>,
    /// The container's end, with a socket in the container's namespace.
    container: Option<(Link, Socket)>,
}

impl Progress<'_> {
    fn take(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::CreateBridge => self.create_bridge(),
            Step::RaiseBridge => {
                let request = link::raise(self.bridge()?.index, self.conf.promiscuous);
                self.on_bridge(request, "set up")
            }
            Step::SetBridgeMtu(mtu) => {
                let request = link::set_mtu(self.bridge()?.index, *mtu);
                self.on_bridge(request, "set the MTU of")
            }
            Step::RemoveGateway(address) => {
                let request = address::delete(self.bridge()?.index, *address);
                match self.host.request(request) {
                    Err(error) if error.errno() != libc::EADDRNOTAVAIL => {
                        Err(error).during(|| format!("remove address {address} from {}", self.conf.bridge))
                    }
                    _ => Ok(()),
                }
            }
            Step::AddGateway(address) => {
                let request = address::add(self.bridge()?.index, *address);
                match self.host.request(request) {
                    // Another ADD was faster.
                    Err(error) if error.errno() != libc::EEXIST => {
                        Err(error).during(|| format!("add address {address} to {}", self.conf.bridge))
                    }
                    _ => Ok(()),
                }
            }
            Step::Forward { v4, v6 } => {
                if *v4 {
                    sysctl::set("ipv4/ip_forward", "1")?;
                }
                if *v6 {
                    sysctl::set("ipv6/conf/all/forwarding", "1")?;
                }
                Ok(())
            }
            Step::AttachVeth(veth) => self.attach_veth(veth),
            Step::ConfigureContainer { addresses, routes } => {
                let interface = &self.call.environment.interface;
                let netns = self.netns;
                self.container = Some(netns.enter(|| configure(interface, addresses, routes))?);
                Ok(())
            }
            Step::Masquerade(addresses) => masquerade::add(self.call, addresses),
        }
    }

    fn bridge(&self) -> Result<&Link, Error> {
        self.bridge
            .as_ref()
            .ok_or_else(|| Error::NotAsAdded(format!("bridge {} went away during the ADD", self.conf.bridge)))
    }

    fn on_bridge(&mut self, request: Request, verb: &str) -> Result<(), Error> {
        self.host.request(request).during(|| format!("{verb} bridge {}", self.conf.bridge))
    }

    fn create_bridge(&mut self) -> Result<(), Error> {
        let name = &self.conf.bridge;
        let request = link::add_bridge(name, random_mac()?, self.conf.mtu, self.conf.promiscuous);
        match self.host.request(request) {
            // Another ADD was faster, and its bridge is as good.
            Err(error) if error.errno() != libc::EEXIST => {
                return Err(error).during(|| format!("create bridge {name}"));
            }
            _ => {}
        }
        // A gateway that waits for duplicate detection answers nobody, and a bridge without ports never gets to it.
        sysctl::set(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        self.bridge = link::by_name(self.host, name).during(|| format!("look up bridge {name}"))?;
        Ok(())
    }

    fn attach_veth(&mut self, veth: &Veth) -> Result<(), Error> {
        let requests = link::add_veth(veth, self.bridge()?.index, self.netns.descriptor());
        match self.host.batch(&requests) {
            Ok(_) => {}
            Err(error) => {
                if error.request() > 0 {
                    self.veth = Some(veth.clone());
                }
                return Err(error).during(|| {
                    format!("create veth {} with peer {} in the container", veth.host, veth.container)
                });
            }
        }
        self.veth = Some(veth.clone());
        Ok(())
    }

    fn interfaces(&mut self, steps: &[Step]) -> Result<Vec<Interface>, Error> {
        let name = self.veth.as_ref().map(|veth| veth.host.clone()).unwrap_or_default();
        // Asking for the link also has the kernel settle its carrier, after which the bridge port forwards.
        let host = link::by_name(self.host, &name).during(|| format!("look up {name}"))?;
        let (Some(bridge), Some(host), Some((container, socket))) = (&self.bridge, host, &mut self.container)
        else {
            return Err(Error::NotAsAdded(format!("{name} went away during the ADD")));
        };
        announce(steps, bridge, &host, container, self.host, socket);
        Ok(vec![describe(bridge, ""), describe(&host, ""), describe(container, &self.call.environment.netns)])
    }

    /// Removes what was made for this container alone. Failures are not reported: the first error is what matters,
    /// and the DEL that follows a failed ADD tries again.
    fn undo(&mut self) {
        if let Some(veth) = self.veth.take() {
            drop(self.host.request(link::delete(&veth.host)));
            if self.conf.masquerade {
                drop(masquerade::remove(&self.call.network, &self.call.owner()));
            }
        }
    }
}

/// The address may have been another container's a moment ago, and its neighbours may still know that one's hardware
/// address: the host is made to forget it, and the container to announce its own.
///
/// A neighbour that was never known cannot be forgotten, and what was not heard is found out by asking, if later; so
/// neither's failure matters.
fn announce(
    steps: &[Step],
    bridge: &Link,
    host: &Link,
    container: &Link,
    host_socket: &mut Socket,
    container_socket: &mut Socket,
) {
    for step in steps {
        let Step::ConfigureContainer { addresses, .. } = step else { continue };
        let forget: Vec<_> =
            addresses.iter().map(|address| address::forget_neighbour(bridge.index, address.addr())).collect();
        drop(host_socket.batch(&forget));
        if let Some(mac) = container.mac.filter(|_| host.operational && !addresses.is_empty()) {
            drop(container_socket.request(link::set_mac(container.index, mac)));
        }
    }
}

/// Inside the container: addresses and routes on the interface, in two datagrams.
fn configure(
    interface: &str,
    addresses: &[ipnet::IpNet],
    routes: &[crate::result::Route],
) -> Result<(Link, Socket), Error> {
    let mut socket = open_socket()?;
    let name = || format!("configure {interface} in the container");
    if addresses.iter().any(|address| address.addr().is_ipv6()) {
        // Some runtimes start containers with IPv6 off.
        sysctl::set(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    for notify in ["ipv4/conf/INTERFACE/arp_notify", "ipv6/conf/INTERFACE/ndisc_notify"] {
        sysctl::set(&notify.replace("INTERFACE", interface), "1")?;
    }
    // Addresses are granted, not found: detecting duplicates would only keep them unusable for a second.
    sysctl::set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    let link = link::by_name(&mut socket, interface)
        .during(name)?
        .ok_or_else(|| Error::NotAsAdded(format!("{interface} went away during the ADD")))?;
    let mut requests = vec![link::raise(link.index, false)];
    requests.extend(addresses.iter().map(|address| address::add(link.index, *address)));
    requests.extend(routes.iter().map(|wanted| route::add(&wanted.through(link.index))));
    socket.batch(&requests).map_err(|error| explain(error, interface, addresses, routes))?;
    Ok((link, socket))
}

/// Names the address or route that the kernel refused.
fn explain(
    error: netlink::Error,
    interface: &str,
    addresses: &[ipnet::IpNet],
    routes: &[crate::result::Route],
) -> Error {
    let operation = match error.request().checked_sub(1) {
        None => format!("set {interface} up in the container"),
        Some(index) => match (addresses.get(index), routes.get(index.wrapping_sub(addresses.len()))) {
            (Some(address), _) => format!("add address {address} to {interface} in the container"),
            (None, Some(route)) => format!("add route {} to {interface} in the container", route.dst),
            (None, None) => format!("configure {interface} in the container"),
        },
    };
    Error::Netlink { operation, source: error }
}

fn describe(link: &Link, sandbox: &str) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu: Some(link.mtu),
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    }
}

/// A hardware address of the locally administered, unicast kind.
fn random_mac() -> Result<Mac, Error> {
    use std::io::Read;
    let mut bytes = [0; 6];
    let source = "/dev/urandom";
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .during(|| format!("read {source}"))?;
    bytes[0] = (bytes[0] & 0xfe) | 0x02;
    Ok(Mac(bytes))
}
