//! Writing pod statuses to the API, and deleting pods that have ended.
//!
//! What wakes it: a status set by a worker, and a newer pod in the API. What it reads: the newest status of each
//! pod, and the newest pod of the API. What it writes: a patch of the status subresource, only where the two differ, and
//! the deletion (grace 0, of that very UID) of a pod that was to be deleted and is torn down. What it promises: statuses
//! reach the API in order for each pod, at most [`PARALLEL`] at once, and a failure is retried with backoff.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use supervise::Backoff;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::source::ApiPods;

/// Simultaneous writes.
const PARALLEL: usize = 8;
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Conditions the kubelet owns.
const OWN: [&str; 8] = [
    "PodScheduled",
    "Ready",
    "Initialized",
    "PodReadyToStartContainers",
    "ContainersReady",
    "AllContainersRestarting",
    "PodResizePending",
    "PodResizeInProgress",
];
/// Those that are there only while they are true.
const OWN_PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

#[derive(Clone)]
struct Report {
    pod: Arc<Pod>,
    status: Arc<PodStatus>,
    torn_down: bool,
    /// The resource version our last write gave the pod: what the watch shows before it is old.
    written: Option<(String, Arc<PodStatus>)>,
}

#[derive(Default)]
struct Shared {
    reports: Mutex<BTreeMap<String, Report>>,
    dirty: Mutex<BTreeSet<String>>,
    wake: Notify,
}

/// What workers hand their pods' statuses to; cheap to clone.
#[derive(Clone, Default)]
pub struct Reports(Arc<Shared>);

impl Reports {
    /// Sets a pod's status; `torn_down` says that nothing of it is left on the node but its exited containers.
    pub fn set(&self, pod: &Arc<Pod>, status: Arc<PodStatus>, torn_down: bool) {
        let uid = crate::pod::uid(pod).to_owned();
        let mut reports = self.0.reports.lock();
        let written = reports.get(&uid).and_then(|r| r.written.clone());
        reports.insert(uid.clone(), Report { pod: Arc::clone(pod), status, torn_down, written });
        drop(reports);
        self.touch(uid);
    }

    /// A pod is gone.
    pub fn forget(&self, uid: &str) {
        self.0.reports.lock().remove(uid);
    }

    fn touch(&self, uid: String) {
        self.0.dirty.lock().insert(uid);
        self.0.wake.notify_one();
    }

    /// Writes statuses until cancelled from outside. `known` is what the API shows of this node's pods. A status that is
    /// refused is tried again after a pause of its own, whatever becomes of the others.
    pub async fn write(self, client: kube::Client, mut known: watch::Receiver<ApiPods>) {
        let mut held: BTreeMap<String, (Instant, Backoff)> = BTreeMap::new();
        loop {
            let now = Instant::now();
            let is_held = |uid: &String| held.get(uid).is_some_and(|(until, _)| *until > now);
            let mut due = std::mem::take(&mut *self.0.dirty.lock());
            due.extend(held.keys().cloned());
            due.retain(|uid| !is_held(uid));
            if !due.is_empty() {
                let pods = known.borrow_and_update().clone();
                let (this, pods) = (&self, &pods);
                let written = |uid: String| {
                    let client = client.clone();
                    async move {
                        let failed = this.write_one(client, pods, uid.clone()).await.is_some();
                        (uid, failed)
                    }
                };
                let mut outcomes =
                    std::pin::pin!(futures::stream::iter(due).map(written).buffer_unordered(PARALLEL));
                while let Some((uid, failed)) = outcomes.next().await {
                    let before = held.remove(&uid);
                    if failed {
                        let mut retry = before.map_or(Backoff::new(RETRY.0, RETRY.1), |(_, retry)| retry);
                        held.insert(uid, (Instant::now() + retry.next_pause(), retry));
                    }
                }
            }
            let next = held.values().map(|(until, _)| *until).min();
            tokio::select! {
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The API's pods changed: every status is compared again, which is cheap and only local.
                    let all: Vec<String> = self.0.reports.lock().keys().cloned().collect();
                    self.0.dirty.lock().extend(all);
                }
            }
        }
    }

    /// Brings one pod's status to the API; returns its UID if that failed.
    async fn write_one(&self, client: kube::Client, known: &ApiPods, uid: String) -> Option<String> {
        let report = self.0.reports.lock().get(&uid).cloned()?;
        let target = known.api_pod(&report.pod)?;
        let api: Api<Pod> = Api::namespaced(client, crate::pod::namespace(&target));
        let name = crate::pod::name(&target).to_owned();
        let current = match &report.written {
            Some((version, status)) if older(&target, version) => Some(Arc::clone(status)),
            _ => target.status.clone().map(Arc::new),
        };
        if let Some(patch) = difference(current.as_deref(), &report.status, crate::pod::uid(&target)) {
            match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(written) => {
                    let version = written.metadata.resource_version.unwrap_or_default();
                    if let Some(report_now) = self.0.reports.lock().get_mut(&uid) {
                        report_now.written = Some((version, Arc::clone(&report.status)));
                    }
                }
                // The pod is gone: the watch will tell. A conflict may as well be with another writer of the same pod.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    tracing::debug!(pod = name, error = %status, "status not written");
                    return None;
                }
                Err(error) => {
                    tracing::warn!(pod = name, %error, "status not written");
                    return Some(uid);
                }
            }
        }
        let deleted = target.metadata.deletion_timestamp.is_some() && !crate::pod::is_static(&report.pod);
        if deleted && report.torn_down {
            let preconditions =
                Preconditions { uid: target.metadata.uid.clone(), ..Preconditions::default() };
            let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
            match api.delete(&name, &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::warn!(pod = name, %error, "ended pod not deleted");
                    return Some(uid);
                }
            }
        }
        None
    }
}

/// The watch has not caught up with our own write.
fn older(pod: &Pod, version: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    match (pod.metadata.resource_version.as_deref().and_then(number), number(version)) {
        (Some(seen), Some(written)) => seen < written,
        _ => false,
    }
}

/// The strategic merge patch that brings the API's status to ours; `None` when it is there already. Conditions of others
/// are left alone; the UID makes the patch fail on another pod of the same name.
fn difference(current: Option<&PodStatus>, wanted: &PodStatus, uid: &str) -> Option<Value> {
    let fields = |status: Option<&PodStatus>| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields(current), fields(Some(wanted)));
    let mut patch = serde_json::Map::new();
    for (name, value) in &after {
        if before.get(name) == Some(value) {
            continue;
        }
        let value = match name.as_str() {
            "conditions" => match conditions(before.get(name), value) {
                Some(changed) => changed,
                None => continue,
            },
            // Merged by address: those that are gone must be removed.
            "podIPs" if before.contains_key(name) => {
                let mut list = value.as_array().cloned().unwrap_or_default();
                list.push(json!({"$patch": "replace"}));
                Value::Array(list)
            }
            _ => value.clone(),
        };
        patch.insert(name.clone(), value);
    }
    // A pod that was refused has none of ours, the scheduler's included.
    if !after.contains_key("conditions") {
        let gone = before.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let gone = gone.filter(|c| OWN.iter().any(|kind| c["type"] == *kind));
        let gone: Vec<Value> = gone.map(|c| json!({"type": c["type"], "$patch": "delete"})).collect();
        if !gone.is_empty() {
            patch.insert("conditions".to_owned(), Value::Array(gone));
        }
    }
    // Fields we own that are no longer set.
    for name in ["message", "reason"] {
        if before.contains_key(name) && !after.contains_key(name) {
            patch.insert(name.to_owned(), Value::Null);
        }
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

/// The conditions that differ from the API's; an absent reason or message is written as null where the API has one.
fn conditions(before: Option<&Value>, after: &Value) -> Option<Value> {
    let empty = Vec::new();
    let before = before.and_then(Value::as_array).unwrap_or(&empty);
    let mut changed = Vec::new();
    for condition in after.as_array().into_iter().flatten() {
        let old = before.iter().find(|b| b["type"] == condition["type"]);
        if old.is_some_and(|old| equal_condition(old, condition)) {
            continue;
        }
        let mut condition = condition.clone();
        if let (Some(old), Some(fields)) = (old, condition.as_object_mut()) {
            for name in ["reason", "message"] {
                if old.get(name).is_some() && !fields.contains_key(name) {
                    fields.insert(name.to_owned(), Value::Null);
                }
            }
        }
        changed.push(condition);
    }
    for old in before.iter().filter(|old| OWN_PASSING.iter().any(|kind| old["type"] == *kind)) {
        let kind = &old["type"];
        if !after.as_array().into_iter().flatten().any(|c| c["type"] == *kind) {
            changed.push(json!({"type": kind, "$patch": "delete"}));
        }
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

fn equal_condition(a: &Value, b: &Value) -> bool {
    let same = |name: &str| {
        let get = |value: &Value| value.get(name).filter(|v| !v.is_null()).cloned();
        get(a) == get(b)
    };
    ["status", "reason", "message", "observedGeneration"].into_iter().all(same)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_status_must_not_hold_up_another_pods() {
        let (told, mut written) = tokio::sync::mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let refused = path.contains("/pods/bad/");
            let _ = told.send(path);
            async move {
                let (code, answer) = match refused {
                    true => (
                        500,
                        json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "InternalError", "code": 500}),
                    ),
                    false => (200, json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}})),
                };
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, kube::Error>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        let pod = |name: &str| -> Arc<Pod> {
            let metadata = json!({"name": name, "namespace": "n", "uid": name});
            Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let pods = ["bad", "good"].map(|name| (name.to_owned(), pod(name)));
        let (_tell, known) =
            watch::channel(ApiPods { pods: Some(Arc::new(pods.into())), ..ApiPods::default() });
        let reports = Reports::default();
        let writer = tokio::spawn(reports.clone().write(kube::Client::new(service, "n"), known));
        let running = |ip: String| Arc::new(status(json!({"phase": "Running", "podIP": ip})));
        reports.set(&pod("bad"), running("1".into()), false);
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(5), written.recv()).await.unwrap().unwrap();
        // refused often enough for a pause of over three seconds
        for _ in 0..5 {
            assert!(next().await.contains("/pods/bad/"));
        }
        let began = Instant::now();
        for round in 0..5 {
            reports.set(&pod("good"), running(round.to_string()), false);
            while next().await.contains("/pods/bad/") {}
        }
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        writer.abort();
    }

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        let now = status(json!({"phase": "Running", "podIP": "1.1.1.1", "podIPs": [{"ip": "1.1.1.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(difference(Some(&now), &now, "u"), None);
        let next = status(json!({"phase": "Running", "podIP": "2.2.2.2", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}]}));
        let patch = difference(Some(&now), &next, "u").unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u"}, "status": {"podIP": "2.2.2.2",
                "podIPs": [{"ip": "2.2.2.2"}, {"$patch": "replace"}],
                "conditions": [{"type": "Ready", "status": "False", "reason": "R"}]}})
        );
        let back = difference(Some(&next), &now, "u").unwrap();
        assert_eq!(back["status"]["conditions"][0]["reason"], Value::Null);
    }

    #[test]
    fn conditions_that_passed_are_taken_away() {
        let api = status(
            json!({"conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "Ready", "status": "True"}]}),
        );
        let ours = status(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(
            difference(Some(&api), &ours, "u").unwrap()["status"]["conditions"],
            json!([{"type": "PodResizePending", "$patch": "delete"}])
        );
    }

    #[test]
    fn a_refused_pods_conditions_are_taken_away_but_for_others() {
        let api = status(
            json!({"conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "mine", "status": "True"}]}),
        );
        let patch = difference(Some(&api), &status(json!({"phase": "Failed"})), "u").unwrap();
        assert_eq!(
            patch["status"],
            json!({"phase": "Failed", "conditions": [{"type": "PodScheduled", "$patch": "delete"}]})
        );
    }

    #[test]
    fn conditions_of_others_stay() {
        let api = status(
            json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}, {"type": "Ready", "status": "True"}]}),
        );
        let ours = status(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(difference(Some(&api), &ours, "u"), None);
    }
}
