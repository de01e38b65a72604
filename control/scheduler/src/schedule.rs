//! The decision: a snapshot and a pod to a node, or why not. Pure; the caller brings the round's number for fairness among
//! equals.

use crate::fit::{FitError, Plugin, Refusal};
use crate::model::{NodeInfo, Pod, Snapshot};
use crate::plugins::Prepared;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Below this many nodes all are looked at.
const MIN_FEASIBLE: usize = 100;

/// A node for the pod, or the reasons; preemption is not tried here. `round` differs from call to call: it turns where the search
/// begins, and picks among nodes of equal score.
pub(crate) fn schedule(snapshot: &Snapshot, pod: &Pod, round: u64) -> Result<String, FitError> {
    let Search { prepared, feasible, error } = search(snapshot, pod, round, true)?;
    match &feasible[..] {
        [] => Err(error),
        [only] => Ok(only.name.clone()),
        _ => Ok(pick(&feasible, prepared.score(snapshot, pod, &feasible), round)),
    }
}

/// What was found of the nodes.
pub(crate) struct Search {
    pub(crate) prepared: Prepared,
    /// Those that take the pod.
    pub(crate) feasible: Vec<Arc<NodeInfo>>,
    /// Why others do not.
    pub(crate) error: FitError,
}

/// Looks for nodes that take the pod: with `by_nomination`, first on the one that room was made on. The error refuses it on all of them.
pub(crate) fn search(
    snapshot: &Snapshot,
    pod: &Pod,
    round: u64,
    by_nomination: bool,
) -> Result<Search, FitError> {
    let nodes = snapshot.nodes.len();
    let mut error = FitError { nodes, pod_refused: None, refusals: BTreeMap::new(), preemption: None };
    let prepared = match Prepared::new(snapshot, pod) {
        Ok(prepared) => prepared,
        Err(why) => {
            error.pod_refused = Some(why);
            return Err(error);
        }
    };
    // Room was made for it there.
    let nominated = snapshot.nodes.iter().find(|n| pod.nominated.as_ref() == Some(&n.name));
    if let Some(node) = nominated.filter(|_| by_nomination)
        && takes(&prepared, snapshot, pod, node).is_ok()
    {
        return Ok(Search { prepared, feasible: vec![node.clone()], error });
    }
    let enough = enough_feasible(nodes, snapshot.profile.percentage);
    let start = if nodes == 0 { 0 } else { (round as usize).wrapping_mul(enough) % nodes };
    let mut feasible: Vec<Arc<NodeInfo>> = Vec::new();
    for node in snapshot.nodes[start..].iter().chain(&snapshot.nodes[..start]) {
        match takes(&prepared, snapshot, pod, node) {
            Ok(()) => feasible.push(node.clone()),
            Err(refusal) => {
                error.refusals.insert(node.name.clone(), refusal);
            }
        }
        if feasible.len() == enough {
            break;
        }
    }
    Ok(Search { prepared, feasible, error })
}

/// One of the nodes with the best score; there is at least one node.
pub(crate) fn pick(nodes: &[Arc<NodeInfo>], scores: Vec<i64>, round: u64) -> String {
    let best = scores.iter().max().copied().unwrap_or(0);
    let top: Vec<_> = nodes.iter().zip(scores).filter(|(_, s)| *s == best).collect();
    let mut hasher = DefaultHasher::new();
    round.hash(&mut hasher);
    top[hasher.finish() as usize % top.len()].0.name.clone()
}

/// How many feasible nodes are worth finding: all of few, a falling share of many, unless the profile names one.
fn enough_feasible(nodes: usize, percentage: i64) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes.max(1);
    }
    let percent = match usize::try_from(percentage) {
        Ok(percent) if percent > 0 => percent.min(100),
        _ => (50_usize.saturating_sub(nodes / 125)).max(5),
    };
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

/// Whether the node takes the pod, also once the pods nominated for it are there.
pub(crate) fn takes(
    prepared: &Prepared,
    snapshot: &Snapshot,
    pod: &Pod,
    node: &NodeInfo,
) -> Result<(), Refusal> {
    let rivals = snapshot.nominated.get(&node.name).into_iter().flatten();
    let rivals: Vec<_> = rivals.filter(|p| p.priority >= pod.priority && p.uid != pod.uid).collect();
    if !rivals.is_empty() {
        let mut crowded = Cow::Borrowed(node);
        rivals.into_iter().for_each(|p| crowded.to_mut().add(p.clone()));
        prepared.filter(snapshot, pod, &crowded)?;
    }
    // And without them: they may never come, so the pod must not depend on them.
    prepared.filter(snapshot, pod, node)
}

/// Whether a refusal by `plugin` may be lifted when `change` happens.
pub(crate) fn may_help(plugin: Plugin, change: Change) -> bool {
    use Change::{NodeChanged, NodeGone, PodGone, PodPlaced, VolumesChanged};
    match plugin {
        Plugin::NodeName | Plugin::NodeUnschedulable | Plugin::TaintToleration | Plugin::NodeAffinity => {
            change == NodeChanged
        }
        // Nobody knows what an extender waits for.
        Plugin::Extender => true,
        Plugin::NodePorts | Plugin::NodeResourcesFit => matches!(change, NodeChanged | PodGone),
        Plugin::VolumeRestrictions => matches!(change, PodGone | VolumesChanged),
        Plugin::VolumeBinding | Plugin::VolumeZone => matches!(change, NodeChanged | VolumesChanged),
        // A domain that is gone is not spread over any more.
        Plugin::PodTopologySpread => matches!(change, NodeChanged | NodeGone | PodGone | PodPlaced),
        Plugin::InterPodAffinity => matches!(change, NodeChanged | PodGone | PodPlaced),
    }
}

/// What happened in the cluster, as far as pods that wait care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node came, or changed in what filters look at.
    NodeChanged,
    /// A node went.
    NodeGone,
    /// A pod left a node, or shrank.
    PodGone,
    /// A pod came to a node, or its labels or its namespace's changed.
    PodPlaced,
    /// A claim or volume came or changed.
    VolumesChanged,
}
