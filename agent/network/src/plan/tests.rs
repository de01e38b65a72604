use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn member(addresses: &[&str], cidrs: &[&str]) -> Member {
    Member {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        pod_cidrs: cidrs.iter().map(|text| net(text)).collect(),
        malformed: Vec::new(),
    }
}

fn nodes(members: &[(&str, Member)]) -> BTreeMap<String, Member> {
    members.iter().map(|(name, member)| ((*name).to_owned(), member.clone())).collect()
}

fn connected() -> Observed {
    Observed {
        ours: Vec::new(),
        foreign: vec![
            ForeignRoute { dst: net("0.0.0.0/0"), link: 2, gateway: Some(ip("192.0.2.254")) },
            ForeignRoute { dst: net("192.0.2.0/24"), link: 2, gateway: None },
            ForeignRoute { dst: net("192.0.2.128/25"), link: 3, gateway: Some(ip("192.0.2.9")) },
            ForeignRoute { dst: net("2001:db8::/64"), link: 2, gateway: None },
            ForeignRoute { dst: net("10.244.0.0/24"), link: 9, gateway: None },
        ],
        pod_links: vec![9],
    }
}

#[test]
fn a_neighbours_pods_are_routed_by_its_address_in_each_family() {
    let nodes = nodes(&[
        ("me", member(&["192.0.2.1"], &["10.244.0.0/24"])),
        ("other", member(&["192.0.2.2", "2001:db8::2"], &["10.244.1.0/24", "fd00:1::/64"])),
    ]);
    let plan = plan(&nodes, "me", &connected());
    assert_eq!(
        plan.steps,
        [
            Step::Add(PodRoute { dst: net("10.244.1.0/24"), via: ip("192.0.2.2"), link: 2 }),
            Step::Add(PodRoute { dst: net("fd00:1::/64"), via: ip("2001:db8::2"), link: 2 }),
        ]
    );
    assert!(plan.problems.is_empty());
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
    ];
    for (other, words) in cases {
        let nodes = nodes(&[("me", member(&["192.0.2.1"], &["10.244.0.0/24"])), ("other", other.clone())]);
        let plan = plan(&nodes, "me", &connected());
        assert_eq!(plan.steps, [], "{other:?}");
        let said: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
    }
}

#[test]
fn a_node_that_went_takes_its_route_and_a_moved_one_replaces_it() {
    let mut observed = connected();
    let route = |dst, via| PodRoute { dst: net(dst), via: ip(via), link: 2 };
    observed.ours = vec![route("10.244.1.0/24", "192.0.2.7"), route("10.244.3.0/24", "192.0.2.3")];
    let nodes = nodes(&[("other", member(&["192.0.2.2"], &["10.244.1.0/24"]))]);
    assert_eq!(
        plan(&nodes, "me", &observed).steps,
        [
            Step::Replace(route("10.244.1.0/24", "192.0.2.2")),
            Step::Remove(route("10.244.3.0/24", "192.0.2.3")),
        ]
    );
}

/// What the kernel would make of it.
fn apply(observed: &mut Observed, steps: &[Step]) {
    for step in steps {
        match step {
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
                observed.ours.push(*route);
            }
            Step::Replace(route) => {
                let mut same = observed.ours.iter_mut().filter(|other| other.dst == route.dst);
                *same.next().unwrap() = *route;
                assert!(same.next().is_none());
            }
        }
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
        Just(ip("198.51.100.1")),
        (1..6u8).prop_map(|n| ip(&format!("2001:db8::{n}"))),
    ]
}

prop_compose! {
    fn any_member()(
        addresses in prop::collection::vec(any_address(), 0..3),
        pod_cidrs in prop::collection::vec(any_cidr(), 0..3),
    ) -> Member {
        Member { addresses, pod_cidrs, malformed: Vec::new() }
    }
}

proptest! {
    /// Whatever the nodes claim and whatever is left of earlier: one round converges, and then there is nothing to do;
    /// no route of ours takes our own pods' or leads to an address it contains.
    #[test]
    fn one_round_converges(
        members in prop::collection::btree_map("[a-e]", any_member(), 0..5),
        left in prop::collection::vec((any_cidr(), any_address(), 1..4u32), 0..5),
    ) {
        let mut observed = connected();
        let mut left: Vec<PodRoute> =
            left.into_iter().map(|(dst, via, link)| PodRoute { dst, via, link }).collect();
        left.sort();
        left.dedup();
        observed.ours = left;
        let first = plan(&members, "a", &observed);
        apply(&mut observed, &first.steps);
        let again = plan(&members, "a", &observed);
        prop_assert_eq!(&again.steps, &[]);
        prop_assert_eq!(again.problems, first.problems);
        let own = members.get("a").map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        for route in &observed.ours {
            prop_assert!(!members.values().flat_map(|member| &member.addresses).any(|ip| route.dst.contains(ip)));
            prop_assert!(own.iter().all(|cidr| !cidr.contains(&route.dst) && !route.dst.contains(cidr)));
        }
    }
}
