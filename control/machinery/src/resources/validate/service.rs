//! Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{checks::IMMUTABLE, cursor::Cursor};
use crate::{access::Get as _, address, names};

/// A day, the longest a client stays with its endpoint.
const AFFINITY_SECONDS_MAX: i64 = 86400;

fn is_headless(spec: &Value) -> bool {
    matches!(spec.items("clusterIPs"), [only] if only == "None")
}

fn is_external(spec: &Value) -> bool {
    spec.text("type") == "ExternalName"
}

fn is_balanced(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer"
}

/// Whether the node a load balancer sends to must say how it is.
fn is_checked(spec: &Value) -> bool {
    is_balanced(spec) && spec.text("externalTrafficPolicy") == "Local"
}

const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

/// What holds for every service; addresses it had before are not judged again.
pub(super) fn service(service: Cursor<'_>) {
    if let (Some(mode), Some(hints)) = (service.annotation(TOPOLOGY_MODE), service.annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        service.field("metadata.annotations").key(TOPOLOGY_MODE).invalid(detail);
    }
    let (spec, ports) = (service.field("spec"), service.field("spec.ports"));
    let kind = spec.text("type");
    if ports.is_empty() && !is_headless(spec.value) && kind != "ExternalName" {
        ports.missing("");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec.value) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            spec.field("clusterIPs").item(0).invalid(detail);
        }
        "ExternalName" => external_name(spec),
        _ => {}
    }
    let mut names = BTreeSet::new();
    for port in ports.items() {
        self::port(port, ports.values().len() > 1, &mut names);
    }
    spec.field("selector").labels();
    session_affinity(spec);
    cluster_ips(spec);
    let external = spec.field("externalIPs");
    let known = external.old_strs();
    external.items().filter(|ip| ip.ip(&known)).for_each(Cursor::endpoint_ip);
    spec.plain(&["type"]);
    node_ports(kind, ports);
    duplicates(ports);
    source_ranges(service);
    load_balancer_only(service);
    traffic_policies(spec);
}

fn external_name(spec: Cursor<'_>) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.field(key);
        if !field.is_empty() || (field.is_pointer() && field.is_set()) {
            field.forbidden("may not be set for ExternalName services");
        }
    }
    // A closing dot is how some resolvers know that the name is whole.
    let name = spec.field("externalName");
    match name.str().strip_suffix('.').unwrap_or(name.str()) {
        "" => name.missing(""),
        text => {
            name.format_of(text, names::dns1123_subdomain);
        }
    }
}

fn port<'v>(port: Cursor<'v>, needs_name: bool, names: &mut BTreeSet<&'v str>) {
    let name = port.field("name");
    if needs_name && name.is_empty() {
        name.missing("");
    } else if !name.is_empty() {
        name.label();
        if !names.insert(name.str()) {
            name.duplicate();
        }
    }
    port.field("port").port_number();
    port.plain(&["protocol"]);
    port.field("targetPort").port();
    port.plain(&["appProtocol"]);
}

fn session_affinity(spec: Cursor<'_>) {
    spec.plain(&["sessionAffinity"]);
    let config = spec.field("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let timeout = config.field("clientIP").field("timeoutSeconds");
            match timeout.number() {
                None => timeout.missing("when session affinity type is ClientIP"),
                Some(1..=AFFINITY_SECONDS_MAX) => {}
                Some(_) => {
                    timeout.invalid(format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"));
                }
            }
        }
        "None" if config.is_set() => config.forbidden("must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(spec: Cursor<'_>) {
    if is_external(spec.value) {
        return;
    }
    let (ip, ips) = (spec.text("clusterIP"), spec.field("clusterIPs"));
    let list = ips.strs();
    match (ip, list.first()) {
        ("", None) => {}
        ("", Some(_)) => ips.invalid("must be empty when `clusterIP` is not specified"),
        (_, None) => ips.missing(""),
        (ip, Some(first)) if ip != *first => ips.invalid("first value must match `clusterIP`"),
        _ => {}
    }
    let families = spec.field("ipFamilies");
    for (index, family) in families.items().enumerate() {
        family.supported(&["IPv4", "IPv6"]);
        if families.values().iter().take(index).any(|other| other == family.value) {
            family.duplicate();
        }
    }
    spec.plain(&["ipFamilyPolicy"]);
    let known = ips.old_strs();
    let mut readable = true;
    for (index, ip) in ips.items().enumerate() {
        if index > 0 || ip.str() != "None" {
            readable &= ip.ip(&known);
        } else if list.len() > 1 {
            readable = false;
            ips.invalid("'None' must be the first and only value");
        }
    }
    if list.len() > 2 {
        ips.invalid("may only hold up to 2 values");
    }
    if readable {
        families_of(spec, ips, &families.strs());
    }
}

/// One address a family at most, and each of the family it stands for.
fn families_of(spec: Cursor<'_>, ips: Cursor<'_>, families: &[&str]) {
    let is_six = |ip: &str| address::parse(ip).is_some_and(|ip| ip.is_ipv6());
    let sixes = ips.strs().into_iter().filter(|ip| is_six(ip)).count();
    if ips.strs().len() > 1 && (sixes == 0 || sixes == ips.strs().len()) {
        ips.invalid("may specify no more than one IP for each IP family");
    }
    if is_headless(spec.value) {
        return;
    }
    for (index, (ip, family)) in ips.items().zip(families).enumerate() {
        if (*family == "IPv4" && is_six(ip.str())) || (*family == "IPv6" && !is_six(ip.str())) {
            ip.invalid(format!("expected an {family} value as indicated by `ipFamilies[{index}]`"));
        }
    }
}

fn duplicates(ports: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for port in ports.items().filter(|port| !seen.insert((port.text("protocol"), port.int("port")))) {
        // Upstream prints its internal type, whose fields have Go's names.
        let value = json!({"Name": "", "Protocol": port.at("protocol"), "AppProtocol": null,
            "Port": port.at("port"), "TargetPort": 0, "NodePort": 0});
        port.duplicate_value(value, "");
    }
}

fn node_ports(kind: &str, ports: Cursor<'_>) {
    let numbered = || ports.items().filter(|port| port.int("nodePort") != 0);
    if kind == "ClusterIP" {
        for port in numbered() {
            port.field("nodePort").forbidden("may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for port in numbered().filter(|port| !seen.insert((port.text("protocol"), port.int("nodePort")))) {
        port.field("nodePort").duplicate();
    }
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn source_ranges(service: Cursor<'_>) {
    let balanced = is_balanced(service.at("spec"));
    let ranges = service.field("spec.loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream spells this path as its Go field.
        let known: Vec<&str> = ranges.old_strs().into_iter().map(str::trim).collect();
        let ranges = ranges.named("spec.LoadBalancerSourceRanges");
        if !balanced {
            ranges.forbidden(ONLY_BALANCED);
        }
        for range in ranges.items() {
            range.cidr_of(range.str().trim(), &known);
        }
        return;
    }
    let annotation = service.field("metadata.annotations").key(SOURCE_RANGES);
    if annotation.value.is_string() {
        if !balanced {
            annotation.forbidden(ONLY_BALANCED);
        }
        if annotation.value != annotation.old && !annotation.str().trim().is_empty() {
            for range in annotation.str().split(',') {
                annotation.cidr_of(range.trim(), &[]);
            }
        }
    }
}

fn load_balancer_only(service: Cursor<'_>) {
    let spec = service.field("spec");
    let allocate = service.field("spec.allocateLoadBalancerNodePorts");
    match (is_balanced(spec.value), allocate.is_set()) {
        // Upstream leaves `spec` out of this path.
        (true, false) => allocate.named("allocateLoadBalancerNodePorts").missing(""),
        (false, true) => allocate.forbidden(ONLY_BALANCED),
        _ => {}
    }
    let class = spec.field("loadBalancerClass");
    if is_balanced(spec.value) {
        class.optional_format(names::qualified_name);
    } else if class.is_set() {
        class.forbidden(ONLY_BALANCED);
    }
}

fn traffic_policies(spec: Cursor<'_>) {
    let kind = spec.text("type");
    let open = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.list("externalIPs").is_empty());
    let external = spec.field("externalTrafficPolicy");
    if open {
        external.is_plain();
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    let checked = is_checked(spec.value);
    let port = spec.field("healthCheckNodePort");
    match (checked, port.number().unwrap_or_default()) {
        (false, 0) => {}
        (false, _) => port
            .invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
        (true, 0) => port.missing(""),
        (true, _) => port.port_number(),
    }
    let internal = spec.field("internalTrafficPolicy");
    if !internal.is_set() && matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        internal.missing("");
    }
    internal.is_plain();
    spec.field("trafficDistribution").one_of(&["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

pub(super) fn update(service: Cursor<'_>) {
    let spec = service.field("spec");
    cluster_ips_update(spec);
    families_update(spec);
    let both = |test: fn(&Value) -> bool| test(spec.value) && test(spec.old);
    let class = spec.field("loadBalancerClass");
    if both(is_balanced) && class.changed() {
        class.invalid("may not change once set");
    }
    let port = spec.field("healthCheckNodePort");
    if both(is_checked) && port.value != port.old {
        port.forbidden(IMMUTABLE);
    }
}

/// Addresses stay; a second one may come and go.
fn cluster_ips_update(spec: Cursor<'_>) {
    if [spec.value, spec.old].into_iter().any(is_external)
        || [spec.value, spec.old].into_iter().all(is_headless)
    {
        return;
    }
    let ips = spec.field("clusterIPs");
    let (new, old) = (ips.values(), spec.old.items("clusterIPs"));
    let refuse = |index: usize, detail: &str| ips.item(index).invalid_value(ips.value.clone(), detail);
    if new.is_empty() && !old.is_empty() {
        return refuse(0, "primary clusterIP can not be unset");
    }
    // Where one was added or released the first alone is compared.
    let compared = if new.len() == old.len() { new.len() } else { 1 };
    for (index, _) in ips.pairs().enumerate().take(compared).filter(|(_, (new, old))| new != old) {
        refuse(index, "may not change once set");
    }
    if new.len() == 1 && old.len() > 1 {
        released(spec, "clusterIP");
    }
}

/// The second address or family goes where the service says that it wants one only.
fn released(spec: Cursor<'_>, what: &str) {
    let policy = spec.field("ipFamilyPolicy");
    if policy.str() != "SingleStack" {
        policy.invalid(format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

/// The first family stays; a second one may come and go.
fn families_update(spec: Cursor<'_>) {
    if [spec.value, spec.old].into_iter().any(|spec| is_external(spec) || is_headless(spec)) {
        return;
    }
    let families = spec.field("ipFamilies");
    let (new, old) = (families.values(), spec.old.items("ipFamilies"));
    let first = families.item(0);
    let changed = "may not change once set";
    if new.len() == old.len() {
        for _ in families.pairs().filter(|(new, old)| new != old) {
            first.invalid_value(families.value.clone(), changed);
        }
        return;
    }
    if old.len() > new.len() && spec.list("clusterIPs").is_empty() {
        first.invalid_value(families.value.clone(), "primary ipFamily can not be unset");
    }
    if families.pairs().take(1).any(|(new, old)| new != old) {
        first.invalid_value(spec.at("clusterIPs").clone(), changed);
    }
    if old.len() > new.len() && new.len() == 1 {
        released(spec, "ipFamily");
    }
}

/// What a load balancer says of itself.
pub(super) fn status(service: Cursor<'_>) {
    let list = service.field("status.loadBalancer.ingress");
    if service.text("spec.type") != "LoadBalancer" && !list.is_empty() {
        return list.forbidden("may only be used when `spec.type` is 'LoadBalancer'");
    }
    let known = known_points(list);
    for point in list.items() {
        ingress_point(point, &known);
        let mode = point.field("ipMode");
        match (mode.is_set(), point.text("ip").is_empty()) {
            (false, false) => mode.missing("must be specified when `ip` is set"),
            (true, true) => mode.forbidden("may not be specified when `ip` is not set"),
            _ => {
                mode.is_plain();
            }
        }
    }
}

fn known_points(list: Cursor<'_>) -> Vec<&str> {
    list.old.items("").iter().map(|point| point.text("ip")).collect()
}

/// Where load balancers are reached.
pub(super) fn ingress_points(object: Cursor<'_>) {
    let list = object.field("status.loadBalancer.ingress");
    list.items().for_each(|point| ingress_point(point, &known_points(list)));
}

/// An address, or a host name that is no address.
fn ingress_point(point: Cursor<'_>, known: &[&str]) {
    let (ip, host) = (point.field("ip"), point.field("hostname"));
    if !ip.is_empty() {
        ip.ip(known);
    }
    if !host.is_empty() {
        host.subdomain();
        if address::parse(host.str()).is_some() {
            host.invalid("must be a DNS name, not an IP address");
        }
    }
}
