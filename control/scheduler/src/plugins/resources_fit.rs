//! NodeResourcesFit: what is asked for is there; emptier nodes first.

use super::MAX_SCORE;
use crate::fit::{Plugin, Refusal};
use crate::model::{NodeInfo, Pod};

pub(super) fn filter(pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
    let mut reasons = Vec::new();
    let mut preemptable = true;
    if node.pods.len() as i64 + 1 > node.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    let (ask, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut check = |name: &str, ask: i64, have: i64, used: i64| {
        if ask > 0 && ask > have - used {
            reasons.push(format!("Insufficient {name}"));
            // More than the whole node: nobody's leaving helps.
            preemptable &= ask <= have;
        }
    };
    check("cpu", ask.milli_cpu, have.milli_cpu, used.milli_cpu);
    check("memory", ask.memory, have.memory, used.memory);
    check("ephemeral-storage", ask.ephemeral, have.ephemeral, used.ephemeral);
    for (name, &ask) in &ask.scalar {
        let amount = |of: &std::collections::BTreeMap<String, i64>| of.get(name).copied().unwrap_or(0);
        check(name, ask, amount(&have.scalar), amount(&used.scalar));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Refusal { plugin: Plugin::NodeResourcesFit, reasons, preemptable })
}

/// The mean share of CPU and memory left with the pod on the node, of 100; with `most` the share in use.
pub(super) fn allocated(pod: &Pod, node: &NodeInfo, most: bool) -> i64 {
    let (ask, have, used) = (&pod.scored, &node.allocatable, &node.scored);
    let parts = [(have.milli_cpu, used.milli_cpu + ask.milli_cpu), (have.memory, used.memory + ask.memory)];
    let counted: Vec<i64> = parts
        .iter()
        .filter(|(have, _)| *have > 0)
        .map(|&(have, used)| match (used > have, most) {
            (true, false) => 0,
            (false, false) => (have - used) * MAX_SCORE / have,
            (over, true) => (if over { have } else { used }) * MAX_SCORE / have,
        })
        .collect();
    if counted.is_empty() { 0 } else { counted.iter().sum::<i64>() / counted.len() as i64 }
}
