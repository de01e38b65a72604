//! The condition `DisruptionTarget` of pods that were to go and did not.
//!
//! Woken by: pods with the condition, and the end of their time. Reads: pods. Writes: their condition. Promises: a pod that is not being
//! deleted two minutes after it was marked is marked no longer, so that nobody takes its end for a disruption. What a kubelet marks stays:
//! it may take its time. Upstream: `pkg/controller/disruption`.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::phase;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const TARGET: &str = "DisruptionTarget";
const BY_KUBELET: &str = "TerminationByKubelet";
/// How long a pod may be marked without being deleted.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);

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
            if let Some(pod) = new.filter(|pod| left(pod, Timestamp::now()).is_some()) {
                wake.add(key_of(&**pod));
            }
        });
        Self { pods: cluster.pods.clone(), client }
    }
}

/// How long a pod's mark still counts; none where it has none that could be stale.
fn left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase(pod), "Succeeded" | "Failed") {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let mark = conditions.iter().find(|c| c.type_ == TARGET && c.status == "True")?;
    if mark.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some(Duration::try_from(PATIENCE - now.duration_since(since)).unwrap_or_default())
}

impl Reconcile for StaleDisruptions {
    const NAME: &'static str = "disruption-controller/stale";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(None) };
        let now = Timestamp::now();
        match left(&pod, now) {
            None => return Ok(None),
            Some(Duration::ZERO) => {}
            Some(left) => return Ok(Some(left)),
        }
        let condition = json!({ "type": TARGET, "status": "False", "reason": null, "message": null,
            "observedGeneration": pod.metadata.generation, "lastTransitionTime": Time(now) });
        let patch = json!({
            "metadata": { "uid": pod.uid(), "resourceVersion": pod.resource_version() },
            "status": { "conditions": [condition] },
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        found(patched).map(|_| None).doing(|| format!("take the mark of a disruption from pod {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn marked(more: &Value) -> Pod {
        let mut pod = json!({ "metadata": { "name": "p", "namespace": "ns" }, "status": { "phase": "Running",
            "conditions": [{ "type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
                "lastTransitionTime": "1970-01-01T00:00:10Z" }] } });
        json_patch_merge(&mut pod, more);
        serde_json::from_value(pod).unwrap()
    }

    fn json_patch_merge(to: &mut Value, from: &Value) {
        for (name, value) in from.as_object().into_iter().flatten() {
            if value.is_object() {
                json_patch_merge(&mut to[name], value);
            } else {
                to[name] = value.clone();
            }
        }
    }

    #[test]
    fn a_pod_that_was_spared_must_not_stay_marked() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let pod = marked(&json!({}));
        assert_eq!(left(&pod, at(70)), Some(Duration::from_secs(60)));
        assert_eq!(left(&pod, at(130)), Some(Duration::ZERO));
        assert_eq!(left(&pod, at(500)), Some(Duration::ZERO));
    }

    #[test]
    fn a_pod_that_goes_or_is_gone_must_not_lose_its_mark() {
        let deleted = json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:11Z" } });
        let by_kubelet = json!({ "status": { "conditions": [{ "type": TARGET, "status": "True", "reason": BY_KUBELET,
            "lastTransitionTime": "1970-01-01T00:00:10Z" }] } });
        let unmarked = json!({ "status": { "conditions": [{ "type": TARGET, "status": "False" }] } });
        for kept in [deleted, by_kubelet, unmarked, json!({ "status": { "phase": "Failed" } })] {
            assert_eq!(left(&marked(&kept), Timestamp::from_second(500).unwrap()), None, "{kept}");
        }
    }
}
