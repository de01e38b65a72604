use super::*;

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn member(addresses: &[&str], cidrs: &[&str]) -> Member {
    Member {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        pod_cidrs: cidrs.iter().map(|text| net(text)).collect(),
        ..Member::default()
    }
}

fn nodes(members: &[(&str, Member)]) -> BTreeMap<String, Member> {
    members.iter().map(|(name, member)| ((*name).to_owned(), member.clone())).collect()
}

/// A machine with one link of 1,500 bytes, a second one of 9,000 with a router behind it, and its bridge.
pub(crate) fn connected() -> Observed {
    let route = |dst, link, gateway: Option<&str>| ForeignRoute {
        dst: net(dst),
        link,
        gateway: gateway.map(ip),
        mtu: None,
    };
    Observed {
        foreign: vec![
            route("0.0.0.0/0", 2, Some("192.0.2.254")),
            route("192.0.2.0/24", 2, None),
            route("192.0.2.128/25", 3, Some("192.0.2.9")),
            route("2001:db8::/64", 2, None),
            route("10.244.0.0/24", 9, None),
        ],
        pod_links: vec![9],
        mtus: BTreeMap::from([(1, 65536), (2, 1500), (3, 9000), (9, 1500)]),
        addresses: vec![
            (1, net("127.0.0.1/8")),
            (2, net("192.0.2.1/24")),
            (2, net("2001:db8::1/64")),
            (9, net("10.244.0.1/24")),
        ],
        ..Observed::default()
    }
}

fn by(backend: Backend) -> Known {
    Known { settings: Settings { backend, ..Settings::default() }, ..Known::default() }
}

fn link(via: &str) -> Out {
    assert!(via.starts_with("192.0.2.") || via.starts_with("2001:db8::"));
    Out::Link(2)
}

fn said(desired: &Desired) -> Vec<String> {
    desired.problems.iter().map(ToString::to_string).collect()
}

fn pair(other: Member) -> BTreeMap<String, Member> {
    nodes(&[("me", member(&["192.0.2.1", "2001:db8::1"], &["10.244.0.0/24", "fd00::/64"])), ("other", other)])
}

#[test]
fn a_neighbours_pods_are_routed_by_its_address_in_each_family() {
    let nodes = pair(member(&["192.0.2.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:1::/64"]));
    let desired = plan(&nodes, "me", &connected(), &Known::default());
    let routes: Vec<PodRoute> = desired.routes.into_values().collect();
    assert_eq!(
        routes,
        [
            PodRoute { dst: net("10.244.1.0/24"), via: ip("192.0.2.2"), out: link("192.0.2.2") },
            PodRoute { dst: net("fd00:1::/64"), via: ip("2001:db8::2"), out: link("2001:db8::2") },
        ]
    );
    assert!(desired.problems.is_empty() && desired.overlays.is_empty(), "a flat link needs no overlay");
    assert_eq!(desired.mtu, Mtu { link: Some(1500), route: None });
}

#[test]
fn what_cannot_be_routed_says_why_and_is_not() {
    let cases = [
        (member(&["198.51.100.1"], &["10.244.1.0/24"]), "is not on a directly connected link"),
        (member(&["192.0.2.200"], &["10.244.1.0/24"]), "is not on a directly connected link"),
        (member(&["10.244.0.7"], &["10.244.1.0/24"]), "is not on a directly connected link"),
        (member(&["2001:db8::2"], &["10.244.1.0/24"]), "has no InternalIP of that family"),
        (member(&["192.0.2.2"], &["10.244.0.0/16"]), "overlaps with that of me"),
        (member(&["192.0.2.2"], &["192.0.2.0/24"]), "overlaps with the address of me"),
        (member(&["192.0.2.2"], &["192.0.2.2/31"]), "overlaps with the address of other"),
        (member(&["192.0.2.2"], &["192.0.2.128/25"]), "another program has a route there"),
        (member(&["192.0.2.1"], &["10.244.1.0/24"]), "claims 192.0.2.1, which is ours"),
    ];
    for (other, words) in cases {
        let desired = plan(&pair(other.clone()), "me", &connected(), &by(Backend::Direct));
        assert_eq!(desired.routes, BTreeMap::new(), "{other:?}");
        let said = said(&desired);
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
    }
}

#[test]
fn a_node_behind_a_router_is_reached_by_vxlan_and_a_neighbour_beside_it_is_not() {
    let nodes = nodes(&[
        ("me", member(&["192.0.2.1"], &["10.244.0.0/24"])),
        ("far", member(&["198.51.100.1"], &["10.244.1.0/24", "fd00:1::/64"])),
        ("near", member(&["192.0.2.2"], &["10.244.2.0/24"])),
    ]);
    let desired = plan(&nodes, "me", &connected(), &Known::default());
    assert_eq!(said(&desired), [""; 0]);
    let out = |dst: &str| desired.routes[&net(dst)];
    assert_eq!(out("10.244.2.0/24").out, Out::Link(2));
    let far =
        PodRoute { dst: net("10.244.1.0/24"), via: ip("10.244.1.1"), out: Out::Overlay(Device::Vxlan4) };
    assert_eq!(out("10.244.1.0/24"), far);
    // an IPv6 range whose node has IPv4 only
    let hop = next_hop(&net("fd00:1::/64"), mac("far"));
    assert_eq!((out("fd00:1::/64").via, out("fd00:1::/64").out), (hop, far.out));
    let overlay = &desired.overlays[&Device::Vxlan4];
    assert_eq!(overlay.vxlan, Vxlan { id: 87, port: 4789, local: ip("192.0.2.1"), learning: false });
    assert_eq!((overlay.mtu, overlay.mac), (1450, mac("me")));
    assert_eq!(overlay.addresses, BTreeSet::from([net("10.244.0.1/32")]));
    assert_eq!(overlay.forwarding, BTreeMap::from([(mac("far"), ip("198.51.100.1"))]));
    let hops = BTreeMap::from([(ip("10.244.1.1"), mac("far")), (hop, mac("far"))]);
    assert_eq!(overlay.neighbours, hops);
    assert_eq!(desired.direct, BTreeSet::from([ip("192.0.2.2")]), "a far node does not know the way back");
    assert_eq!(desired.mtu, Mtu { link: Some(1500), route: Some(1450) });
}

#[test]
fn vxlan_for_all_takes_neighbours_too_and_each_family_its_own_link() {
    let nodes = pair(member(&["192.0.2.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:1::/64"]));
    let desired = plan(&nodes, "me", &connected(), &by(Backend::Vxlan));
    assert_eq!(desired.routes[&net("10.244.1.0/24")].out, Out::Overlay(Device::Vxlan4));
    assert_eq!(desired.routes[&net("fd00:1::/64")].out, Out::Overlay(Device::Vxlan6));
    assert_eq!(desired.overlays[&Device::Vxlan6].mtu, 1430);
    assert_eq!(desired.overlays[&Device::Vxlan6].vxlan.local, ip("2001:db8::1"));
    assert!(desired.direct.is_empty());
    assert_eq!(desired.mtu.route, Some(1430), "the least of both");
}

#[test]
fn the_mtu_is_that_of_the_links_that_lead_there_and_of_their_routes() {
    let far = |address: &str| pair(member(&[address], &["10.244.1.0/24"]));
    let of = |observed: &Observed, nodes: &BTreeMap<String, Member>, known: &Known| {
        let desired = plan(nodes, "me", observed, known);
        (desired.overlays[&Device::Vxlan4].mtu, desired.mtu)
    };
    let mut observed = connected();
    let jumbo = of(&observed, &far("192.0.2.200"), &Known::default());
    assert_eq!(jumbo, (8950, Mtu { link: Some(1500), route: None }), "more than pods' own is no limit");
    observed.foreign[0].mtu = Some(1400);
    assert_eq!(of(&observed, &far("198.51.100.1"), &Known::default()).0, 1350);
    observed.foreign.remove(0);
    assert_eq!(of(&observed, &far("198.51.100.1"), &Known::default()).0, 1450, "of our own link");
    let settings = Settings { mtu: Some(1420), ..Settings::default() };
    let known = Known { settings, ..Known::default() };
    let told = of(&observed, &far("198.51.100.1"), &known);
    assert_eq!(told, (1370, Mtu { link: Some(1420), route: Some(1370) }));
    observed.mtus.insert(2, 1300);
    assert_eq!(of(&observed, &far("198.51.100.1"), &Known::default()).0, 1280, "what IPv6 needs");
}

#[test]
fn an_address_on_the_loopback_must_not_make_pods_packets_longer_than_any() {
    let mut observed = connected();
    observed.addresses = vec![(1, net("192.0.2.1/32"))];
    let nodes = nodes(&[("me", member(&["192.0.2.1"], &["10.244.0.0/24"]))]);
    assert_eq!(plan(&nodes, "me", &observed, &Known::default()).mtu, Mtu::default());
}

#[test]
fn an_address_of_the_node_that_is_not_on_this_machine_must_not_be_a_source() {
    let mut nodes = pair(member(&["198.51.100.1"], &["10.244.1.0/24"]));
    nodes.insert("me".to_owned(), member(&["203.0.113.1"], &["10.244.0.0/24"]));
    let desired = plan(&nodes, "me", &connected(), &Known::default());
    assert_eq!(desired.overlays[&Device::Vxlan4].vxlan.local, ip("0.0.0.0"));
}

fn present(vxlan: Option<Vxlan>) -> Present {
    Present {
        index: 20,
        up: true,
        mtu: 1450,
        mac: Some(mac("me")),
        vxlan,
        addresses: BTreeSet::new(),
        neighbours: BTreeMap::new(),
        forwarding: BTreeSet::new(),
    }
}

#[test]
fn without_an_overlay_a_far_node_is_told_of_and_a_near_one_reached() {
    let nodes = nodes(&[
        ("me", member(&["192.0.2.1"], &["10.244.0.0/24"])),
        ("far", member(&["198.51.100.1"], &["10.244.1.0/24"])),
        ("near", member(&["192.0.2.2"], &["10.244.2.0/24"])),
    ]);
    let refused = BTreeMap::from([(Device::Vxlan4, "Unknown device type".to_owned())]);
    let desired = plan(&nodes, "me", &connected(), &Known { refused, ..Known::default() });
    assert_eq!(desired.routes.len(), 1);
    let words =
        "no route to pods 10.244.1.0/24 of node far: link wl-vxlan cannot be made: Unknown device type";
    assert_eq!(said(&desired), [words]);
    let mut observed = connected();
    observed.overlays.insert(Device::Vxlan4, present(None));
    let desired = plan(&nodes, "me", &observed, &Known::default());
    assert_eq!(said(&desired), ["no overlay: there is a link wl-vxlan that is no VXLAN link of ours"]);
    assert!(desired.overlays.is_empty(), "and it is left alone");
}

#[test]
fn a_link_nobody_is_reached_by_must_stay_while_others_may_send_by_it() {
    let nodes = pair(member(&["192.0.2.2"], &["10.244.1.0/24"]));
    let mut observed = connected();
    observed.overlays.insert(
        Device::Vxlan4,
        present(Some(Vxlan { id: 87, port: 4789, local: ip("192.0.2.1"), learning: false })),
    );
    let kept = plan(&nodes, "me", &observed, &by(Backend::Direct));
    assert!(kept.overlays[&Device::Vxlan4].forwarding.is_empty());
    assert_eq!(kept.mtu.route, None, "it limits nobody");
    let idle = BTreeSet::from([Device::Vxlan4]);
    let gone = plan(&nodes, "me", &observed, &Known { idle, ..by(Backend::Direct) });
    assert!(gone.overlays.is_empty());
}
