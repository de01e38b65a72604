//! How finished pods enter a job's counts: noted as uncounted, released from the finalizer, counted. A count that was cut short anywhere is
//! neither lost nor made twice.

use super::{Sync, condition, holds, set_condition};
use crate::job::policy::{Verdict, judge};
use crate::pods::phase;
use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::HashSet;
use std::sync::Arc;

/// Most pods on their way into the counts.
const MAX_UNCOUNTED: usize = 500;

impl Sync<'_> {
    /// Notes what ended in the status, before any finalizer goes; gives the pods whose finalizer may go then, and whether these are all.
    pub(crate) fn track(&mut self) -> (Vec<Arc<Pod>>, bool) {
        let held: HashSet<String> =
            self.pods.iter().filter(|p| self.holds_finalizer(p)).filter_map(|p| p.uid()).collect();
        count_released(&mut self.status, &held);
        let mut release = Vec::new();
        let (mut new_indexes, mut capped) = (Vec::new(), false);
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let over_by_failure = self.finished.as_ref().is_some_and(|f| f.type_ != "SuccessCriteriaMet");
        for pod in self.pods.iter().filter(|p| self.holds_finalizer(p)) {
            let failed = self.failed(pod);
            if !self.releasable(pod, failed) {
                continue;
            }
            release.push(pod.clone());
            let uid = pod.uid().unwrap_or_default();
            let known = |list: &Option<Vec<String>>| list.iter().flatten().any(|u| *u == uid);
            if phase(pod) == "Succeeded" && !known(&uncounted.failed) {
                if self.indexed() {
                    new_indexes.extend(self.index(pod).filter(|i| !self.before.has(*i)));
                } else if !known(&uncounted.succeeded) {
                    uncounted.succeeded.get_or_insert_default().push(uid);
                }
            } else if (failed || over_by_failure)
                && !known(&uncounted.failed)
                && (!self.indexed() || self.index(pod).is_some())
                && judge(self.job, pod) != Verdict::Ignore
            {
                uncounted.failed.get_or_insert_default().push(uid);
            }
            let waiting = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
            if new_indexes.len() + waiting(&uncounted.succeeded) + waiting(&uncounted.failed) >= MAX_UNCOUNTED
            {
                capped = true;
                break;
            }
        }
        self.status.uncounted_terminated_pods = Some(uncounted);
        if self.indexed() {
            let mut done = self.before.clone();
            new_indexes.into_iter().for_each(|i| done.insert(i));
            self.status.succeeded = Some(done.total());
            self.status.completed_indexes = Some(done.to_string()).filter(|t| !t.is_empty());
            self.status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
        }
        self.announce();
        (release, !capped)
    }

    /// A finalizer goes with the job, with the job's end, with a success, and with a failure that no replacement has to learn of.
    fn releasable(&self, pod: &Arc<Pod>, failed: bool) -> bool {
        if self.job.metadata.deletion_timestamp.is_some()
            || self.finished.is_some()
            || phase(pod) == "Succeeded"
        {
            return true;
        }
        let delayed = || {
            let index = self.index(pod)?;
            self.delayed.get(&index).map(|p| p.metadata.uid == pod.metadata.uid)
        };
        failed && !delayed().unwrap_or(false)
    }

    /// The end is announced before finalizers go, so that it is the same end after a restart.
    fn announce(&mut self) {
        let Some(finished) = &mut self.finished else { return };
        let last = match finished.type_.as_str() {
            "FailureTarget" => "Failed",
            "SuccessCriteriaMet" => "Complete",
            _ => return,
        };
        if holds(&self.status, &finished.type_).is_none() {
            self.status.conditions.get_or_insert_default().push(finished.clone());
        }
        let (reason, message) = (finished.reason.as_deref(), finished.message.as_deref());
        *finished = condition(last, reason.unwrap_or_default(), message.unwrap_or_default(), self.now);
    }

    /// After finalizers went: counts, and closes the job when nothing is left to count or to go. `released` are the uids whose finalizer
    /// went just now.
    pub(crate) fn settle(&mut self, released: &HashSet<String>, all: bool) -> bool {
        let held: HashSet<String> = self
            .pods
            .iter()
            .filter(|p| self.holds_finalizer(p))
            .filter_map(|p| p.uid())
            .filter(|uid| !released.contains(uid))
            .collect();
        count_released(&mut self.status, &held);
        let Some(finished) = &self.finished else { return false };
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let waits = uncounted.is_some_and(|u| {
            u.succeeded.as_ref().is_some_and(|l| !l.is_empty())
                || u.failed.as_ref().is_some_and(|l| !l.is_empty())
        });
        if !all || waits || self.terminating > 0 {
            return false;
        }
        if finished.type_ == "Complete" {
            self.status.completion_time = finished.last_transition_time.clone();
        }
        set_condition(self.status.conditions.get_or_insert_default(), finished.clone());
        true
    }
}

/// Moves uids without a finalizer from the uncounted into the counts.
fn count_released(status: &mut JobStatus, held: &HashSet<String>) {
    let UncountedTerminatedPods { failed, succeeded } =
        status.uncounted_terminated_pods.get_or_insert_default();
    for (list, count) in [(succeeded, &mut status.succeeded), (failed, &mut status.failed)] {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(|uid| held.contains(uid));
        let gone = i32::try_from(before - uids.len()).unwrap_or(0);
        if gone > 0 {
            *count = Some(count.unwrap_or(0).saturating_add(gone));
        }
        if uids.is_empty() {
            *list = None;
        }
    }
}
