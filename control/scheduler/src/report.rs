//! What the scheduler writes: bindings, evictions of victims, events and conditions.

use crate::model::Pod;
use k8s_openapi::api::core::v1 as api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter as EventReporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;

/// The scheduler's name in `spec.schedulerName` and in events.
pub(crate) const NAME: &str = "default-scheduler";
/// Longest note of an event, in bytes.
const NOTE: usize = 1024;

/// Writes to the API.
#[derive(Clone)]
pub(crate) struct Reporter {
    client: Client,
    recorder: Recorder,
}

/// Why a pod has no node yet.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The condition's reason: `Unschedulable` or `SchedulerError`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// `Some(None)` clears the nomination.
    pub(crate) nominate: Option<Option<String>>,
}

impl Reporter {
    pub(crate) fn new(client: Client) -> Self {
        let instance = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|host| format!("{NAME}-{}", host.trim()))
            .unwrap_or_else(|_| NAME.to_owned());
        let reporter = EventReporter { controller: NAME.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    fn pods(&self, namespace: &str) -> Api<api::Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Binds and, where that worked, says so in an event.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str) -> Result<(), kube::Error> {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        });
        let pods = self.pods(&pod.namespace);
        let _: Value =
            pods.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await?;
        let note = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.event(pod, EventType::Normal, "Scheduled", "Binding", note, None).await;
        Ok(())
    }

    /// The event and the condition of a failed attempt. The pod may be gone by now; that is not an error.
    pub(crate) async fn failed(&self, pod: &Pod, failure: &Failure) {
        let message = &failure.message;
        self.event(pod, EventType::Warning, "FailedScheduling", "Scheduling", message.clone(), None).await;
        let known = failure.reason == "Unschedulable" && pod.unschedulable.as_deref() == Some(message);
        let mut status = json!({});
        if !known {
            let mut condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": failure.reason,
                "message": message,
                "observedGeneration": pod.generation,
            });
            if pod.unschedulable.is_none() {
                condition["lastTransitionTime"] = now();
            }
            status["conditions"] = json!([condition]);
        }
        match &failure.nominate {
            Some(node) if *node != pod.nominated => status["nominatedNodeName"] = json!(node),
            _ if known => return,
            _ => {}
        }
        self.patch_status(pod, status).await;
    }

    /// Says that a pod waits for no node any more.
    pub(crate) async fn displaced(&self, pod: &Pod) {
        self.patch_status(pod, json!({"nominatedNodeName": null})).await;
    }

    /// Makes a victim leave.
    pub(crate) async fn evict(
        &self,
        victim: &Arc<Pod>,
        preemptor: &Pod,
        node: &str,
    ) -> Result<(), kube::Error> {
        if victim.terminating {
            return Ok(());
        }
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler),
            "lastTransitionTime": now(),
            "observedGeneration": victim.generation,
        });
        self.patch_status(victim, json!({"conditions": [condition]})).await;
        let uid = Some(victim.uid.clone());
        let params = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        match self.pods(&victim.namespace).delete(&victim.name, &params).await {
            // Gone, or another pod of that name by now.
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => return Ok(()),
            done => drop(done?),
        }
        let note = format!("Preempted by pod {} on node {node}", preemptor.uid);
        self.event(victim, EventType::Normal, "Preempted", "Preempting", note, Some(preemptor)).await;
        Ok(())
    }

    async fn patch_status(&self, pod: &Pod, status: Value) {
        // The UID keeps the patch from a new pod of the same name.
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid}, "status": status}));
        let done = self.pods(&pod.namespace).patch_status(&pod.name, &PatchParams::default(), &patch).await;
        match done {
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {}
            Err(error) => tracing::warn!(pod = pod.key(), %error, "scheduler: patch pod status"),
            Ok(_) => {}
        }
    }

    async fn event(
        &self,
        pod: &Pod,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
        other: Option<&Pod>,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(bounded(note)),
            action: action.to_owned(),
            secondary: other.map(reference),
        };
        if let Err(error) = self.recorder.publish(&event, &reference(pod)).await {
            tracing::warn!(pod = pod.key(), reason, %error, "scheduler: record event");
        }
    }
}

fn now() -> Value {
    // To the second, as the API has times.
    json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn reference(pod: &Pod) -> api::ObjectReference {
    api::ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.clone()),
        namespace: Some(pod.namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..api::ObjectReference::default()
    }
}

fn bounded(mut note: String) -> String {
    const MORE: &str = " ...";
    if note.len() > NOTE {
        let mut end = NOTE - MORE.len();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push_str(MORE);
    }
    note
}
