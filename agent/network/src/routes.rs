//! Observing and changing the kernel's routes.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    link::LinkAttribute,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::plan::{ForeignRoute, Observed, PodRoute, Step};

/// Marks routes as ours, also to whoever runs after us: not in `/etc/iproute2/rt_protos`, so shown as a number.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(87);

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("list routes")]
    List(#[source] rtnetlink::Error),
    #[error("look up link {0}")]
    Link(String, #[source] rtnetlink::Error),
    #[error("{verb} route {} via {}", route.dst, route.via)]
    Change { verb: &'static str, route: PodRoute, source: rtnetlink::Error },
}

pub(crate) async fn observe(handle: &Handle, bridge: &str) -> Result<Observed, RouteError> {
    let mut observed = Observed { pod_links: link_of(handle, bridge).await?, ..Observed::default() };
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family;
        let mut routes = handle.route().get(wanted).execute();
        while let Some(message) = routes.try_next().await.map_err(RouteError::List)? {
            sort_in(&message, &mut observed);
        }
    }
    Ok(observed)
}

async fn link_of(handle: &Handle, name: &str) -> Result<Vec<u32>, RouteError> {
    const NO_SUCH_DEVICE: i32 = -19;
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link
            .into_iter()
            .filter(|link| link.attributes.contains(&LinkAttribute::IfName(name.to_owned())))
            .map(|link| link.header.index)
            .collect()),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == NO_SUCH_DEVICE => Ok(Vec::new()),
        Err(error) => Err(RouteError::Link(name.to_owned(), error)),
    }
}

fn sort_in(message: &RouteMessage, observed: &mut Observed) {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut address, mut gateway, mut link) = (any, None, None);
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => address = ip_of(to).unwrap_or(any),
            RouteAttribute::Gateway(by) => gateway = ip_of(by),
            RouteAttribute::Via(netlink_packet_route::route::RouteVia::Inet6(by)) => {
                gateway = Some((*by).into())
            }
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return;
    }
    // Several next hops have no link of the route's own; such a route is nobody's neighbour.
    let (Some(link), Ok(dst)) = (link, IpNet::new(address, header.destination_prefix_length)) else { return };
    match gateway {
        Some(via) if header.protocol == PROTOCOL => observed.ours.push(PodRoute { dst, via, link }),
        gateway => observed.foreign.push(ForeignRoute { dst, link, gateway }),
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(crate) async fn apply(handle: &Handle, step: Step) -> Result<(), RouteError> {
    const NO_SUCH_ROUTE: i32 = -3;
    let (verb, route, result) = match step {
        Step::Add(route) => ("add", route, handle.route().add(message(&route)).execute().await),
        Step::Replace(route) => {
            ("replace", route, handle.route().add(message(&route)).replace().execute().await)
        }
        Step::Remove(route) => {
            let result = match handle.route().del(message(&route)).execute().await {
                // It went with its link.
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == NO_SUCH_ROUTE => Ok(()),
                other => other,
            };
            ("remove", route, result)
        }
    };
    result.map_err(|source| RouteError::Change { verb, route, source })
}

fn message(route: &PodRoute) -> RouteMessage {
    let mut message = match (route.dst, route.via) {
        (IpNet::V4(dst), IpAddr::V4(via)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(dst.network(), dst.prefix_len())
            .gateway(via)
            .output_interface(route.link)
            .build(),
        (IpNet::V6(dst), IpAddr::V6(via)) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(dst.network(), dst.prefix_len())
            .gateway(via)
            .output_interface(route.link)
            .build(),
        // The plan never mixes families; an empty message is refused by the kernel.
        _ => RouteMessage::default(),
    };
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}
