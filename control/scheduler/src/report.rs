//! What the scheduler writes: bindings, evictions of victims, events and conditions.

use crate::model::Pod;
use crate::profile::{Config, NAME};
use client::recorder::{Note, Recorder, Severity};
use k8s_openapi::api::core::v1 as api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use supervise::Scope;

/// Writes to the API.
#[derive(Clone)]
pub(crate) struct Reporter {
    client: Client,
    recorder: Recorder,
    config: Arc<Config>,
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
    pub(crate) fn new(client: Client, config: Arc<Config>, scope: &Scope) -> Self {
        let instance = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|host| format!("{NAME}-{}", host.trim()))
            .unwrap_or_else(|_| NAME.to_owned());
        let (recorder, writer) = Recorder::new(Some(client.clone()), Some(&instance));
        scope.keep(writer.task("events"));
        Self { client, recorder, config }
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
        self.bound(pod, node);
        Ok(())
    }

    /// Says that a pod is bound.
    pub(crate) fn bound(&self, pod: &Pod, node: &str) {
        let note = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.event(pod, Severity::Normal, "Scheduled", "Binding", note, None);
    }

    /// The event and the condition of a failed attempt. The pod may be gone by now; that is not an error.
    pub(crate) async fn failed(&self, pod: &Pod, failure: &Failure) {
        let message = &failure.message;
        self.event(pod, Severity::Warning, "FailedScheduling", "Scheduling", message.clone(), None);
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

    /// Says on which node a pod will be, where that is not known yet.
    pub(crate) async fn nominate(&self, pod: &Pod, node: &str) {
        if pod.nominated.as_deref() != Some(node) {
            self.patch_status(pod, json!({"nominatedNodeName": node})).await;
        }
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
        self.event(victim, Severity::Normal, "Preempted", "Preempting", note, Some(preemptor));
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

    fn event(
        &self,
        pod: &Pod,
        severity: Severity,
        reason: &'static str,
        action: &'static str,
        message: String,
        other: Option<&Pod>,
    ) {
        let (about, action) = (reference(pod), Some((action, other.map(reference))));
        let component = self.config.profile(&pod.scheduler).map_or(NAME, |profile| profile.name);
        let reason = reason.into();
        self.recorder.note(Note { component, about, severity, reason, message, action });
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
