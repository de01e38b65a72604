//! What a whole pod asks for, over all its containers: upstream's `PodRequests` and `PodLimits`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// What a container is to its pod's total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Runs to completion before the next container.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// A regular container.
    Main,
}

/// Which side of the resources is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl Side {
    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

/// The total of one side. Regular containers and sidecars add up; every other init container only needs its own room
/// beside the sidecars before it; what the pod states for itself replaces the sum; overhead is added (to limits only where
/// there is one: nothing unlimited becomes limited by it). `containers` come in the pod's order, init containers first.
pub fn total(
    side: Side,
    containers: impl Iterator<Item = (Part, Amounts)>,
    stated: Amounts,
    overhead: Amounts,
) -> Amounts {
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for (part, own) in containers {
        if part != Part::Init {
            add(&mut total, &own);
        }
        if part != Part::Main {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            if part == Part::Sidecar {
                sidecars.clone_from(&beside);
            }
            raise(&mut peak, beside);
        }
    }
    raise(&mut total, peak);
    let whole = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    total.extend(stated.into_iter().filter(|(name, _)| whole(name)));
    let limited = |name: &String| side == Side::Requests || total.contains_key(name);
    let overhead: Amounts = overhead.into_iter().filter(|(name, _)| limited(name)).collect();
    add(&mut total, &overhead);
    total
}

/// The total of one side of a pod.
pub fn of(pod: &Value, side: Side) -> Amounts {
    let spec = &pod["spec"];
    let list = |key: &str| spec[key].as_array().into_iter().flatten();
    let own = |container: &Value| amounts(&container["resources"][side.name()]);
    let part = |container: &Value| match container["restartPolicy"].as_str() {
        Some("Always") => Part::Sidecar,
        _ => Part::Init,
    };
    let init = list("initContainers").map(|container| (part(container), own(container)));
    let main = list("containers").map(|container| (Part::Main, own(container)));
    total(side, init.chain(main), amounts(&spec["resources"][side.name()]), amounts(&spec["overhead"]))
}

fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?)))
        .collect()
}

fn add(sums: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = sums.get(name).map(|sum| sum.add(amount));
        sums.insert(name.clone(), sum.unwrap_or_else(|| amount.clone()));
    }
}

fn raise(sums: &mut Amounts, least: Amounts) {
    for (name, amount) in least {
        if sums.get(&name).is_none_or(|sum| sum.sub(&amount).sign() < 0) {
            sums.insert(name, amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(pod: &Value, side: Side, name: &str) -> Option<String> {
        of(pod, side).get(name).map(Quantity::canonical)
    }

    #[test]
    fn sums() {
        let pod = json!({"spec": {"overhead": {"cpu": "50m", "memory": "1Mi"},
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"resources": {"requests": {"cpu": "1", "memory": "20Mi"}}}],
            "containers": [
                {"resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "300m"}}},
                {"resources": {"requests": {"cpu": "300m", "memory": "10Mi"}}}]}});
        assert_eq!(text(&pod, Side::Requests, "cpu").as_deref(), Some("1150m"));
        assert_eq!(text(&pod, Side::Requests, "memory").as_deref(), Some("21Mi"));
        assert_eq!(text(&pod, Side::Limits, "cpu").as_deref(), Some("350m"));
        assert_eq!(text(&pod, Side::Limits, "memory"), None);
    }

    #[test]
    fn what_the_pod_states_for_itself_counts() {
        let pod = json!({"spec": {"resources": {"requests": {"cpu": "2"}},
            "containers": [{"resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}}]}});
        assert_eq!(text(&pod, Side::Requests, "cpu").as_deref(), Some("2"));
        assert_eq!(text(&pod, Side::Requests, "memory").as_deref(), Some("1Gi"));
    }
}
