//! The status of ValidatingAdmissionPolicies: what their expressions do wrong with the kinds they are about.
//!
//! Woken by changes of policies, and every ten minutes. Reads policies; writes `status.typeChecking` and
//! `observedGeneration` of those whose generation has not been looked at. Upstream:
//! `pkg/controller/validatingadmissionpolicystatus`, `policy/validating/typechecking.go`.

use crate::registry::kind::Kind;
use crate::registry::metadata::{at, items, set, text};
use crate::write::Writer;
use futures::future::BoxFuture;
use machinery::cel;
use machinery::object::{self, Gvk};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often all is looked at anew.
pub(super) const EVERY: Duration = Duration::from_secs(600);
/// Kinds one policy is checked with.
const MOST_KINDS: usize = 10;

pub(super) fn kind() -> Option<Kind> {
    Kind::of("admissionregistration.k8s.io", "validatingadmissionpolicies")
}

/// One round.
pub(super) fn reconcile(writer: Arc<Writer>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let Some(kind) = kind() else { return };
        let policies = writer.registry.cached(&kind, "").unwrap_or_default();
        for policy in policies.iter().filter(|p| observed(p) != Some(object::generation(p))) {
            let status = json!({"warnings": warnings(policy), "generation": object::generation(policy)});
            let change = |old: &Value| {
                let mut new = old.clone();
                object::set_resource_version(&mut new, "");
                let found = status.get("warnings").cloned().unwrap_or_default();
                let none = found.as_array().is_none_or(Vec::is_empty);
                let checked = if none { json!({}) } else { json!({"expressionWarnings": found}) };
                set(&mut new, &["status", "typeChecking"], checked);
                let generation = status.get("generation").cloned().unwrap_or_default();
                set(&mut new, &["status", "observedGeneration"], generation);
                Ok(new)
            };
            let name = object::name(policy);
            match writer.amend(&kind, "", name, "status", &change).await {
                Err(error) if error.code != 404 => tracing::warn!(%error, name, "status of a policy"),
                _ => {}
            }
        }
    })
}

fn observed(policy: &Value) -> Option<i64> {
    at(policy, &["status", "observedGeneration"]).and_then(Value::as_i64)
}

/// The kinds a policy names, without wildcards.
fn kinds(policy: &Value) -> BTreeSet<(String, String, String)> {
    let named = |rule: &Value, list: &str| -> Vec<String> {
        let all: Vec<&str> = items(rule, &[list]).iter().filter_map(Value::as_str).collect();
        if all.contains(&"*") { Vec::new() } else { all.into_iter().map(str::to_owned).collect() }
    };
    let mut kinds = BTreeSet::new();
    for rule in items(policy, &["spec", "matchConstraints", "resourceRules"]) {
        for group in named(rule, "apiGroups") {
            for version in named(rule, "apiVersions") {
                for resource in named(rule, "resources").iter().filter(|r| !r.contains(['/', '*'])) {
                    if let Some(kind) = Kind::find(&group, &version, resource)
                        && kinds.len() < MOST_KINDS
                    {
                        kinds.insert((group.clone(), version.clone(), kind.resource.kind.to_owned()));
                    }
                }
            }
        }
    }
    kinds
}

fn warnings(policy: &Value) -> Vec<Value> {
    let kinds: Vec<Gvk> = kinds(policy).into_iter().map(|(g, v, k)| Gvk::new(&g, &v, &k)).collect();
    let mut warnings = Vec::new();
    for (index, validation) in items(policy, &["spec", "validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, &[field]);
            let found: Vec<String> = kinds
                .iter()
                .map(|gvk| (gvk, cel::type_errors(source, gvk)))
                .filter(|(_, errors)| !errors.is_empty())
                .map(|(gvk, errors)| format!("{gvk}: compilation failed: {}\n", errors.join("\n")))
                .collect();
            if !found.is_empty() {
                let reference = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": reference, "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confused_expressions_are_warned_of() {
        let policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
                {"expression": "object.spec.replicas > 1"}],
        }});
        let found = warnings(&policy);
        let references: Vec<&str> = found.iter().map(|w| text(w, &["fieldRef"])).collect();
        assert_eq!(references, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        let warning = text(&found[0], &["warning"]);
        assert!(warning.starts_with("apps/v1, Kind=Deployment: compilation failed: ERROR: <input>:1:22: found no matching overload"), "{warning}");
    }
}
