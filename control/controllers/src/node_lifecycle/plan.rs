//! Taints that follow from a node's state. Pure.

use crate::options::NodeHealth;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It says that it is ready.
    Ready,
    /// It says that it is not.
    NotReady,
    /// It says nothing.
    Unknown,
    /// It has said nothing yet, and still has time to.
    Unsaid,
}

impl Health {
    /// From the node's conditions, or its silence.
    pub(super) fn of(node: &Node, silent: bool) -> Self {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Ready"));
        match ready.map(|c| c.status.as_str()) {
            _ if silent => Self::Unknown,
            Some("True") => Self::Ready,
            Some("False") => Self::NotReady,
            Some(_) => Self::Unknown,
            None => Self::Unsaid,
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

/// The taints a node should have, or `None` when it has them. Taints that are not ours stay. `evicting`: pods should leave a node that is not
/// ready.
pub(super) fn taints(
    node: &Node,
    old: &[Taint],
    health: Health,
    evicting: bool,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let mut ours: Vec<(&str, &str)> = Vec::new();
    let key = match health {
        Health::Ready | Health::Unsaid => None,
        Health::NotReady => Some(NOT_READY),
        Health::Unknown => Some(UNREACHABLE),
    };
    ours.extend(key.map(|key| (key, "NoSchedule")));
    ours.extend(key.filter(|_| evicting).map(|key| (key, "NoExecute")));
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

/// Whether pods are on their way out of the node for its health.
pub(super) fn evicted(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|t| t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
}

/// Region and zone of a node; both may be empty.
pub(super) fn zone(node: &Node) -> (String, String) {
    let labels = node.metadata.labels.as_ref();
    let label = |names: [&str; 2]| names.iter().find_map(|n| labels?.get(*n)).cloned().unwrap_or_default();
    (
        label(["failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"]),
        label(["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"]),
    )
}

/// How fast pods may be sent away from nodes of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// From no node: more likely we are cut off than they.
    Halted,
    /// From one node in so long.
    One(Duration),
}

/// How many nodes of a zone are ready, and how many are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// Nodes that say that they are ready.
    pub ready: usize,
    pub unready: usize,
}

impl Zone {
    /// All of it is lost.
    pub(super) fn lost(self) -> bool {
        self.ready == 0 && self.unready > 0
    }

    /// The pace in this zone; `all_lost`: every zone is lost.
    pub(super) fn pace(self, all_lost: bool, options: &NodeHealth) -> Pace {
        let size = self.ready + self.unready;
        let partly = self.unready > 2 && self.unready as f32 / size as f32 >= options.unhealthy;
        match (all_lost, self.lost(), partly) {
            (true, ..) => Pace::Halted,
            (_, true, _) | (_, _, false) => Pace::of(options.rate),
            (_, _, true) if i64::try_from(size).unwrap_or(i64::MAX) > options.large => {
                Pace::of(options.slow_rate)
            }
            (_, _, true) => Pace::Halted,
        }
    }
}

impl Pace {
    /// From so many nodes a second; none or fewer: from none.
    fn of(rate: f32) -> Self {
        match Duration::try_from_secs_f64(1.0 / f64::from(rate)) {
            Ok(pause) if rate > 0.0 => Self::One(pause),
            _ => Self::Halted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_not_begun_to_speak_must_not_be_tainted() {
        let new: Node = serde_json::from_value(serde_json::json!({ "metadata": { "name": "n" } })).unwrap();
        let health = |silent| Health::of(&new, silent);
        assert_eq!((health(false), health(true)), (Health::Unsaid, Health::Unknown));
        let tainted = |health| taints(&new, &[], health, true, Timestamp::UNIX_EPOCH).map(|all| all.len());
        assert_eq!((tainted(health(false)), tainted(health(true))), (None, Some(2)));
    }

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
        let silent = taints(&Node::default(), &old, Health::Unknown, true, now).unwrap();
        let keys: Vec<_> = silent.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(keys, [("team", "NoExecute"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
        assert_eq!(taints(&Node::default(), &silent, Health::Unknown, true, now), None);
        let spared = taints(&Node::default(), &silent, Health::Unknown, false, now).unwrap();
        assert_eq!(spared.iter().map(|t| t.effect.as_str()).collect::<Vec<_>>(), ["NoExecute", "NoSchedule"]);
        assert_eq!(taints(&Node::default(), &silent, Health::Ready, true, now), Some(vec![mine]));
    }

    #[test]
    fn pods_stay_where_it_is_likelier_that_we_are_cut_off() {
        assert_eq!(seconds((0, 1), true, &NodeHealth::default()), None);
        for (zone, pause) in [
            ((0, 5), Some(10)),
            ((3, 1), Some(10)),
            ((1, 2), Some(10)),
            ((2, 3), None),
            ((20, 40), Some(100)),
        ] {
            assert_eq!(seconds(zone, false, &NodeHealth::default()), pause, "{zone:?}");
        }
    }

    /// Whole seconds between two nodes of a zone with so many ready and unready ones; `None`: no pod leaves.
    fn seconds((ready, unready): (usize, usize), all_lost: bool, options: &NodeHealth) -> Option<u64> {
        match (Zone { ready, unready }).pace(all_lost, options) {
            Pace::Halted => None,
            Pace::One(pause) => Some(pause.as_secs_f64().round() as u64),
        }
    }

    #[test]
    fn every_setting_of_the_pace_counts() {
        let usual = NodeHealth::default();
        for (options, zone, pause) in [
            (NodeHealth { rate: 0.5, ..usual }, (3, 1), Some(2)),
            (NodeHealth { rate: 0.0, ..usual }, (3, 1), None),
            (NodeHealth { slow_rate: 0.25, ..usual }, (20, 40), Some(4)),
            (NodeHealth { large: 60, ..usual }, (20, 40), None),
            (NodeHealth { large: 4, ..usual }, (2, 3), Some(100)),
            (NodeHealth { unhealthy: 0.7, ..usual }, (2, 3), Some(10)),
            (NodeHealth { unhealthy: 0.3, ..usual }, (6, 3), None),
        ] {
            assert_eq!(seconds(zone, false, &options), pause, "{options:?} {zone:?}");
            assert_ne!(seconds(zone, false, &usual), pause, "the default does the same: {zone:?}");
        }
    }
}
