//! Filters and scores. A [`Prepared`] holds what they work out once for a pod and a snapshot; [`Prepared::filter`] then asks them
//! in upstream's order and stops at the first refusal.

mod balanced;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_ports;
mod resources_fit;
mod spread;
mod taints;
mod volumes;

use crate::fit::{Plugin, Refusal};
use crate::model::storage::Needs;
use crate::model::terms::Spread;
use crate::model::{NodeInfo, Pod, Snapshot};
use crate::profile::{Score, Set};
use std::sync::Arc;

/// A filter that looks at a pod and a node only.
type Filter = fn(&Pod, &NodeInfo) -> Result<(), Refusal>;

/// Highest score of one plugin.
pub(crate) const MAX_SCORE: i64 = 100;

/// What the pod's claims need on a node that passed the filters.
pub fn volume_needs(snapshot: &Snapshot, pod: &Pod, node: &str) -> Needs {
    // Without its filter nobody has looked for any; and they are bound only where it is to do so.
    if !snapshot.profile.binds_volumes() {
        return Needs::default();
    }
    let node = snapshot.nodes.iter().find(|n| n.name == node);
    node.and_then(|node| volumes::needs(snapshot, pod, node).ok()).unwrap_or_default()
}

/// What the filters know of a pod before they see a node.
pub(crate) struct Prepared {
    named: Option<Vec<String>>,
    affinity: inter_pod_affinity::Counts,
    spread: spread::Counts,
    constraints: Vec<Spread>,
    /// The constraints are the default ones.
    defaulted: bool,
}

impl Prepared {
    /// Looks at the whole snapshot once; the error refuses the pod on every node.
    pub(crate) fn new(snapshot: &Snapshot, pod: &Pod) -> Result<Self, (Plugin, String)> {
        volumes::check_claims(snapshot, pod)?;
        let (constraints, defaulted) = snapshot.spread_of(pod);
        Ok(Self {
            named: node_affinity::named(pod)
                .filter(|_| snapshot.profile.is_on(Set::PreFilter, "NodeAffinity")),
            affinity: inter_pod_affinity::Counts::new(snapshot, pod),
            spread: spread::Counts::new(snapshot, pod, &constraints),
            constraints,
            defaulted,
        })
    }

    /// Whether the node takes the pod.
    pub(crate) fn filter(&self, snapshot: &Snapshot, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
        if let Some(named) = &self.named
            && !named.contains(&node.name)
        {
            let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
            return Err(Refusal::final_(Plugin::NodeAffinity, reason));
        }
        let on = |plugin| snapshot.profile.filters(plugin);
        if on(Plugin::NodeUnschedulable) {
            taints::unschedulable(pod, node)?;
        }
        if on(Plugin::NodeName) && pod.node.as_ref().is_some_and(|n| *n != node.name) {
            let reason = "node(s) didn't match the requested node name";
            return Err(Refusal::final_(Plugin::NodeName, reason));
        }
        let plain: [(Plugin, Filter); 4] = [
            (Plugin::TaintToleration, taints::filter),
            (Plugin::NodeAffinity, node_affinity::filter),
            (Plugin::NodePorts, node_ports::filter),
            (Plugin::NodeResourcesFit, resources_fit::filter),
        ];
        plain.iter().filter(|(plugin, _)| on(*plugin)).try_for_each(|(_, filter)| filter(pod, node))?;
        volumes::filter(snapshot, pod, node)?;
        if on(Plugin::PodTopologySpread) {
            self.spread.filter(pod, &self.constraints, node)?;
        }
        match on(Plugin::InterPodAffinity) {
            true => self.affinity.filter(snapshot, pod, node),
            false => Ok(()),
        }
    }

    /// Scores of `nodes`, which all passed the filters: the weighted sum of every plugin's.
    pub(crate) fn score(&self, snapshot: &Snapshot, pod: &Pod, nodes: &[Arc<NodeInfo>]) -> Vec<i64> {
        let mut total = vec![0; nodes.len()];
        let mut add = |score: Score, scores: &dyn Fn() -> Vec<i64>| {
            let weight = snapshot.profile.weight(score);
            if weight != 0 {
                total.iter_mut().zip(scores()).for_each(|(t, s)| *t += weight * s);
            }
        };
        add(Score::TaintToleration, &|| taints::score(pod, nodes));
        add(Score::NodeAffinity, &|| node_affinity::score(pod, nodes));
        add(Score::PodTopologySpread, &|| {
            spread::score(snapshot, pod, &self.constraints, self.defaulted, nodes)
        });
        add(Score::InterPodAffinity, &|| inter_pod_affinity::score(snapshot, pod, nodes));
        let most = snapshot.profile.most_allocated;
        add(Score::NodeResourcesFit, &|| {
            nodes.iter().map(|n| resources_fit::allocated(pod, n, most)).collect()
        });
        add(Score::NodeResourcesBalancedAllocation, &|| balanced::score(pod, nodes));
        add(Score::ImageLocality, &|| image_locality::score(snapshot, pod, nodes));
        total
    }
}

/// Scales scores to 0..=100 by the largest; `reverse`: the largest becomes 0.
fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
    scores
}
