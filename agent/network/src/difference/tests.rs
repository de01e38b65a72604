use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    node::Member,
    plan::{
        Known, plan,
        tests::{connected, ip, net},
    },
    settings::{Backend, Settings},
};

/// A link by its step, as the kernel would have it.
fn made(mac: Mac, mtu: u32, vxlan: Vxlan) -> Present {
    Present { up: true, mac: Some(mac), mtu, vxlan: Some(vxlan), ..nothing() }
}

fn link<'a>(observed: &'a mut Observed, device: &Device) -> &'a mut Present {
    observed.overlays.get_mut(device).unwrap()
}

/// What the kernel would make of it; what it would refuse panics.
fn apply(observed: &mut Observed, steps: &[Step]) {
    for step in steps {
        match step {
            Step::AddLink { device, mac, mtu, vxlan } => {
                assert!(observed.overlays.insert(*device, made(*mac, *mtu, *vxlan)).is_none(), "{step}");
            }
            Step::RemoveLink(device) => {
                observed.overlays.remove(device).unwrap();
                observed.ours.retain(|route| route.out != Out::Overlay(*device));
            }
            Step::SetLocal(device, local) => link(observed, device).vxlan.as_mut().unwrap().local = *local,
            Step::SetMtu(device, mtu) => link(observed, device).mtu = *mtu,
            Step::Raise(device) => link(observed, device).up = true,
            Step::AddAddress(device, net) => assert!(link(observed, device).addresses.insert(*net), "{step}"),
            Step::RemoveAddress(device, net) => {
                assert!(link(observed, device).addresses.remove(net), "{step}")
            }
            Step::SetForwarding(device, mac, machine) => {
                link(observed, device).forwarding.retain(|(of, _)| of != mac);
                link(observed, device).forwarding.insert((*mac, *machine));
            }
            Step::RemoveForwarding(device, mac) => {
                link(observed, device).forwarding.retain(|(of, _)| of != mac)
            }
            Step::SetNeighbour(device, hop, mac) => {
                link(observed, device).neighbours.insert(*hop, *mac);
            }
            Step::RemoveNeighbour(device, hop) => {
                link(observed, device).neighbours.remove(hop).unwrap();
            }
            Step::Remove(route) => {
                let place = observed.ours.iter().position(|other| other == route).unwrap();
                observed.ours.remove(place);
            }
            Step::Add(route) => {
                assert!(observed.ours.iter().all(|other| other.dst != route.dst), "{route:?} exists");
                assert!(
                    observed.foreign.iter().all(|other| other.dst != route.dst),
                    "{route:?} is another's"
                );
                needs_entries(observed, route);
                observed.ours.push(*route);
            }
            Step::Replace(route) => {
                needs_entries(observed, route);
                let mut same = observed.ours.iter_mut().filter(|other| other.dst == route.dst);
                *same.next().unwrap() = *route;
                assert!(same.next().is_none());
            }
        }
    }
}

/// A route by an overlay that does not know its next hop loses packets.
fn needs_entries(observed: &Observed, route: &PodRoute) {
    if let Out::Overlay(device) = route.out {
        let link = &observed.overlays[&device];
        let mac = link.neighbours[&route.via];
        assert!(link.forwarding.iter().any(|(of, _)| *of == mac), "{route:?}");
    }
}

fn any_cidr() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0..6u8).prop_map(|n| net(&format!("10.244.{n}.0/24"))),
        (0..2u8).prop_map(|n| net(&format!("10.244.{}.0/23", n * 2))),
        (0..4u8).prop_map(|n| net(&format!("fd00:{n}::/64"))),
        Just(net("192.0.2.0/25")),
    ]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1..6u8).prop_map(|n| ip(&format!("192.0.2.{n}"))),
        Just(ip("192.0.2.200")),
        (1..3u8).prop_map(|n| ip(&format!("198.51.100.{n}"))),
        (1..6u8).prop_map(|n| ip(&format!("2001:db8::{n}"))),
        Just(ip("2001:db8:9::1")),
    ]
}

prop_compose! {
    fn any_member()(
        addresses in prop::collection::vec(any_address(), 0..3),
        pod_cidrs in prop::collection::vec(any_cidr(), 0..3),
    ) -> Member {
        Member { addresses, pod_cidrs, ..Member::default() }
    }
}

prop_compose! {
    fn any_known()(
        backend in prop::sample::select(vec![Backend::Auto, Backend::Direct, Backend::Vxlan]),
        port in prop::sample::select(vec![4789u16, 8472]),
        idle in any::<bool>(),
    ) -> Known {
        let settings = Settings { backend, vxlan_port: port, ..Settings::default() };
        let idle = if idle { Device::ALL.into_iter().collect() } else { BTreeSet::new() };
        Known { settings, idle, ..Known::default() }
    }
}

fn any_mac() -> impl Strategy<Value = Mac> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "c"]).prop_map(crate::overlay::mac),
        Just(Mac([2, 0, 0, 0, 0, 9]))
    ]
}

prop_compose! {
    /// A link as an earlier run, or somebody, left it.
    fn any_present()(
        (up, mtu, ours, mac) in (any::<bool>(), 1280..1500u32, prop::bool::weighted(0.9), any_mac()),
        (port, learning) in (prop::sample::select(vec![4789u16, 8472]), any::<bool>()),
        local in prop::sample::select(vec!["0.0.0.0", "192.0.2.1", "192.0.2.77"]),
        addresses in prop::collection::btree_set(any_cidr(), 0..3),
        neighbours in prop::collection::btree_map(any_address(), any_mac(), 0..3),
        forwarding in prop::collection::btree_set((any_mac(), any_address()), 0..4),
    ) -> Present {
        let vxlan = ours.then(|| Vxlan { id: 87, port, local: ip(local), learning });
        Present { index: 20, up, mtu, mac: Some(mac), vxlan, addresses, neighbours, forwarding }
    }
}

proptest! {
    /// Whatever the nodes claim, whatever is left of earlier and whatever the settings are: one round converges, and then there is nothing to do;
    /// no route of ours takes our own pods', leads to an address it contains, or by an overlay that does not know its next hop.
    #[test]
    fn one_round_converges(
        members in prop::collection::btree_map("[a-e]", any_member(), 0..5),
        left in prop::collection::vec((any_cidr(), any_address(), 1..5u32), 0..5),
        link in prop::option::of(any_present()),
        (known, cut) in (any_known(), any::<prop::sample::Index>()),
    ) {
        let mut observed = connected();
        if let Some(link) = link {
            observed.overlays.insert(Device::Vxlan4, link);
        }
        let by_overlay = observed.overlays.values().any(|link| link.vxlan.is_some());
        let mut left: Vec<PodRoute> = left
            .into_iter()
            .map(|(dst, via, link)| {
                let out = if link == 4 && by_overlay { Out::Overlay(Device::Vxlan4) } else { Out::Link(link) };
                PodRoute { dst, via, out }
            })
            .collect();
        left.sort();
        left.dedup();
        observed.ours = left;
        let first = plan(&members, "a", &observed, &known);
        let steps = difference(&first, &observed);
        // killed anywhere, the next one goes on from there
        let cut = cut.index(steps.len() + 1);
        apply(&mut observed, &steps[..cut]);
        let rest = difference(&plan(&members, "a", &observed, &known), &observed);
        apply(&mut observed, &rest);
        let again = plan(&members, "a", &observed, &known);
        prop_assert_eq!(difference(&again, &observed), Vec::new());
        prop_assert_eq!(again.problems, first.problems);
        let own = members.get("a").map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        for route in &observed.ours {
            prop_assert!(!members.values().flat_map(|member| &member.addresses).any(|ip| route.dst.contains(ip)));
            prop_assert!(own.iter().all(|cidr| !cidr.contains(&route.dst) && !route.dst.contains(cidr)));
        }
    }
}

fn pair(address: &str) -> BTreeMap<String, Member> {
    let member = |address: &str, cidr: &str| Member {
        addresses: vec![ip(address)],
        pod_cidrs: vec![net(cidr)],
        ..Member::default()
    };
    BTreeMap::from([
        ("me".to_owned(), member("192.0.2.1", "10.244.0.0/24")),
        ("other".to_owned(), member(address, "10.244.1.0/24")),
    ])
}

fn by(backend: Backend) -> Known {
    Known { settings: Settings { backend, ..Settings::default() }, ..Known::default() }
}

fn settled(nodes: &BTreeMap<String, Member>, known: &Known) -> Observed {
    let mut observed = connected();
    let steps = difference(&plan(nodes, "me", &observed, known), &observed);
    apply(&mut observed, &steps);
    observed
}

#[test]
fn a_change_of_the_way_must_move_the_route_and_never_be_without_one() {
    let nodes = pair("192.0.2.2");
    for (from, to) in [(Backend::Direct, Backend::Vxlan), (Backend::Vxlan, Backend::Direct)] {
        let observed = settled(&nodes, &by(from));
        let steps = difference(&plan(&nodes, "me", &observed, &by(to)), &observed);
        let moved = steps.iter().position(|step| matches!(step, Step::Replace(_))).unwrap();
        let goes = |step: &Step| {
            matches!(step, Step::Remove(_) | Step::RemoveForwarding(..) | Step::RemoveNeighbour(..))
        };
        assert!(!steps[..moved].iter().any(goes), "{steps:?}");
        assert!(!steps.iter().any(|step| matches!(step, Step::RemoveLink(_) | Step::Remove(_))), "{steps:?}");
    }
}

#[test]
fn a_nodes_new_address_changes_one_entry_and_our_own_the_source() {
    let known = by(Backend::Vxlan);
    let mut observed = settled(&pair("192.0.2.2"), &known);
    let steps = difference(&plan(&pair("192.0.2.3"), "me", &observed, &known), &observed);
    let other = crate::overlay::mac("other");
    assert_eq!(steps, [Step::SetForwarding(Device::Vxlan4, other, ip("192.0.2.3"))]);
    observed.addresses.push((2, net("192.0.2.50/24")));
    let mut nodes = pair("192.0.2.2");
    nodes.get_mut("me").unwrap().addresses = vec![ip("192.0.2.50")];
    let steps = difference(&plan(&nodes, "me", &observed, &known), &observed);
    assert_eq!(steps, [Step::SetLocal(Device::Vxlan4, ip("192.0.2.50"))]);
}

#[test]
fn a_node_that_went_leaves_nothing_and_the_others_are_not_touched() {
    let known = by(Backend::Vxlan);
    let mut nodes = pair("192.0.2.2");
    let third = Member {
        addresses: vec![ip("192.0.2.3")],
        pod_cidrs: vec![net("10.244.3.0/24")],
        ..Member::default()
    };
    nodes.insert("third".to_owned(), third);
    let observed = settled(&nodes, &known);
    let steps = difference(&plan(&pair("192.0.2.2"), "me", &observed, &known), &observed);
    let route =
        PodRoute { dst: net("10.244.3.0/24"), via: ip("10.244.3.1"), out: Out::Overlay(Device::Vxlan4) };
    assert_eq!(
        steps,
        [
            Step::Remove(route),
            Step::RemoveNeighbour(Device::Vxlan4, ip("10.244.3.1")),
            Step::RemoveForwarding(Device::Vxlan4, crate::overlay::mac("third")),
        ]
    );
}

#[test]
fn a_link_that_fits_must_not_be_made_anew_and_one_of_another_port_is() {
    let nodes = pair("198.51.100.1");
    let observed = settled(&nodes, &Known::default());
    assert_eq!(difference(&plan(&nodes, "me", &observed, &Known::default()), &observed), []);
    let known = Known { settings: Settings { vxlan_port: 8472, ..Settings::default() }, ..Known::default() };
    let steps = difference(&plan(&nodes, "me", &observed, &known), &observed);
    assert_eq!(steps[0], Step::RemoveLink(Device::Vxlan4));
    assert!(matches!(&steps[1], Step::AddLink { vxlan, .. } if vxlan.port == 8472));
    assert!(matches!(steps.last(), Some(Step::Add(_))), "its route went with it");
}
