//! A pod's quality of service class, from its containers' requests and limits.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::quantity::milli;

/// What a pod is promised; also the order of who is killed first for memory, from last to first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Every container has CPU and memory limits equal to its requests.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// No requests and no limits.
    BestEffort,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// The class of a pod. Only CPU and memory count; zero quantities count as absent.
pub fn class(pod: &Pod) -> Class {
    if let Some(resources) = pod.spec.as_ref().and_then(|s| s.resources.as_ref())
        && (resources.requests.is_some() || resources.limits.is_some())
    {
        return of(std::iter::once(Some(resources)));
    }
    of(super::containers(pod).map(|(_, container)| container.resources.as_ref()))
}

fn of<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> Class {
    let (mut any, mut guaranteed) = (false, true);
    for resources in all {
        for resource in ["cpu", "memory"] {
            let amount = |map: Option<&std::collections::BTreeMap<String, _>>| {
                map.and_then(|m| m.get(resource)).map(milli).filter(|amount| *amount > 0)
            };
            let request = amount(resources.and_then(|r| r.requests.as_ref()));
            let limit = amount(resources.and_then(|r| r.limits.as_ref()));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Class::BestEffort,
        (true, true) => Class::Guaranteed,
        (true, false) => Class::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<_> = resources.iter().map(|r| json!({"name": "c", "resources": r})).collect();
        serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let half = json!({"requests": {"cpu": "100m"}});
        let other = json!({"requests": {"ephemeral-storage": "1Gi"}});
        for (resources, want) in [
            (vec![json!({})], Class::BestEffort),
            (vec![other], Class::BestEffort),
            (vec![full.clone(), limits], Class::Guaranteed),
            (vec![full.clone(), half.clone()], Class::Burstable),
            (vec![full, json!({})], Class::Burstable),
            (vec![half], Class::Burstable),
        ] {
            assert_eq!(class(&pod(&resources)), want, "{resources:?}");
        }
    }
}
