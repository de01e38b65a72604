//! InterPodAffinity: near the pods one wants, away from those one does not, and from those that do not want it.

use super::MAX_SCORE;
use crate::fit::{Plugin, Refusal};
use crate::model::terms::PodTerm;
use crate::model::{NodeInfo, Pod, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// Weight of an existing pod's required affinity for the incoming one, in scores.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Pods by place: topology key and its value.
type Places = HashMap<(String, String), i64>;

/// How many pods match what, in which place.
pub(super) struct Counts {
    /// Existing pods whose anti-affinity is about the incoming one.
    unwelcome: Places,
    /// Existing pods the incoming one must be with: those that match all its terms.
    wanted: Places,
    /// Existing pods the incoming one must not be with, by term.
    unwanted: Vec<Places>,
}

fn place(node: &NodeInfo, key: &str) -> Option<(String, String)> {
    Some((key.to_owned(), node.labels.get(key)?.clone()))
}

fn holds(places: &Places, node: &NodeInfo, key: &str) -> bool {
    place(node, key).and_then(|p| places.get(&p)).is_some_and(|&n| n > 0)
}

impl Counts {
    pub(super) fn new(snapshot: &Snapshot, pod: &Pod) -> Self {
        let mut counts = Self {
            unwelcome: Places::new(),
            wanted: Places::new(),
            unwanted: vec![Places::new(); pod.anti_affinity.len()],
        };
        let asks = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        for node in snapshot.nodes.iter().filter(|n| asks || n.with_affinity > 0) {
            for other in &node.pods {
                for term in other.anti_affinity.iter().filter(|t| snapshot.matches(t, pod)) {
                    if let Some(place) = place(node, &term.topology_key) {
                        *counts.unwelcome.entry(place).or_default() += 1;
                    }
                }
                if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| snapshot.matches(t, other)) {
                    for place in pod.affinity.iter().filter_map(|t| place(node, &t.topology_key)) {
                        *counts.wanted.entry(place).or_default() += 1;
                    }
                }
                for (term, places) in pod.anti_affinity.iter().zip(&mut counts.unwanted) {
                    if snapshot.matches(term, other)
                        && let Some(place) = place(node, &term.topology_key)
                    {
                        *places.entry(place).or_default() += 1;
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
        let near = |(term, places): (&PodTerm, &Places)| holds(places, node, &term.topology_key);
        if pod.anti_affinity.iter().zip(&self.unwanted).any(near) {
            return Err(Refusal::curable(plugin, "node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwelcome.keys().any(|(key, value)| node.labels.get(key) == Some(value)) {
            return Err(Refusal::curable(plugin, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn wanted_is_near(&self, snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> bool {
        if pod.affinity.iter().any(|t| !node.labels.contains_key(&t.topology_key)) {
            return false;
        }
        // The first of a group that wants its own kind must start somewhere.
        let first = self.wanted.is_empty() && pod.affinity.iter().all(|t| snapshot.matches(t, pod));
        first || pod.affinity.iter().all(|t| holds(&self.wanted, node, &t.topology_key))
    }
}

pub(super) fn score(snapshot: &Snapshot, pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let mut places = Places::new();
    let mut add = |node: &NodeInfo, term: &PodTerm, weight: i64| {
        if let Some(place) = place(node, &term.topology_key) {
            *places.entry(place).or_default() += weight;
        }
    };
    let asks = !pod.preferred_pods.is_empty();
    for node in snapshot.nodes.iter().filter(|n| asks || n.with_affinity > 0) {
        for other in &node.pods {
            for (weight, term) in pod.preferred_pods.iter().filter(|(_, t)| snapshot.matches(t, other)) {
                add(node, term, *weight);
            }
            for (weight, term) in other.preferred_pods.iter().filter(|(_, t)| snapshot.matches(t, pod)) {
                add(node, term, *weight);
            }
            for term in other.affinity.iter().filter(|t| snapshot.matches(t, pod)) {
                add(node, term, HARD_AFFINITY_WEIGHT);
            }
        }
    }
    if places.is_empty() {
        return vec![0; nodes.len()];
    }
    let sum = |n: &NodeInfo| {
        places.iter().filter(|((k, v), _)| n.labels.get(k) == Some(v)).map(|(_, weight)| weight).sum::<i64>()
    };
    let sums: Vec<i64> = nodes.iter().map(|n| sum(n)).collect();
    let (min, max) = (sums.iter().min().copied().unwrap_or(0), sums.iter().max().copied().unwrap_or(0));
    let span = max - min;
    sums.into_iter().map(|s| if span == 0 { 0 } else { (s - min) * MAX_SCORE / span }).collect()
}
