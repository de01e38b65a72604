//! What a whole pod asks for, from its typed form.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::quantity::Quantity;
use machinery::totals::{Amounts, Part, total};

pub use machinery::totals::Side;

use crate::pod::Role;

/// The pod's total of one side.
pub fn of(pod: &Pod, side: Side) -> BTreeMap<String, Text> {
    let read = |resources: Option<&ResourceRequirements>| {
        parsed(resources.and_then(|resources| match side {
            Side::Requests => resources.requests.as_ref(),
            Side::Limits => resources.limits.as_ref(),
        }))
    };
    let part = |role| match role {
        Role::Init => Part::Init,
        Role::Sidecar => Part::Sidecar,
        Role::Main | Role::Ephemeral => Part::Main,
    };
    let containers = crate::pod::containers(pod).map(|(role, c)| (part(role), read(c.resources.as_ref())));
    let spec = pod.spec.as_ref();
    let stated = read(spec.and_then(|s| s.resources.as_ref()));
    let sum = total(side, containers, stated, parsed(spec.and_then(|s| s.overhead.as_ref())));
    sum.into_iter().map(|(name, amount)| (name, Text(amount.canonical()))).collect()
}

fn parsed(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let entries = list.into_iter().flatten();
    entries.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_typed_form_adds_up_as_the_other_does() {
        let pod: Value = json!({"spec": {"overhead": {"cpu": "50m"},
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1", "memory": "20Mi"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m"}}}]}});
        let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
        for side in [Side::Requests, Side::Limits] {
            let other = machinery::totals::of(&pod, side);
            let other: BTreeMap<_, _> = other.into_iter().map(|(k, v)| (k, Text(v.canonical()))).collect();
            assert_eq!(of(&typed, side), other);
        }
    }
}
