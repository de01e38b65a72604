//! The manager and critical pods, for which others make room.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Manager;
use crate::admit::{self, preempt};
use crate::eviction::order::{Cause, Eviction, PREEMPTED};
use crate::pod::status::Outcome;

/// What becomes of a new pod.
pub(super) enum Verdict {
    Taken,
    Refused(Outcome),
    /// It is taken once others have made room.
    Waits,
}

impl Manager {
    /// Has others make room for a critical pod that there is too little of; those that are doing so already count as gone.
    pub(super) fn make_room(&self, pod: &Pod, others: &[Arc<Pod>], node: &admit::Node<'_>) -> Verdict {
        if admit::shortages(pod, others, node).is_empty() {
            return Verdict::Taken;
        }
        let evictions = &self.context.evictions;
        let goes = |other: &Pod| {
            let ordered = evictions.of(crate::pod::uid(other));
            ordered.is_some_and(|eviction| eviction.cause == Cause::Critical)
        };
        let staying: Vec<Arc<Pod>> = others.iter().filter(|other| !goes(other)).cloned().collect();
        let missing = admit::shortages(pod, &staying, node);
        match preempt::victims(pod, &staying, &missing) {
            Ok(victims) => {
                for victim in victims {
                    let eviction = Eviction::for_critical();
                    let message = eviction.message.clone();
                    self.context.recorder.warning(&victim, None, PREEMPTED, message);
                    evictions.order(crate::pod::uid(&victim), eviction);
                }
                Verdict::Waits
            }
            Err(why) => {
                let why = format!("preemption: error finding a set of pods to preempt: {why}");
                let message = format!(
                    "Pod was rejected: Unexpected error while attempting to recover from admission failure: {why}"
                );
                Verdict::Refused(Outcome { reason: "UnexpectedAdmissionError".to_owned(), message })
            }
        }
    }
}
