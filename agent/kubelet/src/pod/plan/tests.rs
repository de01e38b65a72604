//! A model runtime: actions are applied to it as the real one would, containers exit as the case says, and plans must
//! converge from any state a crash may leave behind.

use super::*;
use crate::pod::observed::Sandbox;
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    spec["hostNetwork"] = json!(true);
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// The world one pod lives in.
#[derive(Clone, Debug)]
struct World {
    pod: Pod,
    observed: Observed,
    now: i64,
    next_id: u32,
    backoffs: Backoffs,
    terminating: bool,
    record: Record,
    restarting: BTreeSet<String>,
    starts: BTreeMap<String, u32>,
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            pod: pod(spec),
            observed: Observed::default(),
            now: 0,
            next_id: 0,
            backoffs: Backoffs::new(Duration::from_secs(300)),
            terminating: false,
            record: Record::default(),
            restarting: BTreeSet::new(),
            starts: BTreeMap::new(),
        }
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("id{}", self.next_id)
    }

    fn plan(&self) -> Plan {
        let verdict = |c: &Container| (c.id.clone(), Verdict { started: true, ready: true, failed: None });
        plan(&Input {
            pod: &self.pod,
            observed: &self.observed,
            verdicts: &self.observed.containers.iter().map(verdict).collect(),
            hooks_pending: &BTreeSet::new(),
            backoffs: &self.backoffs,
            record: &self.record,
            resize_held: None,
            restarting: &self.restarting,
            restarting_all: false,
            starts: &BTreeMap::new(),
            held: &BTreeMap::new(),
            sandbox_held: None,
            terminating: self.terminating,
            now: at(self.now),
        })
    }

    fn sandbox(&mut self, attempt: u32, ready: bool) -> String {
        let id = self.id();
        let sandbox = Sandbox { id: id.clone(), attempt, ready, created_at: self.now, ips: vec![] };
        self.observed.sandboxes.insert(0, sandbox);
        self.observed.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.attempt));
        id
    }

    fn container(&mut self, sandbox: &str, name: &str, attempt: u32, state: State, exit_code: i32) -> String {
        let id = self.id();
        let hash = crate::pod::container(&self.pod, name).map(|(_, c)| crate::pod::container_hash(&c));
        self.observed.containers.insert(
            0,
            Container {
                id: id.clone(),
                sandbox_id: sandbox.to_owned(),
                name: name.to_owned(),
                attempt,
                state,
                image: String::new(),
                image_id: String::new(),
                created_at: Some(at(self.now)),
                started_at: Some(at(self.now)),
                finished_at: (state == State::Exited).then(|| at(self.now)),
                exit_code,
                reason: String::new(),
                message: String::new(),
                hash: hash.unwrap_or_default(),
                log_path: String::new(),
                annotations: Default::default(),
                user: None,
            },
        );
        self.observed.containers.sort_by_key(|c| std::cmp::Reverse(c.attempt));
        id
    }

    fn exit(&mut self, name: &str, code: i32) {
        let now = at(self.now);
        for container in
            self.observed.containers.iter_mut().filter(|c| c.name == name && c.state == State::Running)
        {
            container.state = State::Exited;
            container.exit_code = code;
            container.finished_at = Some(now);
        }
    }

    fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match action {
                Action::StopContainers(stops) => {
                    let now = at(self.now);
                    self.restarting.extend(stops.iter().filter(|s| s.restart).map(|s| s.id.clone()));
                    for container in &mut self.observed.containers {
                        if stops.iter().any(|s| s.id == container.id) {
                            container.state = State::Exited;
                            container.exit_code = 137;
                            container.finished_at = Some(now);
                        }
                    }
                }
                Action::Resize(updates) => {
                    for (id, name) in updates {
                        let running = |c: &Container| c.id == *id && c.state == State::Running;
                        assert!(self.observed.containers.iter().any(running), "{name} does not run");
                    }
                    self.record.lagging.clear();
                    self.record.lagging_pod = None;
                }
                Action::Reset { id, .. } => self.observed.containers.retain(|c| c.id != *id),
                Action::StopSandbox(id) => {
                    let now = at(self.now);
                    for sandbox in self.observed.sandboxes.iter_mut().filter(|s| s.id == *id) {
                        sandbox.ready = false;
                    }
                    for container in
                        self.observed.containers.iter_mut().filter(|c| c.sandbox_id == *id && c.may_run())
                    {
                        container.state = State::Exited;
                        container.exit_code = 137;
                        container.finished_at = Some(now);
                    }
                }
                Action::RemoveContainer(id) => {
                    assert!(self.observed.containers.iter().any(|c| c.id == *id && !c.may_run()));
                    self.observed.containers.retain(|c| c.id != *id);
                }
                Action::RemoveSandbox(id) => {
                    assert!(
                        !self.observed.containers.iter().any(|c| c.sandbox_id == *id),
                        "sandbox in use removed"
                    );
                    self.observed.sandboxes.retain(|s| s.id != *id);
                }
                Action::CreateSandbox { attempt } => {
                    assert!(!self.observed.sandboxes.iter().any(|s| s.attempt == *attempt), "attempt reused");
                    self.sandbox(*attempt, true);
                }
                Action::Start { name, attempt, ended, .. } => {
                    let sandbox = self.observed.sandbox().unwrap().id.clone();
                    let clash = |c: &Container| c.name == *name && (c.attempt == *attempt || c.may_run());
                    assert!(!self.observed.containers.iter().any(clash), "{name} started twice");
                    self.container(&sandbox, name, *attempt, State::Running, 0);
                    *self.starts.entry(name.clone()).or_default() += 1;
                    if let Some(ended) = ended {
                        self.backoffs.started(name, *ended, at(self.now));
                    }
                }
                Action::StartCreated { id, .. } => {
                    for container in self.observed.containers.iter_mut().filter(|c| c.id == *id) {
                        assert_eq!(container.state, State::Created);
                        container.state = State::Running;
                    }
                }
            }
        }
    }

    /// Plans and applies until nothing is left to do, letting `exits` end what runs; the last plan is returned.
    fn settle(&mut self, exits: &[(&str, i32)]) -> Plan {
        for _ in 0..200 {
            let plan = self.plan();
            if !plan.actions.is_empty() {
                self.apply(&plan);
                continue;
            }
            let running = |w: &Self, name: &str| {
                w.observed.containers.iter().any(|c| c.name == name && c.state == State::Running)
            };
            match exits.iter().find(|(name, _)| running(self, name)) {
                Some((name, code)) => self.exit(name, *code),
                None => return plan,
            }
        }
        panic!("does not converge: {:?}", self.plan());
    }

    fn running(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.state == State::Running)
            .map(|c| c.name.as_str())
            .collect();
        names.sort_unstable();
        names
    }
}

fn full(policy: &str) -> Value {
    json!({"restartPolicy": policy,
        "initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "a"}, {"name": "b"}]})
}

#[test]
fn a_pod_starts_in_order_and_then_rests() {
    let mut world = World::new(full("Always"));
    let order = |w: &World| w.plan().actions;
    assert_eq!(order(&world), [Action::CreateSandbox { attempt: 0 }]);
    let mut started = Vec::new();
    for _ in 0..10 {
        let plan = world.plan();
        for action in &plan.actions {
            if let Action::Start { name, .. } = action {
                started.push(name.clone());
            }
        }
        world.apply(&plan);
        world.exit("i1", 0);
        world.exit("i2", 0);
    }
    assert_eq!(started, ["i1", "side", "i2", "a", "b"]);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn an_init_container_that_fails_ends_a_pod_that_never_restarts() {
    let mut world = World::new(full("Never"));
    let last = world.settle(&[("i1", 1)]);
    assert!(last.finished);
    assert!(world.observed.is_quiet());
    assert_eq!(world.starts.get("a"), None);
}

#[test]
fn an_init_container_that_fails_is_retried_by_the_others() {
    let mut world = World::new(full("OnFailure"));
    let last = world.settle(&[("i1", 1)]);
    assert!(last.backing_off.contains_key("i1"));
    assert!(last.wake_at.is_some());
    assert_eq!(world.starts["i1"], 2, "the first restart is immediate");
}

#[test]
fn policies_decide_what_is_restarted() {
    for (policy, code, starts, finished) in [
        ("Always", 0, 2, false),
        ("Always", 1, 2, false),
        ("OnFailure", 0, 1, true),
        ("OnFailure", 1, 2, false),
        ("Never", 1, 1, true),
    ] {
        let mut world = World::new(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let last = world.settle(&[("a", code)]);
        assert_eq!((world.starts["a"], last.finished), (starts, finished), "{policy} {code}");
        assert_eq!(world.observed.is_quiet(), finished, "{policy} {code}");
    }
}

#[test]
fn sidecars_end_after_the_others_and_in_reverse() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [
        {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    let mut world = World::new(spec);
    world.settle(&[]);
    assert_eq!(world.running(), ["a", "s1", "s2"]);
    world.exit("a", 0);
    let plan = world.plan();
    let Action::StopContainers(stops) = &plan.actions[0] else { panic!("{plan:?}") };
    let mut order: Vec<_> = stops.iter().map(|s| (s.name.as_str(), s.after.join(" "))).collect();
    order.sort();
    assert_eq!(order, [("s1", "a s2".to_owned()), ("s2", "a".to_owned())]);
    assert!(world.settle(&[]).finished);
}

#[test]
fn a_pods_end_must_not_be_asked_of_its_containers_one_after_another() {
    let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}, {"name": "b"}]});
    let mut world = World::new(spec);
    world.settle(&[]);
    world.terminating = true;
    let plan = world.plan();
    let [Action::StopContainers(stops), Action::StopSandbox(_)] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    let waits = |name: &str| stops.iter().find(|s| s.name == name).unwrap().after.join(" ");
    assert_eq!((waits("a"), waits("b"), waits("s")), (String::new(), String::new(), "a b".to_owned()));
}

#[test]
fn a_dead_sandbox_is_replaced_and_restarts_nothing_twice() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.settle(&[]);
    world.observed.sandboxes[0].ready = false;
    world.exit("a", 137);
    world.settle(&[]);
    assert_eq!(world.observed.sandboxes[0].attempt, 1);
    assert_eq!(world.running(), ["a"]);
    assert_eq!(world.observed.latest("a").unwrap().attempt, 1);
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut world = World::new(json!({"containers": [{"name": "a", "image": "x:1"}]}));
    world.settle(&[]);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("x:2".to_owned());
    let plan = world.plan();
    let Action::StopContainers(stops) = &plan.actions[0] else { panic!("{plan:?}") };
    assert_eq!(stops[0].message, "Container a definition changed, will be restarted");
}

#[test]
fn a_created_container_is_started_not_made_again() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    let sandbox = world.sandbox(0, true);
    let id = world.container(&sandbox, "a", 3, State::Created, 0);
    assert_eq!(world.plan().actions, [Action::StartCreated { id, name: "a".to_owned() }]);
}

fn states() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Created), Just(State::Running), Just(State::Exited), Just(State::Unknown)]
}

fn worlds() -> impl Strategy<Value = World> {
    let container = (0usize..3, 0usize..5, states(), 0i32..2);
    let policies = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (
        policies,
        prop::collection::vec(any::<bool>(), 0..3),
        prop::collection::vec(container, 0..8),
        any::<bool>(),
    )
        .prop_map(|(policy, sandboxes, containers, terminating)| {
            let mut world = World::new(full(policy));
            world.terminating = terminating;
            let ids: Vec<String> =
                (0u32..).zip(&sandboxes).map(|(attempt, ready)| world.sandbox(attempt, *ready)).collect();
            let mut tries: BTreeMap<&str, u32> = BTreeMap::new();
            for (sandbox, name, state, code) in containers {
                let Some(sandbox) = ids.get(sandbox) else { continue };
                let name = ["i1", "side", "i2", "a", "b"][name];
                let attempt = tries.entry(name).and_modify(|t| *t += 1).or_default();
                let ready = world.observed.sandboxes.iter().any(|s| s.id == *sandbox && s.ready);
                // Nothing runs in a sandbox that is stopped.
                let state = if ready { state } else { State::Exited };
                world.container(sandbox, name, *attempt, state, code);
            }
            world
        })
}

proptest! {
    /// Whatever is found, plan and apply come to rest; at rest there is one life of the pod or none.
    #[test]
    fn plans_converge(mut world in worlds(), codes in prop::collection::vec(0i32..2, 2)) {
        let last = world.settle(&[("i1", codes[0]), ("i2", codes[1])]);
        prop_assert!(last.actions.is_empty());
        prop_assert!(world.observed.sandboxes.iter().filter(|s| s.ready).count() <= 1);
        for name in ["i1", "side", "i2", "a", "b"] {
            let running = world.running().iter().filter(|n| **n == name).count();
            prop_assert!(running <= 1, "{} runs {} times", name, running);
        }
        if last.finished {
            prop_assert!(world.observed.is_quiet());
        }
        prop_assert_eq!(world.plan().actions, vec![], "a converged state plans nothing");
    }

    /// Termination leaves nothing running, in one round.
    #[test]
    fn termination_is_complete(mut world in worlds()) {
        world.terminating = true;
        let plan = world.plan();
        world.apply(&plan);
        prop_assert!(world.observed.is_quiet());
    }

    /// A container that runs, is right, and is in the pod's sandbox is never stopped while its pod goes on.
    #[test]
    fn what_runs_well_is_left_alone(mut world in worlds()) {
        world.terminating = false;
        let sandbox = world.observed.sandbox().filter(|s| s.ready).map(|s| s.id.clone());
        let plan = world.plan();
        if let (Some(sandbox), false) = (sandbox, plan.finished) {
            for action in &plan.actions {
                if let Action::StopContainers(stops) = action {
                    for stop in stops {
                        let victim = world.observed.containers.iter().find(|c| c.id == stop.id).unwrap();
                        let newest = world.observed.latest_in(&sandbox, &victim.name).unwrap_or(victim);
                        let elsewhere = victim.sandbox_id != sandbox;
                        prop_assert!(elsewhere || newest.id != victim.id || victim.state == State::Unknown);
                    }
                }
            }
        }
    }
}

#[test]
fn an_ephemeral_container_runs_once_beside_whatever_is_there() {
    let mut world = World::new(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "c"}],
        "ephemeralContainers": [{"name": "e", "targetContainerName": "c"}],
    }));
    let sandbox = world.sandbox(0, true);
    let plan = world.plan();
    let started = plan.actions.iter().filter_map(|a| match a {
        Action::Start { name, role, .. } => Some((name.as_str(), *role)),
        _ => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), [("i", Role::Init), ("e", Role::Ephemeral)]);
    world.container(&sandbox, "i", 0, State::Exited, 0);
    world.container(&sandbox, "e", 0, State::Exited, 1);
    assert!(!world.settle(&[]).finished);
    assert_eq!((world.running(), world.starts.get("e")), (vec!["c"], None));
    // it keeps no pod alive
    world.container(&sandbox, "e", 1, State::Running, 0);
    assert!(world.settle(&[("c", 0)]).finished);
    assert!(world.running().is_empty());
}

#[test]
fn granted_resources_are_written_in_place_or_by_a_restart() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let spec = |cpu: &str| {
        json!({"restartPolicy": "OnFailure", "containers": [
            {"name": "a", "resources": resources(cpu)},
            {"name": "b", "resources": resources(cpu), "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]},
            {"name": "c"}]})
    };
    let mut world = World::new(spec("1"));
    world.record.grant(&world.pod, |_| false);
    world.settle(&[]);
    world.pod = pod(spec("2"));
    assert!(world.record.grant(&world.pod, |_| true));
    let plan = world.plan();
    let [Action::StopContainers(stops), Action::Resize(updates)] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((stops[0].message.as_str(), stops[0].restart), ("Container b resize requires restart", true));
    assert_eq!(updates.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    world.settle(&[]);
    assert_eq!((world.running(), world.starts["a"], world.starts["b"]), (vec!["a", "b", "c"], 1, 2));
}

#[test]
fn what_is_killed_to_be_started_again_is_whatever_its_policy_says() {
    let mut world =
        World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "x:1"}]}));
    world.settle(&[]);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("x:2".to_owned());
    world.settle(&[]);
    assert_eq!((world.running(), world.starts["a"]), (vec!["a"], 2));
}

#[test]
fn a_rule_may_start_the_whole_pod_again_in_its_sandbox() {
    let rule = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut world = World::new(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers")}, {"name": "b"}]}));
    world.settle(&[("i", 0)]);
    world.exit("a", 42);
    let plan = world.plan();
    let order: Vec<(&str, bool)> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::Reset { name, runs, .. } => (name.as_str(), *runs),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [("b", true), ("i", false), ("a", false)], "who asked for it goes last");
    world.settle(&[("i", 0)]);
    assert_eq!((world.running(), world.starts["i"], world.starts["b"]), (vec!["a", "b"], 2, 2));
    assert_eq!(world.observed.sandboxes.len(), 1);
    world.exit("a", 1);
    world.exit("b", 0);
    assert!(world.settle(&[]).finished, "other codes are the policy's");
}
