//! How much of each ResourceQuota is used.
//!
//! Woken by: a quota that is new or whose limits changed, objects that go or end, and every period whatever happened. Reads: pods,
//! services and claims of the quota's namespace; objects of any other kind it counts, by a list of their metadata. Writes: the quota's
//! status. Promises: what the API server charged for a write that then failed is given back at the next recount; a status is replaced only
//! if it is still the one that was read, so a charge made meanwhile is never lost.

use crate::cluster::Cluster;
use crate::informer::{Informer, Kind, key_of};
use crate::inventory::Inventory;
use crate::options::paced;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::quantity::{Format, Quantity};
use machinery::resources::quota::{Counted, frees};
use machinery::totals::{Amounts, add, amounts};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Objects asked for at once.
const PAGE: u32 = 500;
/// Kinds counted from their informers.
const OBSERVED: [&str; 3] = ["persistentvolumeclaims", "pods", "services"];

pub(crate) struct ResourceQuotas {
    quotas: Arc<Informer<ResourceQuota>>,
    pods: Arc<Informer<Pod>>,
    services: Arc<Informer<Service>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    inventory: Arc<Inventory>,
    /// How often everything is counted again.
    period: Duration,
    client: Client,
}

impl ResourceQuotas {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        inventory: Arc<Inventory>,
        period: Duration,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.quotas.on_change(move |old, new| {
            let hard = |quota: &Arc<ResourceQuota>| quota.spec.as_ref().and_then(|s| s.hard.clone());
            if let Some(quota) = new
                && old.map(hard) != Some(hard(quota))
            {
                wake.add(key_of(&**quota));
            }
        });
        watch(&cluster.pods, "pods", &cluster.quotas, queue);
        watch(&cluster.services, "services", &cluster.quotas, queue);
        watch(&cluster.persistent_volume_claims, "persistentvolumeclaims", &cluster.quotas, queue);
        let (wake, quotas) = (queue.clone(), cluster.quotas.clone());
        inventory.on_gone(move |group, plural, namespace| {
            if !(group.is_empty() && OBSERVED.contains(&plural)) {
                wake_counting(&wake, &quotas, group, plural, namespace);
            }
        });
        Self {
            quotas: cluster.quotas.clone(),
            pods: cluster.pods.clone(),
            services: cluster.services.clone(),
            claims: cluster.persistent_volume_claims.clone(),
            inventory,
            period: paced(period),
            client,
        }
    }
}

/// Wakes quotas for objects of an informer that go or use less.
fn watch<K: Kind + Serialize>(
    informer: &Informer<K>,
    plural: &'static str,
    quotas: &Arc<Informer<ResourceQuota>>,
    queue: &Arc<Queue>,
) where
    K::DynamicType: Default,
{
    let (wake, quotas) = (queue.clone(), quotas.clone());
    informer.on_change(move |old, new| {
        let Some(old) = old else { return };
        let namespace = old.namespace().unwrap_or_default();
        if quotas.list(&namespace).is_empty() {
            return;
        }
        let less = match new {
            None => true,
            Some(new) => frees("", plural, &value(&**old), &value(&**new), Timestamp::now()),
        };
        if less {
            wake_counting(&wake, &quotas, "", plural, &namespace);
        }
    });
}

fn wake_counting(
    queue: &Queue,
    quotas: &Informer<ResourceQuota>,
    group: &str,
    plural: &str,
    namespace: &str,
) {
    let Some(counted) = Counted::new(group, plural) else { return };
    for quota in quotas.list(namespace) {
        let hard = quota.spec.iter().flat_map(|s| s.hard.iter().flatten());
        if hard.map(|(name, _)| name).any(|name| counted.tracks(name)) {
            queue.add(key_of(&*quota));
        }
    }
}

fn value(object: &impl Serialize) -> Value {
    // what came as JSON goes as JSON
    serde_json::to_value(object).unwrap_or_default()
}

/// Group and plural name of the kinds that these resources count, each once.
fn kinds<'a>(hard: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut kinds = Vec::new();
    for name in hard {
        let named = name.strip_prefix("count/").map(|kind| kind.split_once('.').unwrap_or((kind, "")));
        let built_in = || {
            let known = OBSERVED.into_iter().chain([
                "configmaps",
                "replicationcontrollers",
                "resourcequotas",
                "secrets",
            ]);
            known
                .map(|plural| (plural, ""))
                .find(|(plural, _)| Counted::new("", plural).is_some_and(|counted| counted.tracks(name)))
        };
        if let Some((plural, group)) = named.or_else(built_in) {
            let kind = (group.to_owned(), plural.to_owned());
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds
}

/// The sum of what objects use, of the resources that are limited; a resource nothing uses is zero.
fn used<'a>(
    counted: Counted<'_>,
    quota: &Value,
    hard: &Amounts,
    objects: impl Iterator<Item = &'a Value>,
    now: Timestamp,
) -> Amounts {
    let zero = Quantity::new(0, Format::DecimalSi);
    let mut sum: Amounts =
        hard.keys().filter(|name| counted.tracks(name)).map(|name| (name.clone(), zero.clone())).collect();
    for object in objects.filter(|object| counted.in_scopes(quota, object)) {
        let mut usage = counted.usage(object, now);
        usage.retain(|name, _| sum.contains_key(name));
        add(&mut sum, &usage);
    }
    sum
}

/// The status to write, or nothing when it stands. What could not be counted keeps its last figure.
fn status(quota: &Value, fresh: Amounts) -> Option<Value> {
    let part = |path: [&str; 2]| quota.pointer(&format!("/{}/{}", path[0], path[1])).unwrap_or(&Value::Null);
    let (limits, old_hard, old_used) =
        (amounts(part(["spec", "hard"])), part(["status", "hard"]), part(["status", "used"]));
    let mut new = amounts(old_used);
    new.extend(fresh);
    new.retain(|name, _| limits.contains_key(name));
    if amounts(old_hard) == limits && old_hard.is_object() && old_used.is_object() && amounts(old_used) == new
    {
        return None;
    }
    // a merge patch adds to what is there: what has to go is named
    let replaced = |old: &Value, new: &Amounts| {
        let gone = old.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), Value::Null));
        let mut map: Map<String, Value> = gone.collect();
        map.extend(new.iter().map(|(name, amount)| (name.clone(), amount.canonical().into())));
        map
    };
    Some(json!({ "hard": replaced(old_hard, &limits), "used": replaced(old_used, &new) }))
}

impl ResourceQuotas {
    /// Objects of a kind in a namespace, as far as counting needs them; nothing where the kind is not served.
    async fn objects(&self, group: &str, plural: &str, namespace: &str) -> Result<Option<Vec<Value>>, Error> {
        fn all<K: Kind + Serialize>(informer: &Informer<K>, namespace: &str) -> Vec<Value> {
            informer.list(namespace).iter().map(|object| value(&**object)).collect()
        }
        match (group, plural) {
            ("", "pods") => return Ok(Some(all(&self.pods, namespace))),
            ("", "services") => return Ok(Some(all(&self.services, namespace))),
            ("", "persistentvolumeclaims") => return Ok(Some(all(&self.claims, namespace))),
            _ => {}
        }
        let Some(served) = self.inventory.get(group, plural).filter(|served| served.namespaced) else {
            return Ok(None);
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &served.resource);
        let mut params = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = api.list_metadata(&params).await.doing(|| format!("count {plural} in {namespace}"))?;
            objects.extend(page.items.iter().map(|_| json!({})));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Some(objects)),
            }
        }
    }
}

impl Reconcile for ResourceQuotas {
    const NAME: &'static str = "resourcequota-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(quota) = self.quotas.get(key) else { return Ok(None) };
        if quota.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let version = quota.resource_version();
        let quota = value(&*quota);
        let hard = amounts(quota.pointer("/spec/hard").unwrap_or(&Value::Null));
        let mut fresh = Amounts::new();
        for (group, plural) in kinds(hard.keys().map(String::as_str)) {
            let Some(counted) = Counted::new(&group, &plural) else { continue };
            if let Some(objects) = self.objects(&group, &plural, &key.namespace).await? {
                fresh.extend(used(counted, &quota, &hard, objects.iter(), Timestamp::now()));
            }
        }
        if let Some(status) = status(&quota, fresh) {
            let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
            let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
            let patched = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
            found(patched).doing(|| format!("write the status of resource quota {key}"))?;
        }
        Ok(Some(self.period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_a_quota_names_is_counted_once() {
        let hard = [
            "pods",
            "requests.cpu",
            "count/deployments.apps",
            "count/pods",
            "secrets",
            "count/a.b.example.com",
        ];
        let kind = |group: &str, plural: &str| (group.to_owned(), plural.to_owned());
        assert_eq!(
            kinds(hard.into_iter()),
            [kind("", "pods"), kind("apps", "deployments"), kind("", "secrets"), kind("b.example.com", "a")]
        );
    }

    #[test]
    fn a_status_is_written_once_and_drops_what_is_limited_no_more() {
        let mut quota = json!({"spec": {"hard": {"pods": "3", "cpu": "1000m"}}});
        let pod =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}});
        let hard = amounts(&quota["spec"]["hard"]);
        let count = |quota: &Value| {
            let pods = Counted::new("", "pods").unwrap();
            used(pods, quota, &hard, [&pod, &pod].into_iter(), Timestamp::UNIX_EPOCH)
        };
        let first = status(&quota, count(&quota)).unwrap();
        assert_eq!(first, json!({"hard": {"pods": "3", "cpu": "1"}, "used": {"pods": "2", "cpu": "500m"}}));
        quota["status"] = first;
        assert_eq!(status(&quota, count(&quota)), None);
        quota["status"]["used"]["services"] = json!("1");
        let next = status(&quota, count(&quota)).unwrap();
        assert_eq!(next["used"]["services"], Value::Null);
        // what cannot be counted keeps its figure
        quota["spec"]["hard"]["count/unknowns.example.com"] = json!("5");
        quota["status"]["used"]["count/unknowns.example.com"] = json!("4");
        assert_eq!(status(&quota, count(&quota)).unwrap()["used"]["count/unknowns.example.com"], "4");
    }
}
