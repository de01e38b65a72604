//! Random clusters: what packets meet in the table that differences made, against a direct reading of the policies.
//!
//! The table here is as strict as the kernel's: nothing is made twice, deleted where it is not, or deleted while something leads to it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use client::Key;
use ipnet::IpNet;
use policy::object::{read_pod, read_policy};
use policy::ruleset::{Body, Difference, Direction, Id, Kind, Line, Member, Packet, Port};
use policy::{Model, Owner};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Default)]
struct Table {
    sets: BTreeMap<Id, (Kind, BTreeSet<Member>)>,
    chains: BTreeMap<Arc<str>, Body>,
    names: BTreeMap<Id, Arc<str>>,
    map: BTreeMap<(Direction, IpAddr), Arc<str>>,
    own: BTreeSet<IpAddr>,
}

impl Table {
    fn apply(&mut self, difference: &Difference) {
        for (id, kind) in &difference.new_sets {
            assert!(self.sets.insert(*id, (*kind, BTreeSet::new())).is_none(), "set {id} twice");
        }
        for (id, kind, members) in &difference.leave {
            let set = self.sets.get_mut(id).unwrap();
            assert_eq!(set.0, *kind);
            members.iter().for_each(|member| assert!(set.1.remove(member), "{member:?} is not in set {id}"));
        }
        for (id, kind, members) in &difference.come {
            let set = self.sets.get_mut(id).unwrap();
            assert_eq!(set.0, *kind);
            members.iter().for_each(|member| assert!(set.1.insert(*member), "{member:?} is in set {id}"));
        }
        for (id, chain) in &difference.chains {
            match &chain.body {
                Body::Policy(_, lines) => reads(lines).for_each(|set| assert!(self.sets.contains_key(&set))),
                Body::Selection(policies) => {
                    policies.iter().for_each(|policy| assert!(self.names.contains_key(policy)));
                    assert!(!self.chains.contains_key(&chain.name), "a selection never changes");
                }
            }
            self.chains.insert(chain.name.clone(), chain.body.clone());
            self.names.insert(*id, chain.name.clone());
        }
        for at in &difference.released {
            assert!(self.map.remove(&(at.0, at.1)).is_some());
        }
        for (direction, address, chain) in &difference.judged {
            assert!(self.chains.contains_key(chain));
            assert!(self.map.insert((*direction, *address), chain.clone()).is_none());
        }
        difference.freed.iter().for_each(|ip| assert!(self.own.remove(ip)));
        difference.isolated.iter().for_each(|ip| assert!(self.own.insert(*ip)));
        for name in &difference.gone_chains {
            assert!(self.chains.remove(name).is_some());
            assert!(self.map.values().all(|chain| chain != name), "an address leads to {name}");
            let id = *self.names.iter().find(|(_, known)| *known == name).unwrap().0;
            self.names.remove(&id);
            let led = |body: &Body| matches!(body, Body::Selection(policies) if policies.contains(&id));
            assert!(!self.chains.values().any(led), "a selection leads to {name}");
        }
        for (id, kind) in &difference.gone_sets {
            assert_eq!(self.sets.remove(id).unwrap().0, *kind);
            let read =
                |body: &Body| matches!(body, Body::Policy(_, lines) if reads(lines).any(|set| set == *id));
            assert!(!self.chains.values().any(read), "a chain reads set {id}");
        }
    }

    /// As the base chains do it, for a packet that begins a connection.
    fn accepts(&self, packet: &Packet) -> bool {
        let own = packet.source == packet.destination && self.own.contains(&packet.source);
        let sides = [(Direction::Egress, packet.source), (Direction::Ingress, packet.destination)];
        own || sides.into_iter().all(|at| match self.map.get(&at) {
            None => true,
            Some(name) => {
                let Body::Selection(policies) = &self.chains[name] else { panic!("{name} is no selection") };
                policies.iter().any(|id| {
                    let Body::Policy(direction, lines) = &self.chains[&self.names[id]] else { panic!() };
                    assert_eq!(*direction, at.0);
                    lines.iter().any(|line| self.matches(at.0, line, packet))
                })
            }
        })
    }

    fn matches(&self, direction: Direction, line: &Line, packet: &Packet) -> bool {
        let peer = if direction == Direction::Ingress { packet.source } else { packet.destination };
        let is_peer = line.peer.is_none_or(|id| match &self.sets[&id] {
            (Kind::Pods, members) => members.contains(&Member::Address(peer)),
            (Kind::Blocks, members) => {
                members.iter().any(|member| matches!(member, Member::Net(net) if net.contains(&peer)))
            }
            other => panic!("{other:?} as a peer"),
        });
        is_peer
            && match line.port {
                Port::Any => true,
                Port::In(id) => self.sets[&id].1.iter().any(|member| {
                    matches!(member, Member::Range(range) if range.protocol == packet.protocol
                        && range.first <= packet.port && packet.port <= range.last)
                }),
                Port::Named(id) => {
                    self.sets[&id].1.contains(&Member::Port(packet.destination, packet.protocol, packet.port))
                }
            }
    }
}

fn reads(lines: &[Line]) -> impl Iterator<Item = Id> {
    lines.iter().flat_map(|line| {
        let port = match line.port {
            Port::Any => None,
            Port::In(id) | Port::Named(id) => Some(id),
        };
        line.peer.into_iter().chain(port)
    })
}

// === the direct reading ===

#[derive(Default)]
struct World {
    namespaces: BTreeMap<String, Value>,
    pods: BTreeMap<(String, String), Value>,
    policies: BTreeMap<(String, String), Value>,
}

impl World {
    fn pod_at(&self, ip: IpAddr) -> Option<(&String, &Value)> {
        let has = |pod: &Value| {
            pod["status"]["podIPs"].as_array().unwrap().iter().any(|own| own["ip"] == ip.to_string())
        };
        let living =
            |pod: &Value| pod["spec"]["hostNetwork"] != true && pod["status"]["phase"] != "Succeeded";
        self.pods
            .iter()
            .find(|(_, pod)| has(pod) && living(pod))
            .map(|((namespace, _), pod)| (namespace, pod))
    }

    fn allows(&self, packet: &Packet) -> bool {
        packet.source == packet.destination
            || (self.open(packet, packet.source, packet.destination, "Egress", "egress", "to")
                && self.open(packet, packet.destination, packet.source, "Ingress", "ingress", "from"))
    }

    fn open(&self, packet: &Packet, at: IpAddr, peer: IpAddr, kind: &str, list: &str, side: &str) -> bool {
        let Some((namespace, pod)) = self.pod_at(at).filter(|(_, pod)| pod["spec"]["nodeName"] == "n1")
        else {
            return true;
        };
        let mut isolated = false;
        for ((_, _), policy) in self.policies.iter().filter(|((ns, _), _)| ns == namespace) {
            let types: Vec<&str> =
                policy["policyTypes"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            if !types.contains(&kind) || !selects(&policy["podSelector"], &pod["metadata"]["labels"]) {
                continue;
            }
            isolated = true;
            for rule in policy[list].as_array().into_iter().flatten() {
                let peers = rule[side].as_array().cloned().unwrap_or_default();
                let ports = rule["ports"].as_array().cloned().unwrap_or_default();
                if (peers.is_empty() || peers.iter().any(|one| self.is_peer(one, namespace, peer)))
                    && (ports.is_empty() || ports.iter().any(|one| self.is_port(one, packet)))
                {
                    return true;
                }
            }
        }
        !isolated
    }

    fn is_peer(&self, peer: &Value, namespace: &String, ip: IpAddr) -> bool {
        if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
            let holds = |text: &str| text.parse::<IpNet>().unwrap().contains(&ip);
            let excepted = peer["ipBlock"]["except"].as_array().into_iter().flatten();
            return holds(cidr) && !excepted.into_iter().any(|hole| holds(hole.as_str().unwrap()));
        }
        let Some((space, pod)) = self.pod_at(ip) else { return false };
        let in_space = match &peer["namespaceSelector"] {
            Value::Null => space == namespace,
            selector => match self.namespaces.get(space) {
                Some(labels) => selects(selector, labels),
                None => selector.as_object().unwrap().is_empty(),
            },
        };
        in_space
            && (peer["podSelector"].is_null() || selects(&peer["podSelector"], &pod["metadata"]["labels"]))
    }

    fn is_port(&self, port: &Value, packet: &Packet) -> bool {
        let number = |name: &str| match name {
            "TCP" => 6,
            "UDP" => 17,
            _ => 132,
        };
        if number(port["protocol"].as_str().unwrap_or("TCP")) != packet.protocol {
            return false;
        }
        match &port["port"] {
            Value::Null => true,
            Value::String(name) => self.pod_at(packet.destination).is_some_and(|(_, pod)| {
                pod["spec"]["containers"][0]["ports"].as_array().unwrap().iter().any(|own| {
                    own["name"] == *name
                        && number(own["protocol"].as_str().unwrap()) == packet.protocol
                        && own["containerPort"] == packet.port
                })
            }),
            first => {
                let first = first.as_u64().unwrap();
                (first..=port["endPort"].as_u64().unwrap_or(first)).contains(&packet.port.into())
            }
        }
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let all = exact.into_iter().all(|(key, value)| labels[key] == *value);
    all && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
        let value = &labels[expression["key"].as_str().unwrap()];
        let listed = || expression["values"].as_array().unwrap().contains(value);
        match expression["operator"].as_str().unwrap() {
            "In" => !value.is_null() && listed(),
            "NotIn" => value.is_null() || !listed(),
            "Exists" => !value.is_null(),
            _ => value.is_null(),
        }
    })
}

// === random clusters ===

#[derive(Clone, Debug)]
enum Step {
    Namespace(usize, Option<Value>),
    Pod(usize, Option<Value>),
    Policy(usize, usize, Option<Value>),
    /// The runtime asks for the addresses a pod has, or will have.
    Attach(usize),
    Commit,
}

const SPACES: [&str; 3] = ["red", "green", "blue"];
const PODS: usize = 9;

fn addresses(pod: usize) -> [String; 2] {
    [format!("10.244.{}.{}", pod % 2, pod + 1), format!("fd00::{}", pod + 1)]
}

fn pod_key(pod: usize) -> (String, String) {
    (SPACES[pod % 3].to_owned(), format!("p{pod}"))
}

fn labels() -> impl Strategy<Value = Value> {
    (0..3u8, 0..3u8).prop_map(|(a, b)| {
        let mut labels = json!({});
        if a > 0 {
            labels["a"] = a.to_string().into();
        }
        if b > 0 {
            labels["b"] = b.to_string().into();
        }
        labels
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let key = prop_oneof![Just("a"), Just("b")];
    let some = (key, 1..3u8, 0..6u8).prop_map(|(key, value, kind)| match kind {
        0 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value.to_string()]}]}),
        1 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value.to_string()]}]}),
        2 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
        3 => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}),
        _ => json!({"matchLabels": {key: value.to_string()}}),
    });
    prop_oneof![1 => Just(json!({})), 3 => some]
}

fn pod(index: usize) -> impl Strategy<Value = Value> {
    (labels(), 0..10u8, 0..3u8, 0..3u16).prop_map(move |(labels, kind, ports, shift)| {
        let node = if index.is_multiple_of(2) { "n1" } else { "n2" };
        let all = [("http", "TCP", 80 + shift), ("dns", "UDP", 53), ("http", "SCTP", 82)];
        let ports: Vec<Value> = all[..usize::from(ports) + 1].iter()
            .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "containerPort": port})).collect();
        let ips: Vec<Value> = addresses(index).iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "metadata": {"labels": labels, "uid": format!("u{index}")},
            "spec": {"nodeName": node, "hostNetwork": kind == 0, "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": if kind == 1 { "Succeeded" } else { "Running" }, "podIPs": ips},
        })
    })
}

fn peer() -> impl Strategy<Value = Value> {
    let block = prop_oneof![
        Just(json!({"cidr": "10.244.0.0/16"})),
        Just(json!({"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]})),
        Just(json!({"cidr": "10.244.0.0/23", "except": ["10.244.0.0/30", "10.244.1.4/32"]})),
        Just(json!({"cidr": "0.0.0.0/0", "except": ["10.244.0.0/24"]})),
        Just(json!({"cidr": "fd00::/64", "except": ["fd00::4/126"]})),
    ];
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|spaces| json!({"namespaceSelector": spaces})),
        (selector(), selector())
            .prop_map(|(spaces, pods)| json!({"namespaceSelector": spaces, "podSelector": pods})),
        block.prop_map(|block| json!({"ipBlock": block})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    (0..3usize, 0..6u8).prop_map(|(protocol, kind)| {
        let protocol = ["TCP", "UDP", "SCTP"][protocol];
        match kind {
            0 => json!({"protocol": protocol}),
            1 => json!({"protocol": protocol, "port": "http"}),
            2 => json!({"protocol": protocol, "port": "dns"}),
            3 => json!({"port": 80}),
            4 => json!({"protocol": protocol, "port": 53, "endPort": 81}),
            _ => json!({"protocol": protocol, "port": 82}),
        }
    })
}

fn rules(side: &'static str) -> impl Strategy<Value = Value> {
    let rule = (proptest::collection::vec(peer(), 0..3), proptest::collection::vec(port(), 0..3))
        .prop_map(move |(peers, ports)| json!({side: peers, "ports": ports}));
    proptest::collection::vec(rule, 0..3).prop_map(Value::from)
}

fn policy_spec() -> impl Strategy<Value = Value> {
    let types =
        prop_oneof![Just(json!(["Ingress"])), Just(json!(["Egress"])), Just(json!(["Ingress", "Egress"]))];
    (selector(), types, rules("from"), rules("to")).prop_map(|(pods, types, ingress, egress)| {
        json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress})
    })
}

fn step() -> impl Strategy<Value = Step> {
    let pods = (0..PODS).prop_flat_map(|index| {
        proptest::option::weighted(0.85, pod(index)).prop_map(move |pod| Step::Pod(index, pod))
    });
    prop_oneof![
        2 => (0..3usize, proptest::option::weighted(0.85, labels())).prop_map(|(space, labels)| Step::Namespace(space, labels)),
        6 => pods,
        5 => (0..3usize, 0..3usize, proptest::option::weighted(0.8, policy_spec())).prop_map(|(space, name, spec)| Step::Policy(space, name, spec)),
        1 => (0..PODS).prop_map(Step::Attach),
        3 => Just(Step::Commit),
    ]
}

fn take(step: Step, world: &mut World, model: &mut Model, table: &mut Table) {
    match step {
        Step::Namespace(space, labels) => {
            let name = SPACES[space];
            model.set_namespace(
                &name.into(),
                labels.clone().map(|labels| serde_json::from_value(labels).unwrap()),
            );
            match labels {
                Some(labels) => drop(world.namespaces.insert(name.to_owned(), labels)),
                None => drop(world.namespaces.remove(name)),
            }
        }
        Step::Pod(index, pod) => {
            let (namespace, name) = pod_key(index);
            let read =
                pod.as_ref().and_then(|pod| read_pod(&serde_json::from_value(pod.clone()).unwrap(), "n1"));
            model.set_pod(&Key::new(&namespace, &name), read, Some(&format!("u{index}")));
            match pod {
                Some(pod) => drop(world.pods.insert((namespace, name), pod)),
                None => drop(world.pods.remove(&(namespace, name))),
            }
        }
        Step::Policy(space, name, spec) => {
            let key = Key::new(SPACES[space], &format!("policy{name}"));
            let policy = spec.as_ref().map(|spec| serde_json::from_value(json!({"spec": spec})).unwrap());
            model.set_policy(&key, policy.map(|policy| read_policy(&policy, &key.namespace)));
            let at = (SPACES[space].to_owned(), format!("policy{name}"));
            match spec {
                Some(spec) => drop(world.policies.insert(at, spec)),
                None => drop(world.policies.remove(&at)),
            }
        }
        Step::Attach(index) => {
            let (namespace, name) = pod_key(index);
            // who is not there is held, which the reading knows nothing of
            let at = (namespace.clone(), name.clone());
            let lives = world
                .pods
                .get(&at)
                .is_some_and(|pod| pod["status"]["phase"] == "Running" && pod["spec"]["hostNetwork"] != true);
            if index.is_multiple_of(2) && lives {
                let ips: Vec<IpAddr> = addresses(index).iter().map(|ip| ip.parse().unwrap()).collect();
                model.attach(&ips, &Owner { pod: Key::new(&namespace, &name), uid: format!("u{index}") });
            }
        }
        Step::Commit => table.apply(&model.rules_mut().take_difference()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_packet_must_pass_or_be_dropped_against_the_policies(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut world, mut model, mut table) = (World::default(), Model::default(), Table::default());
        for step in steps {
            take(step, &mut world, &mut model, &mut table);
        }
        table.apply(&model.rules_mut().take_difference());
        let mut fresh = Table::default();
        fresh.apply(&model.rules_mut().whole());
        prop_assert!(fresh.map == table.map && fresh.own == table.own && fresh.chains == table.chains);
        prop_assert!(fresh.sets == table.sets);
        let strangers = ["192.0.2.1", "10.244.0.200", "fd00::4:1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let ips: Vec<IpAddr> = (0..PODS).flat_map(addresses).map(|ip| ip.parse().unwrap()).chain(strangers).collect();
        for source in &ips {
            for destination in ips.iter().filter(|ip| ip.is_ipv6() == source.is_ipv6()) {
                for (protocol, port) in [(6, 80), (6, 81), (6, 82), (17, 53), (17, 80), (132, 82), (132, 53), (1, 0)] {
                    let packet = Packet { source: *source, destination: *destination, protocol, port };
                    let expected = world.allows(&packet);
                    prop_assert_eq!(table.accepts(&packet), expected, "{:?}", packet);
                    prop_assert_eq!(model.rules().allows(&packet), expected, "{:?}", packet);
                }
            }
        }
    }
}
