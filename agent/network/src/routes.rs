//! Observing and changing the kernel's routes.

use netlink::{
    Error, Kernel, Socket, link,
    route::{self, MAIN, Route, UNICAST},
};

use crate::plan::{ForeignRoute, Observed, PodRoute, Step};

/// Marks routes as ours, also to whoever runs after us: not in `/etc/iproute2/rt_protos`, so shown as a number.
const PROTOCOL: u8 = 87;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("list routes")]
    List(#[from] Error),
    #[error("look up link {0}")]
    Link(String, #[source] Error),
    #[error("{verb} route {} via {}", route.dst, route.via)]
    Change { verb: &'static str, route: PodRoute, source: Error },
}

pub(crate) async fn observe(kernel: &mut Kernel, bridge: &str) -> Result<Observed, RouteError> {
    let bridge = bridge.to_owned();
    kernel.call(move |socket| look(socket, &bridge)).await
}

fn look(socket: &mut Socket, bridge: &str) -> Result<Observed, RouteError> {
    let link = link::by_name(socket, bridge).map_err(|error| RouteError::Link(bridge.to_owned(), error))?;
    let own = link.filter(|link| link.name == bridge).map(|link| link.index);
    let mut observed = Observed { pod_links: own.into_iter().collect(), ..Observed::default() };
    for ipv6 in [false, true] {
        route::list(socket, ipv6)?.iter().for_each(|route| sort_in(route, &mut observed));
    }
    Ok(observed)
}

fn sort_in(route: &Route, observed: &mut Observed) {
    if route.kind != UNICAST || route.table != MAIN {
        return;
    }
    // Several next hops have no link of the route's own; such a route is nobody's neighbour.
    let Some(link) = route.link else { return };
    let dst = route.dst;
    match route.gateway {
        Some(via) if route.protocol == PROTOCOL => observed.ours.push(PodRoute { dst, via, link }),
        gateway => observed.foreign.push(ForeignRoute { dst, link, gateway }),
    }
}

pub(crate) async fn apply(kernel: &mut Kernel, step: Step) -> Result<(), RouteError> {
    let wanted =
        |pods: &PodRoute| Route { protocol: PROTOCOL, ..Route::new(pods.dst, Some(pods.via), pods.link) };
    let (verb, route, request) = match step {
        Step::Add(route) => ("add", route, route::add(&wanted(&route))),
        Step::Replace(route) => ("replace", route, route::replace(&wanted(&route))),
        Step::Remove(route) => ("remove", route, route::delete(&wanted(&route))),
    };
    match kernel.call(move |socket| socket.request(request)).await {
        // It went with its link.
        Err(error) if error.errno() == nix::libc::ESRCH && verb == "remove" => Ok(()),
        done => done.map_err(|source| RouteError::Change { verb, route, source }),
    }
}
