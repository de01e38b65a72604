//! PodTopologySpread: pods of a group even over places.

use super::MAX_SCORE;
use crate::fit::{Plugin, Refusal};
use crate::model::terms::Spread;
use crate::model::{NodeInfo, Pod, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// For each required constraint, pods counted by place.
pub(super) struct Counts {
    required: Vec<HashMap<String, i64>>,
}

/// Pods of the node that the constraint counts for `pod`.
fn counted(constraint: &Spread, pod: &Pod, node: &NodeInfo) -> i64 {
    let same =
        |p: &Pod| p.namespace == pod.namespace && !p.terminating && constraint.selector.matches(&p.labels);
    node.pods.iter().filter(|p| same(p)).count() as i64
}

/// Whether the constraint counts the node at all.
fn included(constraint: &Spread, pod: &Pod, node: &NodeInfo) -> bool {
    let taints_pass =
        || node.taints.iter().filter(|t| t.effect != "PreferNoSchedule").all(|t| pod.tolerates(t));
    (!constraint.honor_affinity || pod.allows_node(&node.name, &node.labels))
        && (!constraint.honor_taints || taints_pass())
}

impl Counts {
    pub(super) fn new(snapshot: &Snapshot, pod: &Pod, constraints: &[Spread]) -> Self {
        let required: Vec<_> = constraints.iter().filter(|c| c.required).collect();
        let mut counts = vec![HashMap::new(); required.len()];
        for node in snapshot.nodes.iter().filter(|_| !required.is_empty()) {
            // A node outside one of the topologies belongs to none of the places.
            if required.iter().any(|c| !node.labels.contains_key(&c.topology_key)) {
                continue;
            }
            for (constraint, places) in required.iter().zip(&mut counts) {
                if included(constraint, pod, node)
                    && let Some(place) = node.labels.get(&constraint.topology_key)
                {
                    *places.entry(place.clone()).or_default() += counted(constraint, pod, node);
                }
            }
        }
        Self { required: counts }
    }

    pub(super) fn filter(&self, pod: &Pod, constraints: &[Spread], node: &NodeInfo) -> Result<(), Refusal> {
        let plugin = Plugin::PodTopologySpread;
        for (constraint, places) in constraints.iter().filter(|c| c.required).zip(&self.required) {
            let Some(place) = node.labels.get(&constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::final_(plugin, reason));
            };
            let enough = places.len() as i64 >= constraint.min_domains;
            let min = if enough { places.values().min().copied().unwrap_or(0) } else { 0 };
            let own = i64::from(constraint.selector.matches(&pod.labels));
            if places.get(place).copied().unwrap_or(0) + own - min > constraint.max_skew {
                return Err(Refusal::curable(plugin, "node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }
}

pub(super) fn score(
    snapshot: &Snapshot,
    pod: &Pod,
    constraints: &[Spread],
    defaulted: bool,
    nodes: &[Arc<NodeInfo>],
) -> Vec<i64> {
    let soft: Vec<&Spread> = constraints.iter().filter(|c| !c.required).collect();
    if soft.is_empty() {
        return vec![0; nodes.len()];
    }
    // With constraints of its own, a node outside one of their topologies counts for nothing; the default ones are lenient.
    let ignored = |n: &NodeInfo| !defaulted && soft.iter().any(|c| !n.labels.contains_key(&c.topology_key));
    let considered: Vec<bool> = nodes.iter().map(|n| !ignored(n)).collect();
    let hosts = considered.iter().filter(|c| **c).count();
    let mut raw = vec![0.0_f64; nodes.len()];
    for constraint in &soft {
        let per_host = constraint.topology_key == HOSTNAME;
        // Places among the nodes that can take the pod; counted over all nodes.
        let mut places: HashMap<&str, i64> = HashMap::new();
        for (node, _) in nodes.iter().zip(&considered).filter(|(_, c)| **c) {
            if let Some(place) = node.labels.get(&constraint.topology_key) {
                places.insert(place, 0);
            }
        }
        let weight = ((if per_host { hosts } else { places.len() } + 2) as f64).ln();
        if !per_host {
            for node in snapshot.nodes.iter().filter(|n| !ignored(n) && included(constraint, pod, n)) {
                let place = node.labels.get(&constraint.topology_key);
                if let Some(count) = place.and_then(|p| places.get_mut(p.as_str())) {
                    *count += counted(constraint, pod, node);
                }
            }
        }
        for (node, raw) in nodes.iter().zip(&mut raw) {
            let Some(place) = node.labels.get(&constraint.topology_key) else { continue };
            let count = if per_host {
                counted(constraint, pod, node)
            } else {
                places.get(place.as_str()).copied().unwrap_or(0)
            };
            *raw += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
    }
    let scores: Vec<Option<i64>> =
        raw.iter().zip(&considered).map(|(r, c)| c.then_some(r.round() as i64)).collect();
    let min = scores.iter().flatten().min().copied().unwrap_or(0);
    let max = scores.iter().flatten().max().copied().unwrap_or(0);
    scores
        .into_iter()
        .map(|s| match s {
            None => 0,
            Some(_) if max == 0 => MAX_SCORE,
            Some(s) => MAX_SCORE * (max + min - s) / max,
        })
        .collect()
}
