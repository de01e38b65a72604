//! Job: pods until enough of them have succeeded.
//!
//! Woken by: the job, its pods, the end of a pause after failures, and the job's deadline. Reads: both. Writes: pods (create, delete,
//! adopt, release, and the finalizer that keeps an ended pod until it is counted), the job's status. Promises: every pod that ends is
//! counted exactly once, whatever is killed when: its uid stands in `status.uncountedTerminatedPods` before its finalizer goes, and its
//! count rises after; the reason a job ends for is written (`FailureTarget`, `SuccessCriteriaMet`) before its pods may go, the end itself
//! (`Failed`, `Complete`) when none is left.

mod indexes;
mod pace;
mod plan;
mod policy;
mod template;

pub(crate) use plan::is_finished;

use crate::claim::{Claim, owner_of, pod_changed, selector};
use crate::cluster::Cluster;
use crate::expectations::Expectations;
use crate::informer::{Informer, controller_uid, key_of};
use crate::pods::{PodControl, ready_since, slow_start};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::labels::Selector;
use pace::Record;
use parking_lot::Mutex;
use plan::{FINALIZER, Step, Sync, tracked};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The label by which a pod without an owner names its job.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Who else may keep a job.
const MANAGER: &str = "kubernetes.io/job-controller";

pub(crate) struct Jobs {
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    control: Arc<PodControl>,
    /// Failures since the last success, of each job.
    records: Mutex<HashMap<Key, Record>>,
    /// Uid and version of jobs as we last wrote them.
    written: Mutex<HashMap<Key, (String, u64)>>,
    /// Pods whose finalizer is off although the informer does not show it yet.
    released: Arc<Mutex<HashSet<String>>>,
}

impl Jobs {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let control =
            PodControl { client, recorder, expectations: Expectations::default(), component: Self::NAME };
        let this = Self {
            jobs: cluster.jobs.clone(),
            pods: cluster.pods.clone(),
            control: Arc::new(control),
            records: Mutex::default(),
            written: Mutex::default(),
            released: Arc::default(),
        };
        let wake = queue.clone();
        this.jobs.on_change(move |old, new| {
            if let Some(job) = new.or(old) {
                wake.add(key_of(&**job));
            }
        });
        let (wake, jobs) = (queue.clone(), this.jobs.clone());
        let (control, released) = (this.control.clone(), this.released.clone());
        this.pods.on_change(move |old, new| {
            if let Some(pod) = new.or(old)
                && new.is_none_or(|p| !tracked(p))
            {
                released.lock().remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
            pod_changed((old, new), &jobs, Some(&control.expectations), &wake, job_selector);
            // a pod its job let go of, or whose job is gone, must not keep the finalizer
            if let Some(pod) = new
                && controller_uid(&**pod).is_none()
                && tracked(pod)
                && let Some(job) = pod.labels().get(JOB_NAME)
            {
                wake.add(Key::new(pod.namespace().as_deref().unwrap_or_default(), job));
            }
        });
        this
    }
}

fn version_of(job: &Job) -> Option<u64> {
    job.metadata.resource_version.as_deref()?.parse().ok()
}

fn is_older(job: &Job, (uid, version): &(String, u64)) -> bool {
    job.metadata.uid.as_ref() == Some(uid) && version_of(job).is_some_and(|seen| seen < *version)
}

fn job_selector(job: &Job) -> Result<Selector, Error> {
    selector(job.spec.as_ref().and_then(|s| s.selector.as_ref()), &job.name_any())
}

impl Reconcile for Jobs {
    const NAME: &'static str = "job-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let job = self.jobs.get(key);
        self.free_orphans(key, job.as_deref()).await?;
        let Some(job) = job else {
            self.control.expectations.forget(key);
            self.records.lock().remove(key);
            self.written.lock().remove(key);
            return Ok(None);
        };
        if self.is_stale(key, &job) {
            // What is on its way wakes it.
            return Ok(None);
        }
        let Some(spec) = &job.spec else { return Ok(None) };
        if spec.managed_by.as_deref().is_some_and(|m| m != MANAGER) {
            return Ok(None);
        }
        if is_finished(&job) {
            self.records.lock().remove(key);
            return Ok(None);
        }
        if !matches!(spec.completion_mode.as_deref().unwrap_or("NonIndexed"), "NonIndexed" | "Indexed") {
            let message = "Skipped Job sync because completion mode is unknown".to_owned();
            self.control.recorder.record(
                Self::NAME,
                &*job,
                Severity::Warning,
                "UnknownCompletionMode",
                message,
            );
            return Ok(None);
        }
        self.sync(key, &job, spec).await
    }
}

impl Jobs {
    async fn sync(&self, key: &Key, job: &Job, spec: &JobSpec) -> Result<Option<Duration>, Error> {
        // asked before pods are looked at: what is made meanwhile is not missed
        let met = self.control.expectations.met(key);
        let claim = Claim { finalizer: Some(FINALIZER), ..Claim::default() };
        let pods = claim.pods(&self.control.client, &self.pods, job, key, &job_selector(job)?).await?;
        let released = self.released.lock().clone();
        let mut sync = Sync::new(job, spec, pods, &released, Timestamp::now());
        let record =
            self.records.lock().get(key).copied().unwrap_or_default().with(&sync.ended.0, &sync.ended.1);
        let mut active = i32::try_from(sync.active.len()).unwrap_or(i32::MAX);
        let (mut wait, mut acted) = (sync.deadline, Ok(()));
        if sync.finished.is_some() {
            let there = sync.active.clone();
            let removals = there.iter().map(|pod| self.control.delete(job, key, pod));
            let results = futures::future::join_all(removals).await;
            active -= note_removed(&mut sync, &there, &results);
            acted = results.into_iter().collect();
            if active > 0 || !met {
                // there may be pods that still have to be counted
                sync.finished = None;
            }
        } else {
            let manages = met && job.metadata.deletion_timestamp.is_none();
            if manages {
                let mut paused = None;
                (active, acted) = self.manage(key, job, spec, &mut sync, record, &mut paused).await;
                wait = [wait, paused].into_iter().flatten().min();
            }
            if !sync.complete_if_done(active)
                && manages
                && let Some((reason, message)) = sync.note_suspension()
            {
                self.control.recorder.record(Self::NAME, job, Severity::Normal, reason, message.to_owned());
            }
        }
        sync.status.active = Some(active).filter(|n| *n != 0);
        sync.status.ready = Some(sync.ready);
        sync.status.terminating = Some(sync.terminating);
        self.count(key, job, &mut sync, record).await?;
        acted.map(|()| wait)
    }

    /// Makes or removes pods; gives how many are active then.
    async fn manage(
        &self,
        key: &Key,
        job: &Job,
        spec: &JobSpec,
        sync: &mut Sync<'_>,
        record: Record,
        wait: &mut Option<Duration>,
    ) -> (i32, Result<(), Error>) {
        let there = i32::try_from(sync.active.len()).unwrap_or(i32::MAX);
        match sync.manage(record) {
            Step::Nothing => (there, Ok(())),
            Step::Wait(pause) => {
                *wait = Some(pause);
                // Upstream (`manageJob`) says that none is active meanwhile, and its own server refuses that beside ready ones.
                (there, Ok(()))
            }
            Step::Delete(chosen) => {
                let removals = chosen.iter().map(|pod| async move {
                    self.release(key, pod).await?;
                    self.control.delete(job, key, pod).await
                });
                let results = futures::future::join_all(removals).await;
                let removed = note_removed(sync, &chosen, &results);
                (there - removed, results.into_iter().collect())
            }
            Step::Create(indexes) => {
                let (indexes, known) = (&indexes, &*sync);
                let (made, result) = slow_start(indexes.len(), |at| async move {
                    let before = indexes[at].and_then(|i| known.failures_before(i));
                    let pod = template::pod(job, spec, indexes[at], before);
                    self.control.create(job, key, &pod).await
                })
                .await;
                (there.saturating_add(i32::try_from(made).unwrap_or(0)), result)
            }
        }
    }

    /// Notes what ended in the status, lets these pods go, then counts them and closes the job.
    async fn count(&self, key: &Key, job: &Job, sync: &mut Sync<'_>, record: Record) -> Result<(), Error> {
        let old = job.status.clone().unwrap_or_default();
        let (release, all) = sync.track();
        let mut written = old;
        let mut version = job.resource_version();
        if sync.status != written {
            version = self.write(key, job, &sync.status, version).await?;
            written = sync.status.clone();
            self.records.lock().insert(key.clone(), record);
        }
        let releases = release.iter().map(|pod| self.release(key, pod));
        let results = futures::future::join_all(releases).await;
        let gone: HashSet<String> =
            release.iter().zip(&results).filter(|(_, r)| r.is_ok()).filter_map(|(p, _)| p.uid()).collect();
        let failed = results.into_iter().find_map(Result::err);
        let finished = sync.settle(&gone, all && failed.is_none());
        if sync.status != written {
            self.write(key, job, &sync.status, version).await?;
        }
        if finished {
            self.tell_end(job, sync);
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell_end(&self, job: &Job, sync: &Sync<'_>) {
        let Some(end) = &sync.finished else { return };
        let record = |severity, reason: &'static str, message: &str| {
            self.control.recorder.record(Self::NAME, job, severity, reason, message.to_owned());
        };
        if end.type_ == "Complete" {
            let completions = job.spec.as_ref().and_then(|s| s.completions);
            if completions.is_some_and(|c| sync.status.succeeded.unwrap_or(0) > c) {
                let message = "Too many succeeded pods running after completion count reached";
                record(Severity::Warning, "TooManySucceededPods", message);
            }
            return record(Severity::Normal, "Completed", "Job completed");
        }
        let reason = match end.reason.as_deref().unwrap_or_default() {
            "PodFailurePolicy" => "PodFailurePolicy",
            "BackoffLimitExceeded" => "BackoffLimitExceeded",
            "DeadlineExceeded" => "DeadlineExceeded",
            "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
            _ => "FailedIndexes",
        };
        record(Severity::Warning, reason, end.message.as_deref().unwrap_or_default());
    }

    /// Writes the status over the version it was worked out from; gives the new version.
    async fn write(
        &self,
        key: &Key,
        job: &Job,
        status: &JobStatus,
        version: Option<String>,
    ) -> Result<Option<String>, Error> {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let api: Api<Job> = Api::namespaced(self.control.client.clone(), &key.namespace);
        let patch = json!({ "metadata": { "uid": job.uid(), "resourceVersion": version }, "status": {
            "active": status.active,
            "completedIndexes": status.completed_indexes,
            "completionTime": status.completion_time,
            "conditions": status.conditions.as_ref().filter(|c| !c.is_empty()),
            "failed": status.failed,
            "failedIndexes": status.failed_indexes,
            "ready": status.ready,
            "startTime": status.start_time,
            "succeeded": status.succeeded,
            "terminating": status.terminating,
            "uncountedTerminatedPods": { "succeeded": uncounted.succeeded, "failed": uncounted.failed },
        }});
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = patched.doing(|| format!("write the status of job {key}"))?;
        if let (Some(uid), Some(version)) = (patched.uid(), version_of(&patched)) {
            self.written.lock().insert(key.clone(), (uid, version));
        }
        Ok(patched.resource_version())
    }

    /// Whether the informer shows a job from before our last write of its status: pods that write counted were let go of, and would be made
    /// again (upstream: the gate `StaleControllerConsistencyJob`).
    fn is_stale(&self, key: &Key, job: &Job) -> bool {
        self.written.lock().get(key).is_some_and(|written| is_older(job, written))
    }

    /// Takes the finalizer from a pod.
    async fn release(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        if !tracked(pod) {
            return Ok(());
        }
        let (uid, name) = (pod.uid().unwrap_or_default(), pod.name_any());
        self.released.lock().insert(uid.clone());
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), &key.namespace);
        let patch = json!({ "metadata": { "uid": uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        let patched = found(patched);
        if !matches!(patched, Ok(Some(_))) {
            self.released.lock().remove(&uid);
        } else if self.pods.get(&Key::new(&key.namespace, &name)).is_none_or(|p| !tracked(&p)) {
            // the informer was faster than the answer
            self.released.lock().remove(&uid);
        }
        patched.map(drop).doing(|| format!("let go of pod {}/{name}", key.namespace))
    }

    /// Pods that say they are this job's, but are not, or whose job is gone: nobody counts them.
    async fn free_orphans(&self, key: &Key, job: Option<&Job>) -> Result<(), Error> {
        let uid = job.and_then(|j| j.metadata.uid.as_deref());
        for pod in self.pods.list(&key.namespace).iter().filter(|p| tracked(p)) {
            let orphan = match controller_uid(&**pod) {
                Some(owner) => owner_of(pod, "Job").as_ref() == Some(key) && Some(owner) != uid,
                None => {
                    let adopted = job.is_some_and(|j| {
                        j.metadata.deletion_timestamp.is_none()
                            && !is_finished(j)
                            && job_selector(j).is_ok_and(|s| s.matches(pod.labels()))
                    });
                    pod.labels().get(JOB_NAME).map(String::as_str) == Some(&*key.name) && !adopted
                }
            };
            if orphan {
                self.release(key, pod).await?;
            }
        }
        Ok(())
    }
}

/// Counts removals that worked, and takes them from what is ready.
fn note_removed(sync: &mut Sync<'_>, pods: &[Arc<Pod>], results: &[Result<(), Error>]) -> i32 {
    let removed: Vec<&Arc<Pod>> =
        pods.iter().zip(results).filter(|(_, result)| result.is_ok()).map(|(pod, _)| pod).collect();
    let count = i32::try_from(removed.len()).unwrap_or(i32::MAX);
    sync.terminating = sync.terminating.saturating_add(count);
    sync.ready -= i32::try_from(removed.iter().filter(|p| ready_since(p).is_some()).count()).unwrap_or(0);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_from_before_what_was_counted_must_not_be_gone_by() {
        let job = |uid: &str, version: &str| -> Job {
            serde_json::from_value(json!({"metadata": {"name": "j", "uid": uid, "resourceVersion": version}}))
                .unwrap()
        };
        let written = ("u".to_owned(), 10);
        assert!(is_older(&job("u", "9"), &written));
        assert!(!is_older(&job("u", "10"), &written) && !is_older(&job("u", "11"), &written));
        assert!(!is_older(&job("v", "9"), &written), "another job of that name");
    }
}
