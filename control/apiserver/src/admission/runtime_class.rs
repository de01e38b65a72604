//! RuntimeClass: a pod takes its class's overhead, node selector and tolerations.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use machinery::access::{Get as _, set_at};
use machinery::quantity::Quantity;
use machinery::status::Status;
use serde_json::{Map, Value};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const WITHOUT_CLASS: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) fn merge<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        let Some(class) = class_of(registry, a).await? else { return Ok(()) };
        if let Some(overhead) = class.present("overhead") {
            let fixed = amounts(overhead.present("podFixed"));
            let asked = amounts(a.new_object().present("spec.overhead"));
            if !asked.is_empty() && !same(&asked, &fixed) {
                return Err(a.forbidden(MISMATCH));
            }
            if let Some(pod) = a.object.as_mut().filter(|_| !fixed.is_empty()) {
                set_at(pod, "spec.overhead", Value::Object(fixed));
            }
        }
        let Some(scheduling) = class.present("scheduling") else { return Ok(()) };
        let selector = amounts(scheduling.present("nodeSelector"));
        let mut merged = amounts(a.new_object().present("spec.nodeSelector"));
        for (key, value) in selector {
            if let Some(own) = merged.get(&key).filter(|own| **own != value) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Err(a.forbidden(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(&value),
                    text(own)
                )));
            }
            merged.insert(key, value);
        }
        let tolerations = union(a.new_object().items("spec.tolerations"), scheduling.items("tolerations"));
        if let Some(pod) = &mut a.object {
            if !merged.is_empty() {
                set_at(pod, "spec.nodeSelector", Value::Object(merged));
            }
            if !tolerations.is_empty() {
                set_at(pod, "spec.tolerations", Value::Array(tolerations));
            }
        }
        Ok(())
    })
}

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !concerns(a) {
            return Ok(());
        }
        let class = class_of(registry, a).await?;
        let asked = a.new_object().present("spec.overhead");
        match class.as_ref().and_then(|class| class.present("overhead")) {
            Some(overhead) if !same(&amounts(overhead.present("podFixed")), &amounts(asked)) => {
                Err(a.forbidden(MISMATCH))
            }
            None if asked.is_some() => Err(a.forbidden(WITHOUT_CLASS)),
            _ => Ok(()),
        }
    })
}

fn concerns(a: &Attributes<'_>) -> bool {
    a.is("", "pods", "") && a.operation == Operation::Create
}

/// The class a new pod names; 403 where there is none of that name.
async fn class_of(registry: &Registry, a: &Attributes<'_>) -> Result<Option<Value>, Status> {
    let name = a.new_object().present("spec.runtimeClassName").and_then(Value::as_str);
    let (Some(name), true) = (name, concerns(a)) else { return Ok(None) };
    let Some(kind) = Kind::of("node.k8s.io", "runtimeclasses") else { return Ok(None) };
    match registry.lookup(&kind, "", name).await? {
        Some(class) => Ok(Some(class)),
        None => Err(a.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn amounts(list: Option<&Value>) -> Map<String, Value> {
    list.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Equal amounts, however they are written.
fn same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let quantity = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    a.len() == b.len()
        && a.iter().all(|(name, value)| {
            b.get(name).is_some_and(|other| {
                value == other
                    || quantity(value).zip(quantity(other)).is_some_and(|(a, b)| a.sub(&b).is_zero())
            })
        })
}

/// Both lists, without what another entry covers: of equal ones the first stays.
fn union(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let later = all.get(index + 1..).unwrap_or_default();
        let covered = kept.iter().any(|other| covers(other, toleration))
            || later.iter().any(|other| other != toleration && covers(other, toleration));
        if !covered {
            kept.push((*toleration).clone());
        }
    }
    kept
}

/// Whatever `narrow` tolerates `wide` tolerates too (upstream: `isSuperset`).
fn covers(wide: &Value, narrow: &Value) -> bool {
    let text = |value: &'_ Value, key: &str| -> String {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let seconds = |value: &Value| value.get("tolerationSeconds").and_then(Value::as_i64);
    let operator = text(wide, "operator");
    if wide == narrow {
        return true;
    }
    let (key, effect) = (text(wide, "key"), text(wide, "effect"));
    if (key != text(narrow, "key") && (!key.is_empty() || operator != "Exists"))
        || (effect != text(narrow, "effect") && !effect.is_empty())
    {
        return false;
    }
    if effect == "NoExecute"
        && let Some(limit) = seconds(wide)
        && seconds(narrow).is_none_or(|own| own > limit)
    {
        return false;
    }
    match operator.as_str() {
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(wide, "value") == text(narrow, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wider_toleration_stays() {
        let any = json!({"operator": "Exists"});
        let one = json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 50});
        let united = |first: &[&Value], second: &[&Value]| -> Vec<Value> {
            let owned = |list: &[&Value]| -> Vec<Value> { list.iter().map(|t| (*t).clone()).collect() };
            union(&owned(first), &owned(second))
        };
        assert_eq!(united(&[&one], &[&any]), std::slice::from_ref(&any));
        assert_eq!(united(&[&any], &[&one]), [any]);
        assert_eq!(united(&[&short], &[&long]), std::slice::from_ref(&long));
        assert_eq!(united(&[&one, &one], &[&long]), [one, long]);
    }

    #[test]
    fn values_count_only_where_both_have_them() {
        let equal = |value: &str| json!({"key": "k", "operator": "Equal", "value": value});
        assert_eq!(union(&[equal("a")], &[equal("b")]).len(), 2);
        assert!(covers(&json!({"key": "k", "operator": "Exists"}), &equal("a")));
        assert!(!covers(&equal("a"), &json!({"key": "k", "operator": "Exists"})));
    }

    #[test]
    fn amounts_are_compared_as_amounts() {
        let map = |value: Value| amounts(Some(&value));
        assert!(same(&map(json!({"cpu": "1"})), &map(json!({"cpu": "1000m"}))));
        assert!(!same(&map(json!({"cpu": "1"})), &map(json!({"cpu": "1", "memory": "1"}))));
    }
}
