//! Going back to an earlier revision, where the annotation `deprecated.deployment.rollback.to` asks for it (what `extensions/v1beta1` had as
//! a field of its own).

use crate::deployment::revision::{OWN, find_new, inherits, revision, without_hash};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use std::sync::Arc;

/// The annotation.
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// What becomes of the wish.
#[derive(Debug, PartialEq)]
pub(super) struct Rollback {
    /// The deployment without the wish, with the earlier template where there is one.
    pub(super) deployment: Deployment,
    /// The event's reason.
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It was done.
    pub(super) done: bool,
}

/// The revision wished for; zero is the one before.
#[must_use]
pub(super) fn wished(deployment: &Deployment) -> Option<i64> {
    deployment.annotations().get(ROLLBACK_TO)?.parse().ok()
}

/// Goes back to the revision, if there is a set of it.
#[must_use]
pub(super) fn roll_back(deployment: &Deployment, sets: &[Arc<ReplicaSet>], wished: i64) -> Rollback {
    let mut after = deployment.clone();
    after.annotations_mut().remove(ROLLBACK_TO);
    let refused = |after: Deployment, reason: &'static str, message: String| Rollback {
        deployment: after,
        reason,
        message,
        done: false,
    };
    let not_found = "DeploymentRollbackRevisionNotFound";
    let wished = if wished == 0 { before_last(sets) } else { wished };
    if wished == 0 {
        return refused(after, not_found, "Unable to find last revision.".to_owned());
    }
    let Some(set) = sets.iter().find(|set| revision(set) == wished) else {
        return refused(after, not_found, "Unable to find the revision to rollback to.".to_owned());
    };
    let name = deployment.name_any();
    if find_new(deployment, std::slice::from_ref(set)).is_some() {
        let message =
            format!("The rollback revision contains the same template as current deployment {name:?}");
        return refused(after, "DeploymentRollbackTemplateUnchanged", message);
    }
    if let (Some(spec), Some(template)) =
        (&mut after.spec, set.spec.as_ref().and_then(|s| s.template.as_ref()))
    {
        spec.template = without_hash(template);
    }
    let annotations = after.annotations_mut();
    annotations.retain(|name, _| OWN.contains(&name.as_str()));
    let of_set = set.annotations().iter().filter(|(name, _)| inherits(name));
    annotations.extend(of_set.map(|(name, value)| (name.clone(), value.clone())));
    let message = format!("Rolled back deployment {name:?} to revision {wished}");
    Rollback { deployment: after, reason: "DeploymentRollback", message, done: true }
}

/// The second greatest revision; zero where there is none.
fn before_last(sets: &[Arc<ReplicaSet>]) -> i64 {
    let mut all: Vec<i64> = sets.iter().map(|set| revision(set)).collect();
    all.sort_unstable();
    all.iter().rev().nth(1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::revision::{HASH_LABEL, REVISION};
    use serde_json::{Value, json};

    fn template(image: &str) -> Value {
        json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
    }

    fn set(number: &str, image: &str) -> Arc<ReplicaSet> {
        let mut of = template(image);
        of["metadata"]["labels"][HASH_LABEL] = json!("h");
        let set = json!({ "metadata": { "name": image, "annotations": { REVISION: number, "cause": image } },
            "spec": { "selector": {}, "template": of } });
        Arc::new(serde_json::from_value(set).unwrap())
    }

    fn deployment(image: &str) -> Deployment {
        serde_json::from_value(json!({ "metadata": { "name": "d",
            "annotations": { ROLLBACK_TO: "0", REVISION: "2", "cause": image } },
            "spec": { "selector": {}, "template": template(image) } }))
        .unwrap()
    }

    #[test]
    fn a_wish_to_go_back_must_not_be_passed_over() {
        let (now, sets) = (deployment("new"), [set("1", "old"), set("2", "new")]);
        assert_eq!(wished(&now), Some(0));
        for revision in [0, 1] {
            let back = roll_back(&now, &sets, revision);
            assert!(back.done);
            assert_eq!(back.message, "Rolled back deployment \"d\" to revision 1");
            let after = serde_json::to_value(&back.deployment).unwrap();
            assert_eq!(after["spec"]["template"], template("old"), "without the set's own label");
            assert_eq!(after["metadata"]["annotations"], json!({ REVISION: "2", "cause": "old" }));
        }
    }

    #[test]
    fn a_wish_that_cannot_be_met_must_not_stay() {
        let now = deployment("new");
        let refused = |sets: &[Arc<ReplicaSet>], revision| {
            let back = roll_back(&now, sets, revision);
            assert!(!back.done && wished(&back.deployment).is_none());
            assert_eq!(back.deployment.spec, now.spec);
            back.reason
        };
        assert_eq!(refused(&[set("2", "new")], 0), "DeploymentRollbackRevisionNotFound");
        assert_eq!(refused(&[set("2", "new")], 7), "DeploymentRollbackRevisionNotFound");
        assert_eq!(refused(&[set("2", "new")], 2), "DeploymentRollbackTemplateUnchanged");
    }
}
