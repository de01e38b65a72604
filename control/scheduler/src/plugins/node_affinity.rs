//! NodeAffinity: node selector, required and preferred node affinity.

use super::normalize;
use crate::fit::{Plugin, Refusal};
use crate::model::{NodeInfo, Pod};
use std::sync::Arc;

/// The only nodes worth looking at, where every required term names its nodes (DaemonSet pods).
pub(super) fn named(pod: &Pod) -> Option<Vec<String>> {
    let terms = pod.required_nodes.as_ref().filter(|t| !t.is_empty())?;
    let mut names = Vec::new();
    for term in terms {
        names.extend(term.named()?.into_iter().map(str::to_owned));
    }
    Some(names)
}

pub(super) fn filter(pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    if pod.allows_node(&node.name, &node.labels) {
        return Ok(());
    }
    Err(Refusal::final_(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector"))
}

pub(super) fn score(pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let liked = |n: &NodeInfo| {
        let terms = pod.preferred_nodes.iter().filter(|(_, t)| t.matches(&n.name, &n.labels));
        terms.map(|(weight, _)| weight).sum()
    };
    normalize(nodes.iter().map(|n| liked(n)).collect(), false)
}
