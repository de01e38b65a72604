//! Taints that follow from a node's state, and who must leave because of one. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// A node's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It says that it is ready.
    Ready,
    /// It says that it is not.
    NotReady,
    /// It says nothing.
    Unknown,
}

impl Health {
    /// From the node's conditions, or its silence.
    pub fn of(node: &Node, silent: bool) -> Self {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Ready"));
        match ready.map(|c| c.status.as_str()) {
            _ if silent => Self::Unknown,
            Some("True") => Self::Ready,
            Some("False") => Self::NotReady,
            _ => Self::Unknown,
        }
    }
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they hold.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The taints a node shall have, or `None` when it has them. Taints that are not ours stay.
pub fn taints(node: &Node, old: &[Taint], health: Health, now: Timestamp) -> Option<Vec<Taint>> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    match health {
        Health::Ready => {}
        Health::NotReady => ours.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Health::Unknown => ours.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false) {
        ours.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    for (condition, taint) in PRESSURES {
        if conditions.iter().any(|c| c.type_ == condition && c.status == "True") {
            ours.push((taint, "NoSchedule"));
        }
    }
    let managed = |t: &Taint| {
        (t.key == NOT_READY || t.key == UNREACHABLE)
            || (t.effect == "NoSchedule"
                && (t.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == t.key)))
    };
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|t| !managed(t) || ours.contains(&(t.key.as_str(), t.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in ours {
        if !new.iter().any(|t| t.key == key && t.effect == effect) {
            // eviction counts from here; a taint that only keeps pods away has no time
            let added = (effect == "NoExecute").then_some(Time(now));
            new.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: added,
                value: None,
            });
        }
    }
    (new != old).then_some(new)
}

/// When a pod must leave.
#[derive(Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It tolerates every taint for ever.
    Never,
    /// Its toleration ends then.
    After(Duration),
    /// It does not tolerate one, or no longer.
    Now,
}

/// Decides about a pod, given the NoExecute taints of its node.
pub fn eviction(pod: &Pod, taints: &[Taint], now: Timestamp) -> Eviction {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
    let mut least: Option<Duration> = None;
    for taint in taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Eviction::Now;
        }
        // the shortest toleration counts, as upstream has it
        let Some(seconds) = matching.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let left = SignedDuration::from_secs(seconds.max(0)) - now.duration_since(since);
        if !left.is_positive() {
            return Eviction::Now;
        }
        let left = left.unsigned_abs();
        least = Some(least.map_or(left, |l| l.min(left)));
    }
    least.map_or(Eviction::Never, Eviction::After)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    #[test]
    fn taints_follow_health_and_leave_others_alone() {
        let mine = Taint {
            key: "team".into(),
            effect: "NoExecute".into(),
            value: Some("a".into()),
            time_added: None,
        };
        let now = Timestamp::UNIX_EPOCH;
        let old = vec![mine.clone()];
        let silent = taints(&Node::default(), &old, Health::Unknown, now).unwrap();
        let keys: Vec<_> = silent.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(keys, [("team", "NoExecute"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
        assert_eq!(taints(&Node::default(), &silent, Health::Unknown, now), None);
        assert_eq!(taints(&Node::default(), &silent, Health::Ready, now), Some(vec![mine]));
    }

    #[test]
    fn a_toleration_runs_out() {
        let taint = Taint {
            key: UNREACHABLE.into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: Some(Time(Timestamp::UNIX_EPOCH)),
        };
        let pod = |seconds: Option<i64>| Pod {
            spec: Some(PodSpec {
                tolerations: Some(vec![Toleration {
                    key: Some(UNREACHABLE.into()),
                    operator: Some("Exists".into()),
                    toleration_seconds: seconds,
                    ..Toleration::default()
                }]),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let taints = [taint];
        assert_eq!(eviction(&pod(Some(300)), &taints, at(100)), Eviction::After(Duration::from_secs(200)));
        assert_eq!(eviction(&pod(Some(300)), &taints, at(300)), Eviction::Now);
        assert_eq!(eviction(&pod(None), &taints, at(9999)), Eviction::Never);
        assert_eq!(eviction(&Pod::default(), &taints, at(0)), Eviction::Now);
    }
}
