//! What makes a pod the one of its ordinal: name, labels, host name, and claims of its own. Pure.

use super::plan::REVISION_LABEL;
use crate::pods::controlled_by;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Labels that say which pod it is: name, ordinal.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The name of an ordinal's pod.
#[must_use]
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The labels that say which pod it is.
#[must_use]
pub(super) fn labels(set: &StatefulSet, ordinal: i32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_owned(), pod_name(set, ordinal)),
        (INDEX_LABEL.to_owned(), ordinal.to_string()),
    ])
}

/// The pod of an ordinal.
#[must_use]
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = pod_name(set, ordinal);
    let mut all = meta.labels.unwrap_or_default();
    all.extend(labels(set, ordinal));
    all.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    let own: Vec<Volume> = claims(set, ordinal)
        .into_iter()
        .map(|(template, claim)| {
            let source = PersistentVolumeClaimVolumeSource { claim_name: claim.name_any(), read_only: None };
            Volume { name: template, persistent_volume_claim: Some(source), ..Volume::default() }
        })
        .collect();
    if !own.is_empty() {
        let others = spec.volumes.take().unwrap_or_default();
        let others = others.into_iter().filter(|v| own.iter().all(|o| o.name != v.name));
        spec.volumes = Some(own.iter().cloned().chain(others).collect());
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: Some(all),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controlled_by(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// An ordinal's claims, by the name of their template.
#[must_use]
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.iter().flatten();
    let made = templates.map(|template| {
        let of = template.name_any();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{of}-{}", pod_name(set, ordinal))),
                namespace: set.namespace(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        (of, claim)
    });
    made.collect()
}

/// What becomes of a claim's owners.
#[derive(Debug, PartialEq)]
pub(super) struct ClaimOwners {
    /// The new owners, where they change.
    pub(super) changed: Option<Vec<OwnerReference>>,
    /// Something else controls the claim, so the retention policy does not count for it.
    pub(super) conflicting: bool,
}

/// Whom the retention policy lets a claim go with: the set's deletion, and that of a pod the set is too small for.
fn retention(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.map(String::as_str) == Some("Delete");
    (
        deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        deletes(policy.and_then(|p| p.when_scaled.as_ref())),
    )
}

/// Whether two references name the same object, or two that followed each other under one name.
fn same_name(a: &OwnerReference, b: &OwnerReference) -> bool {
    a.api_version == b.api_version && a.kind == b.kind && a.name == b.name
}

/// Whether an owner is one that had the name before.
fn stale(present: &[OwnerReference], owner: &OwnerReference) -> bool {
    present.iter().find(|o| same_name(o, owner)).is_some_and(|o| o.uid != owner.uid)
}

/// Whether a claim goes with an earlier pod of the name: it must be gone before the next one comes.
#[must_use]
pub(super) fn goes_with_an_earlier_pod(
    set: &StatefulSet,
    present: &[OwnerReference],
    pod: &OwnerReference,
) -> bool {
    retention(set).1 && stale(present, pod)
}

/// Who a claim must belong to so that it goes with them, by the retention policy (upstream's `isClaimOwnerUpToDate` and
/// `updateClaimOwnerRefForSetAndPod`). `pod` is the one that has the claim, with an empty uid before it is made; `surplus`: the set is
/// too small for it.
#[must_use]
pub(super) fn claim_owners(
    set: &StatefulSet,
    present: &[OwnerReference],
    pod: &OwnerReference,
    surplus: bool,
) -> ClaimOwners {
    let (with_set, with_pod) = retention(set);
    let set = &controlled_by(set);
    let foreign = |o: &OwnerReference| match [set, pod].into_iter().find(|ours| same_name(o, ours)) {
        Some(ours) => o.uid != ours.uid,
        None => o.controller == Some(true),
    };
    let conflicting = (with_set || with_pod) && present.iter().any(foreign);
    // what an earlier owner of the name left is the garbage collector's
    if stale(present, set) || stale(present, pod) {
        return ClaimOwners { changed: None, conflicting };
    }
    let wanted = match (with_set, with_pod && surplus) {
        _ if conflicting => None,
        (_, true) => Some(pod),
        (true, false) => Some(set),
        (false, false) => None,
    };
    let ours = present.iter().filter(|o| o.uid == set.uid || o.uid == pod.uid);
    let right = |o: &OwnerReference| o.controller == Some(true) && Some(&o.uid) == wanted.map(|w| &w.uid);
    let up_to_date = ours.clone().all(right) && ours.count() == usize::from(wanted.is_some());
    let changed = (!up_to_date).then(|| {
        let others = present.iter().filter(|o| !same_name(o, set) && !same_name(o, pod));
        others.chain(wanted).cloned().collect()
    });
    ClaimOwners { changed, conflicting }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({ "metadata": { "name": "db", "namespace": "ns", "uid": "s" }, "spec": {
            "serviceName": "peers", "selector": { "matchLabels": { "app": "db" } },
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Delete" },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            "template": { "metadata": { "labels": { "app": "db" } },
                "spec": { "containers": [], "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] } } } }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_its_ordinal() {
        let set = set();
        let pod = pod(&set, &set.spec.as_ref().unwrap().template, "db-abc", 3);
        let value = serde_json::to_value(&pod).unwrap();
        assert_eq!(value["metadata"]["name"], "db-3");
        assert_eq!(
            value["metadata"]["labels"],
            json!({ "app": "db", "apps.kubernetes.io/pod-index": "3", "controller-revision-hash": "db-abc",
                "statefulset.kubernetes.io/pod-name": "db-3" })
        );
        assert_eq!(
            (&value["spec"]["hostname"], &value["spec"]["subdomain"]),
            (&json!("db-3"), &json!("peers"))
        );
        assert_eq!(
            value["spec"]["volumes"],
            json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data-db-3" } },
                { "name": "tmp", "emptyDir": {} }])
        );
    }

    fn pod_reference(uid: &str) -> OwnerReference {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.uid) = (Some("db-3".into()), Some(uid.into()));
        controlled_by(&pod)
    }

    /// What the owners are afterwards.
    fn after(set: &StatefulSet, present: &[OwnerReference], surplus: bool) -> Vec<OwnerReference> {
        claim_owners(set, present, &pod_reference("p"), surplus).changed.unwrap_or_else(|| present.to_vec())
    }

    fn uids(owners: &[OwnerReference]) -> Vec<&str> {
        owners.iter().map(|o| o.uid.as_str()).collect()
    }

    #[test]
    fn claims_go_with_the_set_or_with_the_pod_it_is_too_small_for() {
        let mut set = set();
        let owned = after(&set, &[], false);
        assert_eq!(uids(&owned), ["s"]);
        let condemned = after(&set, &owned, true);
        assert_eq!(condemned, [pod_reference("p")], "the pod controls it, and its end waits for the claim's");
        assert_eq!(uids(&after(&set, &condemned, false)), ["s"], "the set grew again");
        set.spec.as_mut().unwrap().persistent_volume_claim_retention_policy = None;
        assert!(after(&set, &owned, true).is_empty());
    }

    #[test]
    fn a_claim_that_another_controls_must_not_get_a_second_controller() {
        let mut other = pod_reference("x");
        (other.kind, other.name) = ("Backup".into(), "b".into());
        let lone = claim_owners(&set(), std::slice::from_ref(&other), &pod_reference("p"), false);
        assert_eq!(lone, ClaimOwners { changed: None, conflicting: true });
        let both = claim_owners(&set(), &[other.clone(), controlled_by(&set())], &pod_reference("p"), false);
        assert_eq!(both, ClaimOwners { changed: Some(vec![other.clone()]), conflicting: true });
        other.controller = None;
        assert_eq!(
            uids(&after(&set(), &[other], false)),
            ["x", "s"],
            "an owner that does not control is none of ours"
        );
    }

    #[test]
    fn a_claim_of_an_earlier_owner_must_not_be_taken_over() {
        let (earlier, next) = ([pod_reference("before")], pod_reference(""));
        assert_eq!(claim_owners(&set(), &earlier, &pod_reference("p"), false).changed, None);
        assert!(goes_with_an_earlier_pod(&set(), &earlier, &next), "the next pod waits for its end");
        let mut kept = set();
        kept.spec.as_mut().unwrap().persistent_volume_claim_retention_policy = None;
        assert!(!goes_with_an_earlier_pod(&kept, &earlier, &next), "a claim that is kept is used again");
    }

    #[test]
    fn an_owner_of_ours_that_does_not_control_is_made_to() {
        let mut weak = controlled_by(&set());
        weak.controller = None;
        assert_eq!(after(&set(), &[weak], false), [controlled_by(&set())]);
    }
}
