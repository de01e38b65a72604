//! One attempt at a pod: a node, or whom to evict and what to say. Pure.

use crate::fit::FitError;
use crate::model::{Pod, Snapshot};
use crate::preempt::{NoPlan, Plan, best, plans};
use crate::schedule::schedule;
use std::sync::Arc;

/// How the attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// The node takes the pod.
    Placed(String),
    /// No node takes it (now).
    Failed {
        /// Why; with what preemption had to say.
        error: FitError,
        /// The node that will take it once the victims have left.
        nominate: Option<String>,
        /// Pods to be evicted first.
        victims: Vec<Arc<Pod>>,
    },
}

/// Tries the pod on the snapshot. `round` as for [`schedule`].
pub fn attempt(snapshot: &Snapshot, pod: &Pod, round: u64) -> Attempt {
    let error = match schedule(snapshot, pod, round) {
        Ok(node) => return Attempt::Placed(node),
        Err(error) => error,
    };
    if error.nodes == 0 {
        return Attempt::Failed { error, nominate: None, victims: Vec::new() };
    }
    if !snapshot.profile.preempts {
        return Attempt::Failed { error, nominate: None, victims: Vec::new() };
    }
    let plan = plans(snapshot, pod, &error).map(best);
    match plan {
        Ok(Some(plan)) => planned(error, pod, Ok(plan)),
        Ok(None) => Attempt::Failed { error, nominate: None, victims: Vec::new() },
        Err(refusal) => planned(error, pod, Err(refusal)),
    }
}

/// How an attempt ends for which room may be made.
pub(crate) fn planned(mut error: FitError, pod: &Pod, plan: Result<Plan, NoPlan>) -> Attempt {
    match plan {
        Ok(plan) => Attempt::Failed { error, nominate: Some(plan.node), victims: plan.victims },
        Err(refusal) => {
            // Device claims come first upstream; without any there is nothing to take back.
            error.preemption = Some(format!("no new claims to deallocate, preemption: {}", refusal.text));
            let nominate = if refusal.keeps_nomination { pod.nominated.clone() } else { None };
            Attempt::Failed { error, nominate, victims: Vec::new() }
        }
    }
}
