//! Emptying a namespace that is being deleted, then letting it go.
//!
//! Woken by: the namespace, a pod of it that is gone, its own timer while something is left, a period as the retry of what failed. Reads: discovery, lists of every namespaced
//! resource. Writes: deletions, the namespace's conditions and at last its finalizers. Promises: the namespace does not go while anything
//! is in it; what it waits for stands in its conditions.

use crate::cluster::Cluster;
use crate::discovery::discover;
use crate::informer::{Informer, key_of};
use crate::pods::message_of;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use kube::discovery::verbs;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before looking again at what nothing tells us about.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

pub(crate) struct Namespaces {
    namespaces: Arc<Informer<Namespace>>,
    client: Client,
}

impl Namespaces {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.namespaces.on_change(move |_, new| {
            if let Some(namespace) = new.filter(|n| n.metadata.deletion_timestamp.is_some()) {
                wake.add(key_of(&**namespace));
            }
        });
        let (wake, namespaces) = (queue.clone(), cluster.namespaces.clone());
        cluster.pods.on_change(move |old, new| {
            if let (Some(pod), None) = (old, new) {
                let key = Key::new("", &pod.namespace().unwrap_or_default());
                if namespaces.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
                    wake.add(key);
                }
            }
        });
        Self { namespaces: cluster.namespaces.clone(), client }
    }

    /// The namespaces that are being deleted.
    pub(crate) fn terminating(&self) -> Vec<Key> {
        let all = self.namespaces.list("");
        let going = all.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some());
        going.map(|namespace| key_of(&**namespace)).collect()
    }
}

/// What is left of one kind: how many, and how many of them wait for which finalizer.
#[derive(Default)]
struct Left {
    count: usize,
    finalizers: BTreeMap<String, usize>,
}

impl Reconcile for Namespaces {
    const NAME: &'static str = "namespace-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(key).filter(|n| n.metadata.deletion_timestamp.is_some())
        else {
            return Ok(None);
        };
        self.wind_up(&namespace, key).await
    }
}

impl Namespaces {
    /// Empties a namespace that is being deleted, and lets it go once it is empty.
    async fn wind_up(&self, namespace: &Namespace, key: &Key) -> Result<Option<Duration>, Error> {
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            return Ok(None);
        }
        let undiscovered = |why: String| vec![("NamespaceDeletionDiscoveryFailure", "DiscoveryFailed", why)];
        let offers = match discover(&self.client).await {
            Ok(offers) => offers,
            Err(error) => {
                let failed = undiscovered(message_of(&error));
                self.write_conditions(namespace, key, &failed, &BTreeMap::new()).await?;
                return Err(error).doing(|| "discover what may be in a namespace".to_owned());
            }
        };
        // what is known goes; for the rest the namespace stays
        let mut failed = offers.incomplete().map(undiscovered).unwrap_or_default();
        let emptied = offers.preferred().filter(|o| o.namespaced && o.allows(&[verbs::LIST, verbs::DELETE]));
        let resources: Vec<&ApiResource> = emptied.map(|offer| &offer.resource).collect();
        let mut left = BTreeMap::new();
        let mut failures = Vec::new();
        // Pods go first: what they use must not be taken from under them.
        let (pods, others): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|r| r.group.is_empty() && r.plural == "pods");
        for resource in pods {
            self.empty_one(key, resource, &mut left, &mut failures).await;
            if !left.is_empty() {
                failed.extend(content_failure(&failures));
                // Upstream does not count the pods in the conditions of this round.
                self.write_conditions(namespace, key, &failed, &BTreeMap::new()).await?;
                return Ok(Some(LOOK_AGAIN));
            }
        }
        for resource in others {
            self.empty_one(key, resource, &mut left, &mut failures).await;
        }
        failed.extend(content_failure(&failures));
        if left.is_empty() && failed.is_empty() {
            return self.let_go(namespace, key, &finalizers).await.map(|()| None);
        }
        self.write_conditions(namespace, key, &failed, &left).await?;
        Ok(Some(LOOK_AGAIN))
    }
}

/// The condition of a round in which something could not be deleted.
fn content_failure(failures: &[String]) -> Vec<(&'static str, &'static str, String)> {
    if failures.is_empty() {
        return Vec::new();
    }
    let mut sorted = failures.to_vec();
    sorted.sort();
    let message =
        format!("Failed to delete all resource types, {} remaining: {}", failures.len(), sorted.join(", "));
    vec![("NamespaceDeletionContentFailure", "ContentDeletionFailed", message)]
}

impl Namespaces {
    /// Deletes all of a kind and notes what is left, or why it could not.
    async fn empty_one(
        &self,
        key: &Key,
        resource: &ApiResource,
        left: &mut BTreeMap<String, Left>,
        failures: &mut Vec<String>,
    ) {
        match self.empty(key, resource).await {
            Ok(rest) if rest.count > 0 => {
                left.insert(format!("{}.{}", resource.plural, resource.group), rest);
            }
            Ok(_) => {}
            Err(error) => failures.push(message_of(&error)),
        }
    }

    /// Deletes all of a kind and says what is left.
    async fn empty(&self, key: &Key, resource: &ApiResource) -> Result<Left, kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.name, resource);
        let listed = match api.list_metadata(&ListParams::default()).await {
            // the resource went away since discovery
            Err(error) if matches!(code(&error), Some(404 | 405)) => return Ok(Left::default()),
            listed => listed?,
        };
        if listed.items.is_empty() {
            return Ok(Left::default());
        }
        let fresh = listed.items.iter().any(|o| o.metadata.deletion_timestamp.is_none());
        if fresh {
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            match api.delete_collection(&params, &ListParams::default()).await {
                Err(error) if code(&error) == Some(405) => {
                    for object in &listed.items {
                        found(api.delete(&object.name_any(), &params).await)?;
                    }
                }
                deleted => drop(deleted?),
            }
        }
        let mut left = Left::default();
        for object in api.list_metadata(&ListParams::default()).await?.items {
            left.count += 1;
            for finalizer in object.metadata.finalizers.unwrap_or_default() {
                *left.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        Ok(left)
    }

    async fn let_go(&self, namespace: &Namespace, key: &Key, finalizers: &[String]) -> Result<(), Error> {
        let rest: Vec<&String> = finalizers.iter().filter(|f| *f != "kubernetes").collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": &*key.name, "uid": namespace.uid(), "resourceVersion": namespace.resource_version() },
            "spec": { "finalizers": rest },
        });
        let api: Api<Namespace> = Api::all(self.client.clone());
        let replaced: Result<Namespace, _> =
            api.replace_subresource("finalize", &key.name, &PostParams::default(), &body).await;
        found(replaced).map(drop).doing(|| format!("finalize namespace {key}"))
    }

    /// Says what goes wrong and what is waited for, in upstream's five conditions.
    async fn write_conditions(
        &self,
        namespace: &Namespace,
        key: &Key,
        failed: &[(&str, &str, String)],
        left: &BTreeMap<String, Left>,
    ) -> Result<(), Error> {
        let mut wanted: Vec<(&str, bool, &str, String)> = Vec::new();
        let fine = [
            (
                "NamespaceDeletionDiscoveryFailure",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ];
        for (kind, reason, message) in fine {
            match failed.iter().find(|f| f.0 == kind) {
                Some((_, reason, message)) => wanted.push((kind, true, reason, message.clone())),
                None => wanted.push((kind, false, reason, message.to_owned())),
            }
        }
        if left.is_empty() {
            wanted.push((
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ));
        } else {
            let counts: Vec<String> =
                left.iter().map(|(kind, l)| format!("{kind} has {} resource instances", l.count)).collect();
            let message = format!("Some resources are remaining: {}", counts.join(", "));
            wanted.push(("NamespaceContentRemaining", true, "SomeResourcesRemain", message));
        }
        let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, count) in left.values().flat_map(|l| &l.finalizers) {
            *finalizers.entry(name).or_default() += count;
        }
        if finalizers.is_empty() {
            wanted.push((
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ));
        } else {
            let counts: Vec<String> = finalizers
                .iter()
                .map(|(name, count)| format!("{name} in {count} resource instances"))
                .collect();
            let message =
                format!("Some content in the namespace has finalizers remaining: {}", counts.join(", "));
            wanted.push(("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message));
        }
        let old = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let now = Time(Timestamp::now());
        let conditions: Vec<NamespaceCondition> = wanted
            .into_iter()
            .map(|(kind, is_true, reason, message)| {
                let status = if is_true { "True" } else { "False" };
                let same = old.iter().find(|c| c.type_ == kind && c.status == status);
                NamespaceCondition {
                    type_: kind.to_owned(),
                    status: status.to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    last_transition_time: same
                        .and_then(|c| c.last_transition_time.clone())
                        .or_else(|| Some(now.clone())),
                }
            })
            .collect();
        if conditions == old {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": { "conditions": conditions } }));
        found(api.patch_status(&key.name, &PatchParams::default(), &patch).await)
            .map(drop)
            .doing(|| format!("write the conditions of namespace {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tests::group;
    use crate::fake::Fake;
    use serde_json::Value;

    const NAMESPACE: &str = "/api/v1/namespaces/n";
    const LEFT: &str = "/apis/g.io/v1beta1/namespaces/n/bs/left";

    /// The namespace after one round, with these groups served and an object of `g.io/v1beta1` in it.
    async fn emptied(groups: &[Value]) -> (Fake, Value) {
        let fake = Fake::default();
        let named = json!({ "metadata": { "name": "n", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "finalizers": ["kubernetes"] } });
        fake.put(NAMESPACE, named.clone());
        fake.put(
            LEFT,
            json!({ "metadata": { "name": "left",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"] } }),
        );
        fake.put("/api", json!({ "metadata": {}, "items": [] }));
        fake.put("/apis", json!({ "metadata": {}, "items": groups }));
        let namespaces = Namespaces::new(&Cluster::default(), fake.client(), &Arc::default());
        let namespace = serde_json::from_value(named).unwrap();
        namespaces.wind_up(&namespace, &Key::new("", "n")).await.unwrap();
        let after = fake.get(NAMESPACE).unwrap();
        (fake, after)
    }

    fn condition(namespace: &Value, kind: &str) -> (String, String) {
        let all = namespace["status"]["conditions"].as_array().unwrap();
        let one = all.iter().find(|c| c["type"] == kind).unwrap();
        (one["status"].as_str().unwrap().to_owned(), one["message"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn what_only_an_older_version_has_must_not_be_left_behind() {
        let (_, after) = emptied(&[group("g.io", &[("v1", &["as"]), ("v1beta1", &["bs"])])]).await;
        assert_eq!(after["spec"]["finalizers"], json!(["kubernetes"]), "it waits");
        let (status, message) = condition(&after, "NamespaceContentRemaining");
        assert_eq!(
            (status.as_str(), message.as_str()),
            ("True", "Some resources are remaining: bs.g.io has 1 resource instances")
        );
    }

    #[tokio::test]
    async fn a_namespace_must_not_go_while_a_server_is_silent_that_may_have_more_of_it() {
        let (fake, after) = emptied(&[group("g.io", &[("v1", &[])])]).await;
        assert!(fake.writes().iter().all(|write| !write.contains("finalize")));
        let (status, message) = condition(&after, "NamespaceDeletionDiscoveryFailure");
        assert_eq!(status, "True");
        assert!(message.ends_with("g.io/v1: stale GroupVersion discovery: g.io/v1"), "{message}");
    }
}
