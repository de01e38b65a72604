//! Priority: a pod's priority comes from its class, and at most one class is everybody's.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::{Get as _, object_at, set_at};
use machinery::object;
use serde_json::Value;

fn classes() -> Option<Kind> {
    Kind::of("scheduling.k8s.io", "priorityclasses")
}

fn is_default(class: &Value) -> bool {
    class.present("globalDefault") == Some(&Value::Bool(true))
}

pub(super) fn resolve<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let Some(kind) = classes().filter(|_| a.is("", "pods", "")) else { return Ok(()) };
        match a.operation {
            Operation::Create => {}
            // Priority and class of a pod never change; a client that leaves them out means the present ones.
            Operation::Update => {
                let old = a.old_object().clone();
                if let Some(pod) = &mut a.object {
                    for field in ["priority", "preemptionPolicy"] {
                        if pod.at("spec").present(field).is_none()
                            && let Some(value) = old.at("spec").present(field)
                        {
                            object_at(pod, "spec").insert(field.to_owned(), value.clone());
                        }
                    }
                }
                return Ok(());
            }
            Operation::Delete | Operation::Connect => return Ok(()),
        }
        let name = a.new_object().text("spec.priorityClassName").to_owned();
        let class = if name.is_empty() {
            // Of several defaults (made while no class was, in a race) the lowest counts.
            registry
                .current(&kind, "")
                .await?
                .into_iter()
                .filter(is_default)
                .min_by_key(|c| c.present("value").and_then(Value::as_i64).unwrap_or_default())
        } else {
            match registry.lookup(&kind, "", &name).await? {
                Some(class) => Some(class),
                None => return Err(a.forbidden(format!("no PriorityClass with name {name} was found"))),
            }
        };
        let priority = class.as_ref().and_then(|c| c.present("value")).and_then(Value::as_i64).unwrap_or(0);
        let policy = class
            .as_ref()
            .map(|c| c.text("preemptionPolicy"))
            .filter(|p| !p.is_empty())
            .unwrap_or("PreemptLowerPriority")
            .to_owned();
        let asked = a.new_object().present("spec.priority").and_then(Value::as_i64);
        if asked.is_some_and(|p| p != priority) {
            return Err(a.forbidden(format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name",
                asked.unwrap_or_default()
            )));
        }
        let asked = a.new_object().text("spec.preemptionPolicy").to_owned();
        if !asked.is_empty() && asked != policy {
            return Err(a.forbidden(format!(
                "the string value of PreemptionPolicy ({asked}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        if let Some(pod) = &mut a.object {
            if let Some(class) = &class {
                set_at(pod, "spec.priorityClassName", object::name(class));
            }
            set_at(pod, "spec.priority", priority);
            set_at(pod, "spec.preemptionPolicy", policy);
        }
        Ok(())
    })
}

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is("scheduling.k8s.io", "priorityclasses", "") || !is_default(a.new_object()) {
            return Ok(());
        }
        for class in registry.current(&a.kind, "").await? {
            if is_default(&class) && object::name(&class) != a.name {
                return Err(a.forbidden(format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    object::name(&class)
                )));
            }
        }
        Ok(())
    })
}
