use super::*;
use crate::object::{read_pod, read_policy};
use crate::ruleset::Packet;
use serde_json::{Value, json};

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key::new(namespace, name)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A cluster seen from node n1: `default` with pods a and b, `other` with pod c, which is on node n2.
struct Cluster(Model);

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self(Model::default());
        cluster.namespace("default", json!({"team": "red"}));
        cluster.namespace("other", json!({"team": "blue"}));
        cluster.pod("default/a", "n1", "10.244.1.2", json!({"app": "a"}));
        cluster.pod("default/b", "n1", "10.244.1.3", json!({"app": "b"}));
        cluster.pod("other/c", "n2", "10.244.2.2", json!({"app": "a"}));
        cluster
    }

    fn namespace(&mut self, name: &str, labels: Value) {
        self.0.set_namespace(&name.into(), serde_json::from_value(labels).unwrap());
    }

    /// With a port `http` whose number is 8000 and the last number of its address.
    fn pod(&mut self, name: &str, node: &str, address: &str, labels: Value) {
        let port = 8000 + address.rsplit(['.', ':']).next().unwrap().parse::<i32>().unwrap_or_default();
        self.raw(name, json!({
            "metadata": {"labels": labels, "uid": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIPs": if address.is_empty() { json!([]) } else { json!([{"ip": address}]) }}
        }));
    }

    fn raw(&mut self, name: &str, pod: Value) {
        let pod = read_pod(&serde_json::from_value(pod).unwrap(), "n1");
        self.0.set_pod(&key(name), pod, None);
    }

    fn policy(&mut self, name: &str, spec: Value) {
        let key = key(name);
        let policy = serde_json::from_value(json!({"spec": spec})).unwrap();
        self.0.set_policy(&key, Some(read_policy(&policy, &key.namespace)));
    }

    fn attach(&mut self, addresses: &[&str], pod: &str, uid: &str) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
        self.0.attach(&addresses, &Owner { pod: key(pod), uid: uid.into() });
    }

    fn allows(&self, from: &str, to: &str, port: u16) -> bool {
        self.0.rules.allows(&Packet { source: ip(from), destination: ip(to), protocol: 6, port })
    }
}

const A: &str = "10.244.1.2";
const B: &str = "10.244.1.3";
const C: &str = "10.244.2.2";

#[test]
fn a_pod_that_nothing_selects_must_not_be_closed() {
    let mut cluster = Cluster::new();
    assert!(cluster.allows(B, A, 80) && cluster.allows(C, A, 80));
    cluster.policy("default/deny", json!({"podSelector": {"matchLabels": {"app": "a"}}}));
    assert!(!cluster.allows(B, A, 80) && !cluster.allows(C, A, 80) && !cluster.allows("192.0.2.1", A, 80));
    assert!(cluster.allows(A, A, 80), "a pod and itself");
    assert!(cluster.allows(A, B, 80), "nobody closed the way out");
    assert!(cluster.allows(A, C, 80));
    cluster.policy("other/deny", json!({"podSelector": {}}));
    assert!(cluster.allows(A, C, 80), "that pod's own node judges what comes to it");
    cluster.0.set_policy(&key("default/deny"), None);
    assert!(cluster.allows(B, A, 80));
    assert_eq!(cluster.0.rules.targets().len(), 0);
}

#[test]
fn policies_must_not_take_away_what_another_allows() {
    let mut cluster = Cluster::new();
    cluster.policy("default/deny", json!({"podSelector": {}}));
    let from_b = json!({"from": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": 80}]});
    cluster.policy("default/b", json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [from_b]}));
    assert!(cluster.allows(B, A, 80));
    assert!(!cluster.allows(B, A, 81) && !cluster.allows(C, A, 80) && !cluster.allows(A, B, 80));
    cluster.policy("default/all", json!({"podSelector": {}, "ingress": [{}]}));
    assert!(cluster.allows(C, A, 81) && cluster.allows(A, B, 80));
}

#[test]
fn a_selector_must_not_reach_into_another_namespace_by_itself() {
    let mut cluster = Cluster::new();
    let peers = |cluster: &mut Cluster, peer: Value| {
        cluster.policy(
            "default/p",
            json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"from": [peer]}]}),
        );
        (cluster.allows(A, B, 80), cluster.allows(C, B, 80))
    };
    let app = json!({"matchLabels": {"app": "a"}});
    assert_eq!(peers(&mut cluster, json!({"podSelector": app})), (true, false));
    assert_eq!(peers(&mut cluster, json!({"podSelector": app, "namespaceSelector": {}})), (true, true));
    let blue = json!({"matchLabels": {"team": "blue"}});
    assert_eq!(peers(&mut cluster, json!({"namespaceSelector": blue})), (false, true));
    let other = json!({"matchLabels": {"app": "z"}});
    assert_eq!(peers(&mut cluster, json!({"podSelector": other, "namespaceSelector": blue})), (false, false));
    assert_eq!(peers(&mut cluster, json!({"namespaceSelector": blue})), (false, true));
    cluster.namespace("default", json!({"team": "blue"}));
    assert!(cluster.allows(A, B, 80), "its namespace changed its labels");
    cluster.namespace("other", json!({}));
    assert!(!cluster.allows(C, B, 80));
    cluster.0.set_namespace(&"default".into(), None);
    assert!(!cluster.allows(A, B, 80), "nobody knows its labels");
}

#[test]
fn a_pod_that_changed_must_not_be_taken_for_what_it_was() {
    let mut cluster = Cluster::new();
    let from_a = json!([{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]);
    cluster.policy("default/p", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": from_a}));
    assert!(cluster.allows(A, B, 80));
    cluster.pod("default/a", "n1", "10.244.1.9", json!({"app": "a"}));
    assert!(!cluster.allows(A, B, 80) && cluster.allows("10.244.1.9", B, 80));
    cluster.pod("default/a", "n1", A, json!({"app": "z"}));
    assert!(!cluster.allows(A, B, 80), "no peer any more");
    cluster.pod("default/b", "n1", B, json!({"app": "z"}));
    assert!(cluster.allows(A, B, 80), "selected no more");
    cluster.pod("default/b", "n1", B, json!({"app": "b"}));
    cluster.pod("default/a", "n1", A, json!({"app": "a"}));
    assert!(cluster.allows(A, B, 80));
    let ended = json!({"metadata": {"labels": {"app": "a"}, "uid": "default/a"}, "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Succeeded", "podIPs": [{"ip": A}]}});
    cluster.raw("default/a", ended.clone());
    assert!(!cluster.allows(A, B, 80), "its address may be another's");
    let mut on_host = ended;
    (on_host["status"]["phase"], on_host["spec"]["hostNetwork"]) = ("Running".into(), true.into());
    cluster.raw("default/a", on_host.clone());
    assert!(!cluster.allows(A, B, 80), "a node is no pod");
    on_host["metadata"]["labels"]["app"] = "b".into();
    cluster.raw("default/b", on_host);
    assert!(cluster.allows(C, B, 80) && cluster.allows(C, A, 80), "nor subject to policies");
}

#[test]
fn two_pods_of_one_address_must_not_lose_it_with_the_first() {
    let mut cluster = Cluster::new();
    let from_a = json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "a"}}}]}]);
    cluster.policy("default/p", json!({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": from_a}));
    cluster.pod("other/d", "n2", C, json!({"app": "a"}));
    cluster.0.set_pod(&key("other/c"), None, None);
    assert!(cluster.allows(C, B, 80));
    cluster.0.set_pod(&key("other/d"), None, None);
    assert!(!cluster.allows(C, B, 80));
}

#[test]
fn a_named_port_is_the_destinations_own() {
    let mut cluster = Cluster::new();
    cluster.policy("default/in", json!({"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}));
    assert!(cluster.allows(C, A, 8002) && cluster.allows(C, B, 8003));
    assert!(!cluster.allows(C, A, 8003) && !cluster.allows(C, B, 8002));
    cluster.0.set_policy(&key("default/in"), None);
    let out = |cluster: &mut Cluster, to: Value| {
        let rule = json!({"to": to, "ports": [{"port": "http"}]});
        cluster.policy("default/out", json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"], "egress": [rule]}));
        [(B, 8003), (C, 8002), (B, 8002), (C, 8003)].map(|(to, port)| cluster.allows(A, to, port))
    };
    assert_eq!(out(&mut cluster, json!([])), [true, true, false, false]);
    assert_eq!(out(&mut cluster, json!([{"podSelector": {}}])), [true, false, false, false]);
    assert_eq!(
        out(&mut cluster, json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}])),
        [false, true, false, false]
    );
    assert_eq!(
        out(&mut cluster, json!([{"ipBlock": {"cidr": "10.244.2.0/24"}}])),
        [false, true, false, false]
    );
    assert!(!cluster.allows(A, "10.244.2.9", 8009), "no pod, so no name");
}

#[test]
fn an_exception_must_not_keep_out_whom_another_peer_lets_in() {
    let mut cluster = Cluster::new();
    let block = |except: Value| json!({"ipBlock": {"cidr": "10.244.0.0/16", "except": except}});
    let policy = |cluster: &mut Cluster, peers: Value| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"], "egress": [{"to": peers}]});
        cluster.policy("default/p", spec);
        (cluster.allows(A, B, 80), cluster.allows(A, C, 80))
    };
    assert_eq!(policy(&mut cluster, json!([block(json!([]))])), (true, true));
    assert_eq!(policy(&mut cluster, json!([block(json!(["10.244.1.0/24"]))])), (false, true));
    assert_eq!(
        policy(
            &mut cluster,
            json!([block(json!(["10.244.1.0/24"])), {"ipBlock": {"cidr": "10.244.1.3/32"}}])
        ),
        (true, true)
    );
    assert_eq!(
        policy(&mut cluster, json!([block(json!(["10.244.0.0/16"])), {"podSelector": {}}])),
        (true, false)
    );
}

#[test]
fn a_new_pods_first_packet_must_not_go_unjudged() {
    let mut cluster = Cluster::new();
    cluster.policy("default/deny", json!({"podSelector": {"matchLabels": {"app": "new"}}}));
    let owner = |uid: &str| Owner { pod: key("default/new"), uid: uid.into() };
    assert!(!cluster.0.can_judge(&owner("default/new")));
    assert!(cluster.0.can_judge(&Owner { pod: key("other/new"), uid: "x".into() }), "no policy there");
    cluster.attach(&["10.244.1.9"], "default/new", "default/new");
    assert!(!cluster.allows(C, "10.244.1.9", 80), "held");
    assert!(cluster.allows("10.244.1.9", C, 80), "no policy of that direction");
    cluster.pod("default/new", "n1", "", json!({"app": "open"}));
    assert!(
        cluster.0.can_judge(&owner("default/new")) && cluster.allows(C, "10.244.1.9", 80),
        "it is known, and not selected"
    );
    cluster.pod("default/new", "n1", "", json!({"app": "new"}));
    assert!(!cluster.allows(C, "10.244.1.9", 80), "selected before its status has the address");
    // as a peer, too
    let from_new = json!([{"from": [{"podSelector": {"matchLabels": {"app": "new"}}}]}]);
    cluster.policy("default/p", json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": from_new}));
    assert!(cluster.allows("10.244.1.9", A, 80));
    assert!(!cluster.0.can_judge(&owner("its successor")), "another pod of that name");
}

#[test]
fn an_address_must_not_be_judged_as_its_former_owners() {
    let mut cluster = Cluster::new();
    cluster.policy("default/deny", json!({"podSelector": {"matchLabels": {"app": "a"}}}));
    let from_a = json!([{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]);
    cluster.policy("default/p", json!({"podSelector": {"matchLabels": {"app": "z"}}, "ingress": from_a}));
    cluster.pod("default/z", "n1", "10.244.1.7", json!({"app": "z"}));
    assert!(cluster.allows(A, "10.244.1.7", 80));
    cluster.pod("other/next", "n1", "", json!({}));
    cluster.attach(&[A], "other/next", "other/next");
    assert!(cluster.allows(C, A, 80), "a is on its way out and still says that address");
    assert!(!cluster.allows(A, "10.244.1.7", 80));
    cluster.0.set_pod(&key("default/a"), None, Some("default/a"));
    assert!(cluster.allows(C, A, 80));
    cluster.0.set_pod(&key("other/next"), None, Some("other/next"));
    assert!(cluster.0.attached().is_empty());
    // a pod's next sandbox
    cluster.pod("default/a", "n1", A, json!({"app": "a"}));
    cluster.attach(&[A], "default/a", "default/a");
    cluster.attach(&["10.244.1.8"], "default/a", "default/a");
    assert_eq!(cluster.0.attached().len(), 1);
    assert!(!cluster.allows(C, "10.244.1.8", 80));
    // the end of a predecessor is not its own
    cluster.0.set_pod(&key("default/a"), None, Some("another uid"));
    assert!(!cluster.allows(C, "10.244.1.8", 80));
}

#[test]
fn what_allows_less_is_told_and_what_allows_more_is_not() {
    let mut cluster = Cluster::new();
    cluster.policy(
        "default/deny",
        json!({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress"]}),
    );
    assert_eq!(cluster.0.take_narrowed(), BTreeSet::from([ip(A)]));
    let from = |label: &str| json!([{"from": [{"podSelector": {"matchLabels": {"app": label}}}]}]);
    cluster
        .policy("default/deny", json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": from("b")}));
    assert_eq!(cluster.0.take_narrowed(), BTreeSet::from([ip(A)]), "other lines");
    cluster.pod("default/d", "n1", "10.244.1.5", json!({"app": "b"}));
    assert_eq!(cluster.0.take_narrowed(), BTreeSet::new(), "one more may come in");
    cluster.pod("default/d", "n1", "10.244.1.5", json!({"app": "d"}));
    assert_eq!(cluster.0.take_narrowed(), BTreeSet::from([ip(A)]));
    cluster.0.set_policy(&key("default/deny"), None);
    assert_eq!(cluster.0.take_narrowed(), BTreeSet::new());
}

#[test]
fn what_nobody_uses_must_not_stay() {
    let mut cluster = Cluster::new();
    let rule = json!({"from": [{"podSelector": {}}, {"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"port": 80}, {"port": "http"}]});
    let egress = json!({"to": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "http"}]});
    for name in ["default/p", "default/q"] {
        let types = json!(["Ingress", "Egress"]);
        cluster.policy(
            name,
            json!({"podSelector": {}, "policyTypes": types, "ingress": [rule], "egress": [egress]}),
        );
    }
    let sets = cluster.0.rules.sets().len();
    assert_eq!(sets, 7, "shared by both");
    cluster.policy("default/p", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert_eq!(cluster.0.rules.sets().len(), sets);
    cluster.0.set_policy(&key("default/q"), None);
    assert_eq!(cluster.0.rules.sets().len(), 0);
    cluster.0.set_policy(&key("default/p"), None);
    assert!(cluster.0.rules.chains().is_empty() && cluster.0.by_key.is_empty() && cluster.0.uses.is_empty());
    assert!(cluster.0.selections.is_empty() && cluster.0.sets.is_empty() && cluster.0.wide.is_empty());
    cluster.0.forget_pods();
    assert!(cluster.0.spaces.is_empty() && cluster.0.claims.is_empty());
    assert!(cluster.0.rules.take_difference().is_empty(), "it came and went");
}
