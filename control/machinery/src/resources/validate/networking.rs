//! Ingresses, network policies, and the addresses services are given.

use serde_json::Value;

use super::{
    checks::IMMUTABLE,
    cursor::{Cursor, look},
    service,
};
use crate::{access::Get as _, address, names};

/// What holds for every ingress; names of secrets are not judged where it had bad ones before.
pub(super) fn ingress(ingress: Cursor<'_>) {
    let spec = ingress.field("spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        spec.invalid_value(spec.at("rules").clone(), detail);
    }
    if let Some(default) = spec.field("defaultBackend").if_set() {
        backend(default);
    }
    let lenient =
        !spec.field("rules").was_fine(|rules| rules.items().filter(is_wildcard).for_each(rule_paths));
    for rule in spec.each("rules") {
        let host = rule.field("host");
        if address::parse(host.str()).is_some() {
            host.invalid("must be a DNS name, not an IP address");
        }
        if !host.is_empty() {
            host_name(host);
        }
        if !is_wildcard(&rule) || !lenient {
            rule_paths(rule);
        }
    }
    tls(spec.field("tls"));
    spec.field("ingressClassName").optional_format(names::dns1123_subdomain);
}

/// Rules with wildcard hosts may be older than the checks of their paths.
fn is_wildcard(rule: &Cursor<'_>) -> bool {
    rule.text("host").contains('*')
}

fn host_name(host: Cursor<'_>) {
    if host.str().contains('*') {
        host.format(names::wildcard_dns1123_subdomain);
    } else {
        host.subdomain();
    }
}

fn rule_paths(rule: Cursor<'_>) {
    if rule.has("http") {
        let paths = rule.field("http.paths");
        paths.required();
        paths.items().for_each(http_path);
    }
}

fn tls(list: Cursor<'_>) {
    let secrets = |list: Cursor<'_>| {
        list.items().for_each(|tls| tls.field("secretName").optional_format(names::dns1123_subdomain));
    };
    let lenient = !list.was_fine(secrets);
    for tls in list.items() {
        tls.each("hosts").for_each(host_name);
        if !lenient {
            tls.field("secretName").optional_format(names::dns1123_subdomain);
        }
    }
}

/// The class a new ingress names in two ways must be one.
pub(super) fn ingress_create(ingress: Cursor<'_>) {
    let key = "kubernetes.io/ingress.class";
    if let (Some(annotated), Some(class)) =
        (ingress.annotation(key), ingress.at("spec.ingressClassName").as_str())
        && annotated != class
    {
        let place = ingress.field("annotations").field(key);
        place.invalid_value(annotated, "must match `ingressClassName` when both are specified");
    }
}

pub(super) fn ingress_status(ingress: Cursor<'_>) {
    service::ingress_points(ingress);
}

/// What may not be part of a path, so that nobody reads it in two ways.
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

fn http_path(http: Cursor<'_>) {
    let (kind, path) = (http.field("pathType"), http.field("path"));
    if !kind.is_set() {
        return kind.missing("pathType must be specified");
    }
    let (exact, absolute) = (matches!(kind.str(), "Exact" | "Prefix"), path.str().starts_with('/'));
    if !kind.is_enumerated() {
        kind.enumerated();
    } else if !absolute && (exact || !path.is_empty()) {
        path.invalid("must be an absolute path");
    }
    if exact {
        for part in BAD_PARTS.iter().filter(|part| path.str().contains(**part)) {
            path.invalid(format!("must not contain '{part}'"));
        }
        for end in BAD_ENDS.iter().filter(|end| path.str().ends_with(**end)) {
            path.invalid(format!("cannot end with '{end}'"));
        }
    }
    backend(http.field("backend"));
}

fn backend(backend: Cursor<'_>) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => backend.invalid_value("", "cannot set both resource and service backends"),
        (false, false) => backend.invalid_value("", "resource or service backend is required"),
        (false, true) => typed_reference(resource),
        (true, false) => {
            service.field("name").required_format(names::dns1123_label);
            let (name, number) = (service.field("port.name"), service.field("port.number"));
            match (name.is_empty(), number.number().unwrap_or_default()) {
                (true, 0) => backend.missing("port name or number is required"),
                (true, _) => number.port_number(),
                (false, 0) => {
                    name.format(names::port_name);
                }
                (false, _) => backend.invalid_value("", "cannot set both port name & port number"),
            }
        }
    }
}

/// A reference by group, kind and name.
fn typed_reference(reference: Cursor<'_>) {
    reference.field("apiGroup").optional_format(names::dns1123_subdomain);
    reference.field("kind").segment();
    reference.field("name").segment();
}

pub(super) fn ingress_class(class: Cursor<'_>) {
    let controller = class.field("spec.controller");
    controller.bounded(250);
    controller.domain_path();
    let Some(parameters) = class.field("spec.parameters").if_set() else { return };
    typed_reference(parameters);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match (scope.value.as_str(), namespace.is_set()) {
        (None, _) => scope.missing(""),
        (Some("Namespace"), false) => namespace.missing("`parameters.scope` is set to 'Namespace'"),
        (Some("Namespace"), true) => {
            namespace.label();
        }
        (Some("Cluster"), true) => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), false) => {}
        _ => scope.unsupported(&["Cluster", "Namespace"]),
    }
}

/// Networks that a policy had before are not judged again.
pub(super) fn network_policy(policy: Cursor<'_>) {
    let spec = policy.field("spec");
    let known = networks(spec.old);
    spec.field("podSelector").label_selector();
    for (rules, peers) in DIRECTIONS {
        for rule in spec.each(rules) {
            rule.each("ports").for_each(policy_port);
            rule.each(peers).for_each(|peer| policy_peer(peer, &known));
        }
    }
    let types = spec.field("policyTypes");
    if types.values().len() > 2 {
        return types.invalid("may not specify more than two policyTypes");
    }
    types.items().for_each(Cursor::enumerated);
}

/// Each list of rules, and the list of peers in a rule.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// Every network a policy names.
fn networks(spec: &Value) -> Vec<&str> {
    let rules = DIRECTIONS.iter().flat_map(|(rules, peers)| {
        spec.items(rules).iter().flat_map(|rule| rule.items(peers)).map(|peer| peer.at("ipBlock"))
    });
    rules
        .flat_map(|block| {
            let except = block.items("except").iter().filter_map(Value::as_str);
            std::iter::once(block.text("cidr")).chain(except)
        })
        .collect()
}

fn policy_port(rule: Cursor<'_>) {
    rule.plain(&["protocol"]);
    let (port, end) = (rule.field("port"), rule.field("endPort"));
    match (port.value, end.number()) {
        (Value::Null, Some(_)) => end.invalid("may not be specified when `port` is not specified"),
        (Value::Null, None) => {}
        (Value::String(_), last) => {
            if last.is_some() {
                end.invalid("may not be specified when `port` is non-numeric");
            }
            port.format(names::port_name);
        }
        (start, last) => {
            port.port_number();
            let start = start.as_i64().unwrap_or_default();
            if last.is_some_and(|last| last < start) {
                end.invalid_value(start, "must be greater than or equal to `port`");
            }
            if last.is_some() {
                end.port_number();
            }
        }
    }
}

fn policy_peer(peer: Cursor<'_>, known: &[&str]) {
    let mut selects = false;
    for selector in
        ["podSelector", "namespaceSelector"].into_iter().filter_map(|key| peer.field(key).if_set())
    {
        selects = true;
        selector.label_selector();
    }
    match (peer.field("ipBlock").if_set(), selects) {
        (Some(block), _) => {
            ip_block(block, known);
            if selects {
                peer.forbidden("may not specify both ipBlock and another peer");
            }
        }
        (None, true) => {}
        (None, false) => peer.missing("must specify a peer"),
    }
}

fn ip_block(block: Cursor<'_>, known: &[&str]) {
    let cidr = block.field("cidr");
    if !cidr.required() {
        return;
    }
    cidr.cidr(known);
    let Some((whole, length)) = address::parse_cidr(cidr.str()) else { return };
    for except in block.each("except") {
        except.cidr(known);
        let Some((part, part_length)) = address::parse_cidr(except.str()) else { continue };
        let within = whole.is_ipv4() == part.is_ipv4()
            && address::masked(part, length) == address::masked(whole, length)
            && length < part_length;
        if !within {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}

/// An allocated address and its owner.
pub(super) fn ip_address(address: Cursor<'_>) {
    let parent = address.field("spec.parentRef");
    if parent.required() {
        parent.plain(&["group"]);
        parent.field("resource").segment();
        parent.field("name").segment();
        parent.plain(&["namespace"]);
    }
}

/// The canonical spelling of an address, as the name of an object.
pub(super) fn ip_name(name: &str) -> Vec<String> {
    let errors = look(None, &Value::from(name), None, |name| {
        name.canonical_ip();
    });
    errors.into_iter().map(|error| error.detail).collect()
}

pub(super) fn service_cidr(cidr: Cursor<'_>) {
    let cidrs = cidr.field("spec.cidrs");
    let list = cidrs.strs();
    if list.is_empty() {
        return cidrs.missing("at least one CIDR required");
    }
    if list.len() > 2 {
        return cidrs.invalid_value(cidr.at("spec").clone(), "may only hold up to 2 values");
    }
    cidrs.items().for_each(Cursor::canonical_cidr);
    let family =
        |index: usize| list.get(index).and_then(|cidr| address::parse_cidr(cidr)).map(|(ip, _)| ip.is_ipv4());
    if family(0).is_some() && family(0) == family(1) {
        cidrs.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
}

/// A range stays; one of the other family may be added.
pub(super) fn service_cidr_update(cidr: Cursor<'_>) {
    let cidrs = cidr.field("spec.cidrs");
    let (count, before) = (cidrs.values().len(), cidrs.old.as_array().map_or(0, Vec::len));
    let grows = before == 1 && count == 2;
    if count != before && !grows {
        return cidrs.invalid(IMMUTABLE);
    }
    for (index, _) in cidrs.pairs().enumerate().filter(|(_, (new, old))| new != old) {
        cidrs.item(index).invalid(IMMUTABLE);
    }
    if grows {
        service_cidr(cidr);
    }
}
