//! CronJob: a job at every time of a schedule.
//!
//! Woken by: the cron job, its jobs, and the next time of the schedule. Reads: both. Writes: jobs (create; delete what is beyond the history
//! limits or replaced), the cron job's status. Promises: at most one job for one time of the schedule, as the job's name says the minute;
//! of times missed while nobody looked only the last is made up for, and only within `startingDeadlineSeconds`.

mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, controller_uid, key_of};
use crate::job::is_finished;
use crate::pods::{controlled_by, message_of, terminating_namespace};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::cron::Schedule;
use plan::Due;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The annotation that says for which time a job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub(crate) struct CronJobs {
    cron_jobs: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    client: Client,
    recorder: Recorder,
}

impl CronJobs {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.cron_jobs.on_change(move |old, new| {
            if let Some(cron) = new.or(old) {
                wake.add(key_of(&**cron));
            }
        });
        let wake = queue.clone();
        cluster.jobs.on_change(move |old, new| {
            for job in [old, new].into_iter().flatten() {
                let owners = job.owner_references();
                if let Some(owner) = owners.iter().find(|o| o.controller == Some(true) && o.kind == "CronJob")
                {
                    wake.add(Key::new(job.namespace().as_deref().unwrap_or_default(), &owner.name));
                }
            }
        });
        Self { cron_jobs: cluster.cron_jobs.clone(), jobs: cluster.jobs.clone(), client, recorder }
    }

    fn warn(&self, cron: &CronJob, reason: &'static str, message: String) {
        self.recorder.record(Self::NAME, cron, Severity::Warning, reason, message);
    }

    fn tell(&self, cron: &CronJob, reason: &'static str, message: String) {
        self.recorder.record(Self::NAME, cron, Severity::Normal, reason, message);
    }

    fn job_api(&self, key: &Key) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

impl Reconcile for CronJobs {
    const NAME: &'static str = "cronjob-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(cron) = self.cron_jobs.get(key) else { return Ok(None) };
        let spec = &cron.spec;
        let jobs = self.jobs.owned_by(&cron.uid().unwrap_or_default());
        let mut status = cron.status.clone().unwrap_or_default();
        self.follow(key, &cron, &jobs, &mut status).await?;
        let outcome = Box::pin(self.start_due(key, &cron, spec, &mut status)).await;
        // a job that was made must be in the status even where something after it failed
        self.write_status(key, &cron, &status).await?;
        let after = outcome?;
        for job in plan::beyond_history(spec, &jobs) {
            self.delete(key, &cron, job).await?;
        }
        Ok(after)
    }
}

impl CronJobs {
    /// Brings the list of active jobs up to date.
    async fn follow(
        &self,
        key: &Key,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let mut active = status.active.take().unwrap_or_default();
        for job in jobs {
            let at = active.iter().position(|a| a.uid == job.metadata.uid);
            let end = plan::end_of(job);
            match (at, end) {
                (None, None) => {
                    let message =
                        format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    // the status that lists it may not be here yet
                    let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
                    let fresh = api.get_opt(&key.name).await.doing(|| format!("read cron job {key}"))?;
                    let listed = fresh.and_then(|f| f.status?.active).unwrap_or_default();
                    match listed.into_iter().find(|a| a.uid == job.metadata.uid) {
                        Some(reference) => active.push(reference),
                        None => self.warn(cron, "UnexpectedJob", message),
                    }
                }
                (Some(at), Some(end)) => {
                    active.remove(at);
                    let message = format!("Saw completed job: {}, condition: {end}", job.name_any());
                    self.tell(cron, "SawCompletedJob", message);
                }
                _ => {}
            }
            if end == Some("Complete")
                && let Some(completed) = job.status.as_ref().and_then(|s| s.completion_time.clone())
                && status.last_successful_time.as_ref().is_none_or(|last| last.0 < completed.0)
            {
                status.last_successful_time = Some(completed);
            }
        }
        let missing: Vec<ObjectReference> =
            active.iter().filter(|a| jobs.iter().all(|j| j.metadata.uid != a.uid)).cloned().collect();
        for gone in missing {
            let name = gone.name.clone().unwrap_or_default();
            let there = self
                .job_api(key)
                .get_opt(&name)
                .await
                .doing(|| format!("read job {}/{name}", key.namespace))?;
            if there.is_none() {
                self.tell(cron, "MissingJob", format!("Active job went missing: {name}"));
                active.retain(|a| a.uid != gone.uid);
            }
        }
        status.active = Some(active);
        Ok(())
    }

    /// Makes the job that is due. Gives the time until the next one.
    async fn start_due(
        &self,
        key: &Key,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
    ) -> Result<Option<Duration>, Error> {
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(error)) => {
                let name = spec.time_zone.as_deref().unwrap_or_default();
                self.warn(cron, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}"));
                return Ok(None);
            }
        };
        if spec.suspend == Some(true) {
            return Ok(None);
        }
        if spec.schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.warn(cron, "UnsupportedSchedule", message);
        }
        let schedule = match Schedule::parse(&spec.schedule, zone.clone()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.warn(cron, "UnparseableSchedule", message);
                return Ok(None);
            }
        };
        let now = Timestamp::now();
        let last = status.last_schedule_time.as_ref().map(|t| t.0);
        let created = cron.creation_timestamp().map_or(now, |t| t.0);
        let deadline = spec.starting_deadline_seconds;
        match plan::due(&schedule, last.unwrap_or(created), deadline, now) {
            Due::Not => {}
            Due::Never => {
                let message = format!(
                    "invalid schedule: {} : time difference between two schedules is less than 1 second",
                    spec.schedule
                );
                self.warn(cron, "InvalidSchedule", message);
                return Ok(None);
            }
            Due::At { time, many_missed } => {
                if many_missed {
                    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                    self.warn(cron, "TooManyMissedTimes", message.to_owned());
                }
                if plan::too_late(time, deadline, now) {
                    let said = plan::rfc1123z(time);
                    self.warn(cron, "MissSchedule", format!("Missed scheduled time to start a job: {said}"));
                } else {
                    self.start(key, cron, spec, status, time, &zone).await?;
                }
            }
        }
        let last = status.last_schedule_time.as_ref().map(|t| t.0);
        Ok(plan::until_next(&schedule, last.unwrap_or(created), Timestamp::now()))
    }

    async fn start(
        &self,
        key: &Key,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        time: Timestamp,
        zone: &TimeZone,
    ) -> Result<(), Error> {
        let name = plan::job_name(&key.name, time);
        let active = status.active.get_or_insert_default();
        if active.iter().any(|a| a.name.as_deref() == Some(&name))
            || status.last_schedule_time.as_ref().is_some_and(|t| t.0 == time)
        {
            return Ok(());
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(cron, "JobAlreadyActive", message.to_owned());
                return Ok(());
            }
            Some("Replace") => {
                while let Some(old) = active.first() {
                    let name = old.name.clone().unwrap_or_default();
                    let job = match self.job_api(key).get(&name).await {
                        Ok(job) => job,
                        Err(error) => {
                            self.warn(cron, "FailedGet", format!("Get job: {}", message_of(&error)));
                            return Err(error).doing(|| format!("read job {}/{name}", key.namespace));
                        }
                    };
                    self.delete(key, cron, &job).await?;
                    active.remove(0);
                }
            }
            _ => {}
        }
        let template = spec.job_template.metadata.clone().unwrap_or_default();
        let mut annotations = template.annotations.unwrap_or_default();
        let local = if spec.time_zone.is_some() { zone.clone() } else { TimeZone::UTC };
        annotations.insert(SCHEDULED.to_owned(), plan::rfc3339(time, local));
        let job = Job {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(key.namespace.to_string()),
                labels: template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controlled_by(cron)]),
                ..ObjectMeta::default()
            },
            spec: spec.job_template.spec.clone(),
            status: None,
        };
        let made = match self.job_api(key).create(&PostParams::default(), &job).await {
            Ok(job) => {
                self.tell(cron, "SuccessfulCreate", format!("Created job {name}"));
                job
            }
            Err(error) if terminating_namespace(&error) => return Ok(()),
            Err(error) if code(&error) == Some(409) => {
                let there = self.job_api(key).get_opt(&name).await;
                match there.doing(|| format!("read job {}/{name}", key.namespace))? {
                    // made before, and not noted: killed in between
                    Some(job) if controller_uid(&job) == cron.metadata.uid.as_deref() => job,
                    _ => return Err(error).doing(|| format!("create job {}/{name}", key.namespace)),
                }
            }
            Err(error) => {
                self.warn(cron, "FailedCreate", format!("Error creating job: {}", message_of(&error)));
                return Err(error).doing(|| format!("create job {}/{name}", key.namespace));
            }
        };
        if !is_finished(&made) {
            status.active.get_or_insert_default().push(made.object_ref(&()));
        }
        status.last_schedule_time = Some(Time(time));
        Ok(())
    }

    async fn delete(&self, key: &Key, cron: &CronJob, job: &Job) -> Result<(), Error> {
        let name = job.name_any();
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match found(self.job_api(key).delete(&name, &params).await) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                self.tell(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) => {
                self.warn(cron, "FailedDelete", format!("Deleted job: {}", message_of(&error)));
                Err(error).doing(|| format!("delete job {}/{name}", key.namespace))
            }
        }
    }

    async fn write_status(&self, key: &Key, cron: &CronJob, status: &CronJobStatus) -> Result<(), Error> {
        let plain = |s: Option<&CronJobStatus>| {
            let mut s = s.cloned().unwrap_or_default();
            s.active = s.active.filter(|a| !a.is_empty());
            s
        };
        let wanted = plain(Some(status));
        if wanted == plain(cron.status.as_ref()) {
            return Ok(());
        }
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({
            "metadata": { "uid": cron.uid(), "resourceVersion": cron.resource_version() },
            "status": {
                "active": wanted.active,
                "lastScheduleTime": wanted.last_schedule_time,
                "lastSuccessfulTime": wanted.last_successful_time,
            },
        });
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("write the status of cron job {key}"))
    }
}
