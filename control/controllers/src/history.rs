//! ControllerRevisions: the templates a DaemonSet or StatefulSet had, so that pods can be told apart by template and a rollout undone.

use crate::adoption::{Adopter, Adoption};
use crate::cluster::Cluster;
use crate::deployment::revision::hash;
use crate::informer::{Informer, controller_uid};
use crate::pods::controlled_by;
use crate::queue::Key;
use crate::reconcile::{Doing, Error, code, found};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::labels::Selector;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads and writes revisions.
pub(crate) struct Revisions {
    informer: Arc<Informer<ControllerRevision>>,
    client: Client,
}

/// What a revision is made of.
pub(crate) struct RevisionSpec<'a> {
    /// The template it keeps.
    pub template: &'a PodTemplateSpec,
    /// The label that says the template's hash.
    pub hash_label: &'a str,
    pub labels: BTreeMap<String, String>,
    /// Name collisions so far.
    pub collisions: i32,
}

pub(crate) struct History {
    /// The one with the owner's template.
    pub current: Arc<ControllerRevision>,
    /// The others, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
}

/// The template a revision keeps.
#[must_use]
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The strategic merge patch that brings a template back (`kubectl rollout undo` sends it as it is).
#[must_use]
pub(crate) fn data_of(template: &PodTemplateSpec) -> serde_json::Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// Sorts an owner's revisions into the current one, by template, and the rest; the second says the number the current one must have.
#[must_use]
pub(crate) fn sort(
    mut all: Vec<Arc<ControllerRevision>>,
    template: &PodTemplateSpec,
) -> (Option<Arc<ControllerRevision>>, Vec<Arc<ControllerRevision>>, i64) {
    all.sort_by_key(|r| (r.revision, r.creation_timestamp().map(|t| t.0), r.name_any()));
    let at = all.iter().rposition(|r| template_of(r).as_ref() == Some(template));
    let current = at.map(|at| all.remove(at));
    let next = all.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
    (current, all, next)
}

impl Revisions {
    /// Reads what the cluster's informer shows.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client) -> Self {
        Self { informer: cluster.revisions.clone(), client }
    }

    fn api(&self, key: &Key) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// The owner's revisions; the current one is made when there is none, and renumbered when the owner went back to it.
    ///
    /// # Errors
    /// The API server refuses; or, with code 409, another template has the name: count the collision and call again.
    pub(crate) async fn sync<K: Adopter>(
        &self,
        owner: &K,
        key: &Key,
        selector: &Selector,
        wanted: RevisionSpec<'_>,
    ) -> Result<History, Error> {
        let mut adoption = Adoption::default();
        let uid = owner.meta().uid.clone().unwrap_or_default();
        let mut all = self.informer.owned_by(&uid);
        for revision in self.informer.list(&key.namespace) {
            if controller_uid(&*revision).is_none()
                && revision.metadata.deletion_timestamp.is_none()
                && selector.matches(revision.labels())
            {
                adoption.allowed(&self.client, owner, key).await?;
                let owners: Vec<_> =
                    revision.owner_references().iter().cloned().chain([controlled_by(owner)]).collect();
                let patch = json!({ "metadata": { "uid": revision.uid(), "ownerReferences": owners } });
                let name = revision.name_any();
                let patched = self.api(key).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                found(patched).doing(|| format!("adopt controller revision {}/{name}", key.namespace))?;
                all.push(revision);
            }
        }
        let (current, old, next) = sort(all, wanted.template);
        let current = match current {
            Some(current) if current.revision >= next => current,
            Some(current) => {
                let name = current.name_any();
                let patch = Patch::Merge(json!({ "metadata": { "uid": current.uid() }, "revision": next }));
                let patched = self.api(key).patch(&name, &PatchParams::default(), &patch).await;
                Arc::new(patched.doing(|| format!("renumber controller revision {}/{name}", key.namespace))?)
            }
            None => self.create(owner, key, wanted, next).await?,
        };
        Ok(History { current, old })
    }

    async fn create<K>(
        &self,
        owner: &K,
        key: &Key,
        wanted: RevisionSpec<'_>,
        number: i64,
    ) -> Result<Arc<ControllerRevision>, Error>
    where
        K: Resource + Sync,
        K::DynamicType: Default,
    {
        let hash = hash(wanted.template, wanted.collisions);
        let name = format!("{}-{hash}", key.name);
        let mut labels = wanted.labels;
        labels.insert(wanted.hash_label.to_owned(), hash);
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(key.namespace.to_string()),
                labels: Some(labels),
                annotations: owner.meta().annotations.clone(),
                owner_references: Some(vec![controlled_by(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data_of(wanted.template))),
            revision: number,
        };
        let error = match self.api(key).create(&PostParams::default(), &revision).await {
            Ok(created) => return Ok(Arc::new(created)),
            Err(error) if code(&error) == Some(409) => error,
            Err(error) => {
                return Err(error).doing(|| format!("create controller revision {}/{name}", key.namespace));
            }
        };
        let there = self
            .api(key)
            .get_opt(&name)
            .await
            .doing(|| format!("read controller revision {}/{name}", key.namespace))?;
        // our own, that the informer has not shown yet
        match there {
            Some(there)
                if controller_uid(&there) == owner.meta().uid.as_deref()
                    && template_of(&there).as_ref() == Some(wanted.template) =>
            {
                Ok(Arc::new(there))
            }
            _ => Err(error).doing(|| format!("create controller revision {}/{name}", key.namespace)),
        }
    }

    /// Removes old revisions beyond the limit, the oldest first, but none that is `live`. A negative limit keeps all.
    ///
    /// # Errors
    /// The API server refuses.
    pub(crate) async fn truncate(
        &self,
        key: &Key,
        old: &[Arc<ControllerRevision>],
        limit: Option<i32>,
        live: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), Error> {
        let Ok(limit) = usize::try_from(limit.unwrap_or(10)) else { return Ok(()) };
        for revision in surplus(old, limit, live) {
            let name = revision.name_any();
            let deleted = self.api(key).delete(&name, &DeleteParams::default()).await;
            found(deleted).doing(|| format!("delete controller revision {}/{name}", key.namespace))?;
        }
        Ok(())
    }
}

/// Those of `old` (oldest first) that go so that `limit` stay. Live ones count, but never go.
fn surplus(
    old: &[Arc<ControllerRevision>],
    limit: usize,
    live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<&Arc<ControllerRevision>> {
    old.iter().filter(|r| !live(r)).take(old.len().saturating_sub(limit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))
            .unwrap()
    }

    fn revision(number: i64, image: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(format!("r{number}")), ..ObjectMeta::default() },
            data: Some(RawExtension(data_of(&template(image)))),
            revision: number,
        })
    }

    #[test]
    fn going_back_to_a_template_finds_its_revision_and_renumbers_it() {
        let all = vec![revision(3, "c"), revision(1, "a"), revision(2, "b")];
        let (current, old, next) = sort(all, &template("a"));
        assert_eq!((current.unwrap().revision, next), (1, 4));
        assert_eq!(old.iter().map(|r| r.revision).collect::<Vec<_>>(), [2, 3]);
        let (current, _, next) = sort(vec![revision(1, "a")], &template("z"));
        assert_eq!((current.is_none(), next), (true, 2));
    }

    #[test]
    fn what_upstream_wrote_is_the_same_template() {
        let data = json!({ "spec": { "template": { "$patch": "replace", "metadata": { "creationTimestamp": null },
            "spec": { "containers": [{ "name": "c", "image": "a" }] } } } });
        let revision = ControllerRevision { data: Some(RawExtension(data)), ..ControllerRevision::default() };
        let mut ours = template("a");
        ours.metadata = Some(ObjectMeta::default());
        assert_eq!(template_of(&revision), Some(ours));
    }

    #[test]
    fn the_oldest_that_no_pod_has_go_first() {
        let old = [revision(1, "a"), revision(2, "b"), revision(3, "c")];
        let gone = |limit, live: i64| {
            let gone = surplus(&old, limit, |r| r.revision == live);
            gone.iter().map(|r| r.revision).collect::<Vec<_>>()
        };
        assert_eq!(gone(1, 0), [1, 2]);
        assert_eq!(gone(1, 1), [2, 3]);
        assert_eq!(gone(3, 0), Vec::<i64>::new());
    }
}
