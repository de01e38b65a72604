//! What ADD has to do, given the configuration and the present state. Pure.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::link::{Link, Veth};

use super::conf::Conf;
use crate::{
    Error,
    result::{Attachment, Route},
};

/// The state before an ADD.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// The bridge, with its addresses.
    pub(crate) bridge: Option<(Link, Vec<IpNet>)>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CreateBridge,
    RaiseBridge,
    SetBridgeMtu(u32),
    RemoveGateway(IpNet),
    AddGateway(IpNet),
    Forward { v4: bool, v6: bool },
    AttachVeth(Veth),
    ConfigureContainer { addresses: Vec<IpNet>, routes: Vec<Route> },
    Masquerade(Vec<IpNet>),
}

/// The attachment as it will be reported, less interfaces: every address with its gateway, every route with its hop.
///
/// Upstream's rule for a gateway that the IPAM left open: the subnet's first address, if the bridge is to have it.
pub(crate) fn complete(conf: &Conf, mut granted: Attachment) -> Result<Attachment, Error> {
    if granted.ips.is_empty() {
        return Err(Error::Ipam("IPAM plugin returned missing IP config".to_owned()));
    }
    for ip in &mut granted.ips {
        ip.interface = Some(2);
        if ip.gateway.is_none() && conf.gateway {
            ip.gateway = Some(first_address(&ip.address));
        }
    }
    if conf.default_gateway {
        for ip in &granted.ips {
            let everywhere = everywhere(&ip.address.addr());
            let known = granted.routes.iter().any(|route| route.dst == everywhere);
            if !known {
                granted.routes.push(Route::via(everywhere, ip.gateway));
            }
        }
    }
    for route in &mut granted.routes {
        let v4 = route.dst.addr().is_ipv4();
        if route.gw.is_none() && route.scope.is_none() {
            route.gw = granted.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == v4);
        }
    }
    Ok(granted)
}

/// The address after the subnet's own, which in IPv6 is the routers' anycast address.
fn first_address(subnet: &IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits().saturating_add(1)).into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits().saturating_add(1)).into(),
    }
}

fn everywhere(like: &IpAddr) -> IpNet {
    if like.is_ipv4() { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) }
}

/// The steps of an ADD, in order. `granted` is as `complete` left it; `None` joins the container at layer 2 only.
pub(crate) fn plan(
    conf: &Conf,
    observed: &Observed,
    granted: Option<&Attachment>,
    veth: Veth,
) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let mut present: &[IpNet] = &[];
    match &observed.bridge {
        None => steps.push(Step::CreateBridge),
        Some((bridge, _)) if bridge.kind != "bridge" => {
            return Err(Error::config(
                "bridge",
                format!("{:?} already exists but is not a bridge", conf.bridge),
            ));
        }
        Some((bridge, addresses)) => {
            present = addresses;
            if !bridge.up || (conf.promiscuous && !bridge.promiscuous) {
                steps.push(Step::RaiseBridge);
            }
            if let Some(mtu) = conf.mtu.filter(|mtu| *mtu != bridge.mtu) {
                steps.push(Step::SetBridgeMtu(mtu));
            }
        }
    }
    let Some(granted) = granted else {
        steps.push(Step::AttachVeth(veth));
        steps.push(Step::ConfigureContainer { addresses: Vec::new(), routes: Vec::new() });
        return Ok(steps);
    };
    if conf.gateway {
        for ip in &granted.ips {
            let Some(gateway) = ip.gateway else { continue };
            // A gateway of the address's family always takes its prefix length.
            let Ok(gateway) = IpNet::new(gateway, ip.address.prefix_len()) else {
                return Err(Error::config(
                    "ipam.gateway",
                    format!("{gateway} is not of the family of {}", ip.address),
                ));
            };
            plan_gateway(conf, present, gateway, &mut steps)?;
        }
        steps.push(Step::Forward {
            v4: granted.ips.iter().any(|ip| ip.address.addr().is_ipv4()),
            v6: granted.ips.iter().any(|ip| ip.address.addr().is_ipv6()),
        });
    }
    let addresses: Vec<IpNet> = granted.ips.iter().map(|ip| ip.address).collect();
    steps.push(Step::AttachVeth(veth));
    steps.push(Step::ConfigureContainer { addresses: addresses.clone(), routes: granted.routes.clone() });
    if conf.masquerade {
        steps.push(Step::Masquerade(addresses));
    }
    Ok(steps)
}

/// Gives the bridge its gateway address. An IPv4 bridge has one; IPv6 ones may stand beside each other
/// as long as their subnets do not overlap.
fn plan_gateway(conf: &Conf, present: &[IpNet], gateway: IpNet, steps: &mut Vec<Step>) -> Result<(), Error> {
    if present.contains(&gateway) {
        return Ok(());
    }
    let conflicts = present.iter().filter(|address| match (address, &gateway) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(address), IpNet::V6(gateway)) => address.contains(gateway) || gateway.contains(address),
        _ => false,
    });
    for address in conflicts {
        if !conf.force_address {
            return Err(Error::config(
                "bridge",
                format!("{:?} already has an IP address different from {gateway}: {address}", conf.bridge),
            ));
        }
        steps.push(Step::RemoveGateway(*address));
    }
    steps.push(Step::AddGateway(gateway));
    Ok(())
}

#[cfg(test)]
mod tests;
