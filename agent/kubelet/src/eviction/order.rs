//! Evictions as ordered: the eviction task writes them, a pod's worker carries its own out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::taints::any_tolerates;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::pod::is_critical;
use crate::pod::qos::{self, Class};
use crate::pod::status::Outcome;
use crate::pressure::threshold::Pressure;

/// The reason of evicted pods, and of pods refused under pressure.
pub const REASON: &str = "Evicted";
/// The reason of pods that make room for a critical one.
pub const PREEMPTED: &str = "Preempting";
/// The reason of pods that end because the machine shuts down,
const TERMINATED: &str = "Terminated";
/// and of those that are refused because of it.
const SHUTDOWN: &str = "NodeShutdown";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// What the user reads.
    pub message: String,
    /// Seconds its containers have.
    pub grace: i64,
    /// Whose fault it is.
    pub cause: Cause,
}

/// Why a pod is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It takes more than its own limits.
    Itself,
    /// The node has too little left.
    Node,
    /// A critical pod needs its room.
    Critical,
    /// The machine shuts down.
    Shutdown,
}

impl Eviction {
    /// How the pod ends.
    pub fn outcome(&self) -> Outcome {
        let reason = match self.cause {
            Cause::Itself | Cause::Node => REASON,
            Cause::Critical => PREEMPTED,
            Cause::Shutdown => TERMINATED,
        };
        Outcome { reason: reason.to_owned(), message: self.message.clone() }
    }

    /// The end of a pod whose room a critical one needs.
    pub fn for_critical() -> Self {
        let message = "Preempted in order to admit critical pod".to_owned();
        // No less time than it has anyway.
        Self { message, grace: i64::MAX, cause: Cause::Critical }
    }

    /// Adds the condition `DisruptionTarget` where it belongs.
    pub fn mark(&self, status: &mut PodStatus, generation: Option<i64>, now: jiff::Timestamp) {
        const TYPE: &str = "DisruptionTarget";
        let conditions = status.conditions.get_or_insert_default();
        let message = match self.cause {
            Cause::Itself => return,
            Cause::Node | Cause::Shutdown => self.message.clone(),
            Cause::Critical => "Pod was preempted by Kubelet to accommodate a critical pod.".to_owned(),
        };
        if conditions.iter().any(|c| c.type_ == TYPE) {
            return;
        }
        conditions.push(PodCondition {
            type_: TYPE.to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message),
            last_transition_time: jiff::Timestamp::from_second(now.as_second()).ok().map(Time),
            observed_generation: generation,
            ..PodCondition::default()
        });
    }
}

#[derive(Clone, Debug)]
pub struct Evictions {
    ordered: Arc<Mutex<HashMap<String, Eviction>>>,
    pressures: Arc<Mutex<[bool; Pressure::ALL.len()]>>,
    shutting_down: Arc<AtomicBool>,
    wake: mpsc::UnboundedSender<String>,
}

impl Evictions {
    /// No evictions; the receiver gets the UIDs of pods whose worker is to be woken: once, and again where they are to hasten.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (wake, woken) = mpsc::unbounded_channel();
        let (ordered, pressures, shutting_down) = (Arc::default(), Arc::default(), Arc::default());
        (Self { ordered, pressures, shutting_down, wake }, woken)
    }

    /// Has a pod evicted, or hastens the eviction it is in, which keeps its message; false when it has no more time already.
    pub fn order(&self, uid: &str, eviction: Eviction) -> bool {
        let mut ordered = self.ordered.lock();
        match ordered.get_mut(uid) {
            Some(before) if before.grace <= eviction.grace => return false,
            Some(before) => before.grace = eviction.grace,
            None => drop(ordered.insert(uid.to_owned(), eviction)),
        }
        // Without a manager nobody runs pods any more.
        self.wake.send(uid.to_owned()).is_ok()
    }

    /// The eviction of a pod.
    pub fn of(&self, uid: &str) -> Option<Eviction> {
        self.ordered.lock().get(uid).cloned()
    }

    /// Whether a pod can be evicted so that it ends sooner than it does now.
    pub fn may_hasten(&self, uid: &str, grace: i64) -> bool {
        self.ordered.lock().get(uid).is_none_or(|eviction| grace < eviction.grace)
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.ordered.lock().remove(uid);
    }

    /// Sets the pressures reported, in the order of [`Pressure::ALL`].
    pub fn set_pressures(&self, pressures: [bool; Pressure::ALL.len()]) {
        *self.pressures.lock() = pressures;
    }

    /// The machine is to shut down, or no longer.
    pub fn set_shutting_down(&self, is: bool) {
        self.shutting_down.store(is, Ordering::SeqCst);
    }

    /// The machine is to shut down.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
    }

    /// Why the node takes no such pod now.
    pub fn refusal(&self, pod: &Pod) -> Option<Outcome> {
        if self.is_shutting_down() {
            let message = "Pod was rejected: Pod was rejected as the node is shutting down.".to_owned();
            return Some(Outcome { reason: SHUTDOWN.to_owned(), message });
        }
        refusal(pod, *self.pressures.lock())
    }
}

fn refusal(pod: &Pod, pressures: [bool; Pressure::ALL.len()]) -> Option<Outcome> {
    let names = ["MemoryPressure", "DiskPressure", "PIDPressure"];
    let shown: Vec<&str> = names.into_iter().zip(pressures).filter_map(|(n, is)| is.then_some(n)).collect();
    if shown.is_empty() || is_critical(pod) {
        return None;
    }
    if shown == ["MemoryPressure"] && (qos::class(pod) != Class::BestEffort || tolerates_memory(pod)) {
        return None;
    }
    let message = format!("Pod was rejected: The node had condition: [{}]. ", shown.join(" "));
    Some(Outcome { reason: REASON.to_owned(), message })
}

fn tolerates_memory(pod: &Pod) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    any_tolerates(tolerations, &taint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn under_memory_pressure_only_best_effort_is_refused() {
        let memory = [true, false, false];
        let refused = refusal(&pod(json!({})), memory).unwrap();
        assert_eq!(refused.message, "Pod was rejected: The node had condition: [MemoryPressure]. ");
        let asks = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        assert_eq!(refusal(&pod(asks.clone()), memory), None);
        let tolerates = json!({"tolerations": [
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]});
        assert_eq!(refusal(&pod(tolerates.clone()), memory), None);
        let disk = [true, true, false];
        assert!(refusal(&pod(asks), disk).is_some());
        assert!(refusal(&pod(tolerates), disk).unwrap().message.contains("[MemoryPressure DiskPressure]"));
        assert_eq!(refusal(&pod(json!({"priority": 2_000_000_000})), disk), None);
        assert_eq!(refusal(&pod(json!({})), [false; 3]), None);
    }

    #[test]
    fn an_eviction_under_way_must_not_keep_a_pod_from_ending_sooner() {
        let (evictions, mut woken) = Evictions::new();
        let eviction = |grace| Eviction { message: format!("{grace}"), grace, cause: Cause::Node };
        assert!(evictions.order("u", eviction(600)));
        assert!(evictions.may_hasten("u", 1) && !evictions.may_hasten("u", 600));
        assert!(!evictions.order("u", eviction(600)) && !evictions.order("u", eviction(900)));
        assert!(evictions.order("u", eviction(1)) && !evictions.order("u", eviction(1)));
        assert_eq!(evictions.of("u"), Some(Eviction { grace: 1, ..eviction(600) }));
        assert_eq!(std::iter::from_fn(|| woken.try_recv().ok()).collect::<Vec<_>>(), ["u", "u"]);
    }

    #[test]
    fn a_pod_that_makes_room_must_not_read_as_one_the_node_was_too_small_for() {
        let eviction = Eviction::for_critical();
        assert_eq!(
            eviction.outcome(),
            Outcome {
                reason: "Preempting".into(),
                message: "Preempted in order to admit critical pod".into()
            }
        );
        let mut status = PodStatus::default();
        eviction.mark(&mut status, None, jiff::Timestamp::UNIX_EPOCH);
        let told = status.conditions.unwrap()[0].message.clone().unwrap();
        assert_eq!(told, "Pod was preempted by Kubelet to accommodate a critical pod.");
        let mut own = PodStatus::default();
        let over = Eviction { message: "m".into(), grace: 1, cause: Cause::Itself };
        over.mark(&mut own, None, jiff::Timestamp::UNIX_EPOCH);
        assert!(own.conditions.unwrap().is_empty());
    }

    #[test]
    fn a_pod_that_ends_with_the_machine_must_not_read_as_one_the_node_was_too_small_for() {
        let text = "Pod was terminated in response to imminent node shutdown.";
        let eviction = Eviction { message: text.into(), grace: 1, cause: Cause::Shutdown };
        assert_eq!(eviction.outcome(), Outcome { reason: "Terminated".into(), message: text.into() });
        let mut status = PodStatus::default();
        eviction.mark(&mut status, None, jiff::Timestamp::UNIX_EPOCH);
        let told = &status.conditions.unwrap()[0];
        assert_eq!((told.type_.as_str(), told.message.as_deref()), ("DisruptionTarget", Some(text)));
    }

    #[test]
    fn a_pod_is_evicted_once_and_its_worker_woken() {
        let (evictions, mut woken) = Evictions::new();
        let eviction = Eviction { message: "m".into(), grace: 1, cause: Cause::Node };
        assert!(evictions.order("u", eviction.clone()));
        assert!(!evictions.order("u", eviction.clone()));
        assert_eq!(woken.try_recv().ok().as_deref(), Some("u"));
        assert!(woken.try_recv().is_err());
        let mut status = PodStatus::default();
        for _ in 0..2 {
            eviction.mark(&mut status, Some(2), jiff::Timestamp::UNIX_EPOCH);
        }
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].reason.as_deref(), Some("TerminationByKubelet"));
        evictions.forget("u");
        assert_eq!(evictions.of("u"), None);
    }
}
