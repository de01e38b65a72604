//! bandwidth: how long bytes take, and what is left afterwards.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::lab::{Lab, Netns};

/// Bytes that are sent, and the least time they take at a million a second after a burst of ten thousand.
const SENT: usize = 400_000;
const LEAST: Duration = Duration::from_millis(350);

fn conf(limits: Value, previous: &Value) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "bandwidth",
        "capabilities": { "bandwidth": true },
        "runtimeConfig": { "bandwidth": limits },
        "prevResult": previous,
    })
}

fn limits(direction: &str) -> Value {
    json!({ format!("{direction}Rate"): 8_000_000, format!("{direction}Burst"): 80_000 })
}

/// How long it takes until all has arrived.
fn takes(from: &Netns, to: &Netns, at: IpAddr) -> Duration {
    let listener = to.run(|| TcpListener::bind((at, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    // before anything is sent: this thread may come to take the stream late
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.run(|| {
                let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
                stream.write_all(&vec![7; SENT]).unwrap();
            });
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut arrived = Vec::new();
        stream.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived.len(), SENT);
        began.elapsed()
    })
}

/// A container with its addresses: its own, and the host's.
fn container(lab: &Lab, id: &str) -> (Netns, Value, [IpAddr; 2]) {
    let netns = Netns::new();
    let mut bridge = lab.bridge_conf();
    bridge["cniVersion"] = "1.1.0".into();
    let result = lab.call("ADD", &bridge, id, &netns.path()).ok();
    let own = result["ips"][0]["address"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap();
    let host = result["ips"][0]["gateway"].as_str().unwrap().parse().unwrap();
    (netns, result, [own, host])
}

#[test]
fn a_container_must_not_receive_faster_than_it_may() {
    let lab = Lab::new();
    let (netns, result, [own, host]) = container(&lab, "a");
    let conf = conf(limits("ingress"), &result);
    assert_eq!(lab.call("ADD", &conf, "a", &netns.path()).ok(), result);
    let received = takes(&lab.host, &netns, own);
    assert!(received >= LEAST, "{received:?}");
    let sent = takes(&netns, &lab.host, host);
    assert!(sent < received, "what it sends is not held back: {sent:?}");
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
    let port = result["interfaces"][1]["name"].as_str().unwrap();
    lab.host.sh(&format!("tc qdisc del dev {port} root"));
    assert!(lab.call("CHECK", &conf, "a", &netns.path()).error().1.contains("not limited to 8000000 bit/s"));
    lab.call("DEL", &conf, "a", &netns.path()).ok();
}

#[test]
fn a_container_must_not_send_faster_than_it_may() {
    let lab = Lab::new();
    let (netns, result, [own, host]) = container(&lab, "a");
    let mut conf = conf(limits("egress"), &result);
    let added = lab.call("ADD", &conf, "a", &netns.path()).ok();
    let device = added["interfaces"][3]["name"].as_str().unwrap().to_owned();
    assert!(device.starts_with("bwp") && device.len() == 15, "{device}");
    assert_eq!((&added["ips"], &added["interfaces"][2]), (&result["ips"], &result["interfaces"][2]));
    let sent = takes(&netns, &lab.host, host);
    assert!(sent >= LEAST, "{sent:?}");
    let received = takes(&lab.host, &netns, own);
    assert!(received < sent, "what it receives is not held back: {received:?}");
    conf["prevResult"] = added;
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
    for turn in 0..2 {
        lab.call("DEL", &conf, "a", "").ok();
        assert!(!lab.host.sh("ip link").contains("bwp"), "{turn}");
    }
    assert!(lab.call("CHECK", &conf, "a", &netns.path()).error().1.contains("is missing"));
}

#[test]
fn what_nobody_limits_passes_untouched() {
    let lab = Lab::new();
    let (netns, result, _) = container(&lab, "a");
    let mut conf = conf(json!({}), &result);
    conf.as_object_mut().unwrap().remove("runtimeConfig");
    assert_eq!(lab.call("ADD", &conf, "a", &netns.path()).ok(), result);
    lab.call("CHECK", &conf, "a", &netns.path()).ok();
    lab.call("STATUS", &conf, "", "").ok();
    assert!(!lab.host.sh("tc qdisc").contains("tbf"));
    conf.as_object_mut().unwrap().remove("prevResult");
    assert!(lab.call("ADD", &conf, "a", &netns.path()).error().1.contains("chained plugin"));
}

#[test]
fn a_device_of_a_container_that_is_gone_must_not_stay() {
    let lab = Lab::new();
    let all = ["a", "b"].map(|id| (id, container(&lab, id)));
    for (id, (netns, result, _)) in &all {
        lab.call("ADD", &conf(limits("egress"), result), id, &netns.path()).ok();
    }
    assert_eq!(lab.host.sh("ip -o link show type ifb").lines().count(), 2);
    let mut gc = conf(json!({}), &Value::Null);
    gc["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
    lab.call("GC", &gc, "", "").ok();
    assert_eq!(lab.host.sh("ip -o link show type ifb").lines().count(), 1);
    assert!(takes(&all[1].1.0, &lab.host, all[1].1.2[1]) >= LEAST);
}
