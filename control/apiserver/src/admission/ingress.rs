//! DefaultIngressClass: an Ingress that names no class gets the default one.
//! Upstream: `plugin/pkg/admission/network/defaultingressclass`.

use super::{Attributes, Operation, Verdict, classes};
use crate::registry::Registry;
use machinery::access::{Get as _, set_at};
use machinery::object;
use serde_json::Value;

/// Marks the default class.
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// Named a class before there was a field for it.
const LEGACY: &str = "kubernetes.io/ingress.class";

pub(super) fn default_class<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.is("networking.k8s.io", "ingresses", "")
            || a.operation != Operation::Create
            || !is_unclassed(a.new_object())
        {
            return Ok(());
        }
        let class =
            classes::by_default(registry, ("networking.k8s.io", "ingressclasses"), &[DEFAULT]).await?;
        if let (Some(class), Some(ingress)) = (class, &mut a.object) {
            set_at(ingress, "spec.ingressClassName", class);
        }
        Ok(())
    })
}

fn is_unclassed(ingress: &Value) -> bool {
    !ingress.has("spec.ingressClassName") && object::annotation(ingress, LEGACY).is_none()
}

#[cfg(test)]
#[test]
fn an_ingress_that_names_a_class_in_either_way_must_not_get_another() {
    use serde_json::json;
    assert!(is_unclassed(&json!({"spec": {}})));
    assert!(!is_unclassed(&json!({"spec": {"ingressClassName": ""}})));
    assert!(!is_unclassed(&json!({"metadata": {"annotations": {LEGACY: ""}}, "spec": {}})));
}
