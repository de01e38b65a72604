//! Which IP families a Service has, from what its client says of them and what the cluster has (upstream: `initIPFamilyFields`).

use super::ip_address::family;
use super::{is_headless, service_type, spec};
use machinery::access::{Get as _, list_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::object::{self, Gk};
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
    let other = |family: &str| if family == "IPv4" { "IPv6" } else { "IPv4" };
    let selectorless =
        service.present("spec.selector").and_then(Value::as_object).is_none_or(|s| s.is_empty());
    // Nothing is allocated and the endpoints are somebody else's: both families are possible anywhere.
    let free = is_headless(service) && selectorless;
    let policy = match (service.text("spec.ipFamilyPolicy"), old.map(|old| old.text("spec.ipFamilyPolicy"))) {
        ("", Some(before)) if !before.is_empty() => before,
        ("", _) if free => "RequireDualStack",
        ("", _) => "SingleStack",
        (given, _) => given,
    };
    let policy = policy.to_owned();
    let single = policy == "SingleStack";
    let mut families: Vec<String> =
        service.items("spec.ipFamilies").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let mut errors = Vec::new();
    let mut refuse =
        |path: Path, value: Value, why: String| errors.push(FieldError::invalid(&path, value, why));
    if let Some(old) = old {
        for (field, what) in [("spec.clusterIPs", "cluster IP"), ("spec.ipFamilies", "IP family")] {
            let (now, before) = (service.items(field).to_vec(), old.items(field));
            if single && now == before && now.len() > 1 {
                list_at(service, field).truncate(1);
            } else if !single && !now.is_empty() && now.len() < before.len() {
                let why = format!("must be 'SingleStack' to release the secondary {what}");
                refuse(spec("ipFamilyPolicy"), policy.clone().into(), why);
            }
        }
        families.truncate(service.items("spec.ipFamilies").len());
    }
    for (field, what) in [("spec.clusterIPs", "cluster IPs"), ("spec.ipFamilies", "IP families")] {
        if single && service.items(field).len() == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            refuse(spec("ipFamilyPolicy"), policy.clone().into(), why);
        }
    }
    let ips = service.items("spec.clusterIPs").to_vec();
    for (i, ip) in ips.iter().enumerate() {
        let Some(ip) = ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) else { break };
        let family = family(ip);
        if i < families.len() {
        } else if cluster.contains(&family) {
            families.push(family.to_owned());
        } else {
            let why = format!("{family} is not configured on this cluster");
            refuse(spec("clusterIPs").index(i), ips.clone().into(), why);
        }
    }
    if errors.is_empty() && !free {
        if policy == "RequireDualStack" && cluster.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid(&spec("ipFamilyPolicy"), policy.clone(), why));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, f)| !cluster.contains(&f.as_str())) {
            let path = spec("ipFamilies").index(i);
            errors.push(FieldError::invalid(&path, family.clone(), "not configured on this cluster"));
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&Gk::new("", "Service"), object::name(service), &errors));
    }
    if families.is_empty() {
        families.push(cluster.first().copied().unwrap_or("IPv4").to_owned());
    }
    if let [one] = families.as_slice()
        && !single
        && (free || cluster.len() > 1)
    {
        families.push(other(one).to_owned());
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
    fn two_families_must_be_asked_for_and_every_fault_is_named() {
        let why = |cluster: &[&'static str], spec: Value, old: Option<Value>| {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            settle(cluster, &mut service, old.as_ref()).map(|()| service).map_err(|status| status.message)
        };
        let dual = ["IPv4", "IPv6"];
        let two = json!({"selector": {"a": "b"}, "ipFamilies": ["IPv6", "IPv4"]});
        let refused = why(&dual, two.clone(), None).unwrap_err();
        assert_eq!(
            refused,
            "Service \"s\" is invalid: spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
        );
        let mut required = two.clone();
        required["ipFamilyPolicy"] = json!("RequireDualStack");
        assert_eq!(
            why(&["IPv4"], required.clone(), None).unwrap_err(),
            "Service \"s\" is invalid: [spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services, spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster]"
        );
        assert!(why(&dual, required.clone(), None).is_ok());
        let address = json!({"selector": {"a": "b"}, "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]});
        assert_eq!(
            why(&["IPv4"], address, None).unwrap_err(),
            "Service \"s\" is invalid: spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster"
        );
        // A PUT that says nothing of the policy keeps it.
        let old = json!({"spec": required});
        assert!(why(&dual, two, Some(old.clone())).is_ok());
        let fewer = json!({"selector": {"a": "b"}, "ipFamilies": ["IPv6"]});
        let refused = why(&dual, fewer, Some(old)).unwrap_err();
        assert!(refused.contains("must be 'SingleStack' to release the secondary IP family"), "{refused}");
    }

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
