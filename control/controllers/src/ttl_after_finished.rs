//! Jobs that say so go some time after they are over (`ttlSecondsAfterFinished`).
//!
//! Woken by: a job, and the end of its time. Reads: the job; once more from the API server before it acts. Writes: the job's deletion, with
//! its dependents. Promises: a job whose time was prolonged meanwhile stays.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct TtlAfterFinished {
    jobs: Arc<Informer<Job>>,
    client: Client,
}

impl TtlAfterFinished {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.jobs.on_change(move |_, new| {
            if let Some(job) = new.filter(|j| left(j, Timestamp::UNIX_EPOCH).is_some()) {
                wake.add(key_of(&**job));
            }
        });
        Self { jobs: cluster.jobs.clone(), client }
    }
}

/// What is left of a job's time; zero when it is over, nothing where it has none.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let over =
        SignedDuration::from_secs(i64::from(ttl)) - now.duration_since(end.last_transition_time.as_ref()?.0);
    Some(over.max(SignedDuration::ZERO).unsigned_abs())
}

impl Reconcile for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(job) = self.jobs.get(key) else { return Ok(None) };
        match left(&job, Timestamp::now()) {
            None => return Ok(None),
            Some(wait) if !wait.is_zero() => return Ok(Some(wait)),
            Some(_) => {}
        }
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(fresh) = api.get_opt(&key.name).await.doing(|| format!("read job {key}"))? else {
            return Ok(None);
        };
        match left(&fresh, Timestamp::now()) {
            None => return Ok(None),
            Some(wait) if !wait.is_zero() => return Ok(Some(wait)),
            Some(_) => {}
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: fresh.uid(),
                resource_version: fresh.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let deleted = api.delete(&key.name, &params).await;
        found(deleted).doing(|| format!("delete job {key}, whose time is over"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_runs_from_the_end() {
        let job = |ttl, end: &str| -> Job {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "template": {}, "ttlSecondsAfterFinished": ttl },
                "status": { "conditions": [{ "type": end, "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z" }] } }))
            .unwrap()
        };
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(left(&job(Some(30), "Failed"), at(110)), Some(Duration::from_secs(20)));
        assert_eq!(left(&job(Some(30), "Complete"), at(500)), Some(Duration::ZERO));
        assert_eq!(left(&job(Some(0), "Complete"), at(100)), Some(Duration::ZERO));
        assert_eq!(left(&job(Some(30), "Suspended"), at(500)), None);
        assert_eq!(left(&job(None, "Complete"), at(500)), None);
    }
}
