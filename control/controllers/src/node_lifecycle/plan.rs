//! Taints that follow from a node's state. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
            new.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (new != old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
