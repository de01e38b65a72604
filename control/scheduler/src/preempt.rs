//! Preemption: which pods of lower priority to evict from which node so that a pod fits. Pure.

use crate::fit::{FitError, histogram};
use crate::model::node::Budget;
use crate::model::{NodeInfo, Pod, Snapshot};
use crate::plugins::Prepared;
use std::cmp::Reverse;
use std::sync::Arc;

/// At least this many nodes are tried.
const MIN_CANDIDATES: usize = 100;

/// Evict these from there.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The node that will take the pod.
    pub node: String,
    /// Who must leave, the most important first.
    pub victims: Vec<Arc<Pod>>,
    /// How many of them their disruption budgets would keep.
    pub violations: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPlan {
    /// What preemption has to say in the pod's [`FitError`].
    pub text: String,
    /// The pod still waits for the victims of an earlier plan.
    pub keeps_nomination: bool,
}

/// Pods to evict, by node: at least one way to do it.
pub(crate) fn plans(snapshot: &Snapshot, pod: &Pod, error: &FitError) -> Result<Vec<Plan>, NoPlan> {
    eligible(snapshot, pod, error)?;
    let mut reasons: Vec<String> = Vec::new();
    let mut plans = Vec::new();
    let wanted = (snapshot.nodes.len() / 10).max(MIN_CANDIDATES);
    for (at, node) in snapshot.nodes.iter().enumerate() {
        if plans.len() == wanted {
            break;
        }
        match error.refusals.get(&node.name) {
            Some(refusal) if refusal.preemptable => match dry_run(snapshot, pod, at) {
                Ok(plan) => plans.push(plan),
                Err(why) => reasons.extend(why),
            },
            _ => reasons.push("Preemption is not helpful for scheduling".to_owned()),
        }
    }
    if plans.is_empty() {
        let text = histogram(snapshot.nodes.len(), reasons.iter().map(String::as_str));
        return Err(NoPlan { text, keeps_nomination: false });
    }
    Ok(plans)
}

/// The plan that costs least.
pub(crate) fn best(plans: Vec<Plan>) -> Option<Plan> {
    plans.into_iter().min_by_key(cost)
}

/// Whether the pod may evict others now.
fn eligible(snapshot: &Snapshot, pod: &Pod, error: &FitError) -> Result<(), NoPlan> {
    if pod.never_preempts {
        return Err(NoPlan {
            text: "not eligible due to preemptionPolicy=Never.".to_owned(),
            keeps_nomination: true,
        });
    }
    let Some(nominated) = &pod.nominated else { return Ok(()) };
    if error.refusals.get(nominated).is_some_and(|r| !r.preemptable) {
        return Ok(());
    }
    let node = snapshot.nodes.iter().find(|n| n.name == *nominated);
    let leaving = |p: &Arc<Pod>| p.preempted && p.priority < pod.priority;
    if node.is_some_and(|n| n.pods.iter().any(leaving)) {
        let text = "not eligible due to a terminating pod on the nominated node.".to_owned();
        return Err(NoPlan { text, keeps_nomination: true });
    }
    Ok(())
}

/// The snapshot with one node's pods changed.
struct Trial {
    snapshot: Snapshot,
    at: usize,
}

impl Trial {
    fn node(&mut self) -> &mut NodeInfo {
        Arc::make_mut(&mut self.snapshot.nodes[self.at])
    }

    fn fits(&self, pod: &Pod) -> Result<(), Vec<String>> {
        let prepared = Prepared::new(&self.snapshot, pod).map_err(|(_, why)| vec![why])?;
        let node = &self.snapshot.nodes[self.at];
        crate::schedule::takes(&prepared, &self.snapshot, pod, node).map_err(|r| r.reasons)
    }
}

/// Takes every pod of lower priority from the node, then gives back as many as can stay.
fn dry_run(snapshot: &Snapshot, pod: &Pod, at: usize) -> Result<Plan, Vec<String>> {
    let node = &snapshot.nodes[at];
    let mut lower: Vec<_> = node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    let mut trial = Trial { snapshot: snapshot.clone(), at };
    for victim in &lower {
        trial.node().remove(&victim.uid);
    }
    trial.fits(pod)?;
    // The important first: they are the first to stay.
    lower.sort_by_key(|p| (Reverse(p.priority), p.started, p.uid.clone()));
    let (protected, free): (Vec<_>, Vec<_>) = protected_by_budget(snapshot, lower);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (candidate, is_protected) in
        protected.into_iter().map(|p| (p, true)).chain(free.into_iter().map(|p| (p, false)))
    {
        trial.node().add(candidate.clone());
        if trial.fits(pod).is_err() {
            trial.node().remove(&candidate.uid);
            violations += usize::from(is_protected);
            victims.push(candidate);
        }
    }
    victims.sort_by_key(|p| (Reverse(p.priority), p.started, p.uid.clone()));
    Ok(Plan { node: node.name.clone(), victims, violations })
}

/// Splits pods into those whose eviction would break a disruption budget and the others.
fn protected_by_budget(snapshot: &Snapshot, pods: Vec<Arc<Pod>>) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut budgets: Vec<(&Budget, i64)> = snapshot.budgets.values().map(|b| (b, b.allowed)).collect();
    pods.into_iter().partition(|pod| {
        let mut broken = false;
        // one on its way out by an eviction is counted there already
        let counted = |b: &Budget| b.covers(pod) && !b.disrupted.contains(&pod.name);
        for (_, left) in budgets.iter_mut().filter(|(b, _)| counted(b)) {
            *left -= 1;
            broken |= *left < 0;
        }
        broken
    })
}

/// Fewest broken budgets, then the least important most important victim, the smallest sum of priorities, the fewest victims,
/// the youngest most important victim.
fn cost(plan: &Plan) -> (usize, i32, i64, usize, Reverse<i64>) {
    let highest = plan.victims.first().map_or(i32::MIN, |p| p.priority);
    // Shifted so that each victim counts, whatever its sign.
    let sum = plan.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = plan.victims.iter().filter(|p| p.priority == highest).map(|p| p.started).min();
    (plan.violations, highest, sum, plan.victims.len(), Reverse(earliest.unwrap_or(0)))
}
