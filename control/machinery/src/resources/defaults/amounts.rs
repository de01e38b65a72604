//! Amounts of resources: rounded up to thousandths, and what a pod asks for where only its containers or its limits say it.
//! Upstream: `SetDefaults_ResourceList`, `defaultHugePagePodLimits` and `defaultPodRequests` of `pkg/apis/core/v1/defaults.go`.

use serde_json::Value;

use crate::{
    access::{Get, default, entries, existing, object},
    quantity::Quantity,
    totals::{self, Asks, Resize, Side, pod_level},
};

/// Rounds the amounts at each of these dotted paths.
pub(super) fn round(holder: &mut Value, paths: &[&str]) {
    for path in paths {
        let Some(list) = existing(holder, path).and_then(Value::as_object_mut) else { continue };
        for amount in list.values_mut() {
            let rounded = amount.as_str().and_then(|text| Quantity::parse(text).ok());
            if let Some(rounded) = rounded.map(|quantity| quantity.rounded_to_milli().to_string())
                && amount.as_str() != Some(rounded.as_str())
            {
                *amount = rounded.into();
            }
        }
    }
}

/// The same of each item of a list.
pub(super) fn round_each(holder: &mut Value, list: &str, paths: &[&str]) {
    entries(holder, list).for_each(|item| round(item, paths));
}

pub(super) const RESOURCES: &[&str] = &["resources.limits", "resources.requests"];

/// What is requested for the whole of a pod that states some of its own resources.
pub(super) fn of_pod(pod: &mut Value) {
    let stated =
        |pod: &Value, side: &str| pod.at("spec.resources").fields(side).is_some_and(|f| !f.is_empty());
    if !stated(pod, "limits") && !stated(pod, "requests") {
        return;
    }
    let huge = |name: &str| name.starts_with("hugepages-");
    let of_containers = |pod: &Value, side| Asks::read(pod, side, Resize::Ignored).of_containers();
    let limits = of_containers(pod, Side::Limits);
    let requested: Vec<String> =
        pod.fields("spec.resources.requests").into_iter().flat_map(|f| f.keys().cloned()).collect();
    fill(pod, "limits", limits.iter().filter(|(name, _)| huge(name) && !requested.contains(name)));
    if !stated(pod, "limits") {
        return;
    }
    let requests = of_containers(pod, Side::Requests);
    fill(pod, "requests", requests.iter().filter(|(name, _)| pod_level(name) && !huge(name)));
    let limits = totals::amounts(pod.at("spec.resources.limits"));
    fill(pod, "requests", limits.iter().filter(|(name, _)| pod_level(name)));
}

fn fill<'a>(pod: &mut Value, side: &str, amounts: impl Iterator<Item = (&'a String, &'a Quantity)>) {
    let mut amounts = amounts.peekable();
    if amounts.peek().is_none() {
        return;
    }
    let Some(list) = existing(pod, "spec.resources").and_then(|own| object(own, side)) else { return };
    amounts.for_each(|(name, amount)| default(list, name, amount.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_amount_finer_than_a_thousandth_must_not_be_stored() {
        let mut container = json!({"resources": {"limits": {"cpu": "0.0005", "memory": "1Gi"}, "requests": {"cpu": "1.500"}}});
        round(&mut container, RESOURCES);
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "1m", "memory": "1Gi"}, "requests": {"cpu": "1.500"}})
        );
    }

    #[test]
    fn a_pod_must_not_request_its_limit_where_its_containers_request_less() {
        let mut pod = json!({"spec": {
            "resources": {"limits": {"cpu": "4", "memory": "1Gi"}},
            "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "500m"}}}],
        }});
        of_pod(&mut pod);
        assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "1500m", "memory": "1Gi"}));
    }

    #[test]
    fn the_huge_pages_of_containers_must_not_be_left_out_of_the_pods_limits() {
        let huge = json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "4Mi"}});
        let mut pod = json!({"spec": {
            "resources": {"requests": {"cpu": "1"}},
            "containers": [{"resources": huge}, {"resources": huge}],
        }});
        of_pod(&mut pod);
        assert_eq!(
            pod["spec"]["resources"],
            json!({"limits": {"hugepages-2Mi": "8Mi"}, "requests": {"cpu": "1", "hugepages-2Mi": "8Mi"}})
        );
        let mut plain = json!({"spec": {"containers": [{"resources": huge}]}});
        let before = plain.clone();
        of_pod(&mut plain);
        assert_eq!(plain, before, "a pod that states nothing is given nothing");
    }
}
