//! MutatingAdmissionPolicy: expressions whose values are merged or patched into the object.
//! Upstream: `policy/mutating/{dispatcher.go,patch}`.

use super::super::conditions::Compiled;
use super::super::subject::Subject;
use super::super::{Attributes, Verdict, webhooks};
use super::definition::Mutation;
use super::{Invocation, invocations, is_exempt, refusal};
use crate::registry::Registry;
use machinery::apply;
use machinery::apply::structure::{Deduced, Rule, Structure};
use machinery::cel::patches::TYPE_KEY;
use machinery::object::{self, Gvk};
use machinery::patch::json::{Misfit, operate};
use machinery::schema;
use machinery::schema::node::Builtin;
use machinery::status::Status;
use serde_json::{Map, Value, json};

/// Lets every mutating policy that means the request change its object.
pub(in super::super) fn mutate<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if is_exempt(a) || a.object.is_none() {
            return Ok(());
        }
        let (policies, bindings) = a.admission.policies.mutating.get(
            registry,
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        )?;
        if policies.is_empty() {
            return Ok(());
        }
        if a.rounds.is_second() {
            let object = a.object.take();
            a.rounds.policies.begin_second(object.as_ref());
            a.object = object;
        }
        let (due, broken) = invocations(registry, a, &policies, &bindings).await;
        let mut errors: Vec<String> = broken
            .iter()
            .filter(|f| !f.policy.ignores_failure)
            .map(|f| worded(&f.policy.name, f.binding.map(|b| b.name.as_str()), &f.message))
            .collect();
        let misconfigured = !errors.is_empty();
        for invocation in &due {
            if let Err(message) = change(registry, a, invocation).await?
                && !invocation.policy.ignores_failure
            {
                errors.push(worded(&invocation.policy.name, Some(&invocation.binding.name), &message));
            }
        }
        a.rounds.policies.end(a.object.as_ref());
        match errors.first().cloned() {
            None => Ok(()),
            Some(first) => {
                let reason = if misconfigured { "Forbidden" } else { "Invalid" };
                let mut status = refusal(a, &first, errors, reason);
                status.message = first;
                // Upstream changes the reason, and leaves the code.
                status.code = 403;
                Err(status)
            }
        }
    })
}

fn worded(policy: &str, binding: Option<&str>, message: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {message}"),
        None => format!("policy {policy:?} denied request: {message}"),
    }
}

/// Evaluates one policy; the inner error is the policy's, and its failurePolicy's business.
async fn change(
    registry: &Registry,
    a: &mut Attributes<'_>,
    invocation: &Invocation<'_>,
) -> Result<Result<(), String>, Status> {
    let policy = invocation.policy;
    let (namespace, name) = (object::namespace(&invocation.param), object::name(&invocation.param));
    let identity = format!("{}/{}/{namespace}/{name}", policy.name, invocation.binding.name);
    let subject = Subject::in_namespace(registry, a, &invocation.kind).await?;
    {
        let mut evaluator = subject.evaluator(registry, a);
        evaluator.bind("params", &invocation.param);
        match policy.conditions.hold(&mut evaluator, policy.ignores_failure) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(message) => return Ok(Err(message)),
        }
    }
    if a.rounds.is_second() && !a.rounds.policies.is_due(&identity) {
        return Ok(Ok(()));
    }
    let mut outcome = Ok(());
    let mut changed = false;
    for mutation in &policy.mutations {
        match mutate_once(registry, a, invocation, &subject, mutation).await {
            Ok(did) => changed |= did,
            Err(message) => outcome = outcome.and(Err(message)),
        }
    }
    if changed {
        a.rounds.policies.changed();
        a.rounds.want();
    }
    if policy.reinvoked {
        a.rounds.policies.note(&identity);
    }
    Ok(outcome)
}

async fn mutate_once(
    registry: &Registry,
    a: &mut Attributes<'_>,
    invocation: &Invocation<'_>,
    first: &Subject,
    mutation: &Mutation,
) -> Result<bool, String> {
    // Each mutation sees what the one before left.
    let subject = first.renewed(registry, a, &invocation.kind).await.map_err(|e| e.message)?;
    let value = {
        let mut evaluator = subject.evaluator(registry, a);
        evaluator.bind("params", &invocation.param);
        subject.show_namespace(&mut evaluator);
        invocation.policy.compose(&mut evaluator);
        let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
        expression.expression()?;
        expression.evaluate(&mut evaluator).map_err(|e| e.to_string())?
    };
    let before = subject.object;
    let after = match mutation {
        Mutation::Apply(_) => applied(&before, value)?,
        Mutation::Patch(expression) => patched(&before, &value, expression)?,
    };
    webhooks::take(registry, a, &invocation.kind, &before, after).await
}

/// `live` with an evaluated `Object{...}` merged in.
fn applied(live: &Value, mut config: Value) -> Result<Value, String> {
    plain(&mut config, "Object").map_err(|e| format!("type mismatch: {e}"))?;
    let gvk = Gvk::of(live).unwrap_or_default();
    object::set_gvk(&mut config, &gvk);
    let table = schema::builtin();
    let merged = match table.kind(&gvk) {
        Some(id) => merge(Builtin::new(table, id), live, &config),
        None => merge(Deduced, live, &config),
    };
    merged.map_err(|e| format!("error applying patch: {e}"))
}

fn merge<S: Structure>(structure: S, live: &Value, config: &Value) -> Result<Value, String> {
    let mut found = Vec::new();
    atomics(structure, config, "", &mut found);
    if !found.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            found.join(", ")
        ));
    }
    Ok(apply::merge(structure, live, config))
}

/// Paths of lists and maps that would be replaced as a whole, which an author seldom means.
fn atomics<S: Structure>(structure: S, value: &Value, path: &str, found: &mut Vec<String>) {
    if (value.is_object() || value.is_array()) && structure.rule(value) == Rule::Atomic {
        found.push(path.to_owned());
        return;
    }
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            atomics(structure.field(name), value, &format!("{path}.{name}"), found);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
            atomics(structure.element(), value, &format!("{path}[{index}]"), found);
        }),
        _ => {}
    }
}

/// Takes the names of types out of an evaluated literal: each must be that of the field it stands in.
fn plain(value: &mut Value, expected: &str) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.remove(TYPE_KEY)
                && name != expected
            {
                return Err(format!(
                    "unexpected type name {name:?}, expected {expected:?}, which matches field name path from root Object type"
                ));
            }
            fields.iter_mut().try_for_each(|(name, value)| plain(value, &format!("{expected}.{name}")))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| plain(item, expected)),
        _ => Ok(()),
    }
}

/// `object` after an evaluated list of `JSONPatch{...}`. A test that fails leaves it as it is.
fn patched(object: &Value, operations: &Value, expression: &Compiled) -> Result<Value, String> {
    let list = operations.as_array().ok_or_else(|| {
        format!("type mismatch: JSONPatchType.expression should evaluate to array: {}", expression.source)
    })?;
    let mut patch = Vec::new();
    for operation in list {
        let mut fields = operation.as_object().cloned().unwrap_or_default();
        if fields.remove(TYPE_KEY) != Some(json!("JSONPatch")) {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned()
            );
        }
        if let Some(value) = fields.get_mut("value") {
            let root = value.get(TYPE_KEY).and_then(Value::as_str).unwrap_or_default().to_owned();
            plain(value, &root).map_err(|e| format!("type mismatch: {e}"))?;
        }
        patch.push(Value::Object(fields.into_iter().collect::<Map<_, _>>()));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(patch)).map_err(|e| format!("JSON Patch: {e}"))?;
    match operate(object, &patch.0) {
        Ok(after) => Ok(after),
        Err(Misfit::Tested(_)) => Ok(object.clone()),
        Err(e) => Err(format!("JSON Patch: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}})
    }

    #[test]
    fn an_object_is_merged_by_its_structure() {
        let config = json!({"@type": "Object", "metadata": {"@type": "Object.metadata", "labels": {"n": "1"}},
            "spec": {"@type": "Object.spec", "replicas": 2, "template": {"@type": "Object.spec.template",
                "spec": {"@type": "Object.spec.template.spec", "initContainers": [
                    {"@type": "Object.spec.template.spec.initContainers", "name": "i", "image": "y"}]}}}});
        let after = applied(&deployment(), config).unwrap();
        assert_eq!(after["metadata"]["labels"], json!({"a": "b", "n": "1"}));
        assert_eq!(after["spec"]["replicas"], 2);
        assert_eq!(after["spec"]["template"]["spec"]["containers"][0]["name"], "c");
        assert_eq!(after["spec"]["template"]["spec"]["initContainers"], json!([{"name": "i", "image": "y"}]));
    }

    #[test]
    fn what_would_be_replaced_as_a_whole_is_refused() {
        let config = json!({"@type": "Object", "spec": {"@type": "Object.spec", "template": {
            "@type": "Object.spec.template", "spec": {"@type": "Object.spec.template.spec", "containers": [
                {"@type": "Object.spec.template.spec.containers", "name": "c", "args": ["a"]}]}}}});
        assert_eq!(
            applied(&deployment(), config).unwrap_err(),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.template.spec.containers[0].args"
        );
        let wrong = json!({"@type": "Object", "spec": {"@type": "Object.status"}});
        assert!(
            applied(&deployment(), wrong).unwrap_err().starts_with("type mismatch: unexpected type name")
        );
    }

    #[test]
    fn patches_are_lists_of_operations() {
        let expression = Compiled::new("x", &machinery::admission::Declarations::default(), &[]);
        let operations = json!([
            {"@type": "JSONPatch", "op": "test", "path": "/metadata/name", "value": "d"},
            {"@type": "JSONPatch", "op": "replace", "path": "/metadata/labels/a", "value": "c"},
        ]);
        let after = patched(&deployment(), &operations, &expression).unwrap();
        assert_eq!(after["metadata"]["labels"]["a"], "c");
        let failing = json!([{"@type": "JSONPatch", "op": "test", "path": "/metadata/name", "value": "e"}]);
        assert_eq!(patched(&deployment(), &failing, &expression).unwrap(), deployment());
        assert!(patched(&deployment(), &json!([{"op": "test"}]), &expression).is_err());
    }
}
