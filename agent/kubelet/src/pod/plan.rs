//! What to do next for a pod: pure, so that it can be tested for every state a crash may leave behind.
//!
//! A plan is a list of actions that may be carried out in order. Afterwards the worker looks again and plans again, until
//! there is nothing to do; a plan therefore holds only what is right whatever the outcome of its earlier actions: one
//! container start at most for init containers, and all regular ones once they are due.
//!
//! Order of a pod's life: one ready sandbox; init containers one by one (a sidecar counts once it has started); then the
//! regular containers, each restarted by policy and backoff; when none of them will run again, sidecars are stopped in
//! reverse, then the sandbox. Whatever runs and is right is adopted, whoever started it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerRestartRule, Pod};

use super::allocation::{self, Amounts, Change, Record};
use super::backoff::Backoffs;
use super::observed::{Container, Observed, State};
use super::{Role, is_sidecar, restart_policy};

/// How many tries of a container are kept: the current one and the one before it.
const KEPT_TRIES: usize = 2;

/// What probes have found out about a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Its startup probe succeeded, or it has none.
    pub started: bool,
    /// Its readiness probe succeeded, or it has none.
    pub ready: bool,
    /// It must be killed: `failed liveness probe` or `failed startup probe`, and the probe's own grace.
    pub failed: Option<(String, Option<i64>)>,
}

/// Everything a plan depends on.
pub struct Input<'a> {
    /// What is asked for.
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// Probe results by container id; running containers without an entry count as not started.
    pub verdicts: &'a BTreeMap<String, Verdict>,
    /// Containers whose postStart hook has not finished (or never ran): they are not started yet.
    pub hooks_pending: &'a BTreeSet<String>,
    pub backoffs: &'a Backoffs,
    /// Starts that failed and when they may be tried again, by container name.
    pub held: &'a BTreeMap<String, Timestamp>,
    /// What the pod's resources are to be, and what runs with older ones.
    pub record: &'a Record,
    /// When a failed change of resources may be tried again.
    pub resize_held: Option<Timestamp>,
    /// All containers are being started again, by a rule of one of them.
    pub restarting_all: bool,
    /// How often containers were started so far, as far as was reported: their next attempt is not below it.
    pub starts: &'a BTreeMap<String, u32>,
    /// Containers that were killed to be started again, whatever their policy says of their end.
    pub restarting: &'a BTreeSet<String>,
    /// When a failed sandbox may be tried again.
    pub sandbox_held: Option<Timestamp>,
    pub terminating: bool,
    pub now: Timestamp,
}

/// A container to be stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub id: String,
    pub name: String,
    pub message: String,
    /// A grace other than the pod's.
    pub grace: Option<i64>,
    /// It is started again, whatever its policy.
    pub restart: bool,
    /// Names of containers stopped with it that must have ended first, as long as its grace lasts.
    pub after: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    StopContainers(Vec<Stop>),
    StopSandbox(String),
    /// Give these running containers (id and name), and the pod, the resources they were granted.
    Resize(Vec<(String, String)>),
    /// Kill a container and forget it, but for its log.
    Reset {
        id: String,
        name: String,
        runs: bool,
    },
    /// Forget a container that does not run.
    RemoveContainer(String),
    /// Forget a sandbox that is stopped and empty.
    RemoveSandbox(String),
    /// Make the pod's next sandbox.
    CreateSandbox {
        attempt: u32,
    },
    /// Start a container (pulling its image first).
    Start {
        name: String,
        /// What it is to the pod.
        role: Role,
        attempt: u32,
        /// When the try before ended, for the backoff.
        ended: Option<Timestamp>,
    },
    /// Start a container that was created and never started.
    StartCreated {
        id: String,
        name: String,
    },
}

/// What to do, and when to plan again though nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The next moment time alone changes the plan.
    pub wake_at: Option<Timestamp>,
    /// Containers waiting out a crash loop, and their delay.
    pub backing_off: BTreeMap<String, Duration>,
    /// No container will ever run again.
    pub finished: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// The next steps of a pod.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    if input.terminating {
        stop_everything(input, &mut plan, "Stopping container");
        plan.finished = true;
        return plan;
    }
    let usable = usable_sandbox(input);
    if usable.is_some() && restarts_all(input.pod, input.observed, input.restarting_all) {
        reset(input, &mut plan);
        return plan;
    }
    clean(input.observed, &mut plan);
    let Some(sandbox) = usable else {
        without_sandbox(input, &mut plan);
        return plan;
    };
    stop_elsewhere(input.observed, sandbox, &mut plan);
    match init(input, sandbox, &mut plan) {
        Init::Pending => {}
        Init::Failed => {
            stop_everything(input, &mut plan, "Stopping container");
            plan.finished = true;
        }
        Init::Done => regular(input, sandbox, &mut plan),
    }
    if !plan.finished {
        resize(input, sandbox, &mut plan);
        ephemeral(input, &mut plan);
    }
    plan
}

/// Changes the resources of what runs: by a restart where the container's policy wants one, in place otherwise, and in any
/// case before anything is started with the new ones.
fn resize(input: &Input<'_>, sandbox: &str, plan: &mut Plan) {
    let record = input.record;
    if !record.is_lagging() {
        return;
    }
    if let Some(until) = input.resize_held.filter(|until| *until > input.now) {
        plan.wake(until);
        return;
    }
    let stopped: BTreeSet<String> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::StopContainers(stops) => Some(stops.iter().map(|stop| stop.id.clone())),
            _ => None,
        })
        .flatten()
        .collect();
    let (now, granted) = (record.running(), &record.granted);
    let (mut stops, mut updates) = (Vec::new(), Vec::new());
    for (role, spec) in super::containers(input.pod) {
        let running = input.observed.latest_in(sandbox, &spec.name).filter(|c| c.state == State::Running);
        let Some(running) = running.filter(|c| !stopped.contains(&c.id)) else { continue };
        let before = Amounts::of(now.pod.as_ref(), now.containers.get(&spec.name));
        let after = Amounts::of(granted.pod.as_ref(), granted.containers.get(&spec.name));
        match allocation::change(role, spec, after, before) {
            Change::None => {}
            Change::Update => updates.push((running.id.clone(), spec.name.clone())),
            Change::Restart => {
                let message = format!("Container {} resize requires restart", spec.name);
                stops.push(Stop { restart: true, ..stop(running, message) });
            }
        }
    }
    let starts = |a: &Action| matches!(a, Action::Start { .. } | Action::StartCreated { .. });
    let at = plan.actions.iter().position(starts).unwrap_or(plan.actions.len());
    let stops = (!stops.is_empty()).then_some(Action::StopContainers(stops));
    plan.actions.splice(at..at, stops.into_iter().chain([Action::Resize(updates)]));
}

/// Starts each ephemeral container once: it has no restarts, waits for no init container, and keeps no pod alive.
fn ephemeral(input: &Input<'_>, plan: &mut Plan) {
    for spec in super::ephemeral_containers(input.pod).iter().map(super::of_ephemeral) {
        let last = input.observed.latest(&spec.name);
        if last.is_none_or(|c| c.state == State::Created) {
            start(input, &spec, Role::Ephemeral, last, plan);
        }
    }
}

/// The one sandbox containers may run in: the newest, ready, and with an address unless it needs none.
fn usable_sandbox<'a>(input: &Input<'a>) -> Option<&'a str> {
    let newest = input.observed.sandbox()?;
    let addressed = super::host_network(input.pod) || !newest.ips.is_empty();
    (newest.ready && addressed).then_some(newest.id.as_str())
}

fn without_sandbox(input: &Input<'_>, plan: &mut Plan) {
    let observed = input.observed;
    // Nothing of the old life may go on beside the new one.
    let finished = will_never_run(input);
    stop_everything(input, plan, "Stopping container");
    if finished {
        plan.finished = true;
        return;
    }
    if let Some(until) = input.sandbox_held.filter(|until| *until > input.now) {
        plan.wake(until);
        return;
    }
    let attempt = observed.sandboxes.iter().map(|s| s.attempt + 1).max().unwrap_or(0);
    plan.actions.push(Action::CreateSandbox { attempt });
}

/// The sandbox is gone and policy forbids another life.
fn will_never_run(input: &Input<'_>) -> bool {
    let observed = input.observed;
    if observed.sandboxes.is_empty() && observed.containers.is_empty() {
        return false;
    }
    let main = super::main_containers(input.pod);
    let over = |spec: &Spec| {
        observed.latest(&spec.name).is_some_and(|last| {
            last.state == State::Exited && !restarts(input.pod, spec, Role::Main, last.exit_code)
        })
    };
    if main.iter().all(over) {
        return true;
    }
    // As upstream: with `Never`, a pod whose sandbox died after containers were made is not given another.
    let all_never = super::containers(input.pod)
        .filter(|(role, _)| *role != Role::Sidecar)
        .all(|(role, spec)| !restarts(input.pod, spec, role, 1));
    all_never && !observed.containers.is_empty()
}

/// Whether a container that exited with `code` is started again.
pub fn restarts(pod: &Pod, spec: &Spec, role: Role, code: i32) -> bool {
    if role == Role::Sidecar {
        return true;
    }
    if spec.restart_policy.is_some()
        && rule_for(spec, code).is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | RESTART_ALL))
    {
        return true;
    }
    let policy = match spec.restart_policy.as_deref() {
        Some(own) if !is_sidecar(spec) || role == Role::Main => own,
        _ => restart_policy(pod),
    };
    match (policy, role) {
        ("Never", _) => false,
        // An init container that succeeded is done, whatever the policy.
        ("OnFailure", _) | (_, Role::Init) => code != 0,
        _ => true,
    }
}

/// The first of a container's own rules for an exit code.
fn rule_for(spec: &Spec, code: i32) -> Option<&ContainerRestartRule> {
    spec.restart_policy_rules.iter().flatten().find(|rule| rule_matches(rule, code))
}

/// The action that starts the whole pod again in its sandbox.
const RESTART_ALL: &str = "RestartAllContainers";

/// A container of the pod has a rule that starts all of them again.
pub fn may_restart_all(pod: &Pod) -> bool {
    super::containers(pod)
        .any(|(_, c)| c.restart_policy_rules.iter().flatten().any(|r| r.action == RESTART_ALL))
}

fn asks_for_all(spec: &Spec, container: &Container) -> bool {
    container.state == State::Exited
        && rule_for(spec, container.exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// All containers are to be started again: one ended by such a rule, or one like it was seen before (`under_way`) and some
/// container of that life is still there.
pub fn restarts_all(pod: &Pod, observed: &Observed, under_way: bool) -> bool {
    let known = |spec: &Spec| observed.latest(&spec.name);
    let asked = super::containers(pod).any(|(_, c)| known(c).is_some_and(|last| asks_for_all(c, last)));
    asked || (under_way && super::containers(pod).any(|(_, c)| known(c).is_some()))
}

/// Takes every container away, those that asked for it last, so that a crash in between is known for what it is.
fn reset(input: &Input<'_>, plan: &mut Plan) {
    let (mut targets, mut sources) = (Vec::new(), Vec::new());
    for list in [super::main_containers(input.pod), super::init_containers(input.pod)] {
        let tries = list.iter().flat_map(|spec| {
            let tries = input.observed.containers.iter().filter(move |c| c.name == spec.name);
            tries.map(move |c| (spec, c))
        });
        for (spec, container) in tries {
            let action = Action::Reset {
                id: container.id.clone(),
                name: container.name.clone(),
                runs: container.state != State::Exited,
            };
            if asks_for_all(spec, container) { sources.push(action) } else { targets.push(action) }
        }
    }
    plan.actions.extend(targets.into_iter().chain(sources));
}

fn rule_matches(rule: &ContainerRestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// Stops what may run, each sidecar once the regular containers and the sidecar after it have ended, then every ready
/// sandbox. Upstream: `newTerminationOrdering`.
fn stop_everything(input: &Input<'_>, plan: &mut Plan, reason: &str) {
    let main = || super::main_containers(input.pod).iter().map(|c| c.name.clone());
    let sidecars: Vec<&Spec> = super::init_containers(input.pod).iter().filter(|c| is_sidecar(c)).collect();
    let after = |name: &str| match sidecars.iter().position(|c| c.name == name) {
        Some(at) => main().chain(sidecars.get(at + 1).map(|next| next.name.clone())).collect(),
        None => Vec::new(),
    };
    let running = input.observed.containers.iter().filter(|c| c.may_run());
    let stops: Vec<Stop> =
        running.map(|c| Stop { after: after(&c.name), ..stop(c, format!("{reason} {}", c.name)) }).collect();
    if !stops.is_empty() {
        plan.actions.push(Action::StopContainers(stops));
    }
    let ready = input.observed.sandboxes.iter().filter(|s| s.ready);
    plan.actions.extend(ready.map(|s| Action::StopSandbox(s.id.clone())));
}

fn stop(container: &Container, message: String) -> Stop {
    Stop {
        id: container.id.clone(),
        name: container.name.clone(),
        message,
        grace: None,
        restart: false,
        after: Vec::new(),
    }
}

/// What runs outside the chosen sandbox, or beside a newer try: leftovers of an interrupted replacement.
fn stop_elsewhere(observed: &Observed, sandbox: &str, plan: &mut Plan) {
    let stray: Vec<_> = observed
        .containers
        .iter()
        .filter(|c| {
            let newest = observed.latest_in(sandbox, &c.name).is_some_and(|newest| newest.id == c.id);
            c.may_run() && !newest
        })
        .map(|c| stop(c, format!("Stopping container {}", c.name)))
        .collect();
    if !stray.is_empty() {
        plan.actions.push(Action::StopContainers(stray));
    }
    let others = observed.sandboxes.iter().filter(|s| s.ready && s.id != sandbox);
    plan.actions.extend(others.map(|s| Action::StopSandbox(s.id.clone())));
}

/// Forgets tries nobody asks for any more, and empty old sandboxes.
fn clean(observed: &Observed, plan: &mut Plan) {
    let mut tries: BTreeMap<&str, usize> = BTreeMap::new();
    let mut removed = BTreeSet::new();
    for container in &observed.containers {
        let tries = tries.entry(&container.name).or_default();
        *tries += 1;
        if *tries > KEPT_TRIES && !container.may_run() {
            removed.insert(container.id.as_str());
            plan.actions.push(Action::RemoveContainer(container.id.clone()));
        }
    }
    for sandbox in observed.sandboxes.iter().skip(1).filter(|s| !s.ready) {
        let empty = !observed
            .containers
            .iter()
            .any(|c| c.sandbox_id == sandbox.id && !removed.contains(c.id.as_str()));
        if empty {
            plan.actions.push(Action::RemoveSandbox(sandbox.id.clone()));
        }
    }
}

enum Init {
    Pending,
    Failed,
    Done,
}

fn init(input: &Input<'_>, sandbox: &str, plan: &mut Plan) -> Init {
    let observed = input.observed;
    // A regular container in this sandbox proves that initialisation was over, even if its containers were cleaned up.
    let initialized =
        super::main_containers(input.pod).iter().any(|c| observed.latest_in(sandbox, &c.name).is_some());
    for spec in super::init_containers(input.pod) {
        let role = if is_sidecar(spec) { Role::Sidecar } else { Role::Init };
        if initialized && role == Role::Init {
            continue;
        }
        let here = observed.latest_in(sandbox, &spec.name);
        match (role, here.map(|c| c.state)) {
            (Role::Init, Some(State::Exited)) if here.is_some_and(Container::succeeded) => {}
            (Role::Init, Some(State::Exited))
                if !restarts(input.pod, spec, role, here.map_or(1, |c| c.exit_code)) =>
            {
                return Init::Failed;
            }
            (_, Some(State::Running)) => {
                let Some(running) = here else { continue };
                if role == Role::Init || kill_if_wrong(input, spec, role, running, true, plan) {
                    return pending(initialized);
                }
                let started = input.verdicts.get(&running.id).is_some_and(|v| v.started)
                    && !input.hooks_pending.contains(&running.id);
                if !started && !initialized {
                    return Init::Pending;
                }
            }
            _ => {
                start(input, spec, role, here, plan);
                // A sidecar that must come back does not hold up a pod that is past initialisation.
                if !initialized {
                    return Init::Pending;
                }
            }
        }
    }
    Init::Done
}

fn pending(initialized: bool) -> Init {
    if initialized { Init::Done } else { Init::Pending }
}

fn regular(input: &Input<'_>, sandbox: &str, plan: &mut Plan) {
    let observed = input.observed;
    let mut alive = false;
    for spec in super::main_containers(input.pod) {
        let here = observed.latest_in(sandbox, &spec.name);
        // A try in an earlier sandbox still tells whether policy wants another.
        let last = here.or_else(|| observed.latest(&spec.name));
        match last.map(|c| c.state) {
            Some(State::Running) if here.is_some() => {
                alive = true;
                if let Some(running) = here {
                    let again = restarts(input.pod, spec, Role::Main, 137);
                    kill_if_wrong(input, spec, Role::Main, running, again, plan);
                }
            }
            Some(State::Exited)
                if last.is_some_and(|c| {
                    !input.restarting.contains(&c.id) && !restarts(input.pod, spec, Role::Main, c.exit_code)
                }) => {}
            _ => {
                alive = true;
                start(input, spec, Role::Main, here.or(last), plan);
            }
        }
    }
    if !alive {
        // Sidecars do not keep a pod alive; starts planned for them above are void.
        plan.actions.retain(|a| !matches!(a, Action::Start { .. } | Action::StartCreated { .. }));
        plan.backing_off.clear();
        stop_everything(input, plan, "Stopping container");
        plan.finished = true;
    }
}

/// Plans the end of a running container that failed a probe or is made from an older spec.
fn kill_if_wrong(
    input: &Input<'_>,
    spec: &Spec,
    role: Role,
    running: &Container,
    again: bool,
    plan: &mut Plan,
) -> bool {
    let failed = input.verdicts.get(&running.id).and_then(|v| v.failed.clone());
    let changed = !running.hash.is_empty() && !super::is_made_from(&running.hash, spec);
    let (why, grace, again) = match failed {
        _ if changed => ("definition changed".to_owned(), None, true),
        Some((why, grace)) => (why, grace, again),
        None => return false,
    };
    let name = &spec.name;
    let message = match role {
        Role::Main if again => format!("Container {name} {why}, will be restarted"),
        Role::Main => format!("Container {name} {why}"),
        _ => format!("Init container {name} {why}"),
    };
    plan.actions.push(Action::StopContainers(vec![Stop { grace, restart: again, ..stop(running, message) }]));
    true
}

fn start(input: &Input<'_>, spec: &Spec, role: Role, last: Option<&Container>, plan: &mut Plan) {
    if let Some(until) = input.held.get(&spec.name).filter(|until| **until > input.now) {
        plan.wake(*until);
        return;
    }
    let sandbox = input.observed.sandbox().map(|s| s.id.as_str());
    // Containers' names in the runtime hold the pod and the attempt, not the sandbox: attempts count over all of them.
    let next = input.observed.latest(&spec.name).map_or(0, |c| c.attempt + 1);
    let next = next.max(input.starts.get(&spec.name).copied().unwrap_or(0));
    let (attempt, ended) = match last {
        None => (next, None),
        Some(last) => match last.state {
            State::Created if Some(last.sandbox_id.as_str()) == sandbox => {
                plan.actions.push(Action::StartCreated { id: last.id.clone(), name: spec.name.clone() });
                return;
            }
            State::Unknown => {
                let kind = if role == Role::Main { "Container" } else { "Init container" };
                let text = format!("{kind} is in \"unknown\" state, try killing it before restart");
                plan.actions.push(Action::StopContainers(vec![stop(last, text)]));
                return;
            }
            // What was killed to be started again waits for the failure before it, if there was one.
            _ if input.restarting.contains(&last.id) => {
                let tries = input.observed.containers.iter().filter(|c| c.name == spec.name);
                (next, tries.skip(1).find_map(|c| c.finished_at))
            }
            _ => (next, last.finished_at.or(last.created_at)),
        },
    };
    if let (Some(ended), Some(State::Exited)) = (ended, last.map(|c| c.state))
        && let Some((delay, until)) = input.backoffs.hold(&spec.name, ended, input.now)
    {
        plan.wake(until);
        plan.backing_off.insert(spec.name.clone(), delay);
        return;
    }
    plan.actions.push(Action::Start { name: spec.name.clone(), role, attempt, ended });
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
