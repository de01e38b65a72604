//! Making and removing pods for an owner, and what a pod says of itself. Shared by every controller that has pods.

use crate::expectations::Expectations;
use crate::queue::Key;
use crate::reconcile::{Doing, Error, code};
use crate::recorder::{Recorder, Severity};
pub(crate) use client::message_of;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use std::time::Duration;

/// Whether the pod's containers have ended for good.
#[must_use]
pub(crate) fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts towards its owner's replicas.
#[must_use]
pub(crate) fn active(pod: &Pod) -> bool {
    !finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// `status.phase`, empty when not said yet.
#[must_use]
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Since when the pod is ready, if it is.
#[must_use]
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

/// Why a pod is removed although its owner did not ask for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disruption {
    /// For machines, in CamelCase.
    pub reason: &'static str,
    pub message: &'static str,
}

impl Disruption {
    /// The pod's condition `DisruptionTarget`.
    #[must_use]
    pub(crate) fn condition(self, pod: &Pod, now: Timestamp) -> PodCondition {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let old = conditions.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
        PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            observed_generation: pod.metadata.generation,
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.to_owned()),
            last_transition_time: old.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            ..PodCondition::default()
        }
    }
}

/// Whether the pod has been ready for `min_ready_seconds`.
///
/// # Errors
/// It is ready, but not for long enough: how long it takes until it is.
pub(crate) fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<bool, Duration> {
    let Some(since) = ready_since(pod) else { return Ok(false) };
    let ready_for = now.duration_since(since);
    let wanted = jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    if min_ready_seconds <= 0 || ready_for >= wanted {
        return Ok(true);
    }
    Err((wanted - ready_for).unsigned_abs())
}

/// The reference by which `owner` controls what it makes.
#[must_use]
pub(crate) fn controlled_by<K>(owner: &K) -> OwnerReference
where
    K: Resource,
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    OwnerReference {
        api_version: K::api_version(&kind).into_owned(),
        kind: K::kind(&kind).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod from an owner's template. Its name starts with the owner's and ends in five random characters, drawn here, so that the
/// controller knows the name before the API server answers.
#[must_use]
pub(crate) fn from_template<K>(template: &PodTemplateSpec, owner: &K) -> Pod
where
    K: Resource,
    K::DynamicType: Default,
{
    let template_meta = template.metadata.clone().unwrap_or_default();
    let prefix = format!("{}-", owner.meta().name.as_deref().unwrap_or_default());
    Pod {
        metadata: ObjectMeta {
            name: Some(generated_name(&prefix)),
            generate_name: Some(prefix),
            namespace: owner.meta().namespace.clone(),
            labels: template_meta.labels,
            annotations: template_meta.annotations,
            finalizers: template_meta.finalizers,
            owner_references: Some(vec![controlled_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `prefix` with a random suffix, cut so that the whole is a label (upstream's name generator).
#[must_use]
pub(crate) fn generated_name(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 63 - 5;
    let mut random = [0; 5];
    // without randomness the name is only more likely to be taken, which the API server says
    let _ = getrandom::fill(&mut random);
    let mut name = prefix.to_owned();
    name.truncate(LONGEST);
    name.extend(random.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    name
}

/// Makes `count` things in batches of 1, 2, 4, ...: the first batch with a refusal is the last, so that a template nobody can admit costs
/// one refusal and not five hundred. Gives how many were made. A namespace on its way out is no error: the owner goes with it.
pub(crate) async fn slow_start<F>(count: usize, make: impl Fn(usize) -> F) -> (usize, Result<(), Error>)
where
    F: Future<Output = Result<(), Error>>,
{
    let (mut tried, mut made, mut batch) = (0, 0, 1);
    while tried < count {
        let now = batch.min(count - tried);
        let results = futures::future::join_all((tried..tried + now).map(&make)).await;
        made += results.iter().filter(|r| r.is_ok()).count();
        for result in results {
            match result {
                Err(Error::Api { source, .. }) if terminating_namespace(&source) => return (made, Ok(())),
                Err(error) => return (made, Err(error)),
                Ok(()) => {}
            }
        }
        tried += now;
        batch *= 2;
    }
    (made, Ok(()))
}

/// Makes and removes pods, tells the owner's events of it, and keeps the owner's expectations.
pub(crate) struct PodControl {
    pub client: Client,
    pub recorder: Recorder,
    /// Writes not seen yet.
    pub expectations: Expectations,
    /// The controller's name in events.
    pub component: &'static str,
}

impl PodControl {
    /// Makes a pod for `owner`.
    ///
    /// # Errors
    /// The API server refuses; the owner has an event `FailedCreate` that says why.
    pub(crate) async fn create<K>(&self, owner: &K, key: &Key, pod: &Pod) -> Result<(), Error>
    where
        K: Resource + Sync,
        K::DynamicType: Default,
    {
        let name = pod.name_any();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        self.expectations.creating(key, &name);
        let created = api.create(&PostParams::default(), pod).await;
        match &created {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.recorder.record(self.component, owner, Severity::Normal, "SuccessfulCreate", message);
            }
            Err(error) => {
                self.expectations.created(key, &name);
                // a namespace on its way out admits nothing: no event can be written into it either
                if !terminating_namespace(error) {
                    let message = format!("Error creating: {}", message_of(error));
                    self.recorder.record(self.component, owner, Severity::Warning, "FailedCreate", message);
                }
            }
        }
        created.map(drop).doing(|| format!("create pod {}/{name}", key.namespace))
    }

    /// Removes a pod of `owner`.
    ///
    /// # Errors
    /// The API server refuses; the owner has an event `FailedDelete` that says why.
    pub(crate) async fn delete<K>(&self, owner: &K, key: &Key, pod: &Pod) -> Result<(), Error>
    where
        K: Resource + Sync,
        K::DynamicType: Default,
    {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        self.expectations.deleting(key, &uid);
        let only_this = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Ok(_) => {
                self.recorder.record(
                    self.component,
                    owner,
                    Severity::Normal,
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            // gone, or another pod has its name by now
            Err(error) if matches!(code(&error), Some(404 | 409)) => {
                self.expectations.deleted(key, &uid);
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, &uid);
                let message = format!("Error deleting: {}", message_of(&error));
                self.recorder.record(self.component, owner, Severity::Warning, "FailedDelete", message);
                Err(error).doing(|| format!("delete pod {}/{name}", key.namespace))
            }
        }
    }
}

/// Whether a creation was refused because the namespace is being deleted.
#[must_use]
pub(crate) fn terminating_namespace(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
}
