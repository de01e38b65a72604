//! Services: the addresses and ports a server gave out stay when a client leaves them out.

use serde_json::{Value, json};

use crate::access::{Fields, Get, copy, entries, existing, remove, set};

pub(super) fn create(service: &mut Value) {
    set(service, "status", json!({"loadBalancer": Fields::new()}));
    normalize_cluster_ips(service, None);
}

pub(super) fn update(new: &mut Value, old: &Value) {
    normalize_cluster_ips(new, Some(old));
    keep_allocated(new, old);
    drop_what_the_type_has_not(new, old);
}

fn kind(service: &Value) -> &str {
    match service.text("spec.type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn has_cluster_ip(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

fn has_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

fn has_health_check(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service.text("spec.externalTrafficPolicy") == "Local"
}

/// `clusterIP` and `clusterIPs[0]` say the same; a client that knows only the first need not send the second.
fn normalize_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let first = new.text("spec.clusterIP").to_owned();
    let listed = new.items("spec.clusterIPs").len();
    let Some(spec) = existing(new, "spec") else { return };
    let Some(old) = old else {
        if !first.is_empty() && listed == 0 {
            set(spec, "clusterIPs", json!([first]));
        }
        return;
    };
    let before = old.text("spec.clusterIP");
    let same_list = spec.at("clusterIPs") == old.at("spec.clusterIPs");
    if first.is_empty() && !before.is_empty() && same_list {
        // An old client emptied the field it knows.
        remove(spec, "clusterIPs");
    } else if first != before && same_list {
        set(spec, "clusterIPs", json!([first]));
    }
}

fn keep_allocated(new: &mut Value, old: &Value) {
    let addresses = has_cluster_ip(new) && has_cluster_ip(old);
    let ports = has_node_ports(new) && has_node_ports(old);
    let health = has_health_check(new) && has_health_check(old);
    let Some(spec) = existing(new, "spec") else { return };
    if addresses {
        if spec.text("clusterIP").is_empty() {
            copy(spec, old.at("spec"), "clusterIP");
        }
        if spec.items("clusterIPs").is_empty() && spec.at("clusterIP") == old.at("spec.clusterIP") {
            copy(spec, old.at("spec"), "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.items(key).is_empty() && !spec.at(key).is_string() {
                copy(spec, old.at("spec"), key);
            }
        }
    }
    if ports {
        keep_node_ports(spec, old);
    }
    if health && spec.int("healthCheckNodePort").unwrap_or_default() == 0 {
        copy(spec, old.at("spec"), "healthCheckNodePort");
    }
}

/// A port that keeps its protocol and number keeps its node port, unless another port asks for that one.
fn keep_node_ports(spec: &mut Value, old: &Value) {
    let asked: Vec<i64> =
        spec.items("ports").iter().filter_map(|p| p.int("nodePort")).filter(|p| *p != 0).collect();
    for port in entries(spec, "ports") {
        if port.int("nodePort").unwrap_or_default() != 0 {
            continue;
        }
        let before = old
            .items("spec.ports")
            .iter()
            .find(|p| p.at("protocol") == port.at("protocol") && p.at("port") == port.at("port"))
            .and_then(|p| p.int("nodePort"))
            .filter(|p| *p != 0 && !asked.contains(p));
        if let Some(before) = before {
            set(port, "nodePort", before);
        }
    }
}

/// What only the old type had goes with it, unless the client changed it in the same request.
fn drop_what_the_type_has_not(new: &mut Value, old: &Value) {
    let (old_kind, new_kind) = (kind(old).to_owned(), kind(new).to_owned());
    if old_kind == new_kind {
        return;
    }
    let (ips, node_ports, health) = (has_cluster_ip(new), has_node_ports(new), has_health_check(new));
    let (had_ports, had_health) = (has_node_ports(old), has_health_check(old));
    let Some(spec) = existing(new, "spec") else { return };
    let unchanged = |spec: &Value, key: &str| spec.at(key) == old.at("spec").at(key);
    if !ips && unchanged(spec, "clusterIP") {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            remove(spec, key);
        }
    }
    if had_ports && !node_ports {
        let old_ports: Vec<i64> = old.items("spec.ports").iter().filter_map(|p| p.int("nodePort")).collect();
        for port in entries(spec, "ports") {
            if port.int("nodePort").is_some_and(|p| old_ports.contains(&p)) {
                remove(port, "nodePort");
            }
        }
    }
    if had_health && !health && unchanged(spec, "healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if old_kind == "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(spec, key) {
                remove(spec, key);
            }
        }
    }
    let open = node_ports || (new_kind == "ClusterIP" && !spec.items("externalIPs").is_empty());
    if !open && unchanged(spec, "externalTrafficPolicy") {
        remove(spec, "externalTrafficPolicy");
    }
    if new_kind == "ExternalName" && unchanged(spec, "internalTrafficPolicy") {
        remove(spec, "internalTrafficPolicy");
    }
}
