use super::*;

/// `address node state hints`: state is `r`eady, `t`erminating but serving, or `n`ot ready.
fn slice(endpoints: &[&str]) -> Slice {
    let endpoints = endpoints.iter().map(|text| {
        let mut words = text.split(' ');
        let (address, node, state) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let mut endpoint = SliceEndpoint {
            address: address.parse().unwrap(),
            ready: state == "r",
            serving: state != "n",
            terminating: state == "t",
            node: node.into(),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        };
        for hint in words {
            match hint.split_once('=').unwrap() {
                ("zone", zone) => endpoint.for_zones.push(zone.into()),
                (_, node) => endpoint.for_nodes.push(node.into()),
            }
        }
        endpoint
    });
    Slice {
        service: "s".into(),
        ports: vec![(String::new(), Protocol::Tcp, 8080)],
        endpoints: endpoints.collect(),
    }
}

fn service(external_local: bool, internal_local: bool) -> Service {
    Service {
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: vec!["198.51.100.1".parse().unwrap()],
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 30000 }],
        external_local,
        internal_local,
        ..Service::default()
    }
}

fn describe(target: Option<&Target>) -> String {
    match target {
        None => "-".into(),
        Some(Target::Refuse) => "refuse".into(),
        Some(Target::Drop) => "drop".into(),
        Some(Target::Balance { masquerade, slots, .. }) => {
            let last = |e: &Endpoint| e.address.to_string().rsplit('.').next().unwrap().to_owned();
            let slots: Vec<String> = slots.iter().map(last).collect();
            format!("{}{}", if *masquerade { "masq " } else { "" }, slots.join(","))
        }
    }
}

/// What the cluster IP, an outside front, and the latter from inside do.
fn outcome(service: &Service, endpoints: &[&str]) -> [String; 3] {
    let place = Place { node: "n1".into(), zone: "z1".into() };
    let slice = slice(endpoints);
    let rules = model(service, &[&slice].into_iter(), &place, &Rules::default());
    let cluster = Front::Address("10.96.0.1".parse().unwrap(), Protocol::Tcp, 80);
    let external = Front::Address("198.51.100.1".parse().unwrap(), Protocol::Tcp, 80);
    let port = Front::NodePort(false, Protocol::Tcp, 30000);
    assert_eq!(rules.fronts.get(&external), rules.fronts.get(&port));
    assert_eq!(rules.inside.get(&external), rules.inside.get(&port));
    assert!(!rules.inside.contains_key(&cluster));
    [rules.fronts.get(&cluster), rules.fronts.get(&external), rules.inside.get(&external)].map(describe)
}

#[test]
fn policies_choose_endpoints_as_upstream() {
    let (near, far) = ("10.244.0.1 n1 r", "10.244.1.2 n2 r");
    let (near_leaving, far_leaving) = ("10.244.0.3 n1 t", "10.244.1.4 n2 t");
    let unready = "10.244.0.5 n1 n";
    // external Local, internal Local, endpoints -> cluster IP, outside, inside
    let table: &[(bool, bool, &[&str], [&str; 3])] = &[
        (false, false, &[near, far], ["1,2", "masq 1,2", "-"]),
        (false, false, &[], ["-", "refuse", "-"]),
        (false, false, &[unready], ["-", "refuse", "-"]),
        (false, false, &[near_leaving, far, unready], ["2", "masq 2", "-"]),
        (false, false, &[near_leaving, far_leaving], ["3,4", "masq 3,4", "-"]),
        (true, false, &[near, far], ["1,2", "1", "1,2"]),
        (true, false, &[far], ["2", "drop", "2"]),
        (true, false, &[near_leaving, far], ["2", "3", "2"]),
        (true, true, &[], ["-", "refuse", "-"]),
        (false, true, &[near, far], ["1", "masq 1,2", "-"]),
        (false, true, &[far], ["drop", "masq 2", "-"]),
        (true, true, &[far_leaving], ["drop", "drop", "4"]),
    ];
    for (external, internal, endpoints, want) in table {
        let got = outcome(&service(*external, *internal), endpoints);
        assert_eq!(got, *want, "{external} {internal} {endpoints:?}");
    }
}

#[test]
fn hints_hold_when_every_ready_endpoint_has_one_and_one_is_for_us() {
    let table: &[(&[&str], &str)] = &[
        (&["10.0.0.1 n1 r zone=z1", "10.0.0.2 n2 r zone=z2"], "1"),
        (&["10.0.0.1 n1 r zone=z1", "10.0.0.2 n2 r"], "1,2"),
        (&["10.0.0.1 n1 r zone=z3", "10.0.0.2 n2 r zone=z2"], "1,2"),
        (&["10.0.0.1 n1 r zone=z1", "10.0.0.2 n2 n"], "1"),
        (&["10.0.0.1 n1 r zone=z1 node=n1", "10.0.0.2 n2 r zone=z1 node=n2"], "1"),
        (&["10.0.0.1 n3 r zone=z1 node=n3", "10.0.0.2 n2 r zone=z2 node=n2"], "1"),
    ];
    for (endpoints, want) in table {
        assert_eq!(outcome(&service(false, false), endpoints)[0], *want, "{endpoints:?}");
    }
    let hinted = ["10.0.0.1 n1 r zone=z2", "10.0.0.2 n2 r zone=z1"];
    assert_eq!(outcome(&service(true, true), &hinted), ["1", "1", "2"], "Local knows no hints");
}

#[test]
fn a_load_balancer_counts_addresses_ready_here() {
    let slices = [slice(&["10.0.0.1 n1 r", "10.0.0.2 n1 t", "10.0.0.3 n2 r"]), slice(&["10.0.0.1 n1 r"])];
    assert_eq!(ready_here(slices.iter(), "n1"), 1);
}

#[test]
fn a_load_balancer_must_not_count_a_pod_of_two_families_twice() {
    let both = [slice(&["10.0.0.1 n1 r"]), slice(&["fd00::1 n1 r", "fd00::2 n2 r"])];
    assert_eq!(ready_here(both.iter(), "n1"), 1);
    let one = [slice(&["10.0.0.1 n1 r"]), slice(&["fd00::1 n1 r", "fd00::2 n1 r"])];
    assert_eq!(ready_here(one.iter(), "n1"), 2);
}

#[test]
fn an_endpoint_without_a_node_must_not_miss_its_own_answers() {
    let place = Place { node: "n1".into(), zone: String::new() };
    let slice = slice(&["10.0.0.1 n1 r", "10.0.0.2 n2 r", "10.0.0.3  r", "10.0.0.4  n"]);
    let rules = model(&service(false, false), &[&slice].into_iter(), &place, &Rules::default());
    let own: Vec<String> = rules.local_endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["10.0.0.1", "10.0.0.3", "10.0.0.4"]);
    assert_eq!(ready_here([slice].iter(), "n1"), 1, "and yet only what is known to be here is");
}

#[test]
fn an_endpoint_must_not_have_two_numbers_behind_two_fronts_of_one_port() {
    let place = Place { node: "n1".into(), zone: String::new() };
    let sticky = Service { affinity: Some(60), ..service(true, true) };
    let of = |rules: &Rules| -> Vec<BTreeMap<Endpoint, u32>> {
        let targets = rules.fronts.values().chain(rules.inside.values());
        let sticky = targets.filter_map(|target| match target {
            Target::Balance { sticky, .. } => sticky.as_ref(),
            Target::Refuse | Target::Drop => None,
        });
        sticky.map(|own| own.ids.as_ref().clone()).collect()
    };
    let first = slice(&["10.244.0.1 n1 r", "10.244.1.2 n2 r", "10.244.1.3 n2 r"]);
    let rules = model(&sticky, &[&first].into_iter(), &place, &Rules::default());
    let all = of(&rules);
    assert_eq!(
        (all.len(), all[0].len()),
        (5, 3),
        "cluster IP, external IP, node port; the latter two from inside"
    );
    assert!(all.iter().all(|ids| *ids == all[0]));
    // survivors keep theirs, and who comes gets what is free
    let second = slice(&["10.244.0.1 n1 r", "10.244.1.3 n2 r", "10.244.0.9 n1 r"]);
    let next = of(&model(&sticky, &[&second].into_iter(), &place, &rules));
    for (endpoint, id) in &next[0] {
        let before = all[0].get(endpoint);
        assert!(before == Some(id) || before.is_none() && !next[0].keys().any(|e| all[0].get(e) == Some(id)));
    }
    assert_eq!(next[0].len(), 3);
}

#[test]
fn numbers_that_two_services_gave_twice_must_not_stay_so() {
    let endpoint = |last: u8| Endpoint { address: [10, 244, 0, last].into(), port: 80 };
    let old = BTreeMap::from([(endpoint(1), 1), (endpoint(2), 1), (endpoint(3), 2)]);
    let ids = number([1, 2, 3].map(endpoint).into(), old);
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!((ids[&endpoint(1)], ids[&endpoint(3)]), (1, 2));
}
