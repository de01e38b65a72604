//! A scheduler of a name: which plugins it has, and how much each counts. Pure.
//!
//! Upstream: `pkg/scheduler/apis/config`. What a plugin does at several points (a filter that also scores) is switched at each point, or at
//! all of them (`MultiPoint`).

mod points;

pub use points::Set;

use crate::fit::Plugin;
use points::Known;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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

/// The plugins that filter here.
const FILTERS: [(&str, Plugin); 11] = [
    ("NodeUnschedulable", Plugin::NodeUnschedulable),
    ("NodeName", Plugin::NodeName),
    ("TaintToleration", Plugin::TaintToleration),
    ("NodeAffinity", Plugin::NodeAffinity),
    ("NodePorts", Plugin::NodePorts),
    ("NodeResourcesFit", Plugin::NodeResourcesFit),
    ("VolumeRestrictions", Plugin::VolumeRestrictions),
    ("VolumeBinding", Plugin::VolumeBinding),
    ("VolumeZone", Plugin::VolumeZone),
    ("PodTopologySpread", Plugin::PodTopologySpread),
    ("InterPodAffinity", Plugin::InterPodAffinity),
];
/// The plugins that score here.
const SCORES: [(&str, Score); 7] = [
    ("TaintToleration", Score::TaintToleration),
    ("NodeAffinity", Score::NodeAffinity),
    ("PodTopologySpread", Score::PodTopologySpread),
    ("InterPodAffinity", Score::InterPodAffinity),
    ("NodeResourcesFit", Score::NodeResourcesFit),
    ("NodeResourcesBalancedAllocation", Score::NodeResourcesBalancedAllocation),
    ("ImageLocality", Score::ImageLocality),
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
    #[error("{0} does not exist")]
    Unknown(String),
    /// A plugin that does nothing at this point.
    #[error("plugin {name:?} does not extend {kind} plugin")]
    Elsewhere {
        /// The plugin.
        name: String,
        /// What it would have to be.
        kind: &'static str,
    },
    /// A plugin that is switched on twice at one point.
    #[error("plugin {name:?} already registered as {kind:?}")]
    Twice {
        /// The plugin.
        name: String,
        /// What it is already.
        kind: &'static str,
    },
    /// A profile (`schedulerName`) that does not know whose turn it is.
    #[error("only one queue sort plugin required for profile with scheduler name {0:?}, but got 0")]
    Unsorted(&'static str),
    /// A profile (`schedulerName`) that binds nothing.
    #[error("at least one bind plugin is needed for profile with scheduler name {0:?}")]
    Unbound(&'static str),
    /// A plugin that is on at one point and off at the other that it cannot do without there: upstream begins with it, and fails for every pod.
    #[error(
        "plugin {name:?} does nothing as {kind} without its {lacks} for profile with scheduler name {profile:?}"
    )]
    Halved {
        /// The plugin.
        name: &'static str,
        /// Where it is on.
        kind: &'static str,
        /// Where it is off.
        lacks: &'static str,
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
    /// Plugins that are off, by the point where they are.
    off: BTreeSet<(Set, &'static str)>,
    /// The filters among them, which are asked about for every node.
    filters_off: BTreeSet<Plugin>,
    /// Weights of the scores that are on.
    weights: BTreeMap<Score, i64>,
    /// Whether pods of lower priority are evicted for its pods.
    pub preempts: bool,
    /// Whether pods with scheduling gates wait.
    pub gates: bool,
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
            filters_off: BTreeSet::new(),
            weights: WEIGHTS.into(),
            preempts: true,
            gates: true,
            most_allocated: false,
            percentage: 0,
        }
    }
}

impl Profile {
    /// Whether a filter is asked.
    #[must_use]
    pub fn filters(&self, plugin: Plugin) -> bool {
        !self.filters_off.contains(&plugin)
    }

    /// How much a score counts; 0 where it is off.
    #[must_use]
    pub fn weight(&self, score: Score) -> i64 {
        self.weights.get(&score).copied().unwrap_or_default()
    }

    /// Whether a plugin is on at a point.
    #[must_use]
    pub fn is_on(&self, set: Set, name: &'static str) -> bool {
        !self.off.contains(&(set, name))
    }

    /// Whether volumes are bound for its pods before these are.
    #[must_use]
    pub fn binds_volumes(&self) -> bool {
        [Set::Filter, Set::Reserve, Set::PreBind].iter().all(|set| self.is_on(*set, "VolumeBinding"))
    }

    /// Switches a plugin, or with `*` all of them off.
    ///
    /// # Errors
    /// There is none of that name, or it does nothing at this point.
    pub fn change(&mut self, set: Set, name: &str, change: Change) -> Result<(), Error> {
        if name == "*" && change == Change::Off {
            points::plugins().for_each(|plugin| self.switch(set, plugin, change));
            return Ok(());
        }
        let plugin = points::find(name).ok_or_else(|| Error::Unknown(format!("{} {name:?}", set.kind())))?;
        if change != Change::Off && set != Set::MultiPoint && !plugin.points.contains(&set) {
            return Err(Error::Elsewhere { name: name.to_owned(), kind: set.kind() });
        }
        self.switch(set, plugin, change);
        Ok(())
    }

    /// Checks a list of plugins that are to be on.
    ///
    /// # Errors
    /// One of them is there twice.
    pub fn each_once<'a>(set: Set, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                let first = points::find(name).and_then(|plugin| plugin.points.iter().min().copied());
                let at = if set == Set::MultiPoint { first.unwrap_or(set) } else { set };
                return Err(Error::Twice { name: name.to_owned(), kind: at.kind() });
            }
        }
        Ok(())
    }

    /// The profile, once everything is switched as it is to be.
    ///
    /// # Errors
    /// It cannot work.
    pub fn whole(self) -> Result<Self, Error> {
        if !self.is_on(Set::QueueSort, "PrioritySort") {
            return Err(Error::Unsorted(self.name));
        }
        if !self.is_on(Set::Bind, "DefaultBinder") {
            return Err(Error::Unbound(self.name));
        }
        for plugin in points::plugins() {
            for (at, needed) in plugin.needs {
                if self.is_on(*at, plugin.name) && !self.is_on(*needed, plugin.name) {
                    let (kind, lacks) = (at.kind(), needed.kind());
                    return Err(Error::Halved { name: plugin.name, kind, lacks, profile: self.name });
                }
            }
        }
        Ok(self)
    }

    fn switch(&mut self, set: Set, plugin: &'static Known, change: Change) {
        for point in plugin.points.iter().copied().filter(|point| set == Set::MultiPoint || set == *point) {
            match change {
                Change::On { .. } => self.off.remove(&(point, plugin.name)),
                Change::Off => self.off.insert((point, plugin.name)),
            };
            if point == Set::Score
                && let Some((_, score)) = SCORES.iter().find(|(name, _)| *name == plugin.name)
            {
                match change {
                    Change::On { weight } => self.weights.insert(*score, weight.unwrap_or(1)),
                    Change::Off => self.weights.remove(score),
                };
            }
        }
        let filters_off = FILTERS.iter().filter(|(name, _)| !self.is_on(Set::Filter, name));
        self.filters_off = filters_off.map(|(_, filter)| *filter).collect();
        self.preempts = self.is_on(Set::PostFilter, "DefaultPreemption");
        self.gates = self.is_on(Set::PreEnqueue, "SchedulingGates");
    }

    /// Takes a plugin's arguments; gives those that have no effect here.
    ///
    /// # Errors
    /// There is no such plugin, or an argument is wrong.
    pub fn configure(&mut self, name: &str, args: &Value) -> Result<Vec<String>, Error> {
        if points::find(name).is_none() {
            return Err(Error::Unknown(format!("{name:?}")));
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

/// How long pods wait that could not be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// First wait after a failed attempt; doubles (`podInitialBackoffSeconds`).
    pub first: Duration,
    /// The longest wait after a failed attempt (`podMaxBackoffSeconds`).
    pub longest: Duration,
    /// A pod that no change has helped is tried again after this (`--pod-max-in-unschedulable-pods-duration`).
    pub unschedulable: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(10),
            unschedulable: Duration::from_secs(300),
        }
    }
}

/// What a scheduler is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The schedulers it is, each for pods of its name.
    pub profiles: Vec<Arc<Profile>>,
    /// Services outside that have a say; those that may fail come last.
    pub extenders: Vec<crate::extenders::Config>,
    /// How long pods wait that could not be scheduled.
    pub waits: Waits,
}

impl Default for Config {
    fn default() -> Self {
        Self { profiles: vec![Arc::default()], extenders: Vec::new(), waits: Waits::default() }
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
mod tests;
