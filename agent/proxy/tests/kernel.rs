//! What the applier writes against what `nft` reads, in network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use ipnet::IpNet;
use netlink::nft::{self, Batch, Bytes, Element, Kernel};
use nix::sched::{CloneFlags, unshare};
use proxy::apply::{Applier, State};
use proxy::model::{Place, Rules, model};
use proxy::ruleset::{self, TABLES};
use proxy::service::{Port, Protocol, Service, Slice, SliceEndpoint};
use proxy::shape::{Pods, Shape};
use proxy::{Difference, elements, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `test` on a thread with its own network namespace.
fn in_namespace<F: Future<Output = T>, T: Send + 'static>(test: impl FnOnce() -> F + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        assert!(unshare(CloneFlags::CLONE_NEWNET).is_ok(), "network namespaces need root");
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test())
    });
    thread.join().unwrap()
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn feed_nft(text: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft does not take\n{text}");
}

/// Everything there is as nft reads it, without handles and in an order of its own.
fn listed() -> BTreeSet<String> {
    let mut ruleset: Value = serde_json::from_str(&run("nft -j list ruleset")).unwrap();
    let objects = ruleset["nftables"].as_array_mut().unwrap();
    let mut place = BTreeMap::<String, u32>::new();
    let list = objects.iter_mut().filter(|o| o.get("metainfo").is_none()).map(|object| {
        for (kind, inner) in object.as_object_mut().unwrap() {
            let inner = inner.as_object_mut().unwrap();
            inner.remove("handle");
            if let Some(Value::Array(elements)) = inner.get_mut("elem") {
                elements.sort_by_key(ToString::to_string);
            }
            if kind == "rule" {
                let next = place.entry(format!("{}{}", inner["family"], inner["chain"])).or_default();
                *next += 1;
                inner.insert("place".into(), (*next).into());
            }
        }
        object.to_string()
    });
    list.collect()
}

fn cidrs() -> Vec<IpNet> {
    ["10.244.0.0/16", "fd00:10::/48"].map(|c| c.parse().unwrap()).to_vec()
}

fn service(index: u8, sticky: bool, protocol: Protocol) -> Service {
    Service {
        cluster_ips: vec![
            format!("10.96.0.{index}").parse().unwrap(),
            format!("fd00:96::{index}").parse().unwrap(),
        ],
        external_ips: vec![format!("198.51.100.{index}").parse().unwrap()],
        ports: vec![
            Port { name: "a".into(), protocol, port: 80, node_port: 30000 + u16::from(index) },
            Port { name: "b".into(), protocol: Protocol::Sctp, port: 81, node_port: 0 },
        ],
        affinity: sticky.then_some(100),
        external_local: index.is_multiple_of(3),
        ..Service::default()
    }
}

fn slices(service: &str, protocol: Protocol, count: u8, shift: u8) -> BTreeMap<String, Slice> {
    let slice = |v6: bool| {
        let endpoints = (0..count).map(|n| SliceEndpoint {
            address: if v6 { format!("fd00:10::{shift}:{n}") } else { format!("10.244.{shift}.{n}") }
                .parse()
                .unwrap(),
            ready: true,
            serving: true,
            terminating: false,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
            node: if n % 2 == 0 { "n1" } else { "n2" }.into(),
        });
        Slice {
            service: service.into(),
            ports: vec![("a".into(), protocol, 8080), ("b".into(), Protocol::Sctp, 8081)],
            endpoints: endpoints.collect(),
        }
    };
    BTreeMap::from([("4".to_owned(), slice(false)), ("6".to_owned(), slice(true))])
}

fn state(shape: &[(u8, bool, u8, u8)]) -> State {
    let mut state = State::default();
    for (index, sticky, count, shift) in shape {
        let name = format!("s{index}");
        let protocol = if index % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
        state.services.insert(("default".into(), name.clone()), service(*index, *sticky, protocol));
        state.slices.insert(("default".into(), name.clone()), slices(&name, protocol, *count, *shift));
    }
    state
}

/// The state in nft's language.
fn reference(state: &State, old: &BTreeMap<String, Rules>) -> String {
    shaped(&cidrs().into(), state, old)
}

/// The same for another shape.
fn shaped(shape: &Shape, state: &State, old: &BTreeMap<String, Rules>) -> String {
    let mut wanted = BTreeSet::new();
    let none = Rules::default();
    for ((namespace, name), service) in &state.services {
        let slices = state.slices.get(&(namespace.clone(), name.clone())).unwrap();
        wanted.extend(elements(&model(service, &slices.values(), &place(), old.get(name).unwrap_or(&none))));
    }
    let whole = Difference { delete: Vec::new(), add: wanted.into_iter().collect() };
    let mut out = text::tables(shape);
    out.push_str(&text::balancers(&whole, &mut BTreeSet::new()));
    out.push_str(&text::elements(&whole));
    out
}

fn place() -> Place {
    Place { node: "n1".into(), zone: String::new() }
}

fn applier() -> Applier {
    Applier::new("n1".into(), cidrs())
}

#[test]
fn what_is_written_is_what_nft_reads_of_the_same_in_its_own_language() {
    let shape = &[(1, false, 3, 1), (2, false, 2, 2), (3, false, 5, 3), (4, false, 0, 4)];
    let ours = in_namespace(move || async move {
        applier().apply(&state(shape), &BTreeSet::new()).await.unwrap();
        listed()
    });
    let theirs = in_namespace(move || async move {
        feed_nft(&reference(&state(shape), &BTreeMap::new()));
        listed()
    });
    assert!(ours.len() > 60, "{}", ours.len());
    let differences: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn rules_of_every_shape_read_as_meant() {
    let usual = || Shape::from(cidrs());
    let ranges: Vec<IpNet> = ["192.168.7.0/24", "fd00:7::/64"].map(|c| c.parse().unwrap()).to_vec();
    let shapes = [
        Shape { masquerade_all: true, ..usual() },
        Shape { node_port_ranges: ranges.clone(), ..usual() },
        Shape { node_port_ranges: ranges[..1].to_vec(), ..usual() },
        Shape { pods: Pods::Interface("cni0".into()), ..usual() },
        Shape { pods: Pods::InterfacePrefix("veth".into()), ..usual() },
    ];
    let plain = in_namespace(|| async {
        applier().apply(&state(&[(1, false, 3, 1)]), &BTreeSet::new()).await.unwrap();
        listed()
    });
    for shape in shapes {
        let (of, same) = (shape.clone(), shape.clone());
        let ours = in_namespace(move || async move {
            let mut applier = applier();
            applier.apply(&state(&[(1, false, 3, 1)]), &BTreeSet::new()).await.unwrap();
            // A node that changes gets other rules, and its services stay.
            assert!(applier.set_shape(of.clone()) && !applier.set_shape(of));
            applier.apply(&state(&[(1, false, 3, 1)]), &BTreeSet::new()).await.unwrap();
            listed()
        });
        let theirs = in_namespace(move || async move {
            feed_nft(&shaped(&same, &state(&[(1, false, 3, 1)]), &BTreeMap::new()));
            listed()
        });
        let differences: Vec<_> = ours.symmetric_difference(&theirs).collect();
        assert!(differences.is_empty(), "{shape:?}: {differences:#?}");
        assert_ne!(ours, plain, "{shape:?}");
    }
}

#[test]
fn sticky_rules_read_as_meant_in_both_families() {
    in_namespace(|| async {
        // the second one has chains for connections from inside, too
        let shape = &[(2, true, 2, 1), (3, true, 4, 3)];
        applier().apply(&state(shape), &BTreeSet::new()).await.unwrap();
        let reference = reference(&state(shape), &BTreeMap::new());
        assert!(reference.contains("-inside-4-sticky-100-known"));
        for (family, words) in [("ip", "ip "), ("ip6", "ip6 ")] {
            let listed = run(&format!("nft list table {family} windlass"));
            let rules: Vec<&str> = reference
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("add rule {words}windlass "))?.split_once(' '))
                .map(|(_, rule)| rule)
                .collect();
            assert!(rules.len() > 10);
            for rule in rules {
                // nft says a timeout in units, and no offset of none
                let rule = rule.replace("100s", "1m40s");
                let rule = rule.strip_suffix(" offset 0").unwrap_or(&rule);
                assert!(listed.contains(rule), "no {rule:?} in\n{listed}");
            }
        }
    });
}

#[test]
fn changes_one_by_one_end_where_a_fresh_start_does() {
    let rounds: &[&[(u8, bool, u8, u8)]] = &[
        &[(1, false, 3, 1), (2, false, 2, 2)],
        &[(1, false, 1, 1), (2, false, 4, 2), (3, false, 2, 3)],
        &[(2, false, 0, 2), (3, false, 2, 7)],
        &[(1, false, 7, 1), (3, false, 2, 7)],
    ];
    let (ours, old) = in_namespace(move || async move {
        let mut applier = applier();
        let mut old: BTreeMap<String, Rules> = BTreeMap::new();
        for round in rounds {
            let dirty = (1..=3).map(|i| ("default".to_owned(), format!("s{i}"))).collect();
            let state = state(round);
            applier.apply(&state, &dirty).await.unwrap();
            let mut next = BTreeMap::new();
            for ((_, name), service) in &state.services {
                let slices = &state.slices[&("default".to_owned(), name.clone())];
                let rules =
                    model(service, &slices.values(), &place(), old.get(name).unwrap_or(&Rules::default()));
                next.insert(name.clone(), rules);
            }
            old = next;
        }
        (listed(), old)
    });
    let theirs = in_namespace(move || async move {
        feed_nft(&reference(&state(rounds[rounds.len() - 1]), &old));
        listed()
    });
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    // chains of sizes that were in use may stay, nothing else
    let more: Vec<_> = ours.difference(&theirs).filter(|o| o.contains("\"set\"")).collect();
    assert!(more.is_empty(), "{more:#?}");
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_what_was_refused() {
    in_namespace(|| async {
        applier().apply(&state(&[(2, false, 2, 1)]), &BTreeSet::new()).await.unwrap();
        let before = listed();
        let mut kernel = Kernel::default();
        let member = |last: u8| Element::member(Bytes::default().address([10, 96, 0, last].into()));
        let mut batch = Batch::default();
        batch.add_elements(TABLES[0], "cluster_ips", &[member(77)]);
        batch.delete_elements(TABLES[0], "cluster_ips", &[member(99)]);
        batch.add_elements(TABLES[0], "cluster_ips", &[member(78)]);
        let error = kernel.commit(batch).await.unwrap_err();
        assert_eq!(error.to_string(), "delete elements of set cluster_ips of table ip windlass");
        let nft::Error::Refused { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(listed(), before);
        // the same socket goes on
        let mut batch = Batch::default();
        batch.add_elements(TABLES[0], "cluster_ips", &[member(77)]);
        kernel.commit(batch).await.unwrap();
        assert_ne!(listed(), before);
        assert!(kernel.has_tables(TABLES).await.unwrap());
        run("nft delete table ip6 windlass");
        assert!(!kernel.has_tables(TABLES).await.unwrap());
        proxy::apply::remove_tables().await.unwrap();
        assert!(listed().is_empty());
    });
}

#[test]
fn many_elements_are_one_transaction() {
    in_namespace(|| async {
        let mut batch = Batch::default();
        ruleset::tables(&mut batch, &cidrs().into());
        let all: Vec<Element> = (0..200_000u32)
            .map(|n| Element::member(Bytes::default().address(std::net::Ipv4Addr::from_bits(n).into())))
            .collect();
        batch.add_elements(TABLES[0], "cluster_ips", &all);
        let mut kernel = Kernel::default();
        kernel.commit(batch).await.unwrap();
        let wanted: BTreeSet<_> = all.into_iter().map(|e| e.key).collect();
        // while the kernel grows its hash table a walk through it may miss some
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let listed = kernel.elements(TABLES[0], &["cluster_ips"]).await.unwrap();
            let keys: BTreeSet<_> = listed[0].iter().map(|e| e.key.clone()).collect();
            assert!(keys.is_subset(&wanted));
            if keys == wanted {
                break;
            }
            assert!(Instant::now() < deadline, "{} of {}", keys.len(), wanted.len());
        }
    });
}

/// A server that says its own address.
fn serve(address: &str) {
    let (ip, family) = if address.contains(':') { ("ip -6", "128") } else { ("ip", "32") };
    run(&format!(
        "{ip} addr add {address}/{family} dev lo nodad 2>/dev/null || {ip} addr add {address}/{family} dev lo"
    ));
    let listener = TcpListener::bind((address, 8080)).unwrap();
    let own = address.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(own.as_bytes());
        }
    });
}

fn ask(to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn sticky_clients_of_both_families_stay_over_a_restart_of_the_agent() {
    in_namespace(|| async {
        run(
            "ip route add 10.96.0.0/12 dev lo; ip -6 route add fd00:96::/64 dev lo; ip addr add 192.168.7.1/32 dev lo",
        );
        for n in 0..6 {
            serve(&format!("10.244.1.{n}"));
            serve(&format!("fd00:10::1:{n}"));
        }
        let fronts = ["10.96.0.2:80", "[fd00:96::2]:80", "192.168.7.1:30002"];
        let mut state = state(&[(2, true, 6, 1)]);
        applier().apply(&state, &BTreeSet::new()).await.unwrap();
        let held = fronts.map(ask);
        // another agent, another, and an endpoint that comes while none runs
        for count in [6, 6, 5] {
            state.slices.insert(("default".into(), "s2".into()), {
                let mut slices = slices("s2", Protocol::Tcp, 6, 1);
                for slice in slices.values_mut() {
                    let mut left = 6;
                    slice.endpoints.retain(|e| {
                        let keep = left <= count || held.contains(&e.address.to_string());
                        left -= usize::from(!keep);
                        keep
                    });
                }
                slices
            });
            applier().apply(&state, &BTreeSet::new()).await.unwrap();
            for _ in 0..5 {
                // six endpoints: without memory one of 18 draws would differ
                assert_eq!(fronts.map(ask), held);
            }
        }
        // the resynchronisation of a running agent keeps them as well
        let mut applier = applier();
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        run("nft delete table ip6 windlass");
        assert!(!applier.audit().await.unwrap());
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert_eq!(ask(fronts[0]), held[0]);
        let v6 = ask(fronts[1]);
        for _ in 0..10 {
            assert_eq!(ask(fronts[1]), v6, "a new draw, kept again");
        }
    });
}
