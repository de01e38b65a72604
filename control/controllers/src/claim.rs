//! Which pods are an owner's, and which owner a pod wakes. Shared by every controller that selects pods by labels.

use crate::adoption::{Adopter, Adoption};
use crate::expectations::Expectations;
use crate::informer::{Informer, Kind, controller_uid, key_of};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, found};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, OwnerReference,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::labels::Selector;
use serde_json::json;
use std::sync::Arc;

/// Compiles a label selector; none selects nothing.
///
/// # Errors
/// It is not valid, which the API server does not let happen.
pub(crate) fn selector(selector: Option<&LabelSelector>, of: &str) -> Result<Selector, Error> {
    let value = serde_json::to_value(selector).map_err(|e| Error::Unusable(e.to_string()))?;
    Selector::from_label_selector(&value).map_err(|e| Error::Unusable(format!("selector of {of}: {e}")))
}

/// A label selector as Go prints the pointer to one.
#[must_use]
pub(crate) fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels =
        selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},")).collect::<String>();
    let expression = |e: &LabelSelectorRequirement| {
        let values = e.values.clone().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
    };
    let expressions = selector.match_expressions.iter().flatten().map(expression).collect::<String>();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// How an owner claims pods.
#[derive(Clone, Copy, Default)]
pub(crate) struct Claim<'a> {
    /// Put on what is adopted, taken from what is released.
    pub finalizer: Option<&'a str>,
    /// Pods that have ended are neither adopted nor released.
    pub only_active: bool,
    /// What a pod must be besides selected: others are not adopted, and released where they are the owner's.
    pub member: Option<&'a (dyn Fn(&Pod) -> bool + Send + Sync)>,
}

impl Claim<'_> {
    /// The owner's pods: its own, plus orphans it selects (adopted), less those it no longer selects (released).
    ///
    /// # Errors
    /// The API server refuses a change of owner.
    pub(crate) async fn pods<K: Adopter>(
        self,
        client: &Client,
        pods: &Informer<Pod>,
        owner: &K,
        key: &Key,
        selector: &Selector,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let matches =
            |pod: &Pod| selector.matches(pod.labels()) && self.member.is_none_or(|member| member(pod));
        let mut adoption = Adoption::default();
        let uid = owner.meta().uid.clone().unwrap_or_default();
        let leaving = owner.meta().deletion_timestamp.is_some();
        let mut mine = Vec::new();
        for pod in pods.owned_by(&uid) {
            if matches(&pod) || leaving {
                mine.push(pod);
            } else if self.movable(&pod) {
                let owners: Vec<&OwnerReference> =
                    pod.owner_references().iter().filter(|o| o.uid != uid).collect();
                let finalizers = self
                    .finalizer
                    .map(|mark| pod.finalizers().iter().filter(|f| *f != mark).cloned().collect::<Vec<_>>());
                change_owners(client, &pod, key, &owners, finalizers).await?;
            }
        }
        if leaving || selector.is_empty() {
            return Ok(mine);
        }
        for pod in pods.list(&key.namespace) {
            if controller_uid(&*pod).is_none() && self.movable(&pod) && matches(&pod) {
                adoption.allowed(client, owner, key).await?;
                let reference = pods::controlled_by(owner);
                let owners: Vec<&OwnerReference> =
                    pod.owner_references().iter().chain([&reference]).collect();
                let finalizers = self.finalizer.map(|mark| {
                    let mut all: Vec<String> = pod.finalizers().to_vec();
                    if !all.iter().any(|f| f == mark) {
                        all.push(mark.to_owned());
                    }
                    all
                });
                change_owners(client, &pod, key, &owners, finalizers).await?;
                mine.push(pod);
            }
        }
        Ok(mine)
    }

    fn movable(self, pod: &Pod) -> bool {
        pod.metadata.deletion_timestamp.is_none() && !(self.only_active && pods::finished(pod))
    }
}

async fn change_owners(
    client: &Client,
    pod: &Pod,
    key: &Key,
    owners: &[&OwnerReference],
    finalizers: Option<Vec<String>>,
) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    // the uid makes sure that it is still the same pod
    let mut metadata = json!({ "uid": pod.uid(), "ownerReferences": owners });
    if let Some(finalizers) = finalizers {
        metadata["finalizers"] = json!(finalizers);
        metadata["resourceVersion"] = json!(pod.resource_version());
    }
    let name = pod.name_any();
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let patched = api.patch(&name, &PatchParams::default(), &patch).await;
    found(patched).map(drop).doing(|| format!("change the owners of pod {}/{name}", key.namespace))
}

/// The owner of kind `kind` that controls a pod.
#[must_use]
pub(crate) fn owner_of(pod: &Pod, kind: &str) -> Option<Key> {
    let reference = pod.owner_references().iter().find(|o| o.controller == Some(true) && o.kind == kind)?;
    Some(Key::new(pod.namespace().as_deref()?, &reference.name))
}

/// Wakes the owner of a pod, old and new, and notes what it expected; a pod without an owner wakes every owner that selects it.
pub(crate) fn pod_changed<K: Kind>(
    (old, new): (Option<&Arc<Pod>>, Option<&Arc<Pod>>),
    owners: &Informer<K>,
    expectations: Option<&Expectations>,
    queue: &Queue,
    selector: impl Fn(&K) -> Result<Selector, Error>,
) where
    K::DynamicType: Default,
{
    let Some(pod) = new.or(old) else { return };
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let going = new.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
    for key in [old, new].into_iter().flatten().filter_map(|pod| owner_of(pod, &kind)) {
        if let Some(expectations) = expectations {
            expectations.created(&key, &pod.name_any());
            if going {
                expectations.deleted(&key, &pod.uid().unwrap_or_default());
            }
        }
        queue.add(key);
    }
    if controller_uid(&**pod).is_none() && !going {
        for owner in owners.list(pod.namespace().as_deref().unwrap_or_default()) {
            if selector(&owner).is_ok_and(|s| !s.is_empty() && s.matches(pod.labels())) {
                queue.add(key_of(&*owner));
            }
        }
    }
}
