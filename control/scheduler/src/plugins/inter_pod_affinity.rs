//! InterPodAffinity: near the pods one wants, away from those one does not, and from those that do not want it.

use super::MAX_SCORE;
use crate::fit::{Plugin, Refusal};
use crate::model::terms::PodTerm;
use crate::model::{NodeInfo, Pod, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// Weight of an existing pod's required affinity for the incoming one, in scores.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Pods by place: topology key, then its value.
#[derive(Clone, Default)]
struct Places(HashMap<String, HashMap<String, i64>>);

impl Places {
    /// Adds to the place of `node`, where it is in the topology.
    fn add(&mut self, node: &NodeInfo, key: &str, amount: i64) {
        let Some(value) = node.labels.get(key) else { return };
        let values = match self.0.get_mut(key) {
            Some(values) => values,
            None => self.0.entry(key.to_owned()).or_default(),
        };
        match values.get_mut(value) {
            Some(count) => *count += amount,
            None => drop(values.insert(value.clone(), amount)),
        }
    }

    /// What was added for the place of `node` by one key.
    fn at(&self, node: &NodeInfo, key: &str) -> i64 {
        let values = self.0.get(key).zip(node.labels.get(key));
        values.and_then(|(values, value)| values.get(value)).copied().unwrap_or(0)
    }

    /// The same by every key.
    fn sum(&self, node: &NodeInfo) -> i64 {
        self.0.keys().map(|key| self.at(node, key)).sum()
    }
}

/// How many pods match what, in which place.
pub(super) struct Counts {
    /// Existing pods whose anti-affinity is about the incoming one.
    unwelcome: Places,
    /// Existing pods the incoming one must be with: those that match all its terms.
    wanted: Places,
    /// Existing pods the incoming one must not be with, by term.
    unwanted: Vec<Places>,
}

impl Counts {
    pub(super) fn new(snapshot: &Snapshot, pod: &Pod) -> Self {
        let mut counts = Self {
            unwelcome: Places::default(),
            wanted: Places::default(),
            unwanted: vec![Places::default(); pod.anti_affinity.len()],
        };
        let asks = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        for node in snapshot.nodes.iter().filter(|n| asks || n.with_affinity > 0) {
            for other in &node.pods {
                for term in other.anti_affinity.iter().filter(|t| snapshot.matches(t, pod)) {
                    counts.unwelcome.add(node, &term.topology_key, 1);
                }
                if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| snapshot.matches(t, other)) {
                    pod.affinity.iter().for_each(|t| counts.wanted.add(node, &t.topology_key, 1));
                }
                for (term, places) in pod.anti_affinity.iter().zip(&mut counts.unwanted) {
                    if snapshot.matches(term, other) {
                        places.add(node, &term.topology_key, 1);
                    }
                }
            }
        }
        counts
    }

    pub(super) fn filter(&self, snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
        let plugin = Plugin::InterPodAffinity;
        if !self.wanted_is_near(snapshot, pod, node) {
            return Err(Refusal::final_(plugin, "node(s) didn't match pod affinity rules"));
        }
        let near = |(term, places): (&PodTerm, &Places)| places.at(node, &term.topology_key) > 0;
        if pod.anti_affinity.iter().zip(&self.unwanted).any(near) {
            return Err(Refusal::curable(plugin, "node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwelcome.sum(node) > 0 {
            return Err(Refusal::curable(plugin, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn wanted_is_near(&self, snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> bool {
        if pod.affinity.iter().any(|t| !node.labels.contains_key(&t.topology_key)) {
            return false;
        }
        // The first of a group that wants its own kind must start somewhere.
        let first = self.wanted.0.is_empty() && pod.affinity.iter().all(|t| snapshot.matches(t, pod));
        first || pod.affinity.iter().all(|t| self.wanted.at(node, &t.topology_key) > 0)
    }
}

pub(super) fn score(snapshot: &Snapshot, pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let mut places = Places::default();
    let asks = !pod.preferred_pods.is_empty();
    for node in snapshot.nodes.iter().filter(|n| asks || n.with_affinity > 0) {
        for other in &node.pods {
            for (weight, term) in pod.preferred_pods.iter().filter(|(_, t)| snapshot.matches(t, other)) {
                places.add(node, &term.topology_key, *weight);
            }
            for (weight, term) in other.preferred_pods.iter().filter(|(_, t)| snapshot.matches(t, pod)) {
                places.add(node, &term.topology_key, *weight);
            }
            for term in other.affinity.iter().filter(|t| snapshot.matches(t, pod)) {
                places.add(node, &term.topology_key, HARD_AFFINITY_WEIGHT);
            }
        }
    }
    if places.0.is_empty() {
        return vec![0; nodes.len()];
    }
    let sums: Vec<i64> = nodes.iter().map(|n| places.sum(n)).collect();
    let (min, max) = (sums.iter().min().copied().unwrap_or(0), sums.iter().max().copied().unwrap_or(0));
    let span = max - min;
    sums.into_iter().map(|s| if span == 0 { 0 } else { (s - min) * MAX_SCORE / span }).collect()
}
