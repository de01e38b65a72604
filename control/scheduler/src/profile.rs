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
const PLUGINS: [(&str, Option<Plugin>, Option<Score>); 13] = [
    ("NodeUnschedulable", Some(Plugin::NodeUnschedulable), None),
    ("NodeName", Some(Plugin::NodeName), None),
    ("TaintToleration", Some(Plugin::TaintToleration), Some(Score::TaintToleration)),
    ("NodeAffinity", Some(Plugin::NodeAffinity), Some(Score::NodeAffinity)),
    ("NodePorts", Some(Plugin::NodePorts), None),
    ("NodeResourcesFit", Some(Plugin::NodeResourcesFit), Some(Score::NodeResourcesFit)),
    ("VolumeRestrictions", Some(Plugin::VolumeRestrictions), None),
    ("VolumeBinding", Some(Plugin::VolumeBinding), None),
    ("VolumeZone", Some(Plugin::VolumeZone), None),
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
const GATES: &str = "SchedulingGates";
/// What no scheduler is without, and what it is then said to lack.
const ESSENTIAL: [(&str, &str); 2] = [
    ("PrioritySort", "one queue sort plugin required"),
    ("DefaultBinder", "at least one bind plugin is needed"),
];
/// Plugins of upstream's that are not here: off they are what they are.
const ABSENT: [&str; 4] = ["NodeVolumeLimits", "DynamicResources", "GangScheduling", "NodeDeclaredFeatures"];

/// The points at which plugins are switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// `multiPoint`: all points.
    MultiPoint,
    /// `filter`
    Filter,
    /// `score`
    Score,
    /// `postFilter`: preemption.
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
    /// Disabled.
    Off,
}

/// What a profile cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No plugin of that name.
    #[error("{0:?} does not exist")]
    Unknown(String),
    /// A plugin without which nothing is scheduled.
    #[error("plugin {0:?} cannot be changed here")]
    Fixed(String),
    /// A profile without such a plugin.
    #[error("{what} for profile with scheduler name {profile:?}")]
    Lacking {
        /// In upstream's words.
        what: &'static str,
        /// `schedulerName`.
        profile: &'static str,
    },
    /// An argument with a value it may not have.
    #[error("{0}")]
    Argument(String),
}

/// One scheduler of a KubeSchedulerConfiguration: its plugins and weights.
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
    /// Whether pods with scheduling gates wait.
    pub gates: bool,
    /// What of [`ESSENTIAL`] was switched off with all others, and not on again.
    lacks: BTreeSet<&'static str>,
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
            gates: true,
            lacks: BTreeSet::new(),
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
            if set == Set::MultiPoint {
                self.gates = false;
                self.lacks = ESSENTIAL.map(|(name, _)| name).into();
            }
            return Ok(());
        }
        if name == PREEMPTION && matches!(set, Set::MultiPoint | Set::PostFilter) {
            self.preempts = change != Change::Off;
            return Ok(());
        }
        if name == GATES {
            self.gates = change != Change::Off || set != Set::MultiPoint && self.gates;
            return Ok(());
        }
        if ESSENTIAL.iter().any(|(known, _)| *known == name) {
            self.lacks.remove(name);
            return if change == Change::Off { Err(Error::Fixed(name.to_owned())) } else { Ok(()) };
        }
        if ABSENT.contains(&name) {
            return Ok(());
        }
        let plugin = PLUGINS.iter().find(|(known, ..)| *known == name);
        self.switch(set, plugin.ok_or_else(|| Error::Unknown(name.to_owned()))?, change);
        Ok(())
    }

    /// The profile, once everything is switched as it is to be.
    ///
    /// # Errors
    /// It cannot work.
    pub fn whole(self) -> Result<Self, Error> {
        match ESSENTIAL.iter().find(|(name, _)| self.lacks.contains(name)) {
            Some((_, what)) => Err(Error::Lacking { what, profile: self.name }),
            None => Ok(self),
        }
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
        let known = PLUGINS.iter().any(|(known, ..)| *known == name)
            || [PREEMPTION, GATES].contains(&name)
            || ESSENTIAL.iter().any(|(known, _)| *known == name)
            || ABSENT.contains(&name);
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
    /// Services outside that have a say; those that may fail come last.
    pub extenders: Vec<crate::extenders::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self { profiles: vec![Arc::default()], extenders: Vec::new() }
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
    fn all_plugins_off_must_not_leave_any_on() {
        let mut profile = Profile::default();
        profile.change(Set::MultiPoint, "*", Change::Off).unwrap();
        for plugin in
            [Plugin::VolumeRestrictions, Plugin::VolumeBinding, Plugin::VolumeZone, Plugin::NodePorts]
        {
            assert!(!profile.filters(plugin), "{plugin:?}");
        }
        assert!(!profile.gates);
        let error = profile.clone().whole().unwrap_err().to_string();
        assert_eq!(
            error,
            "one queue sort plugin required for profile with scheduler name \"default-scheduler\""
        );
        let on = Change::On { weight: None };
        profile.change(Set::MultiPoint, "PrioritySort", on).unwrap();
        assert!(profile.clone().whole().unwrap_err().to_string().starts_with("at least one bind plugin"));
        profile.change(Set::MultiPoint, "DefaultBinder", on).unwrap();
        profile.change(Set::MultiPoint, "VolumeZone", on).unwrap();
        let profile = profile.whole().unwrap();
        assert!(profile.filters(Plugin::VolumeZone) && !profile.filters(Plugin::VolumeBinding));
    }

    #[test]
    fn a_set_of_filters_that_is_off_must_not_take_the_gates_with_it() {
        let mut profile = Profile::default();
        profile.change(Set::Filter, "*", Change::Off).unwrap();
        assert!(profile.gates && !profile.filters(Plugin::VolumeBinding));
        assert!(profile.clone().whole().is_ok());
        profile.change(Set::MultiPoint, "NodeVolumeLimits", Change::Off).unwrap();
        profile.change(Set::MultiPoint, "SchedulingGates", Change::Off).unwrap();
        assert!(!profile.whole().unwrap().gates);
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
