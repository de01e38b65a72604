//! The reconciler in throw-away network namespaces, against a fake API server and the real kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not tests to clippy")]

mod api;
mod lab;
mod overlay;

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::{
    api::{Api, node},
    lab::{Netns, Running},
};

const ROUTES: &str = "ip route show proto 87; ip -6 route show proto 87";

#[test]
fn routes_follow_nodes_and_survive_others() {
    let (here, there) = (Netns::new(), Netns::new());
    here.join("192.0.2.1/24", &there, "192.0.2.2/24");
    here.sh("ip route add 10.244.9.0/24 via 192.0.2.2 proto 87; ip route add 10.244.8.0/24 via 192.0.2.2");
    let api = Api::new(vec![
        node("here", "192.0.2.1", &["10.244.0.0/24"]),
        node("there", "192.0.2.2", &["10.244.1.0/24"]),
    ]);
    let running = Running::start("here", &here, &api);
    let routed = |wanted: &'static str| move |printed: &str| printed.trim() == wanted;
    here.until(ROUTES, routed("10.244.1.0/24 via 192.0.2.2 dev lan"));
    assert!(here.sh("ip route").contains("10.244.8.0/24"), "another's route stays");

    here.sh("ip route del 10.244.1.0/24");
    here.until(ROUTES, routed("10.244.1.0/24 via 192.0.2.2 dev lan"));
    here.sh("ip link set lan down; ip link set lan up");
    here.until(ROUTES, routed("10.244.1.0/24 via 192.0.2.2 dev lan"));

    api.send("MODIFIED", node("there", "192.0.2.3", &["10.244.1.0/24"]));
    here.until(ROUTES, routed("10.244.1.0/24 via 192.0.2.3 dev lan"));
    api.send("DELETED", node("there", "192.0.2.3", &["10.244.1.0/24"]));
    here.until(ROUTES, routed(""));
    // Stopping leaves the network as it is.
    api.send("ADDED", node("there", "192.0.2.2", &["10.244.2.0/24"]));
    here.until(ROUTES, routed("10.244.2.0/24 via 192.0.2.2 dev lan"));
    drop(running);
    assert_eq!(here.sh(ROUTES).trim(), "10.244.2.0/24 via 192.0.2.2 dev lan");
    assert!(here.sh("nft list tables").contains("windlass-network"));
}

#[test]
fn the_configuration_comes_with_the_range_and_with_forwarding() {
    let here = Netns::new();
    here.sh("sysctl -qw net.ipv4.ip_forward=0");
    let api = Api::new(vec![node("here", "192.0.2.1", &[])]);
    api.set(serde_json::json!({ "backend": "direct" }));
    let running = Running::start("here", &here, &api);
    api.send("MODIFIED", node("other", "192.0.2.9", &["10.244.7.0/24"]));
    here.until("ip -o link", |_| !api.events().is_empty());
    assert!(!running.conflist.exists(), "no range, no configuration");
    api.send("MODIFIED", node("here", "192.0.2.1", &["10.244.0.0/24", "fd00:1::/64"]));
    here.until("cat /proc/sys/net/ipv4/ip_forward", |printed| {
        printed.trim() == "1" && running.conflist.exists()
    });
    let written: Value = serde_json::from_slice(&std::fs::read(&running.conflist).unwrap()).unwrap();
    assert_eq!(written["plugins"][0]["ipam"]["ranges"][1][0]["subnet"], "fd00:1::/64");
    assert_eq!(here.sh("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "1");
    assert_eq!(here.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables").trim(), "1");
}

#[test]
fn an_unreachable_node_is_told_of_once() {
    let (here, there) = (Netns::new(), Netns::new());
    here.join("192.0.2.1/24", &there, "192.0.2.2/24");
    let far = || node("far", "198.51.100.1", &["10.244.5.0/24"]);
    let api = Api::new(vec![node("here", "192.0.2.1", &["10.244.0.0/24"]), far()]);
    api.set(serde_json::json!({ "backend": "direct" }));
    let _running = Running::start("here", &here, &api);
    here.until("ip -o link", |_| !api.events().is_empty());
    let event = api.events().remove(0);
    assert_eq!(
        (event["type"].as_str(), event["reason"].as_str()),
        (Some("Warning"), Some("PodRouteUnavailable"))
    );
    assert_eq!(event["regarding"]["name"], "here");
    assert_eq!(
        event["note"],
        "no route to pods 10.244.5.0/24: node far at 198.51.100.1 is not on a directly connected link"
    );
    api.send("MODIFIED", far());
    api.send("ADDED", node("there", "192.0.2.2", &["10.244.1.0/24"]));
    here.until(ROUTES, |printed| printed.contains("10.244.1.0/24"));
    assert_eq!(api.events().len(), 1);
}

/// The address that a server inside `server` sees a client at `source` inside `client` come from.
fn seen(server: &Netns, listen: &str, client: &Netns, source: &str) -> IpAddr {
    let (listen, source): (SocketAddr, SocketAddr) = (listen.parse().unwrap(), source.parse().unwrap());
    let listener = server.run(|| TcpListener::bind(listen)).unwrap();
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept().unwrap().1.ip());
        let mut stream = client.run(|| connect_from(source, listen));
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The server's end closes, which is what there is to read.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        accepted.join().unwrap()
    })
}

fn connect_from(source: SocketAddr, target: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(source).unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(5), socket.connect(target)).await;
        let stream = connected.unwrap().unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
    })
}

#[test]
fn pods_of_two_nodes_reach_each_other_unchanged_and_the_world_masqueraded() {
    let (a, b) = (Netns::new(), Netns::new());
    a.join("192.0.2.1/24", &b, "192.0.2.2/24");
    // b is also somebody outside the cluster, at an address that no Node has.
    b.sh("ip addr add 192.0.2.99/24 dev lan");
    let api = Api::new(vec![
        node("a", "192.0.2.1", &["10.244.0.0/24"]),
        node("b", "192.0.2.2", &["10.244.1.0/24"]),
    ]);
    let _running = [Running::start("a", &a, &api), Running::start("b", &b, &api)];
    for (netns, pod) in [(&a, "10.244.0.5"), (&b, "10.244.1.5")] {
        netns.sh(&format!("ip addr add {pod}/32 dev lo"));
        netns.until("nft list tables", |printed| printed.contains("windlass-network"));
        netns.until(ROUTES, |printed| printed.contains("via 192.0.2."));
    }
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(seen(&b, "10.244.1.5:80", &a, "10.244.0.5:0"), ip("10.244.0.5"), "pod to pod");
    assert_eq!(seen(&b, "192.0.2.2:80", &a, "10.244.0.5:0"), ip("10.244.0.5"), "pod to node");
    assert_eq!(seen(&b, "192.0.2.99:80", &a, "10.244.0.5:0"), ip("192.0.2.1"), "pod to the world");
}

#[test]
fn the_masquerading_table_reads_as_it_is_meant() {
    let (here, there) = (Netns::new(), Netns::new());
    here.join("192.0.2.1/24", &there, "192.0.2.2/24");
    let api = Api::new(vec![
        node("here", "192.0.2.1", &["10.244.0.0/24", "fd00:1::/64"]),
        node("there", "192.0.2.2", &["10.244.1.0/24", "fd00:1:0:1::/64"]),
    ]);
    let running = Running::start("here", &here, &api);
    here.until("nft list tables", |printed| printed.contains("windlass-network"));
    let listed = here.sh("nft list table inet windlass-network");
    here.sh("nft flush ruleset");
    here.until("nft list tables", |printed| printed.contains("windlass-network"));
    assert_eq!(
        here.sh("nft list table inet windlass-network"),
        listed,
        "as it was before somebody took it away"
    );
    drop(running);
    for line in [
        "type ipv4_addr",
        "elements = { 10.244.0.0/24 }",
        // neighbours are one range, a node is one address
        "elements = { 10.244.0.0/23, 192.0.2.2 }",
        "elements = { fd00:1::/64 }",
        "elements = { fd00:1::/63 }",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr @pods_ip ip daddr != @direct_ip ip daddr != 224.0.0.0/4 masquerade fully-random",
        "ip6 saddr @pods_ip6 ip6 daddr != @direct_ip6 ip6 daddr != ff00::/8 masquerade fully-random",
    ] {
        assert!(listed.lines().any(|l| l.trim() == line), "no {line:?} in\n{listed}");
    }
}
