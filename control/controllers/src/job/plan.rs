//! What a job's pods say of it, what it needs next, and how finished pods enter its counts. Pure.

mod track;

use super::indexes::Indexes;
use super::pace::{Record, ended_at, remaining};
use super::policy::{Verdict, enough, judge};
use crate::pods::{active, phase, ready_since};
use crate::replica_set::removal_rank;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// On every pod until the job's status has counted it.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Which index a pod works on: annotation and label.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index failed before this pod.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many more failures of the index did not count.
pub(super) const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Most pods made or removed in one go.
const BURST: usize = 500;

/// What to do about the pods of a job that is not finished.
#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    Wait(Duration),
    /// Make these: an index each, or as many without.
    Create(Vec<Option<i32>>),
    /// Remove these; they do not count as failures.
    Delete(Vec<Arc<Pod>>),
}

/// A job, its pods, and what follows from them.
pub(super) struct Sync<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: Vec<Arc<Pod>>,
    /// Pods whose finalizer is off, whatever the informer still shows.
    released: &'a HashSet<String>,
    now: Timestamp,
    /// Pods that have not ended and are not being deleted.
    pub active: Vec<Arc<Pod>>,
    /// How many of these are ready.
    pub ready: i32,
    /// Pods being deleted that have not ended.
    pub terminating: i32,
    /// Successes, counted or not.
    pub succeeded: i32,
    /// Pods that ended since the status was written.
    pub ended: (Vec<Arc<Pod>>, Vec<Arc<Pod>>),
    /// Why the job is over, once it is.
    pub finished: Option<JobCondition>,
    /// When the job is past its deadline.
    pub deadline: Option<Duration>,
    before: Indexes,
    done: Indexes,
    failed_indexes: Option<Indexes>,
    /// Failed pods whose replacement takes over their failure count.
    delayed: BTreeMap<i32, Arc<Pod>>,
    /// The status as it will be.
    pub status: JobStatus,
}

/// A condition that holds.
fn condition(type_: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; whether that changed anything. One that is false and was never there is not added.
fn set_condition(all: &mut Vec<JobCondition>, new: JobCondition) -> bool {
    match all.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => {
            false
        }
        Some(old) => {
            *old = new;
            true
        }
        None if new.status == "False" => false,
        None => {
            all.push(new);
            true
        }
    }
}

fn holds<'s>(status: &'s JobStatus, type_: &str) -> Option<&'s JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

/// Whether the job is over.
#[must_use]
pub(crate) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| holds(s, "Complete").is_some() || holds(s, "Failed").is_some())
}

/// Whether a pod waits to be counted.
#[must_use]
pub(super) fn tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|f| f == FINALIZER)
}

fn number(pod: &Pod, annotation: &str) -> Option<i32> {
    pod.annotations().get(annotation)?.parse().ok().filter(|n| *n >= 0)
}

fn length<T>(list: &[T]) -> i32 {
    i32::try_from(list.len()).unwrap_or(i32::MAX)
}

impl<'a> Sync<'a> {
    /// Looks at a job. `released` are the uids of pods whose finalizer is off although the informer may not show it yet.
    #[must_use]
    pub(super) fn new(
        job: &'a Job,
        spec: &'a JobSpec,
        mut pods: Vec<Arc<Pod>>,
        released: &'a HashSet<String>,
        now: Timestamp,
    ) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let waiting =
            [&uncounted.succeeded, &uncounted.failed].map(|l| length(l.as_deref().unwrap_or_default()));
        pods.sort_by_key(|p| number(p, INDEX));
        let active: Vec<Arc<Pod>> = pods.iter().filter(|p| active(p)).cloned().collect();
        let mut sync = Self {
            ready: length(&active.iter().filter(|p| ready_since(p).is_some()).collect::<Vec<_>>()),
            terminating: length(&pods.iter().filter(|p| leaving(p)).collect::<Vec<_>>()),
            active,
            job,
            spec,
            released,
            now,
            succeeded: 0,
            ended: (Vec::new(), Vec::new()),
            finished: None,
            deadline: None,
            before: Indexes::default(),
            done: Indexes::default(),
            failed_indexes: None,
            delayed: BTreeMap::new(),
            status,
            pods,
        };
        // the deadline does not run while a job is suspended: it starts again, also for one suspended by a server that kept the time
        let resumes = holds(&sync.status, "Suspended").is_some();
        if !sync.suspended() && (resumes || sync.status.start_time.is_none()) {
            sync.status.start_time = Some(Time(now));
        }
        sync.ended.0 = sync.fresh(0, |p| phase(p) == "Succeeded");
        sync.ended.1 = sync.fresh(1, |p| sync.failed(p));
        let counted = |n: Option<i32>| n.unwrap_or(0);
        sync.succeeded = counted(sync.status.succeeded) + length(&sync.ended.0) + waiting[0];
        let blamed = sync.ended.1.iter().filter(|p| judge(job, p) != Verdict::Ignore).count();
        let failed = counted(sync.status.failed) + i32::try_from(blamed).unwrap_or(i32::MAX) + waiting[1];
        sync.finished = sync.over(failed);
        if sync.indexed() {
            sync.look_at_indexes();
        }
        sync
    }

    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(i32::MAX)
    }

    /// Only pods that have really failed are replaced; otherwise one that is being deleted has failed already.
    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn failed(&self, pod: &Pod) -> bool {
        match phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.replaces_failed_only() && pod.metadata.deletion_timestamp.is_some(),
        }
    }

    fn holds_finalizer(&self, pod: &Pod) -> bool {
        tracked(pod) && !self.released.contains(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    /// The pod's index, where the job has that index.
    fn index(&self, pod: &Pod) -> Option<i32> {
        number(pod, INDEX).filter(|i| *i < self.completions())
    }

    fn is_uncounted(&self, which: usize, pod: &Pod) -> bool {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let list = uncounted.and_then(|u| if which == 0 { u.succeeded.as_ref() } else { u.failed.as_ref() });
        list.into_iter().flatten().any(|uid| Some(uid) == pod.metadata.uid.as_ref())
    }

    /// Pods that ended and that the status knows nothing of.
    fn fresh(&self, which: usize, ended: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let counts = |p: &&Arc<Pod>| {
            self.holds_finalizer(p)
                && !self.is_uncounted(which, p)
                && (!self.indexed() || self.index(p).is_some())
                && ended(p)
        };
        self.pods.iter().filter(counts).cloned().collect()
    }

    /// Why the job ends, apart from its indexes.
    fn over(&mut self, failed: i32) -> Option<JobCondition> {
        if let Some(met) = holds(&self.status, "SuccessCriteriaMet") {
            return Some(met.clone());
        }
        if let Some(target) = holds(&self.status, "FailureTarget") {
            let (reason, message) = (target.reason.as_deref(), target.message.as_deref());
            return Some(condition(
                "Failed",
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
                self.now,
            ));
        }
        for pod in self.pods.iter().filter(|p| self.failed(p)) {
            if self.spec.pod_failure_policy.is_some()
                && let Verdict::FailJob(message) = judge(self.job, pod)
            {
                return Some(condition("FailureTarget", "PodFailurePolicy", &message, self.now));
            }
        }
        if failed > self.spec.backoff_limit.unwrap_or(6) || self.restarts_past_limit() {
            let message = "Job has reached the specified backoff limit";
            return Some(condition("FailureTarget", "BackoffLimitExceeded", message, self.now));
        }
        if let (Some(seconds), Some(start), false) =
            (self.spec.active_deadline_seconds, &self.status.start_time, self.suspended())
        {
            let left = SignedDuration::from_secs(seconds) - self.now.duration_since(start.0);
            if left <= SignedDuration::ZERO {
                let message = "Job was active longer than specified deadline";
                return Some(condition("FailureTarget", "DeadlineExceeded", message, self.now));
            }
            self.deadline = Some(left.unsigned_abs());
        }
        None
    }

    fn restarts_past_limit(&self) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let live = self.pods.iter().filter(|p| matches!(phase(p), "Running" | "Pending"));
        let containers = live
            .filter_map(|p| p.status.as_ref())
            .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
        let restarts: i32 = containers.map(|c| c.restart_count).sum();
        match self.spec.backoff_limit.unwrap_or(6) {
            0 => restarts > 0,
            limit => restarts >= limit,
        }
    }

    fn look_at_indexes(&mut self) {
        let completions = self.completions();
        self.before =
            Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default(), completions);
        self.done = self.before.clone();
        let succeeded = self.pods.iter().filter(|p| self.holds_finalizer(p) && phase(p) == "Succeeded");
        let done: Vec<i32> = succeeded.filter_map(|p| self.index(p)).collect();
        done.into_iter().for_each(|index| self.done.insert(index));
        self.succeeded = self.done.total();
        if let Some(limit) = self.spec.backoff_limit_per_index {
            let mut failed =
                Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            for pod in self.pods.iter().filter(|p| self.holds_finalizer(p) && self.failed(p)) {
                let given_up = match judge(self.job, pod) {
                    Verdict::FailIndex => true,
                    Verdict::Ignore => false,
                    _ => number(pod, INDEX_FAILURES).unwrap_or(0) >= limit,
                };
                if let Some(index) = self.index(pod).filter(|_| given_up) {
                    failed.insert(index);
                }
            }
            if self.finished.is_none() {
                let (reason, message) = if self.spec.max_failed_indexes.is_some_and(|m| failed.total() > m) {
                    let message = "Job has exceeded the specified maximal number of failed indexes";
                    ("MaxFailedIndexesExceeded", message)
                } else if failed.total() > 0 && failed.total() + self.done.total() >= completions {
                    ("FailedIndexes", "Job has failed indexes")
                } else {
                    ("", "")
                };
                self.finished =
                    (!reason.is_empty()).then(|| condition("FailureTarget", reason, message, self.now));
            }
            self.failed_indexes = Some(failed);
            self.delay_failed();
        }
        if self.finished.is_none()
            && let Some(message) = enough(self.spec.success_policy.as_ref(), completions, &self.done)
        {
            self.finished = Some(condition("SuccessCriteriaMet", "SuccessPolicy", &message, self.now));
        }
    }

    /// Finds, for each index that gets a new pod, the failed one whose failure count that inherits.
    fn delay_failed(&mut self) {
        let busy = self.active_indexes();
        let mut delayed: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|p| self.holds_finalizer(p) && self.failed(p)) {
            let Some(index) = self.index(pod) else { continue };
            let settled = self.failed_indexes.as_ref().is_some_and(|f| f.has(index));
            if self.done.has(index) || settled || busy.has(index) {
                continue;
            }
            let newer = delayed
                .get(&index)
                .is_none_or(|old| (failures(old), ended_at(old)) <= (failures(pod), ended_at(pod)));
            if newer {
                delayed.insert(index, pod.clone());
            }
        }
        self.delayed = delayed;
    }

    fn active_indexes(&self) -> Indexes {
        let mut indexes = Indexes::default();
        self.active.iter().filter_map(|p| self.index(p)).for_each(|i| indexes.insert(i));
        indexes
    }

    /// What the job needs, while it is not over.
    #[must_use]
    pub(super) fn manage(&self, record: Record) -> Step {
        let there = length(&self.active);
        if self.suspended() {
            return if there == 0 { Step::Nothing } else { Step::Delete(self.active.clone()) };
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            // a queue: once a pod has found it empty no other is made
            None if self.succeeded > 0 => there,
            None => parallelism,
            Some(completions) => completions.saturating_sub(self.succeeded).clamp(0, parallelism),
        };
        let mut surplus = self.surplus(usize::try_from(there - wanted).unwrap_or(0));
        if !surplus.is_empty() {
            surplus.truncate(BURST);
            return Step::Delete(surplus);
        }
        let held = if self.replaces_failed_only() { self.terminating } else { 0 };
        let missing = usize::try_from(wanted - held - there).unwrap_or(0).min(BURST);
        if missing == 0 {
            return Step::Nothing;
        }
        if self.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = record.wait(self.now)
        {
            return Step::Wait(wait);
        }
        if !self.indexed() {
            return Step::Create(vec![None; missing]);
        }
        let mut taken = self.active_indexes().with(&self.done);
        if let Some(failed) = &self.failed_indexes {
            taken = taken.with(failed);
        }
        if self.replaces_failed_only() {
            self.pods
                .iter()
                .filter(|p| leaving(p))
                .filter_map(|p| self.index(p))
                .for_each(|i| taken.insert(i));
        }
        let mut soonest = None;
        let mut now = Vec::new();
        for index in taken.lowest_missing(missing, self.completions()) {
            let wait = self.delayed.get(&index).filter(|_| self.spec.backoff_limit_per_index.is_some());
            match wait.and_then(|p| remaining(failures(p).saturating_add(1), ended_at(p), self.now)) {
                None => now.push(Some(index)),
                Some(wait) => soonest = Some(soonest.map_or(wait, |s: Duration| s.min(wait))),
            }
        }
        match (now.is_empty(), soonest) {
            (true, Some(wait)) => Step::Wait(wait),
            (true, None) => Step::Nothing,
            (false, _) => Step::Create(now),
        }
    }

    /// Active pods without a place: no index or one too many, then the least useful until `at_least` go.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut rest = self.active.clone();
        rest.sort_by_cached_key(|p| removal_rank(p));
        let mut surplus = Vec::new();
        if self.indexed() {
            let mut kept = Indexes::default();
            // the most useful pod keeps the index
            for pod in std::mem::take(&mut rest).into_iter().rev() {
                match self.index(&pod) {
                    Some(index) if !kept.has(index) => {
                        kept.insert(index);
                        rest.push(pod);
                    }
                    _ => surplus.push(pod),
                }
            }
            rest.reverse();
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(rest.into_iter().take(more));
        surplus
    }

    /// What an index's next pod says of failures before it: counted ones, ignored ones.
    #[must_use]
    pub(super) fn failures_before(&self, index: i32) -> Option<(i32, i32)> {
        self.spec.backoff_limit_per_index?;
        let Some(pod) = self.delayed.get(&index) else { return Some((0, 0)) };
        let (counted, ignored) =
            (number(pod, INDEX_FAILURES).unwrap_or(0), number(pod, INDEX_IGNORED).unwrap_or(0));
        Some(if judge(self.job, pod) == Verdict::Ignore {
            (counted, ignored.saturating_add(1))
        } else {
            (counted.saturating_add(1), ignored)
        })
    }

    /// The job has what it wants and nothing runs: it is complete.
    pub(super) fn complete_if_done(&mut self, active: i32) -> bool {
        let done = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if done && active == 0 {
            let message = "Reached expected number of succeeded pods";
            self.finished = Some(condition("SuccessCriteriaMet", "CompletionsReached", message, self.now));
        }
        self.finished.is_some()
    }

    /// Says whether the job is suspended. Gives the event that goes with a change.
    pub(super) fn note_suspension(&mut self) -> Option<(&'static str, &'static str)> {
        let suspended = self.suspended();
        let mut new = condition("Suspended", "JobSuspended", "Job suspended", self.now);
        if !suspended {
            new.status = "False".to_owned();
            (new.reason, new.message) = (Some("JobResumed".to_owned()), Some("Job resumed".to_owned()));
        }
        if !set_condition(self.status.conditions.get_or_insert_default(), new) {
            return None;
        }
        self.status.start_time = (!suspended).then_some(Time(self.now));
        Some(if suspended { ("Suspended", "Job suspended") } else { ("Resumed", "Job resumed") })
    }
}

fn leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !crate::pods::finished(pod)
}

/// All failures of a pod's index before it, counted or not.
fn failures(pod: &Pod) -> i32 {
    let ignored = number(pod, INDEX_IGNORED).unwrap_or(0);
    number(pod, INDEX_FAILURES).unwrap_or(0).saturating_add(ignored)
}

#[cfg(test)]
mod tests;
