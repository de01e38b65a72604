//! A pod's status from what is seen of it: pure, and never going backwards from what was reported before.

mod conditions;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, EphemeralContainer, HostIP, LinuxContainerUser,
    Pod, PodIP, PodStatus, ResourceRequirements, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{Container, Observed, State};
use super::plan::{self, Verdict, restarts};
use super::spec::recursive;
use super::spec::totals::{self, Side};
use super::{Role, is_sidecar, qos};
use crate::pod::allocation::Pending;

/// Why a pod ended, when it was not its containers' doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `status.reason`: `DeadlineExceeded`, `Evicted`, `OutOfcpu`, ...
    pub reason: String,
    /// `status.message`.
    pub message: String,
}

/// A change of resources that was granted and is being carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The generation of the pod that asked for it.
    pub generation: i64,
    /// Why it could not be carried out so far.
    pub error: Option<String>,
}

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ErrImagePull`, ...
    pub reason: String,
    pub message: String,
}

/// Everything a status depends on.
pub struct Input<'a> {
    pub pod: &'a Pod,
    /// What the runtime shows of it.
    pub observed: &'a Observed,
    /// Probe results by container id.
    pub verdicts: &'a BTreeMap<String, Verdict>,
    /// Containers whose postStart hook has not finished.
    pub hooks_pending: &'a BTreeSet<String>,
    /// Why containers wait, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// What was reported before.
    pub previous: &'a PodStatus,
    /// The pod with the resources its containers run with.
    pub running: &'a Pod,
    /// Why the resources it asks for are not granted.
    pub pending: Option<&'a Pending>,
    /// What becomes of those that were.
    pub progress: Option<&'a Progress>,
    /// The node's addresses, primary first.
    pub host_ips: &'a [String],
    /// What a container id is prefixed with: the runtime's name.
    pub runtime_name: &'a str,
    /// The pod's runtime handler mounts read-only with all that is below.
    pub recursive: bool,
    /// The pod's end was decided from outside.
    pub outcome: Option<&'a Outcome>,
    /// No container will run again.
    pub finished: bool,
    pub now: Timestamp,
}

/// The status to report.
pub fn compute(input: &Input<'_>) -> PodStatus {
    let pod = input.pod;
    if was_refused(input) {
        return refused(input);
    }
    let has_init = !super::init_containers(pod).is_empty();
    let of = |specs: &[Spec], init: bool| -> Vec<ContainerStatus> {
        specs.iter().map(|spec| container(input, spec, init, has_init)).collect()
    };
    let mut init = of(super::init_containers(pod), true);
    let mut main = of(super::main_containers(pod), false);
    let mut ephemeral: Vec<ContainerStatus> =
        super::ephemeral_containers(pod).iter().map(|spec| ephemeral(input, spec, has_init)).collect();
    let coming = phase(input, &init, &main);
    let conditions = conditions::conditions(input, &coming, &init, &main);
    let end = end(input, coming);
    // Init containers are told in the pod's order, the others by name.
    main.sort_by(|a, b| a.name.cmp(&b.name));
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    let most = MESSAGE_BYTES / (init.len() + main.len() + ephemeral.len()).max(1);
    init.iter_mut().chain(&mut main).chain(&mut ephemeral).for_each(|status| cut(status, most));
    let running = input.running;
    let pod_ips = addresses(input);
    let previous = input.previous;
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(main),
        init_container_statuses: has_init.then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        message: end.message,
        reason: end.reason,
        phase: Some(end.phase),
        qos_class: Some(previous.qos_class.clone().unwrap_or_else(|| qos::class(pod).to_string())),
        start_time: Some(previous.start_time.clone().unwrap_or(Time(seconds(input.now)))),
        observed_generation: pod.metadata.generation,
        allocated_resources: Some(totals::of(pod, Side::Requests)).filter(|all| !all.is_empty()),
        resources: Some(ResourceRequirements {
            claims: None,
            limits: Some(totals::of(running, Side::Limits)).filter(|all| !all.is_empty()),
            requests: Some(totals::of(running, Side::Requests)).filter(|all| !all.is_empty()),
        }),
        ..Default::default()
    }
}

/// What the last words of all of a pod's containers may come to. Upstream: `MaxPodTerminationMessageLogLength`.
const MESSAGE_BYTES: usize = 12 << 10;

/// Cuts a container's last words, this time's and the last's, to so many bytes.
fn cut(status: &mut ContainerStatus, most: usize) {
    for ended in [&mut status.state, &mut status.last_state] {
        let ended = ended.as_mut().and_then(|state| state.terminated.as_mut());
        let Some(message) = ended.and_then(|ended| ended.message.as_mut()) else { continue };
        let mut most = most.min(message.len());
        while !message.is_char_boundary(most) {
            most -= 1;
        }
        message.truncate(most);
    }
}

/// A phase, and what is said of it.
struct End {
    phase: String,
    reason: Option<String>,
    message: Option<String>,
}

/// No pod is told to be over while a container of it may still run: whoever waits for its end counts on what it held.
/// Upstream: `mergePodStatus` of `pkg/kubelet/status`.
fn end(input: &Input<'_>, coming: String) -> End {
    let previous = input.previous;
    let (reason, message) = (previous.reason.clone(), previous.message.clone());
    if is_terminal(Some(&coming))
        && !is_terminal(previous.phase.as_deref())
        && input.observed.containers.iter().any(Container::may_run)
    {
        return End {
            phase: previous.phase.clone().unwrap_or_else(|| "Pending".to_owned()),
            reason,
            message,
        };
    }
    let outcome = input.outcome;
    End {
        phase: coming,
        reason: outcome.map(|o| o.reason.clone()).or(reason),
        message: outcome.map(|o| o.message.clone()).or(message),
    }
}

/// Whether a phase is a pod's last.
pub fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the node did not take the pod: it is over, and nothing of it was ever told or seen.
fn was_refused(input: &Input<'_>) -> bool {
    let previous = input.previous;
    let told =
        previous.container_statuses.iter().chain(&previous.init_container_statuses).any(|l| !l.is_empty());
    let over =
        is_terminal(previous.phase.as_deref()) || input.outcome.is_some() && previous.start_time.is_none();
    over && !told && input.observed.containers.is_empty()
}

/// Nothing but why: the states of containers that will never be would hide it. Upstream: `rejectPod`.
fn refused(input: &Input<'_>) -> PodStatus {
    let (pod, previous) = (input.pod, input.previous);
    PodStatus {
        phase: Some(
            previous.phase.clone().filter(|p| is_terminal(Some(p))).unwrap_or_else(|| "Failed".to_owned()),
        ),
        reason: input.outcome.map(|o| o.reason.clone()).or_else(|| previous.reason.clone()),
        message: input.outcome.map(|o| o.message.clone()).or_else(|| previous.message.clone()),
        qos_class: Some(previous.qos_class.clone().unwrap_or_else(|| qos::class(pod).to_string())),
        start_time: Some(previous.start_time.clone().unwrap_or(Time(seconds(input.now)))),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// The API keeps whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn api_time(at: Option<Timestamp>) -> Option<Time> {
    at.map(|at| Time(seconds(at)))
}

fn addresses(input: &Input<'_>) -> Vec<String> {
    let seen = match input.observed.sandbox() {
        Some(_) if super::host_network(input.pod) => input.host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if seen.is_empty() {
        let before = input.previous.pod_ips.iter().flatten();
        return before.map(|ip| ip.ip.clone()).collect();
    }
    seen
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn terminated(input: &Input<'_>, container: &Container) -> ContainerState {
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(id(input, container)),
        exit_code: container.exit_code,
        finished_at: api_time(container.finished_at),
        started_at: api_time(container.started_at.or(container.finished_at)),
        message: (!container.message.is_empty()).then(|| container.message.clone()),
        reason: Some(reason.to_owned()),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn id(input: &Input<'_>, container: &Container) -> String {
    format!("{}://{}", input.runtime_name, container.id)
}

/// An ephemeral container is neither probed nor waited for: it is never ready, and says nothing of having started.
fn ephemeral(input: &Input<'_>, spec: &EphemeralContainer, has_init: bool) -> ContainerStatus {
    let status = container(input, &super::of_ephemeral(spec), false, has_init);
    ContainerStatus { ready: false, started: None, ..status }
}

fn container(input: &Input<'_>, spec: &Spec, init: bool, has_init: bool) -> ContainerStatus {
    let previous = input.previous;
    let before = [
        &previous.init_container_statuses,
        &previous.container_statuses,
        &previous.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|status| status.name == spec.name);
    let idle = waiting(if has_init { "PodInitializing" } else { "ContainerCreating" }, None);
    let mut tries = input.observed.containers.iter().filter(|c| c.name == spec.name);
    let volume_mounts = before.and_then(|b| b.volume_mounts.clone()).or_else(|| mounts(input, spec));
    let Some(latest) = tries.next() else {
        return ContainerStatus { volume_mounts, ..unseen(input, spec, before, (init, idle)) };
    };
    let ended_before = tries.find(|c| c.state == State::Exited).map(|c| terminated(input, c));
    let kept = || before.and_then(|b| b.last_state.clone());
    let mut last_state = ended_before.or_else(kept);
    let why = input.waiting.get(&spec.name);
    let why = why.map(|w| waiting(&w.reason, (!w.message.is_empty()).then(|| w.message.clone())));
    let state = match (latest.state, why) {
        (State::Running, _) => {
            let running = ContainerStateRunning { started_at: api_time(latest.started_at) };
            ContainerState { running: Some(running), ..Default::default() }
        }
        (State::Exited, Some(why)) if !input.finished => {
            last_state = Some(terminated(input, latest));
            why
        }
        (State::Exited, _) => terminated(input, latest),
        (State::Created | State::Unknown, why) => why.unwrap_or(idle),
    };
    let running = state.running.is_some();
    let verdict = input.verdicts.get(&latest.id);
    let started = running && verdict.is_some_and(|v| v.started) && !input.hooks_pending.contains(&latest.id);
    let ready = if init && !is_sidecar(spec) {
        latest.succeeded()
    } else {
        started && verdict.is_some_and(|v| v.ready)
    };
    let count = i32::try_from(latest.attempt).unwrap_or(i32::MAX);
    let image = match latest.image.as_str() {
        "" => spec.image.clone().unwrap_or_default(),
        id if id.starts_with("sha256:") => spec.image.clone().unwrap_or_default(),
        image => image.to_owned(),
    };
    ContainerStatus {
        name: spec.name.clone(),
        container_id: Some(id(input, latest)),
        image,
        image_id: latest.image_id.clone(),
        last_state: last_state.or_else(|| Some(ContainerState::default())),
        ready,
        restart_count: count.max(before.map_or(0, |b| b.restart_count)),
        started: Some(started),
        state: Some(state),
        allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
        resources: Some(resources(input, spec, running)),
        user: latest.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
            }),
        }),
        volume_mounts,
        ..Default::default()
    }
}

/// How volumes are mounted into a container, which never changes.
fn mounts(input: &Input<'_>, spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let one = |mount: &VolumeMount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let recursive = recursive::resolve(mount, input.recursive).unwrap_or(false);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| if recursive { "Enabled" } else { "Disabled" }.to_owned()),
            volume_status: None,
        }
    };
    let all: Vec<_> = spec.volume_mounts.iter().flatten().map(one).collect();
    (!all.is_empty()).then_some(all)
}

/// What a running container has of what may change while it runs, and what it was granted of everything else.
fn resources(input: &Input<'_>, spec: &Spec, running: bool) -> ResourceRequirements {
    let mut granted = spec.resources.clone().unwrap_or_default();
    let now = super::containers(input.running).find(|(_, c)| c.name == spec.name);
    let Some(now) = now.and_then(|(_, c)| c.resources.as_ref()).filter(|_| running) else { return granted };
    for (list, has) in [(&mut granted.requests, &now.requests), (&mut granted.limits, &now.limits)] {
        let Some(list) = list else { continue };
        for name in ["cpu", "memory"] {
            if let Some(amount) = has.as_ref().and_then(|has| has.get(name)) {
                list.insert(name.to_owned(), amount.clone());
            }
        }
    }
    granted
}

/// Why a container was taken away, and waits to be started again with all the others.
const RESTARTING: &str = "RestartingAllContainers";
const RESTARTING_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// All containers are being started again, as far as was told or as is seen.
fn restarting_all(input: &Input<'_>) -> bool {
    let told = input.previous.conditions.iter().flatten();
    let mut told = told.filter(|c| c.type_ == "AllContainersRestarting" && c.status == "True");
    told.next().is_some() || plan::restarts_all(input.pod, input.observed, false)
}

fn ended(ended: ContainerStateTerminated) -> Option<ContainerState> {
    Some(ContainerState { terminated: Some(ended), ..Default::default() })
}

/// A container the runtime does not know: not made yet, or made and lost.
fn unseen(
    input: &Input<'_>,
    spec: &Spec,
    before: Option<&ContainerStatus>,
    (init, idle): (bool, ContainerState),
) -> ContainerStatus {
    let why = input.waiting.get(&spec.name);
    let why = why.map(|w| waiting(&w.reason, (!w.message.is_empty()).then(|| w.message.clone())));
    let waits = why.is_some();
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(why.unwrap_or(idle)),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        ..Default::default()
    };
    let made = |c: &Spec| input.observed.latest(&c.name).is_some();
    let over = init && !is_sidecar(spec) && super::main_containers(input.pod).iter().any(made);
    let completed = ContainerStateTerminated {
        reason: Some("Completed".to_owned()),
        message: Some(
            "Unable to get init container status from container runtime and pod has been initialized, treat it as \
             exited normally"
                .to_owned(),
        ),
        ..Default::default()
    };
    let Some(before) = before else {
        if over {
            (status.state, status.ready) = (ended(completed), true);
        }
        return status;
    };
    status.restart_count = before.restart_count;
    status.image_id.clone_from(&before.image_id);
    status.container_id.clone_from(&before.container_id);
    status.last_state.clone_from(&before.last_state);
    let Some(state) = &before.state else { return status };
    let ends = input.finished || input.pod.metadata.deletion_timestamp.is_some();
    if state.waiting.is_none() && !ends && restarting_all(input) {
        status.state = Some(waiting(RESTARTING, Some(RESTARTING_MESSAGE.to_owned())));
        status.last_state = ended(ContainerStateTerminated {
            exit_code: 137,
            reason: Some(RESTARTING.to_owned()),
            message: Some(RESTARTING_MESSAGE.to_owned()),
            ..Default::default()
        });
        status.container_id = None;
        status.restart_count += 1;
    } else if let Some(terminated) = &state.terminated {
        if ends || !waits {
            status.state = before.state.clone();
            status.ready = before.ready;
        } else {
            status.last_state = ended(terminated.clone());
        }
    } else if over {
        (status.state, status.ready) = (ended(completed), true);
    } else if state.running.is_some() {
        if before.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            return status;
        }
        let lost = ContainerStateTerminated {
            container_id: status.container_id.take(),
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was deleted.  The container used to be Running".to_owned()),
            ..Default::default()
        };
        if ends {
            status.state = ended(lost);
        } else {
            status.last_state = ended(lost);
            status.restart_count += 1;
        }
    }
    status
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|t| t.exit_code)
}

/// A container's end: this time's, or else the last one's.
fn end_of(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    [&status.state, &status.last_state].into_iter().find_map(|state| state.as_ref()?.terminated.as_ref())
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// `status.phase`: upstream's rules, in upstream's order.
fn phase(input: &Input<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> String {
    let pod = input.pod;
    if let Some(kept @ ("Failed" | "Succeeded")) = input.previous.phase.as_deref() {
        return kept.to_owned();
    }
    if input.outcome.is_some() {
        return "Failed".to_owned();
    }
    // What was taken away to be started again is, whatever its policy.
    let begins_again = |spec: &Spec, role, end: &ContainerStateTerminated| {
        end.reason.as_deref() == Some(RESTARTING) || restarts(pod, spec, role, end.exit_code)
    };
    let (mut pending_init, mut failed_init) = (false, false);
    for (spec, status) in super::init_containers(pod).iter().zip(init) {
        let code = exit_code(status);
        if is_sidecar(spec) {
            let begun = status.started == Some(true) || code.is_some() || status.restart_count > 0;
            pending_init |= !begun;
            continue;
        }
        match end_of(status) {
            Some(end) if end.exit_code == 0 => {}
            Some(end) if !begins_again(spec, Role::Init, end) => failed_init = true,
            _ => pending_init = true,
        }
    }
    let (mut running, mut waiting, mut stopped, mut failed, mut again) = (0, 0, 0, 0, 0);
    for (spec, status) in super::main_containers(pod).iter().zip(main) {
        match (is_running(status), end_of(status)) {
            (true, _) => running += 1,
            (false, Some(end)) => {
                stopped += 1;
                failed += i32::from(end.exit_code != 0);
                again += i32::from(begins_again(spec, Role::Main, end));
            }
            (false, None) => waiting += 1,
        }
    }
    let phase = if failed_init {
        "Failed"
    } else if input.finished && !super::is_static(pod) && running == 0 {
        // Nothing will run again: what did not end well, or never ran, failed.
        if stopped > 0 && failed == 0 && waiting == 0 { "Succeeded" } else { "Failed" }
    } else if waiting > 0 || (pending_init && running == 0 && stopped == 0) {
        "Pending"
    } else if running > 0 || again > 0 {
        "Running"
    } else if stopped > 0 {
        if failed == 0 { "Succeeded" } else { "Failed" }
    } else {
        "Pending"
    };
    phase.to_owned()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!() arguments read better by value")]
#[path = "status/tests.rs"]
mod tests;
