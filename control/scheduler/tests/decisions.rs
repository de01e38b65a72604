//! What the pure core decides and says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panic")]

use machinery::binding::Claim;
use proptest::prelude::*;
use scheduler::{
    Attempt, Budget, Class, Cluster, Disk, Grouping, NodeInfo, Pod, attempt, compile_selector, volume_needs,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A node of 4 cores, 8 GiB, 110 pods, in zone `z{n % 2}`, with `change` merged over it.
fn node(n: usize, change: Value) -> NodeInfo {
    let mut node = json!({
        "metadata": {"name": format!("n{n}"), "labels": {
            "kubernetes.io/hostname": format!("n{n}"), "topology.kubernetes.io/zone": format!("z{}", n % 2),
        }},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, change);
    NodeInfo::new(&serde_json::from_value(node).unwrap())
}

fn pod(name: &str, change: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    merge(&mut pod, change);
    Pod::new(&serde_json::from_value(pod).unwrap())
}

fn cpu(amount: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": amount}}}]}})
}

fn merged(mut base: Value, change: Value) -> Value {
    merge(&mut base, change);
    base
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn cluster(nodes: impl IntoIterator<Item = NodeInfo>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(node);
    }
    cluster
}

fn try_on(cluster: &Cluster, pod: &Pod) -> Attempt {
    attempt(&cluster.snapshot(HashMap::new()), pod, 1)
}

fn place(cluster: &mut Cluster, pod: &Pod) -> String {
    match try_on(cluster, pod) {
        Attempt::Placed(node) => {
            cluster.assume(pod, &node);
            node
        }
        Attempt::Failed { error, .. } => panic!("{} does not fit: {error}", pod.name),
    }
}

fn why(cluster: &Cluster, pod: &Pod) -> String {
    match try_on(cluster, pod) {
        Attempt::Placed(node) => panic!("{} was placed on {node}", pod.name),
        Attempt::Failed { error, .. } => error.to_string(),
    }
}

const TAINT: &str = "node-role.kubernetes.io/control-plane";

fn tainted() -> Value {
    json!({"spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}})
}

#[test]
fn the_message_is_upstreams() {
    let mut c = cluster([node(0, json!({})), node(1, tainted())]);
    place(&mut c, &pod("first", cpu("3")));
    assert_eq!(
        why(&c, &pod("p", cpu("2"))),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). no new claims to \
         deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
         1 Preemption is not helpful for scheduling."
    );
    assert_eq!(why(&cluster([]), &pod("p", json!({}))), "no nodes available to schedule pods");
}

#[test]
fn each_filter_says_its_own() {
    let claim = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    let terms = |key: &str| {
        json!({"spec": {"affinity": {key: {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "b"}}}]}}}})
    };
    let spread = |key: &str| {
        json!({"spec": {"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2,
             "labelSelector": {"matchLabels": {"app": "b"}}}]}, "metadata": {"labels": {"app": "b"}}})
    };
    let port = json!({"spec": {"containers": [
        {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]}]}});
    let named = json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}]}}}}});
    let big = json!({"spec": {"containers": [{"name": "c", "resources": {"requests":
        {"cpu": "5", "memory": "9Gi", "example.com/gpu": "1"}}}]}});
    let mut there = pod("there", port.clone());
    there.labels.insert("app".into(), "b".into());
    let mut hates = pod("hates", terms("podAntiAffinity"));
    hates.labels.insert("app".into(), "c".into());
    for (what, on_node, present, pod, reason) in [
        (
            "cordon",
            json!({"spec": {"unschedulable": true}}),
            None,
            pod("p", json!({})),
            "node(s) were unschedulable",
        ),
        (
            "selector",
            json!({}),
            None,
            pod("p", json!({"spec": {"nodeSelector": {"a": "b"}}})),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        ("named", json!({}), None, pod("p", named), "node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        (
            "port",
            json!({}),
            Some(there.clone()),
            pod("p", port),
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (
            "affinity",
            json!({}),
            None,
            pod("p", terms("podAffinity")),
            "node(s) didn't match pod affinity rules",
        ),
        (
            "anti",
            json!({}),
            Some(there.clone()),
            pod("p", terms("podAntiAffinity")),
            "node(s) didn't match pod anti-affinity rules",
        ),
        (
            "existing anti",
            json!({}),
            Some(hates),
            pod("p", json!({"metadata": {"labels": {"app": "b"}}})),
            "node(s) didn't satisfy existing pods anti-affinity rules",
        ),
        (
            "spread",
            json!({}),
            Some(there),
            pod("p", spread("kubernetes.io/hostname")),
            "node(s) didn't match pod topology spread constraints",
        ),
        (
            "no label",
            json!({}),
            None,
            pod("p", spread("rack")),
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
        (
            "full",
            json!({"status": {"allocatable": {"pods": "0"}}}),
            None,
            pod("p", json!({})),
            "Too many pods",
        ),
        (
            "big",
            json!({}),
            None,
            pod("p", big),
            "Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory",
        ),
        ("claim", json!({}), None, pod("p", claim), "persistentvolumeclaim \"data\" not found"),
    ] {
        let mut c = cluster([node(0, on_node)]);
        if let Some(present) = present {
            c.assume(&present, "n0");
        }
        let message = why(&c, &pod);
        let count = if what == "claim" { "" } else { "1 " };
        let want =
            format!("0/1 nodes are available: {count}{reason}. no new claims to deallocate, preemption: ");
        assert!(message.starts_with(&want), "{what}: {message}");
    }
}

#[test]
fn claims_and_their_volumes_decide() {
    let p = pod(
        "p",
        json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
    );
    let mut c = cluster([node(0, json!({})), node(1, json!({}))]);
    set_claim(&mut c, json!({"metadata": {"name": "data", "namespace": "ns"}}));
    assert!(why(&c, &p).contains(": pod has unbound immediate PersistentVolumeClaims. "));
    set_claim(
        &mut c,
        json!({"metadata": {"name": "data", "namespace": "ns", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv"}}),
    );
    assert!(why(&c, &p).contains("bound to non-existent pv(s)"));
    set_disk(&mut c, "pv", "n1", "1Gi");
    assert_eq!(place(&mut c, &p), "n1");
}

fn set_claim(c: &mut Cluster, claim: Value) {
    let claim = Claim::new(&claim);
    Arc::make_mut(&mut c.rest.storage.claims).insert(claim.key(), Arc::new(claim));
}

/// A free volume of class `late` that one node reaches.
fn set_disk(c: &mut Cluster, name: &str, node: &str, size: &str) {
    let volume = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "storageClassName": "late",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}},
        "status": {"phase": "Available"},
    }));
    let disk = Disk::new(&volume.unwrap()).unwrap();
    Arc::make_mut(&mut c.rest.storage.volumes).insert(name.to_owned(), Arc::new(disk));
}

#[test]
fn late_claims_go_where_a_volume_is_and_take_it_from_the_next_pod() {
    let wants = |name: &str, claims: &[&str]| {
        let volumes: Vec<Value> = claims
            .iter()
            .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        pod(name, json!({"spec": {"volumes": volumes}}))
    };
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"storageClassName": "late",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    let mut c = cluster([node(0, json!({})), node(1, json!({})), node(2, json!({}))]);
    let class = Class { late: true, provisioner: "kubernetes.io/no-provisioner".into(), ..Class::default() };
    Arc::make_mut(&mut c.rest.storage.classes).insert("late".to_owned(), class);
    for name in ["a", "b", "c"] {
        set_claim(&mut c, claim(name, "1Gi"));
    }
    set_claim(&mut c, claim("big", "5Gi"));
    set_disk(&mut c, "one", "n1", "1Gi");
    set_disk(&mut c, "two", "n2", "9Gi");
    set_disk(&mut c, "three", "n2", "2Gi");
    let needs = |c: &Cluster, p: &Pod, node: &str| {
        let snapshot = c.snapshot(HashMap::new());
        volume_needs(&snapshot, p, node)
    };
    // The small claim must not take the big claim's volume.
    let p = wants("p", &["big", "a"]);
    assert_eq!(place(&mut c, &p), "n2");
    let found = needs(&c, &p, "n2");
    let pairs: Vec<_> = found.bind.iter().map(|(d, c)| (c.name.as_str(), d.volume.name.as_str())).collect();
    assert_eq!(pairs, [("a", "three"), ("big", "two")]);
    c.rest.storage.assume(&found, "n2");
    assert_eq!(place(&mut c, &wants("q", &["b"])), "n1");
    let of_q = needs(&c, &wants("q", &["b"]), "n1");
    assert!(c.rest.storage.holds(&of_q));
    c.rest.storage.assume(&of_q, "n1");
    assert!(!c.rest.storage.holds(&of_q), "what one pod counts on must not be given to another");
    let none = "3 node(s) didn't find available persistent volumes to bind";
    assert!(why(&c, &wants("r", &["c"])).contains(none));
    c.rest.storage.forget(&of_q);
    assert_eq!(place(&mut c, &wants("r", &["c"])), "n1", "what was taken back can be used again");
    // With a provisioner a claim is made for whichever node, then only for that one.
    let class = Class { late: true, provisioner: "example.com/p".into(), ..Class::default() };
    Arc::make_mut(&mut c.rest.storage.classes).insert("late".to_owned(), class);
    set_claim(&mut c, claim("d", "100Gi"));
    let s = wants("s", &["d"]);
    let found = needs(&c, &s, "n0");
    assert_eq!(found.provision.len(), 1);
    assert!(c.rest.storage.holds(&found));
    c.rest.storage.assume(&found, "n0");
    assert_eq!(place(&mut c, &s), "n0");
}

#[test]
fn a_claim_for_one_pod_is_for_one_pod() {
    let p = |name: &str| {
        pod(
            name,
            json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
        )
    };
    let mut c = cluster([node(0, json!({})), node(1, json!({}))]);
    set_disk(&mut c, "pv", "n1", "1Gi");
    set_claim(
        &mut c,
        json!({"metadata": {"name": "data", "namespace": "ns", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}}),
    );
    let first = p("first");
    assert_eq!(place(&mut c, &first), "n1");
    assert!(why(&c, &p("second")).contains("ReadWriteOncePod access mode already in-use by another pod"));
}

#[test]
fn volumes_stay_in_their_zone() {
    let zoned = |n: usize, zone: &str| {
        node(n, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
    };
    let mut c = cluster([zoned(0, "a"), zoned(1, "b")]);
    let volume = serde_json::from_value(json!({
        "metadata": {"name": "pv", "labels": {"failure-domain.beta.kubernetes.io/zone": "b__c"}}, "spec": {}}));
    let disk = Disk::new(&volume.unwrap()).unwrap();
    Arc::make_mut(&mut c.rest.storage.volumes).insert("pv".to_owned(), Arc::new(disk));
    set_claim(
        &mut c,
        json!({"metadata": {"name": "data", "namespace": "ns", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv"}}),
    );
    let p = pod(
        "p",
        json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
    );
    assert_eq!(place(&mut c, &p), "n1");
}

#[test]
fn a_group_that_wants_its_own_kind_starts_somewhere_and_stays_together() {
    let own = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "a"}}}]}}}});
    let mut c = cluster((0..6).map(|n| node(n, json!({}))));
    let zone = |n: String| n[1..].parse::<usize>().unwrap() % 2;
    let first = zone(place(&mut c, &pod("p0", own.clone())));
    for n in 1..9 {
        assert_eq!(zone(place(&mut c, &pod(&format!("p{n}"), own.clone()))), first);
    }
}

#[test]
fn preferences_decide_between_equals() {
    let mut c = cluster((0..4).map(|n| node(n, json!({}))));
    let prefers = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}}]}}}});
    assert_eq!(place(&mut c, &pod("p", prefers)), "n2");
    let mut soft = cluster([
        node(0, json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}})),
        node(1, json!({})),
    ]);
    assert_eq!(place(&mut soft, &pod("p", json!({}))), "n1");
    let image = json!({"status": {"images": [{"names": ["i:latest"], "sizeBytes": 900_000_000}]}});
    assert_eq!(place(&mut cluster([node(0, json!({})), node(1, image)]), &pod("p", json!({}))), "n1");
}

#[test]
fn the_cheapest_victims_leave_and_their_budgets_count() {
    let with = |name: &str, priority: i32, cores: &str| {
        let mut p = pod(name, cpu(cores));
        p.priority = priority;
        p
    };
    let mut c = cluster([node(0, json!({})), node(1, json!({})), node(2, tainted())]);
    for (name, priority, cores, node) in
        [("a", 5, "2", "n0"), ("b", 1, "2", "n0"), ("c", 5, "2", "n1"), ("d", 3, "2", "n1")]
    {
        c.assume(&with(name, priority, cores), node);
    }
    let urgent = with("urgent", 10, "2");
    let Attempt::Failed { error, nominate, victims } = try_on(&c, &urgent) else { panic!("it fits") };
    assert_eq!(nominate.as_deref(), Some("n0"));
    assert_eq!(victims.iter().map(|v| &*v.name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        error.to_string(),
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu."
    );
    // A budget that allows no disruption on n0 makes the other node cheaper.
    let selector =
        compile_selector(Some(&serde_json::from_value(json!({"matchLabels": {"app": "kept"}})).unwrap()));
    let budget = Budget { namespace: "ns".into(), selector, allowed: 0, disrupted: Vec::new() };
    Arc::make_mut(&mut c.rest.budgets).insert("ns/b".to_owned(), budget);
    for (name, priority) in [("a", 5), ("b", 1)] {
        let mut kept = with(name, priority, "2");
        kept.labels.insert("app".into(), "kept".into());
        c.assume(&kept, "n0");
    }
    let Attempt::Failed { nominate, victims, .. } = try_on(&c, &urgent) else { panic!("it fits") };
    assert_eq!((nominate.as_deref(), &*victims[0].name), (Some("n1"), "d"));
    let never = Pod { never_preempts: true, ..urgent };
    assert!(why(&c, &never).ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[test]
fn a_nominated_pod_keeps_its_place() {
    let c = cluster([node(0, json!({}))]);
    let waiting = Arc::new(Pod { priority: 9, nominated: Some("n0".into()), ..pod("w", cpu("3")) });
    let snapshot = c.snapshot(HashMap::from([("n0".to_owned(), vec![waiting.clone()])]));
    assert!(matches!(attempt(&snapshot, &pod("p", cpu("2")), 1), Attempt::Failed { .. }));
    assert!(matches!(attempt(&snapshot, &waiting, 1), Attempt::Placed(_)));
}

#[test]
fn a_pod_goes_where_room_was_made_and_waits_only_for_that() {
    let mut two = cluster([node(1, json!({})), node(2, json!({}))]);
    let low = pod("low", merged(cpu("4"), json!({"spec": {"priority": 1, "nodeName": "n1"}})));
    two.set_pod(Arc::new(low.clone()));
    let mut high = pod(
        "high",
        merged(cpu("1"), json!({"spec": {"priority": 9}, "status": {"nominatedNodeName": "n2"}})),
    );
    for round in 0..20 {
        let found = attempt(&two.snapshot(HashMap::new()), &high, round);
        assert!(matches!(found, Attempt::Placed(node) if node == "n2"));
    }
    // a victim that leaves for another reason does not keep the pod from making room
    let mut one = cluster([node(1, json!({}))]);
    let going = Pod { terminating: true, ..low };
    one.set_pod(Arc::new(going.clone()));
    high.nominated = Some("n1".to_owned());
    high.requests.milli_cpu = 2000;
    assert!(matches!(try_on(&one, &high), Attempt::Failed { nominate: Some(_), .. }));
    one.set_pod(Arc::new(Pod { preempted: true, ..going }));
    let text = why(&one, &high);
    assert!(text.ends_with("not eligible due to a terminating pod on the nominated node."), "{text}");
}

#[test]
fn replicas_spread_over_hosts_by_default() {
    // One node is so large that it stays the emptiest whatever is put on it.
    let large = json!({"status": {"allocatable": {"cpu": "400", "memory": "800Gi"}}});
    let nodes = || (0..7).map(|n| node(n, if n == 0 { large.clone() } else { json!({}) }));
    let mut owned = cpu("500m");
    merge(
        &mut owned,
        json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true}]}}),
    );
    let on_large = |mut c: Cluster| {
        let replicas = (0..21).map(|n| place(&mut c, &pod(&format!("p{n}"), owned.clone())));
        replicas.filter(|node| node == "n0").count()
    };
    assert!(on_large(cluster(nodes())) >= 12, "the large node is not the emptiest");
    let mut c = cluster(nodes());
    let selector = serde_json::from_value(json!({"matchLabels": {"app": "a"}})).unwrap();
    let grouping = Grouping {
        kind: "ReplicaSet",
        namespace: "ns".into(),
        name: "rs".into(),
        selector: compile_selector(Some(&selector)),
    };
    Arc::make_mut(&mut c.rest.groupings).insert(("ReplicaSet", "ns/rs".to_owned()), grouping);
    let spread = on_large(c);
    assert!(spread <= 6, "{spread} of 21 replicas on one of seven nodes");
}

#[derive(Clone, Debug)]
struct Shape {
    cpu: i64,
    memory: i64,
    tolerates: bool,
    priority: i32,
    spreads: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..1500i64, 0..3000i64, any::<bool>(), 0..4i32, any::<bool>()).prop_map(
        |(cpu, memory, tolerates, priority, spreads)| Shape { cpu, memory, tolerates, priority, spreads },
    )
}

fn shaped(n: usize, s: &Shape) -> Pod {
    let mut change = json!({"spec": {"priority": s.priority, "containers": [{"name": "c", "resources": {"requests":
        {"cpu": format!("{}m", s.cpu), "memory": format!("{}Mi", s.memory)}}}]}});
    if s.tolerates {
        merge(&mut change, json!({"spec": {"tolerations": [{"key": TAINT, "operator": "Exists"}]}}));
    }
    if s.spreads {
        merge(
            &mut change,
            json!({"metadata": {"labels": {"app": "spread"}}, "spec": {"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchLabels": {"app": "spread"}}}]}}),
        );
    }
    pod(&format!("p{n}"), change)
}

/// What a node has left, by a sum of its own.
fn left(node: &NodeInfo) -> (i64, i64, i64) {
    let sum = |f: fn(&Pod) -> i64| node.pods.iter().map(|p| f(p)).sum::<i64>();
    (
        node.allocatable.milli_cpu - sum(|p| p.requests.milli_cpu),
        node.allocatable.memory - sum(|p| p.requests.memory),
        node.max_pods - node.pods.len() as i64,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_overcommitted_and_no_taint_or_skew_ignored(
        taints in prop::collection::vec(any::<bool>(), 2..7),
        shapes in prop::collection::vec(shape(), 1..60),
    ) {
        let change = |t: bool| {
            let mut change = if t { tainted() } else { json!({}) };
            merge(&mut change, json!({"status": {"allocatable": {"pods": "9"}}}));
            change
        };
        let mut c = cluster(taints.iter().enumerate().map(|(n, &t)| node(n, change(t))));
        for (n, shape) in shapes.iter().enumerate() {
            let pod = shaped(n, shape);
            let before = c.snapshot(HashMap::new());
            match attempt(&before, &pod, n as u64) {
                Attempt::Placed(name) => {
                    drop(before);
                    c.assume(&pod, &name);
                    let after = c.snapshot(HashMap::new());
                    let node = after.nodes.iter().find(|n| n.name == name).unwrap();
                    let (cpu, memory, pods) = left(node);
                    prop_assert!(cpu >= 0 && memory >= 0 && pods >= 0, "{name} is overcommitted");
                    prop_assert!(shape.tolerates || node.taints.is_empty());
                    if shape.spreads {
                        let mut zones: BTreeMap<&str, i64> = BTreeMap::new();
                        for n in &after.nodes {
                            let spread = n.pods.iter().filter(|p| p.labels["app"] == "spread").count();
                            *zones.entry(&n.labels["topology.kubernetes.io/zone"]).or_default() += spread as i64;
                        }
                        let own = zones[&*node.labels["topology.kubernetes.io/zone"]];
                        prop_assert!(own - zones.values().min().unwrap() <= 1, "skewed: {zones:?}");
                    }
                }
                Attempt::Failed { nominate, victims, .. } => {
                    let fits = |n: &NodeInfo| {
                        let (cpu, memory, pods) = left(n);
                        // A request of nothing fits a full node, but for the count of pods.
                        (shape.cpu == 0 || cpu >= shape.cpu)
                            && (shape.memory == 0 || memory >= shape.memory << 20)
                            && pods >= 1
                            && (shape.tolerates || n.taints.is_empty())
                    };
                    if !shape.spreads {
                        prop_assert!(!before.nodes.iter().any(|n| fits(n)), "a node had room");
                    }
                    if let Some(name) = nominate {
                        // With the victims gone it fits, and each of them had to go.
                        prop_assert!(!victims.is_empty());
                        prop_assert!(victims.iter().all(|v| v.priority < pod.priority));
                        let mut node = (**before.nodes.iter().find(|n| n.name == name).unwrap()).clone();
                        victims.iter().for_each(|v| drop(node.remove(&v.uid)));
                        prop_assert!(fits(&node));
                        for v in victims.iter().filter(|v| !shape.spreads && v.labels["app"] == "a") {
                            let mut with = node.clone();
                            with.add(v.clone());
                            prop_assert!(!fits(&with), "{} left for nothing", v.name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_pods_whatever_comes_and_goes(
        ops in prop::collection::vec((0..12usize, 0..4usize, any::<bool>(), shape()), 1..80)
    ) {
        let mut c = cluster((0..3).map(|n| node(n, json!({}))));
        for (n, on, add, shape) in ops {
            let pod = Pod { node: Some(format!("n{on}")), ..shaped(n, &shape) };
            let _ = if add { c.set_pod(Arc::new(pod)) } else { c.remove_pod(&pod.uid) };
            for node in &c.snapshot(HashMap::new()).nodes {
                let (cpu, memory, _) = left(node);
                prop_assert_eq!(cpu, node.allocatable.milli_cpu - node.requested.milli_cpu);
                prop_assert_eq!(memory, node.allocatable.memory - node.requested.memory);
            }
        }
    }
}
