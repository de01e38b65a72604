//! The table in the kernel, with real packets: a node and two pods, each a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::Key;
use netlink::{Kernel, Protocol};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getpid, gettid};
use policy::apply::{Applied, Applier};
use policy::object::{read_pod, read_policy};
use policy::{Model, flows};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `test` on a thread with its own network namespace.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        assert!(unshare(CloneFlags::CLONE_NEWNET).is_ok(), "network namespaces need root");
        run("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    })
    .join()
    .unwrap();
}

type Job = Box<dyn FnOnce() + Send>;

/// A pod: a thread that does what it is told in its own namespace.
struct Pod(mpsc::Sender<Job>);

impl Pod {
    /// With addresses 10.244.1.N and fd00::N, reached by a link of its own.
    fn new(number: u8) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (says, said) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            says.send(format!("/proc/{}/task/{}/ns/net", getpid(), gettid())).unwrap();
            todo.into_iter().for_each(|job| job());
        });
        let namespace = said.recv().unwrap();
        run(&format!(
            "ip link add p{number} type veth peer name eth0 netns {namespace}
             ip addr add 10.244.1.1/32 dev p{number}; ip addr add fe80::1/64 dev p{number} nodad; ip link set p{number} up
             ip route add 10.244.1.{number} dev p{number}; ip route add fd00::{number} dev p{number}"
        ));
        let pod = Self(jobs);
        pod.does(move || {
            run(&format!(
                "ip link set lo up; ip link set eth0 up
                 ip addr add 10.244.1.{number}/32 dev eth0; ip addr add fd00::{number}/128 dev eth0 nodad
                 ip route add 10.244.1.1 dev eth0; ip route add default via 10.244.1.1; ip -6 route add default via fe80::1 dev eth0"
            ));
        });
        pod
    }

    fn does<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (says, said) = mpsc::channel();
        self.0.send(Box::new(move || says.send(job()).unwrap())).unwrap();
        said.recv().unwrap()
    }

    /// Echoes at these ports, over TCP and UDP.
    fn serves(&self, ports: &'static [u16]) {
        self.does(move || {
            for port in ports {
                let listener = TcpListener::bind(("::", *port)).unwrap();
                let socket = UdpSocket::bind(("::", *port)).unwrap();
                std::thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        std::thread::spawn(move || {
                            let mut buffer = [0; 64];
                            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                                stream.write_all(&buffer[..count]).unwrap();
                            }
                        });
                    }
                });
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..count], from);
                    }
                });
            }
        });
    }

    fn connects(&self, to: &str) -> Option<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        self.does(move || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(400)).ok()?;
            stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            echoes(&mut stream).then_some(stream)
        })
    }

    fn is_answered(&self, to: &str) -> bool {
        let to: SocketAddr = to.parse().unwrap();
        self.does(move || {
            let any: SocketAddr = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            socket.send_to(b"x", to).unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        })
    }
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok()
}

/// The node with pods a and b, and what judges them.
struct Node {
    a: Pod,
    b: Pod,
    model: Model,
    applier: Applier,
}

impl Node {
    fn new() -> Self {
        let (a, b) = (Pod::new(2), Pod::new(3));
        b.serves(&[80, 81, 8080]);
        a.serves(&[80]);
        let mut model = Model::default();
        model.set_namespace(&"default".into(), Some([("team".to_owned(), "red".to_owned())].into()));
        for (name, number) in [("a", 2), ("b", 3)] {
            let pod = json!({
                "metadata": {"labels": {"app": name}},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIPs": [{"ip": format!("10.244.1.{number}")}, {"ip": format!("fd00::{number}")}]}
            });
            let pod = read_pod(&serde_json::from_value(pod).unwrap(), "n1");
            model.set_pod(&Key::new("default", name), pod, None);
        }
        Self { a, b, model, applier: Applier::default() }
    }

    fn policy(&mut self, name: &str, spec: Value) {
        let policy = serde_json::from_value(json!({"spec": spec})).unwrap();
        self.model.set_policy(&Key::new("default", name), Some(read_policy(&policy, &"default".into())));
    }

    /// Brings the kernel there, and says how many flows were cut.
    async fn apply(&mut self) -> usize {
        self.applier.apply(self.model.rules_mut()).await.unwrap();
        let narrowed = self.model.take_narrowed();
        flows::cut(&mut Kernel::of(Protocol::Netfilter), narrowed, self.model.rules()).await.unwrap()
    }

    /// Which of these ports of b answer a: by TCP, over both families alike, and by UDP.
    fn open(&self, ports: &[u16]) -> (Vec<u16>, Vec<u16>) {
        let of = |probe: &dyn Fn(&str) -> bool| {
            let each = |port: &&u16| {
                let both = [format!("10.244.1.3:{port}"), format!("[fd00::3]:{port}")].map(|to| probe(&to));
                assert_eq!(both[0], both[1], "the families differ at port {port}");
                both[0]
            };
            ports.iter().filter(each).copied().collect()
        };
        (of(&|to| self.a.connects(to).is_some()), of(&|to| self.a.is_answered(to)))
    }
}

#[test]
fn packets_meet_what_the_policies_say() {
    in_namespace(|| async {
        let mut node = Node::new();
        let all = [80, 81, 8080];
        node.apply().await;
        assert_eq!(node.open(&all), (all.to_vec(), all.to_vec()));
        node.policy("deny", json!({"podSelector": {"matchLabels": {"app": "b"}}}));
        node.apply().await;
        assert_eq!(node.open(&all), (vec![], vec![]));
        assert!(
            node.b.connects("10.244.1.2:80").is_some(),
            "the other way is open, and its answers come back"
        );
        let from_node = TcpStream::connect_timeout(&"10.244.1.3:80".parse().unwrap(), Duration::from_secs(1));
        assert!(from_node.is_ok(), "its own node");
        let of_a = json!({"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": 80, "endPort": 81}]});
        node.policy("some", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [of_a]}));
        node.apply().await;
        assert_eq!(node.open(&all), (vec![80, 81], vec![]), "by TCP alone");
        let udp = json!({"ports": [{"protocol": "UDP", "port": 81}, {"port": "web"}]});
        node.policy("some", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [udp]}));
        node.apply().await;
        assert_eq!(node.open(&all), (vec![8080], vec![81]));
        node.model.set_policy(&Key::new("default", "deny"), None);
        let block = json!({"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.2/32"]}}, {"ipBlock": {"cidr": "fd00::/64", "except": ["fd00::2/128"]}}]});
        node.policy("some", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [block]}));
        node.apply().await;
        assert_eq!(node.open(&[80]), (vec![], vec![]));
        let blocks = json!({"from": [{"ipBlock": {"cidr": "10.244.1.2/31"}}, {"ipBlock": {"cidr": "fd00::2/127", "except": ["fd00::3/128"]}}]});
        node.policy("some", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [blocks]}));
        node.apply().await;
        assert_eq!(node.open(&[80]), (vec![80], vec![80]));
        let to_web = json!({"to": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}], "ports": [{"port": "web"}]});
        node.policy("out", json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"], "egress": [to_web]}));
        node.apply().await;
        assert_eq!(node.open(&all), (vec![8080], vec![]));
        for name in ["some", "out"] {
            node.model.set_policy(&Key::new("default", name), None);
        }
        node.apply().await;
        assert_eq!(node.open(&all), (all.to_vec(), all.to_vec()));
        node.applier.remove().await.unwrap();
        assert_eq!(run("nft list tables"), "");
    });
}

#[test]
fn a_flow_must_not_outlive_what_allowed_it() {
    in_namespace(|| async {
        let mut node = Node::new();
        let ingress = |port: u16| json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"ports": [{"port": port}]}]});
        node.policy("in", ingress(80));
        node.apply().await;
        let mut four = node.a.connects("10.244.1.3:80").unwrap();
        let mut six = node.a.connects("[fd00::3]:80").unwrap();
        node.policy("in", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{}]}));
        let mut other = {
            assert_eq!(node.apply().await, 0, "more is allowed");
            node.a.connects("10.244.1.3:81").unwrap()
        };
        assert!(echoes(&mut four) && echoes(&mut six) && echoes(&mut other));
        node.policy("in", ingress(80));
        assert_eq!(node.apply().await, 1);
        assert!(!echoes(&mut other), "its port is closed");
        assert!(echoes(&mut four) && echoes(&mut six), "allowed as before");
        node.policy("in", ingress(81));
        assert_eq!(node.apply().await, 2);
        // the server goes on sending, in the direction that is open
        assert!(!echoes(&mut four) && !echoes(&mut six) && !echoes(&mut four));
        assert!(node.a.connects("10.244.1.3:81").is_some());
        node.policy("out", json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"]}));
        assert!(node.apply().await > 0);
        assert!(node.a.connects("10.244.1.3:81").is_none());
    });
}

#[test]
fn rules_that_were_taken_away_come_back_whole() {
    in_namespace(|| async {
        let mut node = Node::new();
        node.policy("in", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "web"}, {"port": 80}]}]}));
        assert_eq!(node.applier.apply(node.model.rules_mut()).await.unwrap(), Applied::Whole);
        let before = run("nft list ruleset");
        for line in [
            "type filter hook forward priority filter; policy accept;",
            "type filter hook forward priority filter + 1; policy accept;",
            "ct state established,related accept",
            "ip saddr . ip daddr @own4 accept",
            "ip daddr vmap @ingress4",
            "ip6 daddr vmap @ingress6",
            "jump ingress/1/default/in",
            "meta l4proto . th dport",
        ] {
            assert!(before.contains(line), "{line}\n{before}");
        }
        assert_eq!(node.applier.apply(node.model.rules_mut()).await.unwrap(), Applied::Nothing);
        run("nft flush ruleset");
        assert!(!node.applier.audit().await.unwrap());
        assert_eq!(node.applier.apply(node.model.rules_mut()).await.unwrap(), Applied::Whole);
        assert_eq!(run("nft list ruleset"), before);
    });
}

/// 1,000 policies over 200 pods of this node and 2,000 of others, in 40 namespaces.
#[test]
fn a_change_must_not_cost_what_all_policies_do() {
    in_namespace(|| async {
        let mut model = Model::default();
        let space = |index: usize| format!("space{}", index % 40);
        for index in 0..40 {
            let labels = [("team".to_owned(), (index % 8).to_string())];
            model.set_namespace(&space(index).as_str().into(), Some(labels.into()));
        }
        let pod = |index: usize, tier: usize| {
            let node = if index < 200 { "n1" } else { "n2" };
            let pod = json!({"metadata": {"labels": {"app": (index / 40 % 5).to_string(), "tier": tier.to_string()}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIPs": [{"ip": format!("10.{}.{}.{}", 244 + index / 65536, index / 256 % 256, index % 256)}]}});
            read_pod(&serde_json::from_value(pod).unwrap(), "n1")
        };
        for index in 0..2200 {
            model.set_pod(&Key::new(&space(index), &format!("p{index}")), pod(index, index % 3), None);
        }
        let policy = |index: usize, port: usize| {
            let peers = json!([{"podSelector": {"matchLabels": {"tier": (index % 3).to_string()}}},
                {"namespaceSelector": {"matchLabels": {"team": (index % 8).to_string()}}},
                {"ipBlock": {"cidr": format!("192.{}.0.0/16", index % 200), "except": [format!("192.{}.7.0/24", index % 200)]}}]);
            let spec = json!({"podSelector": {"matchLabels": {"app": (index / 40 % 5).to_string()}},
                "ingress": [{"from": peers, "ports": [{"port": port}, {"port": "web"}]}]});
            let policy = serde_json::from_value(json!({"spec": spec})).unwrap();
            read_policy(&policy, &space(index).as_str().into())
        };
        for index in 0..1000 {
            model.set_policy(&Key::new(&space(index), &format!("policy{index}")), Some(policy(index, 80)));
        }
        let mut applier = Applier::default();
        let began = Instant::now();
        applier.apply(model.rules_mut()).await.unwrap();
        println!("all of it: {:?}, {} sets", began.elapsed(), model.rules().sets().len());
        let mut took = Vec::new();
        for round in 0..60usize {
            let began = Instant::now();
            let kind = match round % 3 {
                0 => {
                    model.set_policy(
                        &Key::new(&space(round), &format!("policy{round}")),
                        Some(policy(round, 1000 + round)),
                    );
                    "a policy"
                }
                1 => {
                    model.set_pod(
                        &Key::new(&space(round), &format!("p{round}")),
                        pod(round, round + 1),
                        None,
                    );
                    "a pod"
                }
                _ => {
                    let labels = [("team".to_owned(), (round % 7).to_string())];
                    model.set_namespace(&space(round).as_str().into(), Some(labels.into()));
                    "a namespace"
                }
            };
            let known = began.elapsed();
            applier.apply(model.rules_mut()).await.unwrap();
            took.push((began.elapsed(), known, kind));
        }
        for kind in ["a policy", "a pod", "a namespace"] {
            let mut of: Vec<_> =
                took.iter().filter(|(_, _, k)| *k == kind).map(|(all, known, _)| (*all, *known)).collect();
            of.sort();
            println!(
                "{kind}: median {:?} (of that {:?} to know), longest {:?}",
                of[of.len() / 2].0,
                of[of.len() / 2].1,
                of[of.len() - 1].0
            );
        }
        took.sort();
        assert!(took[took.len() / 2].0 < Duration::from_millis(250), "{:?}", took[took.len() / 2]);
        let addresses: BTreeSet<_> = model.rules().targets().keys().collect();
        assert_eq!(addresses.len(), 200);
    });
}
