//! NodeResourcesBalancedAllocation: nodes whose CPU and memory fill more evenly with the pod than without.

use super::MAX_SCORE;
use crate::model::{NodeInfo, Pod};
use std::sync::Arc;

pub(super) fn score(pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
    let ask = &pod.requests;
    // A pod that asks for nothing unbalances nothing.
    if ask.milli_cpu == 0 && ask.memory == 0 {
        return vec![0; nodes.len()];
    }
    nodes.iter().map(|n| gain(pod, n)).collect()
}

/// Three quarters of the most where the pod changes nothing; half where it unbalances the node, all where it balances it (upstream's
/// `balancedResourceScorer`).
fn gain(pod: &Pod, node: &NodeInfo) -> i64 {
    let (ask, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let without = balance([(have.milli_cpu, used.milli_cpu), (have.memory, used.memory)]);
    let with =
        balance([(have.milli_cpu, used.milli_cpu + ask.milli_cpu), (have.memory, used.memory + ask.memory)]);
    MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
}

/// How evenly this much of that is used.
fn balance(parts: [(i64, i64); 2]) -> i64 {
    let shares: Vec<f64> = parts
        .iter()
        .filter(|(have, _)| *have > 0)
        .map(|&(have, used)| (used as f64 / have as f64).min(1.0))
        .collect();
    let deviation = match shares[..] {
        [a, b] => (a - b).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resources::Resources;

    fn amounts(milli_cpu: i64, memory: i64) -> Resources {
        Resources { milli_cpu, memory, ..Resources::default() }
    }

    /// The score of a node of 100 and 100.
    fn scored(used: (i64, i64), ask: (i64, i64)) -> i64 {
        let pod = Pod { requests: amounts(ask.0, ask.1), ..Pod::default() };
        let node = NodeInfo {
            allocatable: amounts(100, 100),
            requested: amounts(used.0, used.1),
            ..NodeInfo::default()
        };
        score(&pod, &[Arc::new(node)])[0]
    }

    #[test]
    fn a_node_that_the_pod_balances_must_not_score_as_one_it_unbalances() {
        assert_eq!(scored((0, 0), (50, 50)), 75, "even before and after");
        assert_eq!(scored((50, 0), (0, 50)), 87);
        assert_eq!(scored((0, 0), (50, 0)), 62);
        assert_eq!(scored((50, 0), (25, 25)), 75, "as uneven as before");
    }
}
