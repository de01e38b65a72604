//! Which IP families a Service has, from what its client says of them and what the cluster has (upstream: `initIPFamilyFields`).

use super::ip_address::family;
use super::{invalid, is_headless, service_type, spec};
use machinery::access::{Get as _, list_at, set_at};
use machinery::field::FieldError;
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Fills in `ipFamilies` and `ipFamilyPolicy` for a cluster with these families.
pub(super) fn settle(
    cluster: &[&'static str],
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if service_type(service) == "ExternalName" || old.is_some_and(|old| prefers_what_it_has(service, old)) {
        return Ok(());
    }
    let name = object::name(service).to_owned();
    let other = |family: &str| if family == "IPv4" { "IPv6" } else { "IPv4" };
    let mut families: Vec<String> =
        service.items("spec.ipFamilies").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let mut policy = service.text("spec.ipFamilyPolicy").to_owned();
    // From dual stack to single: the client changes the policy alone, and the second family goes.
    let was_dual = old.is_some_and(|o| o.items("spec.ipFamilies").len() == 2);
    if policy == "SingleStack" && was_dual && families.len() == 2 {
        families.truncate(1);
        list_at(service, "spec.clusterIPs").truncate(1);
    }
    for (i, ip) in service.items("spec.clusterIPs").iter().enumerate() {
        if let Some(ip) = ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok())
            && i == families.len()
        {
            families.push(family(ip).to_owned());
        }
    }
    if policy.is_empty() && families.len() == 2 {
        policy = "RequireDualStack".to_owned();
    }
    let default = cluster.first().copied().unwrap_or("IPv4");
    let selectorless =
        service.present("spec.selector").and_then(Value::as_object).is_none_or(|s| s.is_empty());
    if is_headless(service) && selectorless {
        // Nothing is allocated and the endpoints are somebody else's: both families are possible anywhere.
        if policy.is_empty() {
            policy = "RequireDualStack".to_owned();
        }
        if families.is_empty() {
            families.push(default.to_owned());
        }
        if let [one] = families.as_slice()
            && policy != "SingleStack"
        {
            families.push(other(one).to_owned());
        }
    } else {
        if policy.is_empty() {
            policy = "SingleStack".to_owned();
        }
        let path = spec("ipFamilyPolicy");
        if policy == "SingleStack" && families.len() == 2 {
            return Err(invalid(
                &name,
                FieldError::invalid(
                    &path,
                    "SingleStack",
                    "must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified",
                ),
            ));
        }
        if policy == "RequireDualStack" && cluster.len() < 2 {
            return Err(invalid(
                &name,
                FieldError::invalid(
                    &path,
                    "RequireDualStack",
                    "this cluster is not configured for dual-stack services",
                ),
            ));
        }
        for (i, family) in families.iter().enumerate() {
            if !cluster.contains(&family.as_str()) {
                return Err(invalid(
                    &name,
                    FieldError::invalid(
                        &spec("ipFamilies").index(i),
                        family.clone(),
                        "not configured on this cluster",
                    ),
                ));
            }
        }
        if families.is_empty() {
            families.push(default.to_owned());
        }
        if let [one] = families.as_slice()
            && policy != "SingleStack"
            && cluster.len() > 1
        {
            families.push(other(one).to_owned());
        }
    }
    set_at(service, "spec.ipFamilies", json!(families));
    set_at(service, "spec.ipFamilyPolicy", policy);
    Ok(())
}

/// A Service that prefers two families stays as it is when the cluster gets or loses one, until somebody changes what it asks for
/// (upstream: `isMatchingPreferDualStackClusterIPFields`).
fn prefers_what_it_has(service: &Value, old: &Value) -> bool {
    let same = |field: &str| service.at("spec").present(field) == old.at("spec").present(field);
    service.text("spec.ipFamilyPolicy") == "PreferDualStack"
        && service_type(service) == service_type(old)
        && ["ipFamilyPolicy", "clusterIPs", "ipFamilies"].into_iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_must_not_get_a_second_family_because_the_cluster_got_one() {
        let old = json!({"spec": {"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"],
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]}});
        let families = |service: &Value| service.items("spec.ipFamilies").len();
        let mut labelled = old.clone();
        set_at(&mut labelled, "spec.publishNotReadyAddresses", true);
        settle(&["IPv4", "IPv6"], &mut labelled, Some(&old)).unwrap();
        assert_eq!(families(&labelled), 1);
        let mut asked = old.clone();
        set_at(&mut asked, "spec.ipFamilyPolicy", "RequireDualStack");
        settle(&["IPv4", "IPv6"], &mut asked, Some(&old)).unwrap();
        assert_eq!(families(&asked), 2);
        let mut typed = old.clone();
        set_at(&mut typed, "spec.type", "NodePort");
        settle(&["IPv4", "IPv6"], &mut typed, Some(&old)).unwrap();
        assert_eq!(families(&typed), 2, "another type asks anew");
    }
}
