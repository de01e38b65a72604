//! NodeResourcesBalancedAllocation: nodes whose CPU and memory fill evenly.

use super::MAX_SCORE;
use crate::model::{NodeInfo, Pod};
use std::sync::Arc;

pub(super) fn score(pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let ask = &pod.requests;
    // A pod that asks for nothing unbalances nothing.
    if ask.milli_cpu == 0 && ask.memory == 0 {
        return vec![0; nodes.len()];
    }
    nodes.iter().map(|n| balance(pod, n)).collect()
}

fn balance(pod: &Pod, node: &NodeInfo) -> i64 {
    let (ask, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let parts = [(have.milli_cpu, used.milli_cpu + ask.milli_cpu), (have.memory, used.memory + ask.memory)];
    let shares: Vec<f64> =
        parts.iter().filter(|(h, _)| *h > 0).map(|&(h, u)| (u as f64 / h as f64).min(1.0)).collect();
    let deviation = match shares[..] {
        [a, b] => (a - b).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
