//! ClusterRoles with an `aggregationRule`: their rules are those of the roles it selects.
//!
//! Woken by: any cluster role. Reads: all of them. Writes: the rules of aggregated ones. Promises: the same roles give the same rules in the
//! same order, each rule once; a role never aggregates itself.

use crate::claim::selector;
use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct RoleAggregation {
    roles: Arc<Informer<ClusterRole>>,
    client: Client,
}

impl RoleAggregation {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let (wake, roles) = (queue.clone(), cluster.cluster_roles.clone());
        cluster.cluster_roles.on_change(move |_, _| {
            for role in roles.list("").iter().filter(|r| r.aggregation_rule.is_some()) {
                wake.add(key_of(&**role));
            }
        });
        Self { roles: cluster.cluster_roles.clone(), client }
    }
}

/// The rules a role should have; `roles` come in the order of their names.
fn aggregated(role: &ClusterRole, roles: &[Arc<ClusterRole>]) -> Result<Vec<PolicyRule>, Error> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    let selectors = role.aggregation_rule.iter().flat_map(|r| r.cluster_role_selectors.iter().flatten());
    for wanted in selectors {
        let wanted = selector(Some(wanted), &role.name_any())?;
        for other in roles.iter().filter(|r| r.name_any() != role.name_any() && wanted.matches(r.labels())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok(rules)
}

impl Reconcile for RoleAggregation {
    const NAME: &'static str = "clusterrole-aggregation-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(role) = self.roles.get(key).filter(|r| r.aggregation_rule.is_some()) else {
            return Ok(None);
        };
        let rules = aggregated(&role, &self.roles.list(""))?;
        if role.rules.clone().unwrap_or_default() == rules {
            return Ok(None);
        }
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        let patch = json!({ "metadata": { "uid": role.uid() }, "rules": rules });
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).doing(|| format!("aggregate cluster role {key}"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn rules_come_from_the_selected_roles_once_each() {
        let role = |name: &str, label: &str, resources: &[&str]| -> Arc<ClusterRole> {
            let rules: Vec<Value> = resources
                .iter()
                .map(|r| json!({ "verbs": ["get"], "apiGroups": [""], "resources": [r] }))
                .collect();
            let metadata = json!({ "name": name, "labels": { "to": label } });
            Arc::new(serde_json::from_value(json!({ "metadata": metadata, "rules": rules })).unwrap())
        };
        let mut view = (*role("view", "view", &["own"])).clone();
        let rule = json!({ "clusterRoleSelectors": [{ "matchLabels": { "to": "view" } }, { "matchLabels": { "to": "more" } }] });
        view.aggregation_rule = Some(serde_json::from_value(rule).unwrap());
        let all = [
            role("a", "more", &["secrets"]),
            role("b", "view", &["pods", "nodes"]),
            role("c", "view", &["pods"]),
            role("d", "other", &["leases"]),
            Arc::new(view.clone()),
        ];
        let rules = aggregated(&view, &all).unwrap();
        let resources: Vec<_> = rules.into_iter().flat_map(|r| r.resources.unwrap_or_default()).collect();
        assert_eq!(resources, ["pods", "nodes", "secrets"]);
    }
}
