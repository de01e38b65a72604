//! The applier against the kernel, with real connections, in network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use proxy::apply::{Applier, ServiceName, State};
use proxy::conntrack;
use proxy::service::{Port, Protocol, Service, Slice, SliceEndpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Runs `test` on a thread with its own network namespace.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        assert!(unshare(CloneFlags::CLONE_NEWNET).is_ok(), "network namespaces need root");
        ip("link set lo up");
        ip("route add 10.96.0.0/12 dev lo");
        ip("addr add 192.168.7.1/32 dev lo");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    })
    .join()
    .unwrap();
}

fn ip(args: &str) {
    let status = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

fn name() -> ServiceName {
    ("default".into(), "web".into())
}

fn service(node_port: u16) -> Service {
    Service {
        cluster_ips: vec!["10.96.0.50".parse().unwrap()],
        ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port }],
        ..Service::default()
    }
}

fn slice(addresses: &[&str], protocol: Protocol) -> BTreeMap<String, Slice> {
    let endpoints = addresses.iter().map(|a| SliceEndpoint {
        address: a.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
        node: "n1".into(),
    });
    let slice = Slice {
        service: "web".into(),
        ports: vec![(String::new(), protocol, 8080)],
        endpoints: endpoints.collect(),
    };
    BTreeMap::from([("web-1".into(), slice)])
}

fn state(service: Service, slices: BTreeMap<String, Slice>) -> State {
    let mut state = State::default();
    state.services.insert(name(), service);
    state.slices.insert(name(), slices);
    state
}

fn applier() -> Applier {
    Applier::new("n1".into(), vec!["10.244.0.0/16".parse::<IpNet>().unwrap()])
}

/// A server that says its own address, then the client's.
fn serve(address: &str) {
    ip(&format!("addr add {address}/32 dev lo"));
    let listener = TcpListener::bind((address, 8080)).unwrap();
    let own = address.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{own} {peer}");
        }
    });
}

fn ask(to: &str) -> std::io::Result<(String, String)> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (server, client) = text.split_once(' ').unwrap();
    Ok((server.to_owned(), client.to_owned()))
}

fn shares(to: &str, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(ask(to).unwrap().0).or_default() += 1;
    }
    shares
}

#[test]
fn connections_are_shared_evenly_and_follow_changes() {
    in_namespace(|| async {
        for last in 2..=4 {
            serve(&format!("10.244.0.{last}"));
        }
        let mut applier = applier();
        let dirty = BTreeSet::from([name()]);
        let mut state =
            state(service(30080), slice(&["10.244.0.2", "10.244.0.3", "10.244.0.4"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        for to in ["10.96.0.50:80", "192.168.7.1:30080"] {
            let got = shares(to, 300);
            assert_eq!(got.len(), 3, "{to}: {got:?}");
            // 300 draws of 3: a share below 60 or above 140 has a chance below one in a million
            assert!(got.values().all(|n| (60..=140).contains(n)), "{to}: {got:?}");
        }
        state.slices.insert(name(), slice(&["10.244.0.3"], Protocol::Tcp));
        let applied = applier.apply(&state, &dirty).await.unwrap();
        assert!(!applied.difference.is_empty());
        assert_eq!(shares("10.96.0.50:80", 20), BTreeMap::from([("10.244.0.3".to_owned(), 20)]));
        assert!(applier.apply(&state, &dirty).await.unwrap().difference.is_empty(), "nothing changed");
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_recovers() {
    in_namespace(|| async {
        serve("10.244.0.2");
        let mut applier = applier();
        let mut state = state(service(30080), BTreeMap::new());
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        for to in ["10.96.0.50:80", "10.96.0.50:81", "192.168.7.1:30080"] {
            let error = ask(to).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        }
        state.slices.insert(name(), slice(&["10.244.0.2"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        ask("10.96.0.50:80").unwrap();
        ask("192.168.7.1:30080").unwrap();
        state.services.clear();
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert!(ask("192.168.7.1:30080").is_err());
    });
}

#[test]
fn a_closed_node_port_must_not_shut_out_a_program_on_loopback() {
    in_namespace(|| async {
        applier().apply(&state(service(30080), BTreeMap::new()), &BTreeSet::new()).await.unwrap();
        let own = TcpListener::bind("127.0.0.1:30080").unwrap();
        std::thread::spawn(move || own.accept().unwrap().0.write_all(b"loopback x").unwrap());
        assert_eq!(ask("127.0.0.1:30080").unwrap().0, "loopback");
        assert_eq!(ask("192.168.7.1:30080").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_sticky_client_stays_until_its_endpoint_goes() {
    in_namespace(|| async {
        for last in 2..=5 {
            serve(&format!("10.244.0.{last}"));
        }
        let mut applier = applier();
        let sticky = Service { affinity: Some(100), ..service(30080) };
        let mut state = state(sticky, slice(&["10.244.0.2", "10.244.0.3", "10.244.0.4"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        for to in ["10.96.0.50:80", "192.168.7.1:30080"] {
            let got = shares(to, 30);
            assert_eq!(got.len(), 1, "{to}: {got:?}");
        }
        let held = ask("10.96.0.50:80").unwrap().0;
        let others: Vec<&str> = ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5"]
            .into_iter()
            .filter(|a| *a != held)
            .collect();
        // another endpoint comes and another goes: the client stays
        state.slices.insert(name(), slice(&[&held, others[1], others[2]], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert_eq!(shares("10.96.0.50:80", 20), BTreeMap::from([(held.clone(), 20)]));
        state.slices.insert(name(), slice(&others, Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        let got = shares("10.96.0.50:80", 20);
        assert!(got.len() == 1 && !got.contains_key(&held), "{got:?}");
        // and one goes whose number no other takes over
        let (held, _) = got.first_key_value().unwrap();
        let left: Vec<&str> = others.into_iter().filter(|one| one != held).collect();
        state.slices.insert(name(), slice(&left, Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        let got = shares("10.96.0.50:80", 20);
        assert!(got.len() == 1 && !got.contains_key(held), "{got:?}");
    });
}

/// One endpoint for a client that comes by each of these fronts in turn, many times.
fn held_by_all(fronts: &[&str]) -> String {
    let held = ask(fronts[0]).unwrap().0;
    for front in fronts.iter().cycle().take(24) {
        assert_eq!(ask(front).unwrap().0, held, "{front} of {fronts:?}");
    }
    held
}

#[test]
fn a_client_must_not_get_another_endpoint_by_another_front_of_one_port() {
    in_namespace(|| async {
        ip("route add 198.51.100.0/24 dev lo");
        for last in 2..=6 {
            serve(&format!("10.244.0.{last}"));
        }
        let of = |external_local| Service {
            affinity: Some(100),
            external_ips: vec!["198.51.100.1".parse().unwrap()],
            external_local,
            ..service(30080)
        };
        let fronts = ["10.96.0.50:80", "192.168.7.1:30080", "198.51.100.1:80"];
        let all = ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5", "10.244.0.6"];
        let mut applier = applier();
        let mut state = state(of(false), slice(&all, Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        let held = held_by_all(&fronts);
        // under another policy other chains are gone through, with the same clients
        state.services.insert(name(), of(true));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert_eq!(held_by_all(&fronts), held);
        let others: Vec<&str> = all.into_iter().filter(|one| *one != held).collect();
        state.slices.insert(name(), slice(&others, Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert_ne!(held_by_all(&fronts), held);
    });
}

#[test]
fn the_clients_of_one_port_must_not_be_taken_for_anothers() {
    in_namespace(|| async {
        for last in 2..=9 {
            serve(&format!("10.244.0.{last}"));
        }
        let sticky = |cluster: &str| Service {
            affinity: Some(100),
            cluster_ips: vec![cluster.parse().unwrap()],
            ..service(0)
        };
        let mut state = State::default();
        for (index, first) in [(1, 2), (2, 4), (3, 6), (4, 8)] {
            let endpoints = [format!("10.244.0.{first}"), format!("10.244.0.{}", first + 1)];
            state.services.insert(of(&format!("s{index}")), sticky(&format!("10.96.0.{index}")));
            state.slices.insert(
                of(&format!("s{index}")),
                slice(&endpoints.each_ref().map(String::as_str), Protocol::Tcp),
            );
        }
        applier().apply(&state, &BTreeSet::new()).await.unwrap();
        for (index, first) in [(1u8, 2u8), (2, 4), (3, 6), (4, 8)] {
            let held = held_by_all(&[&format!("10.96.0.{index}:80")]);
            assert!(
                held == format!("10.244.0.{first}") || held == format!("10.244.0.{}", first + 1),
                "{held}"
            );
        }
    });
}

#[test]
fn only_strangers_are_masqueraded() {
    in_namespace(|| async {
        serve("10.244.0.2");
        ip("addr add 10.244.0.9/32 dev lo");
        let mut applier = applier();
        let state = state(service(0), slice(&["10.244.0.2"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        let from = async |source: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
            let mut stream = socket.connect("10.96.0.50:80".parse().unwrap()).await.unwrap();
            let mut text = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
            text
        };
        assert_eq!(from("10.244.0.9").await, "10.244.0.2 10.244.0.9", "a pod keeps its address");
        assert_eq!(from("192.168.7.1").await.split(' ').next(), Some("10.244.0.2"), "a host gets through");
        let itself = from("10.244.0.2").await;
        assert!(itself.starts_with("10.244.0.2 "), "a pod reaches itself: {itself:?}");
    });
}

#[test]
fn where_nobody_knows_pods_their_addresses_must_not_be_lost() {
    in_namespace(|| async {
        serve("10.244.0.2");
        let state = state(service(0), slice(&["10.244.0.2"], Protocol::Tcp));
        let listed = |family: &str| run_nft(&format!("list chain {family} windlass services"));
        let rewrites = |family: &str| listed(family).contains("daddr @cluster_ips meta mark set");
        applier().apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(rewrites("ip") && !rewrites("ip6"), "ranges of one family alone");
        Applier::new("n1".into(), Vec::<IpNet>::new()).apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(!rewrites("ip") && !rewrites("ip6"));
        ask("10.96.0.50:80").unwrap();
    });
}

#[test]
fn a_flow_whose_client_closed_must_not_be_forgotten_after_a_minute() {
    in_namespace(|| async {
        applier().apply(&state(service(0), BTreeMap::new()), &BTreeSet::new()).await.unwrap();
        let of = |state: &str| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}");
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        assert_eq!((of("close_wait").as_str(), of("established").as_str()), ("3600", "86400"));
    });
}

fn of(other: &str) -> ServiceName {
    ("default".into(), other.into())
}

/// A service of its own cluster IP that says `external` is its address, too.
fn claiming(cluster: &str, external: &str, created: i64) -> Service {
    Service {
        created: jiff::Timestamp::from_second(created).unwrap(),
        cluster_ips: vec![cluster.parse().unwrap()],
        external_ips: vec![external.parse().unwrap()],
        ..service(0)
    }
}

#[test]
fn two_services_at_one_address_must_not_stop_the_others() {
    in_namespace(|| async {
        ip("route add 198.51.100.0/24 dev lo");
        for last in 2..=4 {
            serve(&format!("10.244.0.{last}"));
        }
        let mut applier = applier();
        let mut state = state(service(0), slice(&["10.244.0.2"], Protocol::Tcp));
        for (other, endpoint, created) in [("one", "10.244.0.3", 1), ("two", "10.244.0.4", 2)] {
            state
                .services
                .insert(of(other), claiming(&format!("10.96.0.6{created}"), "198.51.100.1", created));
            state.slices.insert(of(other), slice(&[endpoint], Protocol::Tcp));
        }
        // all at once, as at a start
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        let answers = ["10.96.0.50:80", "10.96.0.61:80", "10.96.0.62:80", "198.51.100.1:80"];
        let first = |to: &str| ask(to).unwrap().0;
        assert_eq!(answers.map(first), ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.3"]);
        // the owner goes, and the other comes into it
        state.services.remove(&of("one"));
        applier.apply(&state, &BTreeSet::from([of("one")])).await.unwrap();
        assert_eq!(first("198.51.100.1:80"), "10.244.0.4");
        // one that asks for another's cluster IP, one by one
        state.services.insert(of("thief"), claiming("10.96.0.63", "10.96.0.50", -1));
        state.slices.insert(of("thief"), slice(&["10.244.0.3"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::from([of("thief")])).await.unwrap();
        assert_eq!(["10.96.0.50:80", "10.96.0.63:80"].map(first), ["10.244.0.2", "10.244.0.3"]);
        state.services.remove(&of("thief"));
        applier.apply(&state, &BTreeSet::from([of("thief")])).await.unwrap();
        assert_eq!(first("10.96.0.50:80"), "10.244.0.2");
    });
}

#[test]
fn a_load_balancer_must_not_be_reached_from_outside_its_ranges() {
    in_namespace(|| async {
        ip("route add 198.51.100.0/24 dev lo");
        ip("addr add 192.0.2.7/32 dev lo");
        ip("addr add 192.0.2.200/32 dev lo");
        serve("10.244.0.2");
        let vip: IpAddr = "198.51.100.1".parse().unwrap();
        let of = |ranges: &[&str]| Service {
            external_ips: vec![vip],
            load_balancer_ips: vec![vip],
            source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ..service(30080)
        };
        let from = async |source: &str, to: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
            let connected = socket.connect(to.parse().unwrap());
            tokio::time::timeout(Duration::from_millis(500), connected).await.is_ok_and(|c| c.is_ok())
        };
        let (near, far, front) = ("192.0.2.7", "192.0.2.200", "198.51.100.1:80");
        let mut applier = applier();
        let mut state = state(of(&["192.0.2.0/25", "192.0.2.7/32"]), slice(&["10.244.0.2"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(from(near, front).await && !from(far, front).await);
        for other in ["192.168.7.1:30080", "10.96.0.50:80"] {
            assert!(from(far, other).await, "{other} is not subject to it");
        }
        // ranges change one by one, and go
        for (ranges, who) in [(&["192.0.2.128/25"][..], far), (&["192.0.2.0/24"], near), (&[], far)] {
            state.services.insert(name(), of(ranges));
            applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
            assert!(from(who, front).await, "{ranges:?}");
            assert_eq!(from("192.168.7.1", front).await, ranges.is_empty(), "{ranges:?}");
        }
    });
}

#[test]
fn packets_to_a_cluster_ip_that_no_service_has_must_not_leave_the_node() {
    in_namespace(|| async {
        ip("addr add 10.96.0.10/32 dev lo");
        let service = Service { cluster_ips: vec!["10.96.0.50".parse().unwrap()], ..service(0) };
        let mut state = state(service, BTreeMap::new());
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // what the node itself sends and may not is refused at once
        let leaves = |to: &str| match socket.send_to(b"?", to) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{to}");
                false
            }
        };
        let mut applier = applier();
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(leaves("10.96.0.77:53") && leaves("10.97.0.1:53"), "nobody knows what is a cluster IP");
        let cidrs = |text: &str| vec![text.parse::<IpNet>().unwrap()];
        applier.set_service_cidrs(cidrs("10.96.0.0/16"));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(!leaves("10.96.0.77:53") && leaves("10.97.0.1:53"));
        assert!(leaves("10.96.0.10:53"), "an address of the node's own");
        assert_eq!(ask("10.96.0.50:80").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        applier.set_service_cidrs(cidrs("10.97.0.0/16"));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(leaves("10.96.0.77:53") && !leaves("10.97.0.1:53"));
        state.services.clear();
        run_nft("flush ruleset");
        assert!(!applier.audit().await.unwrap());
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(!leaves("10.97.0.1:53"), "nor after everything was made again");
    });
}

fn run_nft(text: &str) -> String {
    let output = std::process::Command::new("nft").arg(text).output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_mark_that_others_gave_a_packet_must_not_be_changed_nor_ours_stay() {
    in_namespace(|| async {
        serve("10.244.0.2");
        applier()
            .apply(&state(service(30080), slice(&["10.244.0.2"], Protocol::Tcp)), &BTreeSet::new())
            .await
            .unwrap();
        run_nft(
            "table ip other {
                counter theirs { }
                counter changed { }
                chain before { type route hook output priority -150; ct state new meta mark set 0x1; }
                chain after { type filter hook postrouting priority 200;
                    ct state new meta mark 0x1 counter name theirs
                    ct state new meta mark != 0x1 counter name changed
                }
            }",
        );
        let counted = |name: &str| run_nft(&format!("list counter ip other {name}"));
        assert!(counted("theirs").contains("packets 0 "));
        for to in ["10.96.0.50:80", "192.168.7.1:30080"] {
            ask(to).unwrap();
        }
        assert!(counted("theirs").contains("packets 2 "), "{}", counted("theirs"));
        assert!(counted("changed").contains("packets 0 "), "{}", counted("changed"));
    });
}

#[test]
fn a_service_at_the_dns_address_must_not_be_skipped_whole() {
    in_namespace(|| async {
        serve("10.244.0.2");
        ip("addr add 10.96.0.10/32 dev lo");
        let mut applier = applier().beside_dns(vec!["10.96.0.10".parse().unwrap()]);
        let port = |name: &str, port, node_port| Port {
            name: name.into(),
            protocol: Protocol::Tcp,
            port,
            node_port,
        };
        let dns = Service {
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            ports: vec![port("dns", 53, 30053), port("metrics", 9153, 0)],
            ..Service::default()
        };
        let mut slices = slice(&["10.244.0.2"], Protocol::Tcp);
        for slice in slices.values_mut() {
            slice.ports = ["dns", "metrics"].map(|name| (name.to_owned(), Protocol::Tcp, 8080)).into();
        }
        applier.apply(&state(dns, slices), &BTreeSet::new()).await.unwrap();
        assert_eq!(ask("10.96.0.10:9153").unwrap().0, "10.244.0.2");
        assert_eq!(ask("192.168.7.1:30053").unwrap().0, "10.244.0.2");
        let own = TcpListener::bind("10.96.0.10:53").unwrap();
        std::thread::spawn(move || own.accept().unwrap().0.write_all(b"ourselves x").unwrap());
        assert_eq!(ask("10.96.0.10:53").unwrap().0, "ourselves");
    });
}

#[test]
fn udp_flows_move_when_their_endpoint_goes() {
    in_namespace(|| async {
        let echo = |address: &'static str| {
            ip(&format!("addr add {address}/32 dev lo"));
            let socket = UdpSocket::bind((address, 8080)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(address.as_bytes(), from);
                }
            });
        };
        echo("10.244.0.2");
        echo("10.244.0.3");
        let mut applier = applier();
        let mut service = service(0);
        service.ports[0].protocol = Protocol::Udp;
        let mut state = state(service, slice(&["10.244.0.2"], Protocol::Udp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        let client = UdpSocket::bind("10.244.0.2:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let talk = || {
            client.send_to(b"?", "10.96.0.50:80").unwrap();
            let mut buffer = [0; 64];
            let n = client.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).parse::<IpAddr>().unwrap()
        };
        assert_eq!(talk().to_string(), "10.244.0.2");
        state.slices.insert(name(), slice(&["10.244.0.3"], Protocol::Udp));
        let applied = applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert_eq!(conntrack::forget(applied.stale).await.unwrap(), [1, 0]);
        assert_eq!(talk().to_string(), "10.244.0.3");
        // it is about to end and serves what it has; new flows go elsewhere
        let mut slices = slice(&["10.244.0.2", "10.244.0.3"], Protocol::Udp);
        for endpoint in slices.values_mut().flat_map(|slice| &mut slice.endpoints) {
            (endpoint.terminating, endpoint.ready) = match endpoint.address.to_string().as_str() {
                "10.244.0.3" => (true, false),
                _ => (false, true),
            };
        }
        state.slices.insert(name(), slices);
        let applied = applier.apply(&state, &BTreeSet::from([name()])).await.unwrap();
        assert_eq!(conntrack::forget(applied.stale).await.unwrap(), [0, 0]);
        assert_eq!(talk().to_string(), "10.244.0.3");
    });
}

/// A socket that sends and gets SCTP's packets as they are, received ones with the header of IP.
fn bare_sctp() -> UdpSocket {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    let socket = UdpSocket::from(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// A chunk INIT (RFC 9260), which asks for an association; nobody looks at its checksum on this machine.
fn init(from: u16, to: u16) -> Vec<u8> {
    const REST: [u8; 28] =
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 7];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &REST].concat()
}

#[test]
fn sctp_must_not_be_served_by_another_protocols_front() {
    in_namespace(|| async {
        ip("addr add 10.244.0.2/32 dev lo");
        let mut sctp = service(30080);
        sctp.ports[0].protocol = Protocol::Sctp;
        let state = state(sctp, slice(&["10.244.0.2"], Protocol::Sctp));
        applier().apply(&state, &BTreeSet::new()).await.unwrap();
        let all = bare_sctp();
        for (from, address, port) in [(40001, "10.96.0.50", 80), (40002, "192.168.7.1", 30080)] {
            bare_sctp().send_to(&init(from, port), (address, 0)).unwrap();
            let mut packet = [0; 256];
            all.recv_from(&mut packet).unwrap();
            assert_eq!((&packet[16..20], &packet[22..24]), (&[10, 244, 0, 2][..], &[31, 144][..]), "{port}");
        }
        assert!(ask("10.96.0.50:80").is_err(), "TCP there is nobody's");
    });
}

#[test]
fn a_table_taken_away_is_noticed_and_replaced() {
    in_namespace(|| async {
        serve("10.244.0.2");
        let mut applier = applier();
        let state = state(service(0), slice(&["10.244.0.2"], Protocol::Tcp));
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        assert!(applier.audit().await.unwrap());
        run_nft("flush ruleset");
        assert!(!applier.audit().await.unwrap());
        applier.apply(&state, &BTreeSet::new()).await.unwrap();
        ask("10.96.0.50:80").unwrap();
    });
}
