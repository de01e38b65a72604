//! Host ports and masquerading, by what the packets' receivers see.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, Netns},
    traffic::{Server, udp_reaches},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace outside the node, at 192.0.2.2 and fd00:2::2; the node is at .1 there.
fn outside(lab: &Lab) -> Netns {
    let netns = Netns::new();
    let mut conf = lab.bridge_conf();
    conf["name"] = "outside".into();
    conf["bridge"] = "ext0".into();
    conf["isDefaultGateway"] = false.into();
    conf["isGateway"] = true.into();
    conf["ipam"]["ranges"] = json!([[{ "subnet": "192.0.2.0/24" }], [{ "subnet": "fd00:2::/64" }]]);
    lab.call("ADD", &conf, "outside", &netns.path()).ok();
    netns
}

fn portmap_conf(mappings: &Value, previous: &Value) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "portmap",
        "capabilities": { "portMappings": true },
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": previous,
    })
}

fn rules(lab: &Lab) -> String {
    lab.host.sh("nft list ruleset")
}

#[test]
fn a_host_port_leads_to_the_container_from_everywhere() {
    let lab = Lab::new();
    let (client, a, b) = (outside(&lab), Netns::new(), Netns::new());
    lab.host.sh("ip link set lo up");
    let conf = lab.bridge_conf();
    let result = lab.call("ADD", &conf, "a", &a.path()).ok();
    lab.call("ADD", &conf, "b", &b.path()).ok();
    let mappings = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" },
        { "hostPort": 5353, "containerPort": 53, "protocol": "UDP" },
        { "hostPort": 9090, "containerPort": 90, "protocol": "tcp", "hostIP": "192.0.2.1" },
        { "hostPort": 9090, "containerPort": 91, "protocol": "tcp", "hostIP": "fd00:2::1" },
        { "hostPort": 3868, "containerPort": 3868, "protocol": "sctp" },
    ]);
    let portmap = portmap_conf(&mappings, &result);
    assert_eq!(lab.call("ADD", &portmap, "a", &a.path()).ok(), result);
    lab.call("CHECK", &portmap, "a", &a.path()).ok();

    let own = ip("10.88.0.2");
    let servers: Vec<Server> = [80, 90].into_iter().map(|port| Server::listen(&a, (own, port))).collect();
    let tcp = |client: &Netns, port, target: &str| {
        servers[usize::from(port == 90)].source_of(client, target.parse::<SocketAddr>().unwrap())
    };
    assert_eq!(tcp(&client, 80, "192.0.2.1:8080"), ip("192.0.2.2"), "the client's address is kept");
    assert_eq!(tcp(&client, 90, "192.0.2.1:9090"), ip("192.0.2.2"));
    assert_eq!(tcp(&lab.host, 80, "127.0.0.1:8080"), ip("10.88.0.1"), "loopback leaves as the bridge");
    assert_eq!(tcp(&b, 80, "192.0.2.1:8080"), ip("10.88.0.1"), "a neighbour must not answer past the host");
    assert_eq!(tcp(&a, 80, "192.0.2.1:8080"), ip("10.88.0.1"), "nor the container itself");
    udp_reaches(&a, &client, (own, 53).into(), "192.0.2.1:5353".parse().unwrap()).unwrap();
    let six: SocketAddr = "[fd00:88::2]:91".parse().unwrap();
    assert_eq!(
        Server::listen(&a, six).source_of(&client, "[fd00:2::1]:9090".parse::<SocketAddr>().unwrap()),
        ip("fd00:2::2")
    );
    // Direct traffic between containers keeps its source, host port or not.
    assert_eq!(tcp(&b, 80, "10.88.0.2:80"), ip("10.88.0.3"));

    lab.call("DEL", &portmap, "a", "").ok();
    lab.call("DEL", &portmap, "a", "").ok();
    let gone = std::net::TcpStream::connect_timeout;
    let refused = client.run(|| gone(&"192.0.2.1:8080".parse().unwrap(), std::time::Duration::from_secs(2)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!rules(&lab).contains("elements"), "{}", rules(&lab));
    let (_, message) = lab.call("CHECK", &portmap, "a", &a.path()).error();
    assert!(message.contains("lacks an element"), "{message}");
}

#[test]
fn the_table_reads_as_its_essay_says() {
    let lab = Lab::new();
    let (mut conf, a) = (lab.bridge_conf(), Netns::new());
    conf["ipMasq"] = true.into();
    let result = lab.call("ADD", &conf, "a", &a.path()).ok();
    let mapping = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    lab.call("ADD", &portmap_conf(&mapping, &result), "a", &a.path()).ok();
    let rules = rules(&lab);
    for line in [
        "tcp . 8080 comment",
        ": 10.88.0.2 . 80",
        "type nat hook prerouting priority dstnat - 1",
        "fib daddr type local jump hostports",
        "iif != \"lo\" ip daddr 127.0.0.0/8 drop",
        "ip daddr . meta l4proto . th dport map @hostports4at",
        "meta l4proto . th dport map @hostports4",
        "tcp . 8080 . 10.88.0.0/24 . 10.88.0.2 comment",
        "tcp . 8080 . 127.0.0.0/8 . 10.88.0.2 comment",
        "@hairpin4 masquerade",
        "ip saddr vmap @masquerade4",
        "10.88.0.2 comment \"cni:",
        "ip daddr 10.88.0.0/24 return",
        "ip daddr 224.0.0.0/4 return",
        "ip6 daddr ff00::/8 return",
    ] {
        assert!(rules.contains(line), "no {line:?} in\n{rules}");
    }
}

#[test]
fn a_port_in_use_is_refused_and_its_owner_keeps_it() {
    let lab = Lab::new();
    let (conf, a, b) = (lab.bridge_conf(), Netns::new(), Netns::new());
    // as containerd writes it
    let mapping = json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }]);
    let first = portmap_conf(&mapping, &lab.call("ADD", &conf, "a", &a.path()).ok());
    let second = portmap_conf(&mapping, &lab.call("ADD", &conf, "b", &b.path()).ok());
    lab.call("ADD", &first, "a", &a.path()).ok();
    let (_, message) = lab.call("ADD", &second, "b", &b.path()).error();
    assert!(message.contains("map host ports 8080/tcp (in use by another container)"), "{message}");
    lab.call("DEL", &second, "b", &b.path()).ok();
    lab.call("CHECK", &first, "a", &a.path()).ok();
    lab.call("DEL", &first, "a", &a.path()).ok();
    lab.call("ADD", &second, "b", &b.path()).ok();
}

#[test]
fn bad_mappings_name_the_field() {
    let lab = Lab::new();
    let previous = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.88.0.2/24" }] });
    for (mapping, words) in [
        (
            json!({ "hostPort": 0, "containerPort": 80 }),
            "portMappings[0].hostPort: Invalid host port number: 0",
        ),
        (
            json!({ "hostPort": 80, "containerPort": 70000 }),
            "containerPort: Invalid container port number: 70000",
        ),
        (json!({ "hostPort": 80, "containerPort": 80, "protocol": "icmp" }), "unsupported protocol \"icmp\""),
        (json!({ "hostPort": 80, "containerPort": 80, "hostIP": "x" }), "hostIP"),
    ] {
        let (code, message) = lab.call("ADD", &portmap_conf(&json!([mapping]), &previous), "a", "/x").error();
        assert_eq!(code, 7);
        assert!(message.contains(words), "{message}");
    }
    let (code, _) = lab.call("ADD", &portmap_conf(&json!([]), &Value::Null), "a", "/x").error();
    assert_eq!(code, 7, "not chained");
    // Without host ports there is nothing to do and no table to make.
    assert_eq!(lab.call("ADD", &portmap_conf(&json!([]), &previous), "a", "/x").ok(), previous);
    assert_eq!(rules(&lab), "");
    let mut status = portmap_conf(&json!([]), &Value::Null);
    status["cniVersion"] = "1.1.0".into();
    lab.call("STATUS", &status, "", "").ok();
}

#[test]
fn masquerading_hides_the_container_from_the_outside_only() {
    let lab = Lab::new();
    let (server, a, b) = (outside(&lab), Netns::new(), Netns::new());
    let mut conf = lab.bridge_conf();
    conf["cniVersion"] = "1.1.0".into();
    conf["ipMasq"] = true.into();
    let result = lab.call("ADD", &conf, "a", &a.path()).ok();
    lab.call("ADD", &conf, "b", &b.path()).ok();
    for (outside, host, own, neighbour) in [
        ("192.0.2.2", "192.0.2.1", "10.88.0.2", "10.88.0.3"),
        ("fd00:2::2", "fd00:2::1", "fd00:88::2", "fd00:88::3"),
    ] {
        let target = SocketAddr::from((ip(outside), 80));
        // The outside knows no way back to the container's address, so an answer proves the point as well.
        assert_eq!(Server::listen(&server, target).source_of(&a, target), ip(host));
        let target = SocketAddr::from((ip(neighbour), 80));
        assert_eq!(Server::listen(&b, target).source_of(&a, target), ip(own));
    }
    let mut check = conf.clone();
    check["prevResult"] = result;
    lab.call("CHECK", &check, "a", &a.path()).ok();
    lab.call("DEL", &conf, "a", "").ok();
    assert!(!rules(&lab).contains("10.88.0.2 "), "{}", rules(&lab));
    assert!(rules(&lab).contains("10.88.0.3 "));
    conf["cni.dev/valid-attachments"] = json!([]);
    lab.call("GC", &conf, "", "").ok();
    assert!(!rules(&lab).contains("elements"), "{}", rules(&lab));
}

#[test]
fn host_ports_do_not_open_the_hosts_loopback_to_containers() {
    let lab = Lab::new();
    let (conf, a) = (lab.bridge_conf(), Netns::new());
    lab.host.sh("ip link set lo up");
    let mapping = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let result = lab.call("ADD", &conf, "a", &a.path()).ok();
    lab.call("ADD", &portmap_conf(&mapping, &result), "a", &a.path()).ok();
    assert_eq!(lab.host.sh("cat /proc/sys/net/ipv4/conf/cni0/route_localnet").trim(), "1");
    let _private = Server::listen(&lab.host, (ip("127.0.0.1"), 7777));
    a.sh("echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip route add 127.0.0.0/8 via 10.88.0.1");
    let connect = || {
        let target = SocketAddr::from((ip("127.0.0.1"), 7777));
        a.run(|| std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_millis(300)))
    };
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    // It is the rule that keeps it closed, and not some other thing.
    lab.host.sh("nft flush chain inet windlass-cni localnet");
    connect().unwrap();
}

#[test]
fn a_udp_client_that_began_too_early_is_heard_all_the_same() {
    let lab = Lab::new();
    let (client, a) = (outside(&lab), Netns::new());
    let result = lab.call("ADD", &lab.bridge_conf(), "a", &a.path()).ok();
    let bind = |netns: &Netns, address: &str| netns.run(|| std::net::UdpSocket::bind(address)).unwrap();
    let (sender, unrelated) = (bind(&client, "192.0.2.2:4000"), bind(&client, "192.0.2.2:4001"));
    let receiver = bind(&a, "10.88.0.2:53");
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    // The host's own ends keep the connections from being refused, so that they are remembered.
    let (early, other) = (bind(&lab.host, "192.0.2.1:5353"), bind(&lab.host, "192.0.2.1:5354"));
    lab.host.sh("nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state new accept'");
    let mut buffer = [0; 8];
    for (socket, target, host) in
        [(&sender, "192.0.2.1:5353", &early), (&unrelated, "192.0.2.1:5354", &other)]
    {
        host.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket.send_to(b"early", target).unwrap();
        assert_eq!(host.recv(&mut buffer).unwrap(), 5);
    }
    let mapping = json!([{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }]);
    let portmap = portmap_conf(&mapping, &result);
    lab.call("ADD", &portmap, "a", &a.path()).ok();
    sender.send_to(b"late", "192.0.2.1:5353").unwrap();
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
    // And the other way round: once unmapped, the host itself is meant again.
    lab.call("DEL", &portmap, "a", &a.path()).ok();
    sender.send_to(b"later", "192.0.2.1:5353").unwrap();
    assert_eq!(early.recv(&mut buffer).unwrap(), 5);
}
