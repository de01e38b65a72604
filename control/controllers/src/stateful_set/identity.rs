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

/// Who a claim must belong to so that it goes with them, by the retention policy. `surplus` is the pod the set is too small for.
#[must_use]
pub(super) fn claim_owners(
    set: &StatefulSet,
    present: &[OwnerReference],
    surplus: Option<&Pod>,
    pod_name: &str,
) -> Vec<OwnerReference> {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.map(String::as_str) == Some("Delete");
    let with_set = deletes(policy.and_then(|p| p.when_deleted.as_ref()));
    let with_pod = deletes(policy.and_then(|p| p.when_scaled.as_ref()));
    let set_uid = set.uid().unwrap_or_default();
    let ours = |o: &OwnerReference| o.uid == set_uid || (o.kind == "Pod" && o.name == pod_name);
    let mut owners: Vec<OwnerReference> = present.iter().filter(|o| !ours(o)).cloned().collect();
    match surplus {
        Some(pod) if with_pod => {
            let mut reference = controlled_by(pod);
            (reference.controller, reference.block_owner_deletion) = (None, None);
            owners.push(reference);
        }
        _ if with_set => owners.push(controlled_by(set)),
        _ => {}
    }
    owners
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

    #[test]
    fn claims_go_with_the_set_or_with_the_pod_it_is_too_small_for() {
        let mut set = set();
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.uid) = (Some("db-3".into()), Some("p".into()));
        let uids = |set: &StatefulSet, present: &[OwnerReference], surplus| {
            let owners = claim_owners(set, present, surplus, "db-3");
            owners.iter().map(|o| o.uid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(uids(&set, &[], None), ["s"]);
        let owned = claim_owners(&set, &[], None, "db-3");
        assert_eq!(uids(&set, &owned, Some(&pod)), ["p"]);
        let condemned = claim_owners(&set, &owned, Some(&pod), "db-3");
        assert_eq!(uids(&set, &condemned, None), ["s"], "the set grew again");
        set.spec.as_mut().unwrap().persistent_volume_claim_retention_policy = None;
        assert_eq!(uids(&set, &owned, Some(&pod)), Vec::<String>::new());
    }
}
