//! An attempt in which extenders have a say: as [`mod@crate::attempt`], but for the waiting.

use crate::attempt::{Attempt, planned};
use crate::extender::{Extender, Raw};
use crate::fit::FitError;
use crate::model::{NodeInfo, Pod, Snapshot};
use crate::preempt::{best, plans};
use crate::schedule::{Search, pick, search};
use std::sync::Arc;

/// Who is asked, and what they are shown.
pub(crate) struct Extended<'a> {
    pub(crate) extenders: Vec<&'a Extender>,
    pub(crate) raw: &'a Raw,
}

impl Extended<'_> {
    /// Tries the pod on the snapshot.
    ///
    /// # Errors
    /// An extender that counts does not answer.
    pub(crate) async fn attempt(
        &self,
        snapshot: &Snapshot,
        pod: &Pod,
        round: u64,
    ) -> Result<Attempt, String> {
        // The node that room was made on first; where that is refused now, all of them.
        for by_nomination in [pod.nominated.is_some(), false] {
            let Search { prepared, feasible, mut error } = match search(snapshot, pod, round, by_nomination) {
                Ok(found) => found,
                Err(error) => return self.refused(snapshot, pod, error).await,
            };
            let feasible = self.filter(pod, feasible, &mut error).await?;
            match &feasible[..] {
                [] if by_nomination => {}
                [] => return self.refused(snapshot, pod, error).await,
                [only] => return Ok(Attempt::Placed(only.name.clone())),
                _ => {
                    let mut scores = prepared.score(snapshot, pod, &feasible);
                    self.prioritize(pod, &feasible, &mut scores).await;
                    return Ok(Attempt::Placed(pick(&feasible, scores, round)));
                }
            }
        }
        Err("no search was made".to_owned())
    }

    async fn filter(
        &self,
        pod: &Pod,
        mut nodes: Vec<Arc<NodeInfo>>,
        error: &mut FitError,
    ) -> Result<Vec<Arc<NodeInfo>>, String> {
        for extender in &self.extenders {
            if nodes.is_empty() {
                break;
            }
            match extender.filter(self.raw, &pod.uid, nodes.clone(), error).await {
                Ok(left) => nodes = left,
                Err(why) if extender.is_ignorable() => {
                    tracing::info!(error = why, "scheduler: skipped an extender that failed");
                }
                Err(why) => return Err(why),
            }
        }
        Ok(nodes)
    }

    /// Scores that do not come are done without.
    async fn prioritize(&self, pod: &Pod, nodes: &[Arc<NodeInfo>], scores: &mut [i64]) {
        let asked = self.extenders.iter().map(|extender| extender.prioritize(self.raw, &pod.uid, nodes));
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(more) => {
                    for (node, score) in nodes.iter().zip(scores.iter_mut()) {
                        *score = score.saturating_add(more.get(&node.name).copied().unwrap_or(0));
                    }
                }
                Err(error) => tracing::info!(error, "scheduler: an extender gave no scores"),
            }
        }
    }

    async fn refused(&self, snapshot: &Snapshot, pod: &Pod, error: FitError) -> Result<Attempt, String> {
        if error.nodes == 0 || !snapshot.profile.preempts {
            return Ok(Attempt::Failed { error, nominate: None, victims: Vec::new() });
        }
        let mut found = match plans(snapshot, pod, &error) {
            Ok(found) => found,
            Err(refusal) => return Ok(planned(error, pod, Err(refusal))),
        };
        for extender in self.extenders.iter().filter(|extender| extender.preempts()) {
            match extender.preempt(self.raw, &pod.uid, found.clone(), &snapshot.nodes).await {
                Ok(agreed) => found = agreed,
                Err(why) if extender.is_ignorable() => {
                    tracing::info!(error = why, "scheduler: skipped an extender that failed");
                }
                Err(why) => return Err(why),
            }
            if found.is_empty() {
                break;
            }
        }
        Ok(match best(found) {
            Some(plan) => planned(error, pod, Ok(plan)),
            None => Attempt::Failed { error, nominate: None, victims: Vec::new() },
        })
    }
}
