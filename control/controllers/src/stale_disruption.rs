//! Pods that were to be disrupted and were not: after two minutes they no longer say so.
//!
//! Woken by: a pod with the condition `DisruptionTarget`, and the end of its two minutes. Reads: pods. Writes: that condition. Promises: a
//! pod that is leaving, has ended, or is ended by its kubelet keeps it (upstream's `syncStalePodDisruption`).

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::finished;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long a disruption may take to begin.
const STALE_AFTER: SignedDuration = SignedDuration::from_secs(120);

/// The controller. A key is a pod.
pub(crate) struct StaleDisruptions {
    pods: Arc<Informer<Pod>>,
    client: Client,
}

impl StaleDisruptions {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.pods.on_change(move |_, new| {
            if let Some(pod) = new.filter(|pod| stale_in(pod, Timestamp::now()).is_some()) {
                wake.add(key_of(&**pod));
            }
        });
        Self { pods: cluster.pods.clone(), client }
    }
}

/// In how long the pod's condition is stale, zero where it is; nothing where it has none that can be.
fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.deletion_timestamp.is_some() || finished(pod) {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let disruption = conditions.iter().find(|c| c.type_ == "DisruptionTarget")?;
    if disruption.status != "True" || disruption.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = disruption.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    Some((STALE_AFTER - now.duration_since(since)).max(SignedDuration::ZERO).unsigned_abs())
}

/// The condition as it is then; its reason and message go.
fn taken_back(pod: &Pod, now: Timestamp) -> Value {
    json!({
        "type": "DisruptionTarget",
        "status": "False",
        "reason": null,
        "message": null,
        "observedGeneration": pod.metadata.generation,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

impl Reconcile for StaleDisruptions {
    const NAME: &'static str = "disruption-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let now = Timestamp::now();
        let Some(pod) = self.pods.get(key) else { return Ok(None) };
        match stale_in(&pod, now) {
            None => return Ok(None),
            Some(left) if !left.is_zero() => return Ok(Some(left)),
            Some(_) => {}
        }
        let patch =
            json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [taken_back(&pod, now)] } });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        found(patched).map(|_| None).doing(|| format!("take back the disruption of pod {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str, reason: &str, phase: &str) -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "p" }, "status": { "phase": phase, "conditions": [
            { "type": "DisruptionTarget", "status": status, "reason": reason,
                "lastTransitionTime": "1970-01-01T00:00:00Z" }] } }),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_that_was_spared_must_not_say_for_ever_that_it_is_disrupted() {
        let at = |pod: &Pod, second| stale_in(pod, Timestamp::from_second(second).unwrap());
        let spared = pod("True", "EvictionByEvictionAPI", "Running");
        assert_eq!(at(&spared, 20), Some(Duration::from_secs(100)));
        assert_eq!(at(&spared, 500), Some(Duration::ZERO));
        let now = Timestamp::from_second(500).unwrap();
        let after = taken_back(&spared, now);
        assert_eq!((&after["status"], &after["reason"]), (&json!("False"), &Value::Null));
        assert_eq!(at(&pod("False", "", "Running"), 500), None, "it does not say so");
    }

    #[test]
    fn a_disruption_that_goes_on_must_not_be_taken_back() {
        let now = Timestamp::from_second(500).unwrap();
        assert_eq!(stale_in(&pod("True", "TerminationByKubelet", "Running"), now), None);
        assert_eq!(stale_in(&pod("True", "PreemptionByScheduler", "Failed"), now), None);
        let mut leaving = pod("True", "PreemptionByScheduler", "Running");
        leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert_eq!(stale_in(&leaving, now), None);
    }
}
