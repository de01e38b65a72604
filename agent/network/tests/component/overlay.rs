//! Real packets between pods of nodes on two links, with a router between that knows nothing of pods.
//!
//! The router has a bridge for each link; `near` shares one with `here`, `far` is on the other. Each node has a bridge with one pod, as the CNI plugin would make them: an
//! interface of the link's 1,500 bytes, a default route without a measure of its own, so as a pod has it that was there before any overlay.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::IpMtu};
use serde_json::{Value, json};

use crate::{
    api::Api,
    lab::{Netns, Running},
};

struct Machine {
    host: Netns,
    pod: Netns,
    name: &'static str,
    number: u8,
    addresses: Vec<String>,
}

impl Machine {
    fn new(router: &Netns, name: &'static str, link: u8, number: u8) -> Self {
        let (host, pod) = (Netns::new(), Netns::new());
        host.plug("lan", router, &format!("l{link}"));
        host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        host.sh("ip link add cni0 type bridge && ip link set cni0 up");
        host.sh(&format!(
            "ip addr add 10.244.{number}.1/24 dev cni0; ip addr add fd00:{number}::1/64 dev cni0 nodad"
        ));
        pod.plug("eth0", &host, "cni0");
        pod.sh(&format!(
            "ip addr add 10.244.{number}.5/24 dev eth0; ip addr add fd00:{number}::5/64 dev eth0 nodad"
        ));
        pod.sh(&format!(
            "ip route add default via 10.244.{number}.1; ip route add default via fd00:{number}::1"
        ));
        let machine = Self { host, pod, name, number, addresses: Vec::new() };
        machine.readdress(link, number)
    }

    /// Gives the machine its addresses on the link, in place of those before.
    fn readdress(mut self, link: u8, last: u8) -> Self {
        let addresses = vec![format!("192.0.{link}.{last}"), format!("2001:db8:{link}::{last}")];
        for old in std::mem::replace(&mut self.addresses, addresses) {
            let length = if old.contains(':') { 64 } else { 24 };
            self.host.sh(&format!("ip addr del {old}/{length} dev lan"));
        }
        for new in &self.addresses {
            let (length, nodad) = if new.contains(':') { (64, "nodad") } else { (24, "") };
            self.host.sh(&format!("ip addr add {new}/{length} dev lan {nodad}"));
        }
        self.host.sh(&format!("ip route replace default via 192.0.{link}.254; ip -6 route replace default via 2001:db8:{link}::254"));
        self
    }

    fn node(&self) -> Value {
        let addresses: Vec<Value> = self
            .addresses
            .iter()
            .map(|address| json!({ "type": "InternalIP", "address": address }))
            .collect();
        let cidrs = [format!("10.244.{}.0/24", self.number), format!("fd00:{}::/64", self.number)];
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name, "resourceVersion": "1" },
            "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
            "status": { "addresses": addresses },
        })
    }

    fn address(&self, ipv6: bool) -> IpAddr {
        let text =
            if ipv6 { format!("fd00:{}::5", self.number) } else { format!("10.244.{}.5", self.number) };
        text.parse().unwrap()
    }

    /// How often an IP packet was cut.
    fn fragments(&self) -> u64 {
        let text = self.host.sh("cat /proc/net/snmp /proc/net/snmp6");
        let mut ipv4 = text.lines().filter(|line| line.starts_with("Ip: "));
        let (names, values) = (ipv4.next().unwrap(), ipv4.next().unwrap());
        let column = names.split(' ').position(|name| name == "FragCreates").unwrap();
        let ipv6 = text.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap();
        values.split(' ').nth(column).unwrap().parse::<u64>().unwrap() + ipv6.trim().parse::<u64>().unwrap()
    }
}

struct World {
    router: Netns,
    here: Machine,
    near: Machine,
    far: Machine,
    api: Api,
}

impl World {
    fn new() -> Self {
        let router = Netns::new();
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for link in [1, 2] {
            router.sh(&format!(
                "ip link add l{link} type bridge; ip link set l{link} up; ip addr add 192.0.{link}.254/24 dev l{link}; \
                 ip addr add 2001:db8:{link}::254/64 dev l{link} nodad"
            ));
        }
        let here = Machine::new(&router, "here", 1, 1);
        let near = Machine::new(&router, "near", 1, 2);
        let far = Machine::new(&router, "far", 2, 3);
        let api = Api::new(vec![here.node(), near.node(), far.node()]);
        Self { router, here, near, far, api }
    }

    fn start(&self) -> [Running; 3] {
        [&self.here, &self.near, &self.far]
            .map(|machine| Running::start(machine.name, &machine.host, &self.api))
    }

    fn machines(&self) -> [&Machine; 3] {
        [&self.here, &self.near, &self.far]
    }

    /// Waits until `from` sends by `link` to the pods of `to`, of both families.
    fn led(from: &Machine, to: &Machine, link: [&str; 2]) {
        let number = to.number;
        let command = format!("ip route get 10.244.{number}.5; ip -6 route get fd00:{number}::5");
        from.host.until(&command, |printed| {
            let by = |link: &str| format!(" dev {link} ");
            let lines: Vec<&str> = printed.lines().filter(|line| line.contains(" dev ")).collect();
            lines.len() == 2 && lines[0].contains(&by(link[0])) && lines[1].contains(&by(link[1]))
        });
    }
}

const LAN: [&str; 2] = ["lan", "lan"];
const VXLAN: [&str; 2] = ["wl-vxlan", "wl-vxlan6"];

/// A connection between two pods, both ends.
fn connect(from: &Machine, to: &Machine, ipv6: bool) -> (TcpStream, TcpStream) {
    let at = SocketAddr::new(to.address(ipv6), 80);
    let listener = to.pod.run(|| TcpListener::bind(at)).unwrap();
    std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept().unwrap());
        let stream = from.pod.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(10))).unwrap();
        let (server, peer) = accepted.join().unwrap();
        assert_eq!(peer.ip(), from.address(ipv6), "pods see each other's addresses");
        for end in [&stream, &server] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            end.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        (stream, server)
    })
}

/// Sends a megabyte each way.
fn exchange(client: &TcpStream, server: &TcpStream) {
    let sent = &vec![7; 1 << 20];
    for (mut from, mut to) in [(client, server), (server, client)] {
        std::thread::scope(|scope| {
            scope.spawn(move || from.write_all(sent).unwrap());
            let mut received = vec![0; sent.len()];
            to.read_exact(&mut received).unwrap();
            assert!(received == *sent);
        });
    }
}

#[test]
fn pods_speak_at_full_size_past_a_router_that_knows_no_pods() {
    let world = World::new();
    let running = world.start();
    World::led(&world.here, &world.near, LAN);
    World::led(&world.here, &world.far, VXLAN);
    World::led(&world.near, &world.far, VXLAN);
    World::led(&world.far, &world.here, VXLAN);
    for ipv6 in [false, true] {
        for (from, to) in [(&world.here, &world.far), (&world.here, &world.near), (&world.far, &world.near)] {
            let (client, server) = connect(from, to, ipv6);
            exchange(&client, &server);
            // What the pod's kernel learnt of the way: the whole link to a neighbour, and less by an overlay, told by its own node.
            if !ipv6 {
                let wanted = if to.name == "near" && from.name == "here" { 1500 } else { 1450 };
                assert_eq!(getsockopt(&client, IpMtu).unwrap(), wanted, "{} to {}", from.name, to.name);
            }
        }
    }
    for machine in world.machines() {
        assert_eq!(machine.fragments(), 0, "{}: nothing was cut", machine.name);
    }
    // The node itself reaches far pods, and far nodes' pods it: by an address that belongs to its pods.
    let listener = world.far.pod.run(|| TcpListener::bind("10.244.3.5:81")).unwrap();
    let stream = world.here.host.run(|| TcpStream::connect("10.244.3.5:81")).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "10.244.1.1");
    drop(stream);
    // New pods are told the overlay's measure, and keep the link's on the bridge.
    let written: Value = serde_json::from_slice(&std::fs::read(&running[0].conflist).unwrap()).unwrap();
    let bridge = &written["plugins"][0];
    assert_eq!((&bridge["mtu"], &bridge["ipam"]["routes"][0]["mtu"]), (&json!(1500), &json!(1430)));
    for (link, mtu) in [("wl-vxlan", " mtu 1450 "), ("wl-vxlan6", " mtu 1430 ")] {
        assert!(world.here.host.sh(&format!("ip link show {link}")).contains(mtu), "{link}");
    }
    assert!(world.api.events().is_empty(), "{:?}", world.api.events());
    assert!(!world.router.sh("ip route; ip -6 route").contains("10.244"), "the router knows no pods");
}

/// Sends for as long as `during` takes; every byte arrives, in order. The longest wait between two of them.
fn under_way(client: &TcpStream, server: &TcpStream, during: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut client, mut sent) = (client, 0u64);
            while !stop.load(Ordering::Relaxed) {
                let chunk: Vec<u8> = (sent..sent + 8192).map(|place| (place % 251) as u8).collect();
                client.write_all(&chunk).unwrap();
                sent += 8192;
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            sent
        });
        let receiver = scope.spawn(|| {
            let (mut server, mut received, mut longest) = (server, 0u64, Duration::ZERO);
            let mut room = vec![0; 65536];
            let mut last = Instant::now();
            loop {
                let count = server.read(&mut room).unwrap();
                longest = longest.max(last.elapsed());
                last = Instant::now();
                if count == 0 {
                    return (received, longest);
                }
                assert!((received..).zip(&room[..count]).all(|(place, byte)| (place % 251) as u8 == *byte));
                received += count as u64;
            }
        });
        during();
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        let (received, longest) = receiver.join().unwrap();
        assert_eq!(received, sent);
        longest
    })
}

#[test]
fn switching_the_way_must_not_lose_a_connection() {
    let world = World::new();
    let _running = world.start();
    World::led(&world.here, &world.near, LAN);
    World::led(&world.near, &world.here, LAN);
    for ipv6 in [false, true] {
        let (client, server) = connect(&world.here, &world.near, ipv6);
        let longest = under_way(&client, &server, || {
            for (backend, link) in [("vxlan", VXLAN), ("auto", LAN), ("vxlan", VXLAN), ("direct", LAN)] {
                world.api.set(json!({ "backend": backend }));
                World::led(&world.here, &world.near, link);
                World::led(&world.near, &world.here, link);
                // some bytes by this way
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        println!("longest wait of a stream while the way changed four times: {longest:?}");
        assert!(longest < Duration::from_secs(3), "{longest:?}");
    }
}

#[test]
fn a_nodes_new_address_is_followed_and_a_node_that_went_leaves_nothing() {
    let mut world = World::new();
    let _running = world.start();
    World::led(&world.here, &world.far, VXLAN);
    World::led(&world.far, &world.here, VXLAN);
    let (client, server) = connect(&world.here, &world.far, false);
    exchange(&client, &server);
    world.far = world.far.readdress(2, 33);
    world.api.send("MODIFIED", world.far.node());
    let table = "bridge fdb show dev wl-vxlan";
    world
        .here
        .host
        .until(table, |printed| printed.contains("dst 192.0.2.33 ") && !printed.contains("192.0.2.3 "));
    world.far.host.until("ip -d link show wl-vxlan", |printed| printed.contains("local 192.0.2.33 "));
    exchange(&client, &server);
    world.api.send("DELETED", world.far.node());
    world.here.host.until("ip route show proto 87", |printed| !printed.contains("10.244.3.0"));
    world.here.host.until(table, |printed| !printed.contains("dst"));
    world.here.host.until("ip neigh show nud permanent dev wl-vxlan", |printed| printed.is_empty());
}

#[test]
fn what_a_killed_agent_left_is_used_again_and_what_does_not_fit_is_made_anew() {
    let world = World::new();
    let host = &world.here.host;
    let running = world.start();
    World::led(&world.here, &world.far, VXLAN);
    World::led(&world.far, &world.here, VXLAN);
    drop(running);
    let index = host.sh("ip -o link show wl-vxlan | cut -d: -f1");
    host.sh("ip route del 10.244.3.0/24; ip addr flush dev wl-vxlan; ip link set wl-vxlan down mtu 1400");
    host.sh("bridge fdb add 02:00:00:00:00:09 dev wl-vxlan dst 192.0.2.9 self permanent");
    host.sh("ip neigh add 10.244.9.1 lladdr 02:00:00:00:00:09 dev wl-vxlan nud permanent || true");
    let running = world.start();
    World::led(&world.here, &world.far, VXLAN);
    host.until("bridge fdb show dev wl-vxlan", |printed| !printed.contains("02:00:00:00:00:09"));
    assert_eq!(host.sh("ip -o link show wl-vxlan | cut -d: -f1"), index, "the same link");
    let (client, server) = connect(&world.here, &world.far, false);
    exchange(&client, &server);
    drop(running);
    for machine in world.machines() {
        machine
            .host
            .sh("ip link del wl-vxlan; ip link add wl-vxlan type vxlan id 5 dstport 8472 local 127.0.0.1");
    }
    let _running = world.start();
    World::led(&world.here, &world.far, VXLAN);
    World::led(&world.far, &world.here, VXLAN);
    assert!(host.sh("ip -d link show wl-vxlan").contains("vxlan id 87 local 192.0.1.1"));
    exchange(&client, &server);
}

#[test]
fn a_link_of_somebody_else_with_our_name_is_told_of_and_left_alone() {
    let world = World::new();
    let host = &world.here.host;
    host.sh("ip link add wl-vxlan type bridge");
    let _running = Running::start("here", host, &world.api);
    host.until("true", |_| {
        world.api.events().iter().any(|event| {
            event["note"] == "no overlay: there is a link wl-vxlan that is no VXLAN link of ours"
        })
    });
    World::led(&world.here, &world.near, LAN);
    assert!(host.sh("ip -d link show wl-vxlan").contains("bridge"));
}

/// Whether a packet arrives at the pod of `to` that `from` sends as the pod of `near` would, in a frame of its own making.
fn forged(from: &Netns, local: &str, to: &Machine) -> bool {
    let hardware = to.host.sh("ip -o link show wl-vxlan");
    let hardware = hardware.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let number = to.number;
    from.sh(&format!(
        "ip link add forged type vxlan id 87 dstport 4789 nolearning remote 192.0.1.{number} local {local}
         ip link set forged up; ip addr add 10.244.2.5/32 dev forged
         ip neigh add 10.244.{number}.1 lladdr {hardware} dev forged nud permanent
         ip route add 10.244.{number}.5/32 via 10.244.{number}.1 dev forged onlink src 10.244.2.5"
    ));
    let at = SocketAddr::new(to.address(false), 90);
    let socket = to.pod.run(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sender = from.run(|| UdpSocket::bind("10.244.2.5:0")).unwrap();
    sender.send_to(b"forged", at).unwrap();
    let arrived = socket.recv(&mut [0; 16]).is_ok();
    from.sh("ip link del forged");
    arrived
}

#[test]
fn nobody_but_nodes_must_send_by_the_overlay() {
    let world = World::new();
    let running = world.start();
    World::led(&world.here, &world.far, VXLAN);
    let host = &world.here.host;
    host.until("nft list table inet windlass-network", |printed| printed.contains("overlay-in"));
    assert!(!forged(&world.router, "192.0.1.254", &world.here), "a stranger");
    let beside = Netns::new();
    beside.plug("eth0", host, "cni0");
    beside.sh("ip addr add 10.244.1.6/24 dev eth0; ip route add default via 10.244.1.1");
    assert!(!forged(&beside, "10.244.1.6", &world.here), "a pod of this node");
    assert!(!forged(&world.near.pod, "10.244.2.5", &world.here), "a pod of another");
    drop(running);
    // That the frames are as they should be shows where nothing is in their way.
    host.sh("nft delete table inet windlass-network");
    assert!(forged(&world.router, "192.0.1.254", &world.here), "without the guard");
    assert!(forged(&beside, "10.244.1.6", &world.here), "without the guard, a pod");
}
