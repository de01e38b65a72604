use super::*;
use crate::pod::observed::Sandbox;
use serde_json::{Value, json};

struct Case {
    pod: Pod,
    observed: Observed,
    verdicts: BTreeMap<String, Verdict>,
    waiting: BTreeMap<String, Waiting>,
    previous: PodStatus,
    outcome: Option<Outcome>,
    finished: bool,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000).unwrap()
}

impl Case {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "generation": 4});
        let sandbox =
            Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: 1, ips: vec!["10.1.0.2".into()] };
        Self {
            pod: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            observed: Observed { sandboxes: vec![sandbox], containers: vec![] },
            verdicts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            previous: PodStatus::default(),
            outcome: None,
            finished: false,
        }
    }

    fn with(mut self, name: &str, attempt: u32, state: State, exit_code: i32) -> Self {
        let id = format!("{name}{attempt}");
        self.verdicts.insert(id.clone(), Verdict { started: true, ready: true, failed: None });
        self.observed.containers.insert(
            0,
            Container {
                id,
                sandbox_id: "s".into(),
                name: name.into(),
                attempt,
                state,
                image: format!("{name}:1"),
                image_id: "sha256:1".into(),
                created_at: Some(now()),
                started_at: Some(now()),
                finished_at: (state == State::Exited).then(now),
                exit_code,
                reason: String::new(),
                message: String::new(),
                hash: String::new(),
                log_path: String::new(),
                annotations: Default::default(),
                user: None,
            },
        );
        self
    }

    fn wait(mut self, name: &str, reason: &str) -> Self {
        self.waiting.insert(name.into(), Waiting { reason: reason.into(), message: String::new() });
        self
    }

    fn status(&self) -> PodStatus {
        compute(&Input {
            pod: &self.pod,
            observed: &self.observed,
            verdicts: &self.verdicts,
            hooks_pending: &BTreeSet::new(),
            waiting: &self.waiting,
            previous: &self.previous,
            running: &self.pod,
            pending: None,
            progress: None,
            host_ips: &["10.0.0.1".to_owned()],
            runtime_name: "containerd",
            recursive: false,
            outcome: self.outcome.as_ref(),
            finished: self.finished,
            now: now(),
        })
    }
}

fn two(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]})
}

fn is(status: &PodStatus, kind: &str) -> String {
    let found = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap();
    format!(
        "{} {} {}",
        found.status,
        found.reason.clone().unwrap_or_default(),
        found.message.clone().unwrap_or_default()
    )
    .trim()
    .to_owned()
}

#[test]
fn phases() {
    use State::{Exited, Running};
    let phase = |case: Case| case.status().phase.unwrap();
    assert_eq!(phase(Case::new(two("Always"))), "Pending");
    assert_eq!(phase(Case::new(two("Always")).with("a", 0, Running, 0)), "Pending", "b was never made");
    assert_eq!(phase(Case::new(two("Always")).with("a", 0, Running, 0).with("b", 0, Running, 0)), "Running");
    let crashed = Case::new(two("Always")).with("a", 0, Exited, 1).with("b", 0, Exited, 1);
    assert_eq!(phase(crashed.wait("a", "CrashLoopBackOff")), "Running");
    for (policy, codes, want) in [
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
    ] {
        let case = Case::new(two(policy)).with("a", 0, Exited, codes.0).with("b", 0, Exited, codes.1);
        assert_eq!(phase(case), want, "{policy} {codes:?}");
    }
}

#[test]
fn a_pod_must_not_be_over_while_a_sidecar_still_runs() {
    use State::{Exited, Running};
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}],
        "initContainers": [{"name": "side", "image": "s:1", "restartPolicy": "Always"}]});
    let mut case = Case::new(spec).with("side", 0, Running, 0).with("a", 0, Exited, 0);
    case.previous.phase = Some("Running".into());
    case.finished = true;
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(is(&status, "Ready"), "False PodCompleted");
    case.observed.containers.iter_mut().for_each(|c| c.state = Exited);
    assert_eq!(case.status().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn a_pod_past_its_deadline_must_not_be_over_while_its_containers_run() {
    let mut case = Case::new(two("Never")).with("a", 0, State::Running, 0).with("b", 0, State::Exited, 0);
    case.previous.phase = Some("Running".into());
    case.previous.start_time = Some(Time(now()));
    case.outcome = Some(Outcome { reason: "DeadlineExceeded".into(), message: "late".into() });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason), (Some("Running"), None));
    case.observed.containers.iter_mut().for_each(|c| c.state = State::Exited);
    let status = case.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn containers_of_a_refused_pod_must_not_hide_why() {
    let mut case = Case::new(two("Always"));
    case.observed.sandboxes.clear();
    case.previous.phase = Some("Pending".into());
    case.outcome = Some(Outcome { reason: "OutOfcpu".into(), message: "Pod was rejected: x".into() });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert!(status.container_statuses.is_none() && status.conditions.is_none(), "{status:?}");
    assert!(status.start_time.is_some() && status.host_ip.is_none());
    // nor after a restart, when nobody knows of the refusal any more
    (case.previous, case.outcome) = (status.clone(), None);
    assert_eq!(case.status(), status);
}

#[test]
fn an_eviction_of_a_pod_that_waited_keeps_its_containers() {
    let mut case = Case::new(two("Always"));
    case.previous = case.status();
    case.outcome = Some(Outcome { reason: "Evicted".into(), message: "full".into() });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(status.container_statuses.unwrap().len(), 2);
}

#[test]
fn a_terminal_phase_is_never_left() {
    let mut case = Case::new(two("Always")).with("a", 0, State::Running, 0).with("b", 0, State::Running, 0);
    case.previous.phase = Some("Failed".into());
    assert_eq!(case.status().phase.as_deref(), Some("Failed"));
}

#[test]
fn a_pod_stopped_from_outside_ends_by_its_exit_codes() {
    for (code, want) in [(0, "Succeeded"), (137, "Failed")] {
        let mut case =
            Case::new(two("Always")).with("a", 0, State::Exited, code).with("b", 0, State::Exited, 0);
        case.finished = true;
        assert_eq!(case.status().phase.as_deref(), Some(want));
    }
    let mut case = Case::new(two("Always"));
    case.outcome = Some(Outcome { reason: "OutOfcpu".into(), message: "m".into() });
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
}

#[test]
fn a_running_pod_reads_as_upstreams() {
    let status =
        Case::new(two("Always")).with("a", 2, State::Running, 0).with("b", 0, State::Running, 0).status();
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(is(&status, kind), "True", "{kind}");
    }
    let a = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(a.container_id.as_deref(), Some("containerd://a2"));
    assert_eq!((a.restart_count, a.ready, a.started), (2, true, Some(true)));
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_crash_loop_shows_its_last_end() {
    let case = Case::new(two("Always")).with("a", 3, State::Exited, 7).with("b", 0, State::Running, 0);
    let status = case.wait("a", "CrashLoopBackOff").status();
    let a = &status.container_statuses.as_ref().unwrap()[0];
    let reason = a.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref();
    assert_eq!(reason, Some("CrashLoopBackOff"));
    let last = a.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (7, Some("Error")));
    assert_eq!(is(&status, "Ready"), "False ContainersNotReady containers with unready status: [a]");
}

#[test]
fn init_containers_hold_the_pod_back() {
    let spec = json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a", "image": "a:1"}]});
    let status = Case::new(spec.clone()).with("i", 0, State::Running, 0).status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        is(&status, "Initialized"),
        "False ContainersNotInitialized containers with incomplete status: [i]"
    );
    let waiting = |status: &PodStatus| {
        let a = &status.container_statuses.as_ref().unwrap()[0];
        a.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.clone().unwrap()
    };
    assert_eq!(waiting(&status), "PodInitializing");
    assert_eq!(waiting(&Case::new(two("Always")).status()), "ContainerCreating");
    let mut never = spec;
    never["restartPolicy"] = json!("Never");
    let failed = Case::new(never).with("i", 0, State::Exited, 1).status();
    assert_eq!(failed.phase.as_deref(), Some("Failed"));
}

#[test]
fn nothing_goes_backwards_when_the_runtime_forgets() {
    let mut case = Case::new(two("Always")).with("a", 5, State::Running, 0).with("b", 1, State::Running, 0);
    case.previous = case.status();
    case.observed.containers.retain(|c| c.name == "b");
    let status = case.status();
    let a = &status.container_statuses.as_ref().unwrap()[0];
    // What was running and is gone is started again: that counts.
    assert_eq!(a.restart_count, 6);
    let last = a.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
}

fn first(status: &PodStatus) -> ContainerStatus {
    status.container_statuses.as_ref().unwrap()[0].clone()
}

#[test]
fn a_restart_of_all_containers_must_not_read_as_containers_that_were_never_made() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let container = |name: &str| json!({"name": name, "image": "a:1", "restartPolicy": "Never", "restartPolicyRules": rules});
    let spec = json!({"restartPolicy": "Never", "containers": [container("a"), container("b")],
        "initContainers": [{"name": "i", "image": "i:1"}]});
    let mut case = Case::new(spec).with("i", 0, State::Exited, 0).with("a", 0, State::Running, 0).with(
        "b",
        0,
        State::Exited,
        42,
    );
    case.previous = case.status();
    assert_eq!(is(&case.previous, "AllContainersRestarting").split(' ').next(), Some("True"));
    case.observed.containers.clear();
    let status = case.status();
    let init = status.init_container_statuses.as_ref().unwrap()[0].clone();
    for container in [init, first(&status)] {
        let waiting = container.state.unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("RestartingAllContainers"));
        let text = "The container is removed because RestartAllContainers in place";
        assert_eq!(waiting.message.as_deref(), Some(text));
        let last = container.last_state.unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("RestartingAllContainers")));
        assert_eq!((last.message.as_deref(), container.restart_count), (Some(text), 1));
    }
    // though no policy would start them again
    assert_eq!(status.phase.as_deref(), Some("Running"));
    case.previous = status;
    assert_eq!(first(&case.status()).restart_count, 1, "it is counted once");
}

#[test]
fn an_init_container_the_runtime_lost_must_not_wait_in_a_pod_that_runs() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    let case = Case::new(spec).with("a", 0, State::Running, 0);
    let init = case.status().init_container_statuses.unwrap();
    let lost = init[0].state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((lost.exit_code, lost.reason.as_deref(), init[0].ready), (0, Some("Completed"), true));
    assert!(init[1].state.as_ref().unwrap().waiting.is_some(), "a sidecar comes again");
}

#[test]
fn a_container_that_ended_must_not_be_told_to_be_made_when_the_runtime_lost_it() {
    let mut case = Case::new(two("Never")).with("a", 0, State::Exited, 3).with("b", 0, State::Running, 0);
    case.previous = case.status();
    case.observed.containers.retain(|c| c.name == "b");
    let ended = first(&case.status()).state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 3);
    let case = case.wait("a", "ErrImagePull");
    let a = first(&case.status());
    assert_eq!(a.state.unwrap().waiting.unwrap().reason.as_deref(), Some("ErrImagePull"));
    assert_eq!(a.last_state.unwrap().terminated.unwrap().exit_code, 3);
}

#[test]
fn mounts_and_users_must_not_be_left_out() {
    let mount = |name: &str, more: Value| {
        let mut mount = json!({"name": name, "mountPath": format!("/{name}")});
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mount
    };
    let spec = json!({"containers": [{"name": "a", "volumeMounts": [
        mount("w", json!({})), mount("r", json!({"readOnly": true})),
        mount("p", json!({"readOnly": true, "recursiveReadOnly": "IfPossible"}))]}]});
    let case = Case::new(spec);
    let told = |case: &Case| serde_json::to_value(first(&case.status()).volume_mounts).unwrap();
    let want = json!([{"name": "w", "mountPath": "/w"},
        {"name": "r", "mountPath": "/r", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "p", "mountPath": "/p", "readOnly": true, "recursiveReadOnly": "Disabled"}]);
    assert_eq!(told(&case), want, "from the first status on");
    let mut case = case.with("a", 0, State::Running, 0);
    assert_eq!(told(&case), want);
    let user = crate::pod::observed::User { uid: 7, gid: 8, groups: vec![8, 9] };
    case.observed.containers[0].user = Some(user);
    let user = serde_json::to_value(first(&case.status()).user).unwrap();
    assert_eq!(user, json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [8, 9]}}));
}

#[test]
fn the_last_words_of_many_containers_must_not_be_longer_than_a_pods() {
    let mut case = Case::new(two("Never")).with("a", 0, State::Exited, 1).with("b", 0, State::Exited, 1);
    case.observed.containers.iter_mut().for_each(|c| c.message = "ü".repeat(4000));
    let words = first(&case.status()).state.unwrap().terminated.unwrap().message.unwrap();
    assert_eq!(words.len(), 6144);
    case.observed.containers.iter_mut().for_each(|c| c.message = "x".to_owned() + &"ü".repeat(4000));
    let words = first(&case.status()).state.unwrap().terminated.unwrap().message.unwrap();
    assert_eq!(words.len(), 6143, "no letter is cut in two");
}

#[test]
fn transition_times_move_only_with_the_condition() {
    let mut case = Case::new(two("Always"));
    let mut before = case.status();
    let past = Time(Timestamp::from_second(5).unwrap());
    for condition in before.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(past.clone());
    }
    case.previous = before;
    let case = case.with("a", 0, State::Running, 0).with("b", 0, State::Running, 0);
    let status = case.status();
    let time = |kind: &str| {
        let all = status.conditions.as_ref().unwrap();
        all.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.clone().unwrap()
    };
    assert_eq!(time("PodScheduled"), past);
    assert_eq!(time("Ready").0, now());
}

#[test]
fn ephemeral_containers_have_a_list_of_their_own_and_do_not_count() {
    let spec =
        json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "e"}, {"name": "later"}]});
    let status = Case::new(spec).with("c", 0, State::Running, 0).with("e", 0, State::Exited, 1).status();
    let [first, second] = status.ephemeral_container_statuses.as_deref().unwrap() else {
        panic!("{status:?}")
    };
    assert_eq!((first.name.as_str(), first.ready, first.started), ("e", false, None));
    assert_eq!(first.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!(
        second.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(),
        Some("ContainerCreating")
    );
    assert_eq!((status.phase.as_deref(), is(&status, "Ready").as_str()), (Some("Running"), "True"));
    assert_eq!(status.container_statuses.unwrap().len(), 1);
}
