//! A deployment's replica sets: which one has its template, what new ones are called, which annotations they carry. Pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Which rollout a replica set belongs to.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Rollouts a replica set belonged to before.
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the set was scaled last.
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The deployment's size and surge when the set was scaled last.
pub(crate) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a deployment that are not its replica sets' (upstream's `annotationsToSkip`).
pub(super) const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The set with the deployment's template: the oldest, should there be several.
#[must_use]
pub(crate) fn find_new<'a>(
    deployment: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    let template = &deployment.spec.as_ref()?.template;
    let same = |set: &&Arc<ReplicaSet>| {
        set.spec
            .as_ref()
            .and_then(|s| s.template.as_ref())
            .is_some_and(|t| without_hash(t) == without_hash(template))
    };
    sets.iter().filter(same).min_by_key(|set| (set.creation_timestamp().map(|t| t.0), set.name_any()))
}

/// A template without the label that a set's has.
pub(super) fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// A short name for a template; `collisions` makes another one when the first is taken.
#[must_use]
pub(crate) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // FNV-1a: must not change between versions, or every deployment would seem to have a new template's name
    let mut hash: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    feed(serde_json::to_string(&without_hash(template)).unwrap_or_default().as_bytes());
    if collisions > 0 {
        feed(&collisions.to_le_bytes());
    }
    // no vowels, so no words (upstream's SafeEncodeString)
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// A new replica set of `size` for the deployment's template.
#[must_use]
pub(crate) fn new_set(deployment: &Deployment, size: i32, revision: i64, most: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.insert(DESIRED.to_owned(), spec.replicas.unwrap_or(1).to_string());
    annotations.insert(MAX.to_owned(), most.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![crate::pods::controlled_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Whether a deployment and its sets have the annotation alike.
pub(super) fn inherits(name: &str) -> bool {
    !OWN.contains(&name)
}

/// The deployment's annotations its sets carry too.
#[must_use]
pub(crate) fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    deployment
        .annotations()
        .iter()
        .filter(|(k, _)| inherits(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// A set's revision; 0 when it has none.
#[must_use]
pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The annotations the new set must have but has not, at `revision`.
#[must_use]
pub(crate) fn missing_annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
    revision_wanted: i64,
) -> BTreeMap<String, String> {
    let mut wanted = inherited(deployment);
    let old = revision(set);
    if old < revision_wanted {
        wanted.insert(REVISION.to_owned(), revision_wanted.to_string());
        if old > 0 {
            let before = set.annotations().get(REVISION_HISTORY).map_or("", String::as_str);
            wanted.insert(REVISION_HISTORY.to_owned(), history(before, old));
        }
    }
    wanted.retain(|k, v| set.annotations().get(k) != Some(v));
    wanted
}

/// The revisions a set had, with one more; the oldest go where the text would be too long.
fn history(before: &str, more: i64) -> String {
    /// In bytes (upstream's `maxRevHistoryLengthInChars`).
    const LONGEST: usize = 2000;
    let more = more.to_string();
    let mut rest = before;
    while !rest.is_empty() && rest.len() + 1 + more.len() > LONGEST {
        rest = rest.split_once(',').map_or("", |(_, later)| later);
    }
    if rest.is_empty() { more } else { format!("{rest},{more}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_of_revisions_must_not_grow_for_ever() {
        assert_eq!((history("", 3), history("1,2", 3)), ("3".to_owned(), "1,2,3".to_owned()));
        let mut all = String::new();
        for revision in 1..2000 {
            all = history(&all, revision);
        }
        assert!(all.len() <= 2000 && all.ends_with(",1998,1999") && !all.starts_with("1,"));
    }
}
