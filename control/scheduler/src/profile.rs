//! A scheduler of a name: which plugins it has, and how much each counts. Pure.
//!
//! Upstream: `pkg/scheduler/apis/config`. What a plugin does at several points (a filter that also scores) is switched at each point, or at
//! all of them (`MultiPoint`).

use crate::fit::Plugin;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The default scheduler's name in `spec.schedulerName` and in events.
pub(crate) const NAME: &str = "default-scheduler";

/// The plugins that score, in the order they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "upstream's plugin names")]
pub enum Score {
    TaintToleration,
    NodeAffinity,
    PodTopologySpread,
    InterPodAffinity,
    NodeResourcesFit,
    NodeResourcesBalancedAllocation,
    ImageLocality,
}

/// Name, the filter it is, the score it is.
const PLUGINS: [(&str, Option<Plugin>, Option<Score>); 10] = [
    ("NodeUnschedulable", Some(Plugin::NodeUnschedulable), None),
    ("NodeName", Some(Plugin::NodeName), None),
    ("TaintToleration", Some(Plugin::TaintToleration), Some(Score::TaintToleration)),
    ("NodeAffinity", Some(Plugin::NodeAffinity), Some(Score::NodeAffinity)),
    ("NodePorts", Some(Plugin::NodePorts), None),
    ("NodeResourcesFit", Some(Plugin::NodeResourcesFit), Some(Score::NodeResourcesFit)),
    ("PodTopologySpread", Some(Plugin::PodTopologySpread), Some(Score::PodTopologySpread)),
    ("InterPodAffinity", Some(Plugin::InterPodAffinity), Some(Score::InterPodAffinity)),
    ("NodeResourcesBalancedAllocation", None, Some(Score::NodeResourcesBalancedAllocation)),
    ("ImageLocality", None, Some(Score::ImageLocality)),
];
/// Upstream's weights.
const WEIGHTS: [(Score, i64); 7] = [
    (Score::TaintToleration, 3),
    (Score::NodeAffinity, 2),
    (Score::PodTopologySpread, 2),
    (Score::InterPodAffinity, 2),
    (Score::NodeResourcesFit, 1),
    (Score::NodeResourcesBalancedAllocation, 1),
    (Score::ImageLocality, 1),
];
const PREEMPTION: &str = "DefaultPreemption";
/// Plugins of upstream's that are always on here, or are not here at all: they cannot be switched, nor configured.
const FIXED: [&str; 10] = [
    "VolumeRestrictions",
    "VolumeBinding",
    "VolumeZone",
    "SchedulingGates",
    "PrioritySort",
    "DefaultBinder",
    "NodeVolumeLimits",
    "DynamicResources",
    "GangScheduling",
    "NodeDeclaredFeatures",
];

/// The points at which plugins are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Every one.
    MultiPoint,
    /// Filters.
    Filter,
    /// Scores.
    Score,
    /// What makes room.
    PostFilter,
}

/// What happens to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is on, with another weight where one is given.
    On {
        /// Its weight as a score.
        weight: Option<i64>,
    },
    /// It is off.
    Off,
}

/// What a profile cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No plugin of that name.
    #[error("{0:?} does not exist")]
    Unknown(String),
    /// A plugin that is always on, or not here.
    #[error("plugin {0:?} cannot be changed here")]
    Fixed(String),
    /// An argument with a value it may not have.
    #[error("{0}")]
    Argument(String),
}

/// A scheduler's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `spec.schedulerName` of its pods.
    pub name: &'static str,
    /// Filters that are off.
    off: BTreeSet<Plugin>,
    /// Weights of the scores that are on.
    weights: BTreeMap<Score, i64>,
    /// Whether pods of lower priority are evicted for its pods.
    pub preempts: bool,
    /// Fuller nodes first instead of emptier ones.
    pub most_allocated: bool,
    /// Of how many nodes of a hundred it is enough to know that they take the pod; 0: by their number.
    pub percentage: i64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            name: NAME,
            off: BTreeSet::new(),
            weights: WEIGHTS.into(),
            preempts: true,
            most_allocated: false,
            percentage: 0,
        }
    }
}

impl Profile {
    /// Whether a filter is asked.
    #[must_use]
    pub fn filters(&self, plugin: Plugin) -> bool {
        !self.off.contains(&plugin)
    }

    /// How much a score counts; 0 where it is off.
    #[must_use]
    pub fn weight(&self, score: Score) -> i64 {
        self.weights.get(&score).copied().unwrap_or_default()
    }

    /// Switches a plugin, or with `*` all of them off.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be switched.
    pub fn change(&mut self, set: Set, name: &str, change: Change) -> Result<(), Error> {
        if name == "*" && change == Change::Off {
            PLUGINS.iter().for_each(|plugin| self.switch(set, plugin, change));
            self.preempts &= !matches!(set, Set::MultiPoint | Set::PostFilter);
            return Ok(());
        }
        if name == PREEMPTION && matches!(set, Set::MultiPoint | Set::PostFilter) {
            self.preempts = change != Change::Off;
            return Ok(());
        }
        if FIXED.contains(&name) {
            // On they are what they are.
            return if change == Change::Off { Err(Error::Fixed(name.to_owned())) } else { Ok(()) };
        }
        let plugin = PLUGINS.iter().find(|(known, ..)| *known == name);
        self.switch(set, plugin.ok_or_else(|| Error::Unknown(name.to_owned()))?, change);
        Ok(())
    }

    fn switch(
        &mut self,
        set: Set,
        (_, filter, score): &(&str, Option<Plugin>, Option<Score>),
        change: Change,
    ) {
        if let (Some(filter), Set::MultiPoint | Set::Filter) = (filter, set) {
            match change {
                Change::On { .. } => self.off.remove(filter),
                Change::Off => self.off.insert(*filter),
            };
        }
        if let (Some(score), Set::MultiPoint | Set::Score) = (score, set) {
            match change {
                Change::On { weight } => self.weights.insert(*score, weight.unwrap_or(1)),
                Change::Off => self.weights.remove(score),
            };
        }
    }

    /// Takes a plugin's arguments; gives those that have no effect here.
    ///
    /// # Errors
    /// There is no such plugin, or an argument is wrong.
    pub fn configure(&mut self, name: &str, args: &Value) -> Result<Vec<String>, Error> {
        let known =
            PLUGINS.iter().any(|(known, ..)| *known == name) || name == PREEMPTION || FIXED.contains(&name);
        if !known {
            return Err(Error::Unknown(name.to_owned()));
        }
        let mut unused = Vec::new();
        for (field, value) in args.as_object().into_iter().flatten() {
            match (name, field.as_str()) {
                (_, "apiVersion" | "kind") => {}
                ("NodeResourcesFit", "scoringStrategy") => {
                    let strategy = value["type"].as_str().unwrap_or("LeastAllocated");
                    self.most_allocated = match strategy {
                        "LeastAllocated" => false,
                        "MostAllocated" => true,
                        "RequestedToCapacityRatio" => {
                            unused.push("scoringStrategy.type".to_owned());
                            false
                        }
                        other => {
                            return Err(Error::Argument(format!(
                                "scoringStrategy.type: Unsupported value: {other:?}"
                            )));
                        }
                    };
                    let usual =
                        serde_json::json!([{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]);
                    if value.get("resources").is_some_and(|resources| *resources != usual) {
                        unused.push("scoringStrategy.resources".to_owned());
                    }
                }
                _ => unused.push(field.clone()),
            }
        }
        Ok(unused)
    }
}

/// What a scheduler is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The schedulers it is, each for pods of its name.
    pub profiles: Vec<Arc<Profile>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { profiles: vec![Arc::default()] }
    }
}

impl Config {
    /// The profile for pods that name this scheduler.
    #[must_use]
    pub fn profile(&self, scheduler: &str) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|profile| profile.name == scheduler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_at_one_point_must_not_change_another() {
        let mut profile = Profile::default();
        profile.change(Set::Score, "TaintToleration", Change::Off).unwrap();
        assert!(profile.filters(Plugin::TaintToleration) && profile.weight(Score::TaintToleration) == 0);
        profile.change(Set::Filter, "NodeAffinity", Change::Off).unwrap();
        assert!(!profile.filters(Plugin::NodeAffinity) && profile.weight(Score::NodeAffinity) == 2);
        profile.change(Set::Filter, "*", Change::Off).unwrap();
        profile.change(Set::Filter, "NodeName", Change::On { weight: None }).unwrap();
        assert!(profile.filters(Plugin::NodeName) && !profile.filters(Plugin::NodePorts) && profile.preempts);
        profile.change(Set::MultiPoint, "*", Change::Off).unwrap();
        assert!(!profile.preempts && profile.weight(Score::ImageLocality) == 0);
        profile.change(Set::MultiPoint, "TaintToleration", Change::On { weight: None }).unwrap();
        assert!(profile.filters(Plugin::TaintToleration) && profile.weight(Score::TaintToleration) == 1);
    }

    #[test]
    fn a_plugin_that_is_not_here_must_not_be_switched_in_silence() {
        let mut profile = Profile::default();
        assert_eq!(profile.change(Set::Score, "Foo", Change::Off), Err(Error::Unknown("Foo".into())));
        let fixed = profile.change(Set::MultiPoint, "DefaultBinder", Change::Off);
        assert_eq!(fixed, Err(Error::Fixed("DefaultBinder".into())));
        let unused = profile.configure("InterPodAffinity", &serde_json::json!({"hardPodAffinityWeight": 5}));
        assert_eq!(unused.unwrap(), ["hardPodAffinityWeight"]);
        let wrong = serde_json::json!({"scoringStrategy": {"type": "Fullest"}});
        assert!(profile.configure("NodeResourcesFit", &wrong).is_err());
    }
}
