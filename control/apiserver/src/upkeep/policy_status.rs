//! The status of ValidatingAdmissionPolicies: what their expressions do wrong with the kinds they are about.
//!
//! Woken by changes of policies, and every ten minutes. Reads policies, and the definitions of kinds they name; writes
//! `status.typeChecking` and `observedGeneration` of those whose generation has not been looked at. Upstream:
//! `pkg/controller/validatingadmissionpolicystatus`, `policy/validating/typechecking.go`.

use super::reconcile::{Read, Round};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::write::Writer;
use machinery::access::{Get as _, set_at};
use machinery::admission::Typed;
use machinery::cel::Type;
use machinery::object::{self, Gvk, parse_api_version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::cache::Scope;

/// How often all is looked at again.
pub(super) const EVERY: Duration = Duration::from_secs(600);
/// Kinds one policy is checked with.
const MOST_KINDS: usize = 10;

fn kind() -> Option<Kind> {
    Kind::of("admissionregistration.k8s.io", "validatingadmissionpolicies")
}

pub(super) fn reads() -> Option<Vec<Read>> {
    Some(vec![(kind()?, Scope::All)])
}

pub(super) fn reconcile(writer: Arc<Writer>) -> Round {
    Box::pin(async move {
        let Some(kind) = kind() else { return Ok(()) };
        let policies = writer.registry.cached(&kind, "")?;
        let mut outcome = Ok(());
        for policy in policies.iter().filter(|p| observed(p) != Some(object::generation(p))) {
            let status = json!({"warnings": checked(&writer.registry, policy), "generation": object::generation(policy)});
            let change = |old: &Value| {
                let mut new = old.clone();
                object::set_resource_version(&mut new, "");
                let found = status.get("warnings").cloned().unwrap_or_default();
                let none = found.as_array().is_none_or(Vec::is_empty);
                let checked = if none { json!({}) } else { json!({"expressionWarnings": found}) };
                set_at(&mut new, "status.typeChecking", checked);
                let generation = status.get("generation").cloned().unwrap_or_default();
                set_at(&mut new, "status.observedGeneration", generation);
                Ok(new)
            };
            let name = object::name(policy);
            match writer.amend(&kind, "", name, "status", &change).await {
                Err(error) if error.code != 404 => outcome = Err(error),
                _ => {}
            }
        }
        outcome
    })
}

fn observed(policy: &Value) -> Option<i64> {
    policy.present("status.observedGeneration").and_then(Value::as_i64)
}

/// The kinds a policy names, without wildcards, and their types.
fn kinds(registry: &Registry, policy: &Value) -> BTreeMap<(String, String, String), Type> {
    let named = |rule: &Value, list: &str| -> Vec<String> {
        let all: Vec<&str> = rule.items(list).iter().filter_map(Value::as_str).collect();
        if all.contains(&"*") { Vec::new() } else { all.into_iter().map(str::to_owned).collect() }
    };
    let mut kinds = BTreeMap::new();
    for rule in policy.items("spec.matchConstraints.resourceRules") {
        for group in named(rule, "apiGroups") {
            for version in named(rule, "apiVersions") {
                for resource in named(rule, "resources").iter().filter(|r| !r.contains(['/', '*'])) {
                    if let Some(kind) = registry.kind(&group, &version, resource)
                        && kinds.len() < MOST_KINDS
                        && let Some(of) = kind.rules().object_type()
                    {
                        kinds.insert((group.clone(), version.clone(), kind.resource.kind.to_owned()), of);
                    }
                }
            }
        }
    }
    kinds
}

fn checked(registry: &Registry, policy: &Value) -> Vec<Value> {
    let params = policy.present("spec.paramKind").map(|of| {
        let found = parse_api_version(of.text("apiVersion"))
            .and_then(|(group, version)| registry.by_kind(group, version, of.text("kind")));
        found.and_then(|kind| kind.rules().object_type()).unwrap_or(Type::Dyn)
    });
    let kinds = kinds(registry, policy);
    let kinds = kinds.into_iter().map(|((group, version, kind), of)| (Gvk::new(&group, &version, &kind), of));
    warnings(policy, &kinds.collect::<Vec<_>>(), params.as_ref())
}

/// `params`: the parameters' type, where the policy has any.
fn warnings(policy: &Value, kinds: &[(Gvk, Type)], params: Option<&Type>) -> Vec<Value> {
    let variables = policy.items("spec.variables");
    let variables = || variables.iter().map(|v| (v.text("name"), v.text("expression")));
    let typed: Vec<(&Gvk, Typed)> =
        kinds.iter().map(|(gvk, of)| (gvk, Typed::new(of, params.cloned(), variables()))).collect();
    let mut warnings = Vec::new();
    for (index, validation) in policy.items("spec.validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = validation.text(field);
            let found: Vec<String> = typed
                .iter()
                .filter(|_| !source.is_empty())
                .filter_map(|(gvk, typed)| Some(format!("{gvk}: {}\n", typed.problems(source)?)))
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
    use machinery::admission::kinds;

    #[test]
    fn confused_expressions_are_warned_of() {
        let policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "validations": [{"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
                {"expression": "object.spec.replicas > 1"}],
        }});
        let deployment = Gvk::new("apps", "v1", "Deployment");
        let of = kinds::builtin(&deployment).unwrap();
        let found = warnings(&policy, &[(deployment, of)], None);
        let references: Vec<&str> = found.iter().map(|w| w.text("fieldRef")).collect();
        assert_eq!(references, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        let warning = found[0].text("warning");
        assert!(
            warning.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload"),
            "{warning}"
        );
    }
}
