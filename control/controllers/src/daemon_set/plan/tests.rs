use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const HERE: Fit = Fit { run: true, stay: true };
const GONE: Fit = Fit { run: false, stay: false };

fn set(rolling: Value) -> DaemonSet {
    serde_json::from_value(json!({ "metadata": { "name": "ds" }, "spec": { "selector": {}, "template": {},
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } } }))
    .unwrap()
}

fn pod(name: &str, node: &str, hash: &str, phase: &str, ready: bool) -> Arc<Pod> {
    let conditions = if ready { json!([{ "type": "Ready", "status": "True" }]) } else { json!([]) };
    let pod = json!({ "metadata": { "name": name, "uid": name, "labels": { "controller-revision-hash": hash } },
        "spec": { "nodeName": node, "containers": [] }, "status": { "phase": phase, "conditions": conditions } });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|p| p.name_any()).collect()
}

fn view<'a>(set: &'a DaemonSet, nodes: &'a [(String, Fit)], pods: &'a ByNode) -> View<'a> {
    View { set, nodes, pods, hash: "new", now: Timestamp::UNIX_EPOCH }
}

fn nodes(count: usize) -> Vec<(String, Fit)> {
    (0..count).map(|n| (format!("n{n}"), HERE)).collect()
}

#[test]
fn each_eligible_node_gets_one_pod_and_no_other() {
    let set = set(json!({ "maxUnavailable": 1 }));
    let mut nodes = nodes(4);
    nodes[2].1 = GONE;
    let mut waiting = (*pod("waits", "", "new", "Pending", false)).clone();
    waiting.spec = super::super::eligible::template_for(&set, "new", "lost").spec;
    let pods = by_node(&[
        pod("a", "n1", "new", "Running", true),
        pod("b", "n1", "new", "Running", true),
        pod("c", "n2", "new", "Running", true),
        pod("d", "n3", "new", "Failed", false),
        Arc::new(waiting),
    ]);
    let steps = view(&set, &nodes, &pods).manage(|_| false);
    assert_eq!(steps.create, ["n0"]);
    assert_eq!(names(&steps.delete), ["b", "c", "d", "waits"]);
    assert_eq!(steps.ended.len(), 1);
    let steps = view(&set, &nodes, &pods).manage(|node| node == "n3");
    assert_eq!(names(&steps.delete), ["b", "c", "waits"]);
    let counts = view(&set, &nodes, &pods).counts();
    assert_eq!((counts.desired, counts.current, counts.misscheduled, counts.ready), (3, 2, 1, 1));
}

#[test]
fn a_rollout_takes_unavailable_pods_first_and_then_as_many_as_it_may() {
    let nodes = nodes(4);
    let pods = by_node(&[
        pod("a", "n0", "old", "Running", true),
        pod("b", "n1", "old", "Running", false),
        pod("c", "n2", "old", "Running", true),
        pod("d", "n3", "new", "Running", false),
    ]);
    // b and d are missing, b is replaced anyway: more goes only when more than two may be missing
    for (most, gone) in [("50%", &["b"][..]), ("75%", &["b", "a"])] {
        let set = set(json!({ "maxUnavailable": most }));
        let steps = view(&set, &nodes, &pods).roll();
        assert_eq!(
            (names(&steps.delete), steps.create.len()),
            (gone.iter().map(|n| (*n).to_owned()).collect(), 0)
        );
    }
}

#[test]
fn a_second_bad_update_must_not_take_a_pod_that_is_ready() {
    let nodes = nodes(3);
    for unavailable in [json!(1), json!("34%"), json!("30%")] {
        let set = set(json!({ "maxUnavailable": unavailable }));
        let pods = by_node(&[
            pod("bad", "n0", "first", "Running", false),
            pod("b", "n1", "good", "Running", true),
            pod("c", "n2", "good", "Running", true),
        ]);
        let allowed = if unavailable == json!("34%") { vec!["bad", "b"] } else { vec!["bad"] };
        assert_eq!(names(&view(&set, &nodes, &pods).roll().delete), allowed, "{unavailable}: rounded up");
    }
}

#[test]
fn a_leaving_or_missing_pod_must_not_be_joined_by_a_ready_one() {
    let set = set(json!({ "maxUnavailable": 1 }));
    let nodes = nodes(3);
    let mut leaving = (*pod("a", "n0", "old", "Running", true)).clone();
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let others = [pod("b", "n1", "old", "Running", true), pod("c", "n2", "old", "Running", true)];
    assert!(names(&view(&set, &nodes, &by_node(&others)).roll().delete).is_empty());
    let pods = [&others[..], &[Arc::new(leaving)]].concat();
    assert!(names(&view(&set, &nodes, &by_node(&pods)).roll().delete).is_empty());
}

#[test]
fn a_surge_must_not_go_to_a_node_that_takes_no_more_pods() {
    let set = set(json!({ "maxSurge": 1, "maxUnavailable": 0 }));
    let mut nodes = nodes(2);
    nodes[0].1.run = false;
    let old = |ready| pod("a", "n0", "old", "Running", ready);
    let steps = |pods: &[Arc<Pod>]| {
        let steps = view(&set, &nodes, &by_node(pods)).roll();
        (steps.create, names(&steps.delete))
    };
    assert_eq!(steps(&[old(false)]), (vec![], vec!["a".to_owned()]));
    assert_eq!(steps(&[old(true)]), (vec![], vec![]), "the only one available");
    let new = pod("b", "n1", "new", "Running", true);
    assert_eq!(steps(&[old(true), new]), (vec![], vec!["a".to_owned()]));
}

#[test]
fn surging_makes_the_new_pod_first() {
    let set = set(json!({ "maxSurge": 1, "maxUnavailable": 0 }));
    let nodes = nodes(2);
    let old = [pod("a", "n0", "old", "Running", true), pod("b", "n1", "old", "Running", true)];
    let pods = by_node(&old);
    assert_eq!(view(&set, &nodes, &pods).roll().create, ["n0"]);
    let mut with_new = old.to_vec();
    with_new.push(pod("a2", "n0", "new", "Running", false));
    let pods = by_node(&with_new);
    let steps = view(&set, &nodes, &pods).roll();
    assert_eq!((steps.create.len(), steps.delete.len()), (0, 0));
    with_new[2] = pod("a2", "n0", "new", "Running", true);
    let pods = by_node(&with_new);
    let steps = view(&set, &nodes, &pods).roll();
    assert_eq!((steps.create, names(&steps.delete)), (vec!["n1".to_owned()], vec!["a".to_owned()]));
}

proptest! {
    /// Whatever is there, manage and roll converge to one new pod on each eligible node; a rollout never has more nodes without an
    /// available pod than allowed because of what it did.
    #[test]
    fn repeated_plans_converge(
        fits in proptest::collection::vec(any::<bool>(), 1..6),
        there in proptest::collection::vec((0_usize..6, any::<bool>(), any::<bool>(), 0_u8..3), 0..10),
        surge in 0_usize..3,
        unavailable in 0_usize..3,
    ) {
        let set = set(json!({ "maxSurge": surge, "maxUnavailable": unavailable }));
        let nodes: Vec<(String, Fit)> =
            fits.iter().enumerate().map(|(n, run)| (format!("n{n}"), if *run { HERE } else { GONE })).collect();
        let mut pods: Vec<Arc<Pod>> = there.iter().enumerate()
            .filter(|(_, (node, ..))| *node < fits.len())
            .map(|(i, (node, new, ready, phase))| {
                let phase = ["Running", "Failed", "Succeeded"][usize::from(*phase)];
                pod(&format!("p{i}"), &format!("n{node}"), if *new { "new" } else { "old" }, phase, *ready && phase == "Running")
            })
            .collect();
        let mut made = 0;
        for _ in 0..60 {
            let grouped = by_node(&pods);
            let now = view(&set, &nodes, &grouped);
            let mut steps = now.manage(|_| false);
            if steps.create.is_empty() && steps.delete.is_empty() {
                steps = now.roll();
                let allowed = if surge > 0 { 0 } else { unavailable.max(1) };
                let taken = steps.delete.iter().filter(|p| now.available(p)).filter(|p| {
                    // an old pod that is replaced by an available one is no loss
                    !now.on(target(p).unwrap()).iter().any(|o| o.name_any() != p.name_any() && now.available(o))
                });
                prop_assert!(taken.count() <= allowed);
            }
            let settled = pods.iter().all(|p| phase(p) != "Running" || now.available(p));
            if settled && steps.create.is_empty() && steps.delete.is_empty() {
                break;
            }
            let gone = names(&steps.delete);
            pods.retain(|p| !gone.contains(&p.name_any()));
            for node in steps.create {
                made += 1;
                pods.push(pod(&format!("made{made}"), &node, "new", "Running", true));
            }
            // what runs becomes ready
            pods = pods.iter().map(|p| match phase(p) {
                "Running" => pod(&p.name_any(), target(p).unwrap(), &p.labels()["controller-revision-hash"], "Running", true),
                _ => p.clone(),
            }).collect();
        }
        let mut at: Vec<String> = pods.iter().map(|p| target(p).unwrap().to_owned()).collect();
        at.sort();
        let wanted: Vec<String> = nodes.iter().filter(|(_, f)| f.run).map(|(n, _)| n.clone()).collect();
        prop_assert_eq!(at, wanted);
        prop_assert!(pods.iter().all(|p| updated(&set, p, "new")));
    }
}
