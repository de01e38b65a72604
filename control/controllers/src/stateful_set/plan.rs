//! What a stateful set does next, and what its status counts. Pure.

use crate::pods::{available, phase, ready_since};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The label that names a pod's revision.
pub(super) const REVISION_LABEL: &str = "controller-revision-hash";

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Make the pod of an ordinal, of the newest template or of the one before.
    Create {
        ordinal: i32,
        /// Of the newest template.
        updated: bool,
    },
    /// Remove a pod that has ended; it is made again when it is gone.
    Recreate(Arc<Pod>),
    /// See that the pod's claims are there and belong to whom they must, and that its labels say who it is.
    Keep(Arc<Pod>),
    /// Remove a pod the set is too small for.
    Shrink(Arc<Pod>),
    /// Remove a pod of an old template.
    Replace(Arc<Pod>),
}

/// What a plan reads.
pub(super) struct View<'a> {
    pub set: &'a StatefulSet,
    pub pods: &'a [Arc<Pod>],
    /// Name of the revision the set comes from.
    pub current: &'a str,
    /// Name of the revision with the set's template.
    pub update: &'a str,
    pub now: Timestamp,
}

/// What the status counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for the status fields")]
pub(super) struct Counts {
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub current: i32,
    pub updated: i32,
    /// The revision the set comes from, after this.
    pub current_revision: String,
    /// Until the next ready pod counts as available.
    pub next_available: Option<Duration>,
}

/// Those of the old revisions (oldest first) that neither the set comes from nor a pod has: only these count against the history limit.
#[must_use]
pub(super) fn dead_revisions(
    old: &[Arc<ControllerRevision>],
    current: &str,
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let live = |name: &str| name == current || pods.iter().any(|pod| revision(pod) == name);
    old.iter().filter(|revision| !live(&revision.name_any())).cloned().collect()
}

/// The ordinal at the end of a pod's name, where the rest is the set's.
#[must_use]
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let text = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    text.parse().ok().filter(|n: &i32| *n >= 0 && n.to_string() == text)
}

fn leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn revision(pod: &Pod) -> &str {
    pod.labels().get(REVISION_LABEL).map_or("", String::as_str)
}

impl View<'_> {
    fn wanted(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1).max(0)
    }

    fn start(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.ordinals.as_ref()?.start).unwrap_or(0)
    }

    fn in_range(&self, ordinal: i32) -> bool {
        ordinal >= self.start() && ordinal - self.start() < self.wanted()
    }

    fn available(&self, pod: &Pod) -> Result<bool, Duration> {
        let min_ready = self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        if phase(pod) != "Running" { Ok(false) } else { available(pod, min_ready, self.now) }
    }

    fn healthy(&self, pod: &Pod) -> bool {
        !leaving(pod) && self.available(pod).unwrap_or(false)
    }

    fn rolls(&self) -> bool {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
    }

    fn partition(&self) -> Option<i32> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref()?;
        Some(strategy.rolling_update.as_ref()?.partition.unwrap_or(0))
    }

    /// Whether a new pod of the ordinal has the newest template.
    fn is_updated(&self, ordinal: i32) -> bool {
        let at = ordinal - self.start();
        let behind = match self.partition() {
            Some(partition) => at < partition,
            None => at < self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
        };
        !(self.rolls() && behind)
    }

    /// What the status says.
    #[must_use]
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { current_revision: self.current.to_owned(), ..Counts::default() };
        for pod in self.pods {
            counts.replicas += 1;
            counts.ready += i32::from(phase(pod) == "Running" && ready_since(pod).is_some());
            match self.available(pod) {
                Ok(available) => counts.available += i32::from(available),
                Err(wait) => {
                    counts.next_available = Some(counts.next_available.map_or(wait, |w| w.min(wait)));
                }
            }
            if !leaving(pod) {
                counts.current += i32::from(revision(pod) == self.current);
                counts.updated += i32::from(revision(pod) == self.update);
            }
        }
        let wanted = self.wanted();
        if self.rolls() && [counts.updated, counts.replicas, counts.ready] == [wanted; 3] {
            counts.current_revision = self.update.to_owned();
            counts.current = counts.updated;
        }
        counts
    }

    /// What to do now. In order, one step at a time, unless the set is `Parallel`.
    #[must_use]
    pub(super) fn plan(&self) -> Vec<Action> {
        let policy = self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref());
        let ordered = policy != Some("Parallel");
        let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
            self.pods.iter().filter_map(|p| Some((ordinal(self.set, p)?, p))).collect();
        let mut actions = Vec::new();
        for at in 0..self.wanted() {
            let Some(ordinal) = self.start().checked_add(at) else { break };
            let Some(pod) = by_ordinal.get(&ordinal).copied() else {
                actions.push(Action::Create { ordinal, updated: self.is_updated(ordinal) });
                if ordered {
                    return actions;
                }
                continue;
            };
            if crate::pods::finished(pod) {
                if !leaving(pod) {
                    actions.push(Action::Recreate(pod.clone()));
                }
                if ordered {
                    return actions;
                }
                continue;
            }
            if !leaving(pod) {
                actions.push(Action::Keep(pod.clone()));
            }
            if ordered && !self.healthy(pod) {
                return actions;
            }
        }
        let surplus = by_ordinal.iter().filter(|(ordinal, _)| !self.in_range(**ordinal));
        let unhealthy = by_ordinal.iter().find(|(_, pod)| !self.healthy(pod)).map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in surplus.rev() {
            if leaving(pod) {
                if ordered {
                    return actions;
                }
                continue;
            }
            if ordered && !self.healthy(pod) && unhealthy != Some(*ordinal) {
                return actions;
            }
            actions.push(Action::Shrink((*pod).clone()));
            if ordered {
                return actions;
            }
        }
        if self.rolls() {
            self.roll(&by_ordinal, &mut actions);
        }
        actions
    }

    /// An old pod that may go: the highest ordinal first, none below the partition, one after the other. Whatever is not well above it is
    /// waited for (`maxUnavailable` counts with upstream's gate `MaxUnavailableStatefulSet` only, which is off).
    fn roll(&self, by_ordinal: &BTreeMap<i32, &Arc<Pod>>, actions: &mut Vec<Action>) {
        for at in (self.partition().unwrap_or(0).max(0)..self.wanted()).rev() {
            let Some(pod) = by_ordinal.get(&(self.start() + at)) else { return };
            let old = revision(pod) != self.update && !leaving(pod);
            if old {
                actions.push(Action::Replace((*pod).clone()));
            }
            if old || !self.healthy(pod) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
