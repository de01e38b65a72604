//! Which nodes get a pod, which pods go, and what the status counts. Pure.

use super::eligible::{Fit, target, updated};
use crate::pods::{available, finished, phase, ready_since};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use machinery::intstr::part;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pods by the node they are on or wait for.
pub(super) type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What a plan reads.
pub(super) struct View<'a> {
    pub set: &'a DaemonSet,
    /// The nodes, and whether the set's pods belong on them.
    pub nodes: &'a [(String, Fit)],
    pub pods: &'a ByNode,
    /// The hash of the set's template.
    pub hash: &'a str,
    pub now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods of `delete` that ended, and the node they ended on.
    pub ended: Vec<(Arc<Pod>, String)>,
}

/// A node's pod of the newest template, and its pod of another.
type Pair<'p> = (Option<&'p Arc<Pod>>, Option<&'p Arc<Pod>>);

/// Groups pods by node. A pod that has ended and is on its way out has made room already.
#[must_use]
pub(super) fn by_node(pods: &[Arc<Pod>]) -> ByNode {
    let mut by_node = ByNode::new();
    for pod in pods {
        if let Some(node) = target(pod)
            && !(finished(pod) && leaving(pod))
        {
            by_node.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in by_node.values_mut() {
        // on a node before waiting for it, then old before young (upstream's podByCreationTimestampAndPhase)
        pods.sort_by_key(|p| (unscheduled(p), p.creation_timestamp().map(|t| t.0), p.name_any()));
    }
    by_node
}

fn unscheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_none_or(str::is_empty)
}

fn leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

impl View<'_> {
    fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn available(&self, pod: &Pod) -> bool {
        available(pod, self.min_ready(), self.now).unwrap_or(false)
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    /// How many nodes may have two pods, and how many none, during a rollout.
    fn bounds(&self) -> (usize, usize) {
        let desired = self.nodes.iter().filter(|(_, fit)| fit.run).count();
        let rolling = self
            .set
            .spec
            .as_ref()
            .and_then(|s| s.update_strategy.as_ref())
            .and_then(|s| s.rolling_update.as_ref());
        // both rounded up
        let scaled = |value: Option<&IntOrString>| {
            let total = i32::try_from(desired).unwrap_or(i32::MAX);
            value.map_or(0, |value| usize::try_from(part(value, total, true)).unwrap_or(0))
        };
        let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()));
        let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()));
        (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
    }

    /// Pods where they belong, none where they do not, at most one a node (two while one replaces the other). `backs_off` says whether a
    /// failed pod's node must wait before it gets another.
    pub(super) fn manage(&self, mut backs_off: impl FnMut(&str) -> bool) -> Steps {
        let surges = self.bounds().0 > 0;
        let mut steps = Steps::default();
        for (node, fit) in self.nodes {
            let pods = self.on(node);
            if fit.run && pods.is_empty() {
                steps.create.push(node.clone());
            } else if fit.stay {
                self.tend(node, *fit, pods, surges, &mut backs_off, &mut steps);
            } else {
                steps.delete.extend(pods.iter().filter(|p| !leaving(p)).cloned());
            }
        }
        // nobody else removes a pod that waits for a node that is gone
        for (node, pods) in self.pods {
            if !self.nodes.iter().any(|(n, _)| n == node) {
                steps.delete.extend(pods.iter().filter(|p| unscheduled(p) && !leaving(p)).cloned());
            }
        }
        steps
    }

    fn tend(
        &self,
        node: &str,
        fit: Fit,
        pods: &[Arc<Pod>],
        surges: bool,
        backs_off: &mut impl FnMut(&str) -> bool,
        steps: &mut Steps,
    ) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|p| !leaving(p)) {
            match phase(pod) {
                "Failed" if backs_off(node) => {}
                "Failed" | "Succeeded" => {
                    steps.ended.push((pod.clone(), node.to_owned()));
                    steps.delete.push(pod.clone());
                }
                _ => running.push(pod),
            }
        }
        if !surges {
            steps.delete.extend(running.into_iter().skip(1).cloned());
            return;
        }
        if running.is_empty() && fit.run && pods.iter().all(|p| leaving(p)) {
            steps.create.push(node.to_owned());
            return;
        }
        if running.len() <= 1 {
            return;
        }
        let (mut new, mut old) = (None, None);
        for pod in running {
            let slot = if updated(self.set, pod, self.hash) { &mut new } else { &mut old };
            match slot {
                None => *slot = Some(pod),
                Some(_) => steps.delete.push(pod.clone()),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (ready_since(old).is_none() || self.available(new))
        {
            steps.delete.push(old.clone());
        }
    }

    /// The next step of a rollout: old pods that go, and nodes that get a second pod first where surging.
    pub(super) fn roll(&self) -> Steps {
        match self.bounds() {
            (0, unavailable) => self.replace(unavailable),
            (surge, _) => self.surge(surge),
        }
    }

    /// Old pods go first; what is unavailable, new or old, takes one of the allowed absences. An old pod that is unavailable goes in any
    /// case, as that makes nothing worse.
    fn replace(&self, most: usize) -> Steps {
        let mut busy = 0;
        let (mut free, mut candidates) = (Vec::new(), Vec::new());
        for (node, fit) in self.nodes {
            let pods = self.on(node);
            if pods.is_empty() {
                busy += usize::from(fit.run);
                continue;
            }
            match self.pair(pods) {
                None | Some((Some(_), Some(_)) | (None, None)) => busy += 1,
                Some((Some(new), None)) => busy += usize::from(!self.available(new)),
                Some((None, Some(old))) if self.available(old) => candidates.push(old.clone()),
                Some((None, Some(old))) => {
                    busy += 1;
                    free.push(old.clone());
                }
            }
        }
        free.extend(candidates.into_iter().take(most.saturating_sub(busy)));
        Steps { delete: free, ..Steps::default() }
    }

    /// New pods come first, at most `most` of them for old ones that are available.
    fn surge(&self, most: usize) -> Steps {
        let mut steps = Steps::default();
        let (mut busy, mut available) = (0, 0_usize);
        let (mut candidates, mut sunset) = (Vec::new(), Vec::new());
        for (node, fit) in self.nodes {
            let Some((new, old)) = self.pair(self.on(node)) else {
                busy += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.available(pod)));
            match (new, old) {
                (_, None) => {}
                (Some(new), Some(_)) if !self.available(new) => busy += 1,
                (Some(_), Some(old)) => steps.delete.push(old.clone()),
                (None, Some(old)) => match (self.available(old), fit.run) {
                    (false, true) => steps.create.push(node.clone()),
                    (false, false) => steps.delete.push(old.clone()),
                    (true, true) => candidates.push(node.clone()),
                    (true, false) => sunset.push(old.clone()),
                },
            }
        }
        // a pod that no longer belongs where it is goes once another is available in its stead
        let desired = self.nodes.iter().filter(|(_, fit)| fit.run).count();
        steps.delete.extend(sunset.into_iter().take(available.saturating_sub(desired)));
        steps.create.extend(candidates.into_iter().take(most.saturating_sub(busy)));
        steps
    }

    /// The newest template's pod and the other one; `None` when there are more than these.
    fn pair<'p>(&self, pods: &'p [Arc<Pod>]) -> Option<Pair<'p>> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|p| !leaving(p)) {
            let slot = if updated(self.set, pod, self.hash) { &mut new } else { &mut old };
            if slot.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    /// What the status says.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (node, fit) in self.nodes {
            let first = self.on(node).first();
            if !fit.run {
                counts.misscheduled += i32::from(first.is_some());
                continue;
            }
            counts.desired += 1;
            let Some(pod) = first else { continue };
            counts.current += 1;
            counts.ready += i32::from(ready_since(pod).is_some());
            match available(pod, self.min_ready(), self.now) {
                Ok(available) => counts.available += i32::from(available),
                Err(wait) => {
                    counts.next_available = Some(counts.next_available.map_or(wait, |w| w.min(wait)))
                }
            }
            counts.updated += i32::from(updated(self.set, pod, self.hash));
        }
        counts
    }
}

/// What the status counts.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for the status fields")]
pub(super) struct Counts {
    pub desired: i32,
    pub current: i32,
    pub misscheduled: i32,
    pub ready: i32,
    pub updated: i32,
    pub available: i32,
    /// Until the next ready pod counts as available.
    pub next_available: Option<Duration>,
}

#[cfg(test)]
mod tests;
