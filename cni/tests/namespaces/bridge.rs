//! bridge: what ADD makes, CHECK sees and DEL removes.

use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::net::UnixListener,
};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, Netns},
    traffic::{Server, udp_reaches},
};

fn address(result: &Value, index: usize) -> IpAddr {
    let text = result["ips"][index]["address"].as_str().unwrap();
    text.split_once('/').unwrap().0.parse().unwrap()
}

#[test]
fn two_containers_reach_each_other_and_the_host() {
    let lab = Lab::new();
    let conf = lab.bridge_conf();
    let (a, b) = (Netns::new(), Netns::new());
    let first = lab.call("ADD", &conf, "a", &a.path()).ok();
    let second = lab.call("ADD", &conf, "b", &b.path()).ok();
    for family in 0..2 {
        let (from, to) = (address(&first, family), address(&second, family));
        assert_eq!(Server::listen(&b, (to, 80)).source_of(&a, (to, 80)), from);
        udp_reaches(&b, &a, (to, 53).into(), (to, 53).into()).unwrap();
        let gateway: IpAddr = first["ips"][family]["gateway"].as_str().unwrap().parse().unwrap();
        assert_eq!(Server::listen(&lab.host, (gateway, 80)).source_of(&a, (gateway, 80)), from);
        assert_eq!(Server::listen(&a, (from, 80)).source_of(&lab.host, (from, 80)), gateway);
    }
}

#[test]
fn the_result_says_what_was_made() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf["cniVersion"] = "1.1.0".into();
    conf["mtu"] = 1400.into();
    conf["dns"] = json!({ "nameservers": ["10.96.0.10"], "search": ["cluster.local"] });
    conf["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:42", "ips": ["10.88.0.77/24"] });
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 3);
    assert_eq!(interfaces[0]["name"], "cni0");
    assert_eq!(result["dns"], conf["dns"]);
    assert_eq!(
        interfaces[2],
        json!({ "name": "eth0", "mac": "02:00:00:00:00:42", "mtu": 1400, "sandbox": netns.path() })
    );
    assert_eq!(
        result["ips"][0],
        json!({ "interface": 2, "address": "10.88.0.77/24", "gateway": "10.88.0.1" })
    );
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "10.88.0.1" }, { "dst": "::/0", "gw": "fd00:88::1" }])
    );
    assert!(netns.sh("ip -4 addr show dev eth0").contains("10.88.0.77/24 brd 10.88.0.255"));
    assert!(netns.sh("ip -6 route").contains("default via fd00:88::1 dev eth0"));
    let host = interfaces[1]["name"].as_str().unwrap();
    let port = lab.host.sh(&format!("ip -d link show {host}"));
    assert!(port.contains("master cni0") && port.contains("hairpin on"), "{port}");
}

#[test]
fn a_default_route_must_have_the_measure_that_is_said_and_the_interface_all_of_the_link() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0", "mtu": 1450 }, { "dst": "::/0", "mtu": 1430 }]);
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert!(netns.sh("ip route show default").contains("via 10.88.0.1 dev eth0 mtu 1450"));
    assert!(netns.sh("ip -6 route show default").contains("via fd00:88::1 dev eth0 metric 1024 mtu 1430"));
    assert!(netns.sh("ip link show eth0").contains(" mtu 1500 "));
    conf["prevResult"] = result;
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
}

#[test]
fn del_takes_everything_away_however_often_it_comes() {
    let lab = Lab::new();
    let (conf, netns) = (lab.bridge_conf(), Netns::new());
    lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!(lab.leased("pods").len(), 2);
    for netns in [netns.path(), netns.path(), String::new(), "/does/not/exist".into()] {
        assert_eq!(lab.call("DEL", &conf, "a", &netns).ok(), Value::Null);
        assert!(lab.leased("pods").is_empty());
    }
    assert!(!netns.sh("ip link").contains("eth0"));
    assert!(!lab.host.sh("ip link").contains("veth"));
}

#[test]
fn del_without_the_namespace_frees_link_and_lease() {
    let lab = Lab::new();
    let (conf, netns) = (lab.bridge_conf(), Netns::new());
    lab.call("ADD", &conf, "a", &netns.path()).ok();
    lab.call("DEL", &conf, "a", "").ok();
    assert!(lab.leased("pods").is_empty());
    assert!(!lab.host.sh("ip link").contains("veth"));
}

#[test]
fn a_failed_add_leaves_nothing() {
    let lab = Lab::new();
    let (conf, netns) = (lab.bridge_conf(), Netns::new());
    netns.sh("ip link add eth0 type bridge");
    let (_, message) = lab.call("ADD", &conf, "a", &netns.path()).error();
    assert!(message.contains("create veth") && message.contains("File exists"), "{message}");
    assert!(lab.leased("pods").is_empty());
    assert!(!lab.host.sh("ip link").contains("veth"));

    let mut unroutable = conf;
    unroutable["ipam"]["routes"] = json!([{ "dst": "192.0.2.0/24", "gw": "203.0.113.1" }]);
    let other = Netns::new();
    let (_, message) = lab.call("ADD", &unroutable, "b", &other.path()).error();
    assert!(message.contains("add route 192.0.2.0/24"), "{message}");
    assert!(lab.leased("pods").is_empty());
    assert!(!other.sh("ip link").contains("eth0"));
}

#[test]
fn a_pod_must_not_have_its_interface_before_its_rules() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    let socket = lab.state.path().join("policy.sock");
    conf["policySocket"] = json!(socket);
    let pod = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u-1";
    let add = |id: &str| lab.call_with("ADD", &conf, id, &netns.path(), &[("CNI_ARGS", pod)]);
    let nothing_made = || {
        assert!(lab.leased("pods").is_empty());
        assert!(!lab.host.sh("ip link").contains("cni0") && !netns.sh("ip link").contains("eth0"));
    };
    let (code, message) = add("a").error();
    assert_eq!(code, 11, "the runtime tries again");
    assert!(message.contains("pod default/web") && message.contains("policy.sock"), "{message}");
    nothing_made();
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = |line: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut question).unwrap();
        nothing_made_but_leases(&lab, &netns);
        stream.write_all(line.as_bytes()).unwrap();
        serde_json::from_str::<Value>(&question).unwrap()
    };
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| answer("{\"error\":\"not yet\"}\n"));
        let (code, message) = add("b").error();
        assert!(code == 11 && message.ends_with("not yet"), "{code} {message}");
        refused.join().unwrap();
        nothing_made();
        let answered = scope.spawn(|| answer("{\"error\":\"\"}\n"));
        let result = add("c").ok();
        let asked = answered.join().unwrap();
        let addresses = json!([address(&result, 0), address(&result, 1)]);
        assert_eq!(
            asked,
            json!({"namespace": "default", "name": "web", "uid": "u-1", "addresses": addresses})
        );
    });
    drop(listener);
    let other = Netns::new();
    lab.call("ADD", &conf, "d", &other.path()).ok();
}

fn nothing_made_but_leases(lab: &Lab, netns: &Netns) {
    assert_eq!(lab.leased("pods").len(), 2);
    assert!(!lab.host.sh("ip link").contains("veth") && !netns.sh("ip link").contains("eth0"));
}

#[test]
fn a_second_add_fails_and_harms_not_the_first() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    let (_, message) = lab.call("ADD", &conf, "a", &netns.path()).error();
    assert!(message.contains("duplicate allocation is not allowed"), "{message}");
    conf["prevResult"] = result;
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
}

#[test]
fn check_sees_what_is_missing() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!(lab.call("CHECK", &conf, "a", &netns.path()).error().0, 7, "CHECK needs prevResult");
    conf["prevResult"] = result.clone();
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
    let host = result["interfaces"][1]["name"].as_str().unwrap();
    for (break_it, mend_it, words) in [
        ("ip route del default", "ip route add default via 10.88.0.1", "lacks a route to 0.0.0.0/0"),
        (
            "ip addr del 10.88.0.2/24 dev eth0",
            "ip addr add 10.88.0.2/24 dev eth0; ip route add default via 10.88.0.1",
            "lacks address 10.88.0.2/24",
        ),
        (
            "ip link set eth0 down",
            "ip link set eth0 up; ip addr replace fd00:88::2/64 dev eth0 nodad; ip route add default via 10.88.0.1;
             ip route add default via fd00:88::1",
            "eth0 is down",
        ),
    ] {
        netns.sh(break_it);
        let (_, message) = lab.call("CHECK", &conf, "a", &netns.path()).error();
        assert!(message.contains(words), "{message}");
        netns.sh(mend_it);
        lab.call("CHECK", &conf, "a", &netns.path()).ok();
    }
    lab.host.sh(&format!("ip link set {host} nomaster"));
    let (_, message) = lab.call("CHECK", &conf, "a", &netns.path()).error();
    assert!(message.contains("not a port of bridge cni0"), "{message}");
}

#[test]
fn gc_removes_what_is_not_valid_and_of_this_network() {
    let lab = Lab::new();
    let mut conf = lab.bridge_conf();
    conf["cniVersion"] = "1.1.0".into();
    let mut other = conf.clone();
    other["name"] = "others".into();
    other["ipam"]["ranges"] = json!([[{ "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.100" }]]);
    let netns: Vec<Netns> = (0..3).map(|_| Netns::new()).collect();
    for (id, netns) in ["a", "b"].iter().zip(&netns) {
        lab.call("ADD", &conf, id, &netns.path()).ok();
    }
    lab.call("ADD", &other, "c", &netns[2].path()).ok();
    assert_eq!(lab.call("GC", &conf, "", "").error().0, 7, "a missing list is not an empty one");
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
    lab.call("GC", &conf, "", "").ok();
    assert!(!netns[0].sh("ip link").contains("eth0"));
    assert!(netns[1].sh("ip link").contains("eth0"));
    assert!(netns[2].sh("ip link").contains("eth0"));
    assert_eq!((lab.leased("pods").len(), lab.leased("others").len()), (2, 1));
}

#[test]
fn another_address_on_the_bridge_gives_way_only_if_forced() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    lab.host.sh("ip link add cni0 type bridge; ip addr add 192.0.2.1/24 dev cni0");
    let (code, message) = lab.call("ADD", &conf, "a", &netns.path()).error();
    assert_eq!(code, 7);
    assert!(message.contains("192.0.2.1/24") && message.contains("10.88.0.1/24"), "{message}");
    assert!(lab.leased("pods").is_empty());
    conf["forceAddress"] = true.into();
    lab.call("ADD", &conf, "a", &netns.path()).ok();
    let addresses = lab.host.sh("ip addr show dev cni0");
    assert!(addresses.contains("10.88.0.1/24") && !addresses.contains("192.0.2.1"), "{addresses}");
}

#[test]
fn a_link_that_is_no_bridge_is_refused() {
    let lab = Lab::new();
    let (conf, netns) = (lab.bridge_conf(), Netns::new());
    lab.host.sh("ip link add cni0 type veth");
    let (_, message) = lab.call("ADD", &conf, "a", &netns.path()).error();
    assert!(message.contains("already exists but is not a bridge"), "{message}");
}

#[test]
fn joined_at_layer_2_without_ipam() {
    let lab = Lab::new();
    let (mut conf, netns) = (lab.bridge_conf(), Netns::new());
    conf["ipam"] = json!({});
    let result = lab.call("ADD", &conf, "a", &netns.path()).ok();
    assert_eq!(result.get("ips"), None);
    assert!(netns.sh("ip link show eth0").contains("state UP"));
    lab.call("DEL", &conf, "a", &netns.path()).ok();
}

#[test]
fn many_at_once_share_one_bridge() {
    let lab = Lab::new();
    let conf = lab.bridge_conf();
    let netns: Vec<Netns> = (0..16).map(|_| Netns::new()).collect();
    let attach = |index: usize| lab.call("ADD", &conf, &format!("c{index}"), &netns[index].path()).ok();
    let results: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..16).map(|index| scope.spawn(move || attach(index))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let own: std::collections::BTreeSet<IpAddr> = results.iter().map(|result| address(result, 0)).collect();
    assert_eq!(own.len(), 16);
    assert_eq!(lab.host.sh("ip -o link show master cni0").lines().count(), 16);
    let target = address(&results[15], 0);
    assert_eq!(
        Server::listen(&netns[15], (target, 80)).source_of(&netns[0], (target, 80)),
        address(&results[0], 0)
    );
}

#[test]
fn killed_anywhere_a_del_leaves_nothing() {
    let lab = Lab::new();
    let mut conf = lab.bridge_conf();
    conf["ipMasq"] = true.into();
    let mut killed = 0;
    for turn in 0..80u64 {
        let netns = Netns::new();
        let id = format!("k{turn}");
        // An ADD takes a few milliseconds here.
        let survived =
            lab.call_and_kill(&conf, &id, &netns.path(), std::time::Duration::from_micros(turn * 100));
        killed += usize::from(!survived);
        lab.call("DEL", &conf, &id, &netns.path()).ok();
        assert!(!netns.sh("ip link").contains("eth0"));
    }
    assert!(killed > 5, "only {killed} of 80 were killed before their end");
    assert!(lab.leased("pods").is_empty());
    assert!(!lab.host.sh("ip link").contains("veth"));
    assert!(!lab.host.sh("nft list ruleset").contains("elements"));
    let netns = Netns::new();
    lab.call("ADD", &conf, "last", &netns.path()).ok();
}

#[test]
fn an_address_granted_anew_is_found_at_once() {
    let lab = Lab::new();
    let (mut conf, neighbour) = (lab.bridge_conf(), Netns::new());
    lab.call("ADD", &conf, "n", &neighbour.path()).ok();
    conf["runtimeConfig"] = json!({ "ips": ["10.88.0.9/24", "fd00:88::9/64"] });
    let mut before: Option<String> = None;
    for id in ["old", "new"] {
        let netns = Netns::new();
        let result = lab.call("ADD", &conf, id, &netns.path()).ok();
        let hardware = result["interfaces"][2]["mac"].as_str().unwrap().to_owned();
        for target in [address(&result, 0), address(&result, 1)] {
            for client in [&lab.host, &neighbour] {
                if let Some(old) = &before {
                    forgets(client, target, old);
                }
                // After this it knows the container's hardware address, and by itself would keep it for half a minute.
                Server::listen(&netns, (target, 80)).source_of(client, (target, 80));
                let known = client.sh(&format!("ip neigh show {target}"));
                assert!(known.contains(&hardware), "{id}: {known}");
            }
        }
        lab.call("DEL", &conf, id, &netns.path()).ok();
        before = Some(hardware);
    }
}

/// Waits until a namespace takes an address for another hardware address than `old`, or for none, without asking.
fn forgets(client: &Netns, target: IpAddr, old: &str) {
    for _ in 0..500 {
        if !client.sh(&format!("ip neigh show {target}")).contains(old) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{target} is still taken for {old}");
}
