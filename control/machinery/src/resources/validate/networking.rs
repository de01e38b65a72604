//! Ingresses, network policies, and the addresses services are given.

use serde_json::Value;

use super::{Errors, address, rules, selector, service};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What holds for every ingress; names of secrets are not judged where `old` (null for a new ingress) has bad ones.
pub(super) fn ingress(ingress: &Value, old: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), ingress.at("spec"));
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, spec.at("rules").clone(), detail));
    }
    if spec.has("defaultBackend") {
        backend(&path.child("defaultBackend"), spec.at("defaultBackend"), errors);
    }
    let lenient = wildcard_rules(old.items("spec.rules"));
    for (index, rule) in spec.items("rules").iter().enumerate() {
        let path = path.child("rules").index(index);
        let host = rule.text("host");
        if address::parse(host).is_some() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(&path.child("host"), host, detail));
        }
        if host.contains('*') {
            rules::text(&path.child("host"), host, names::wildcard_dns1123_subdomain(host), errors);
        } else if !host.is_empty() {
            rules::subdomain(&path.child("host"), host, errors);
        }
        if !host.contains('*') || !lenient {
            rule_paths(&path, rule, errors);
        }
    }
    tls(&path.child("tls"), spec, old, errors);
    if let Some(class) = spec.at("ingressClassName").as_str() {
        rules::subdomain(&path.child("ingressClassName"), class, errors);
    }
}

fn rule_paths(path: &Path, rule: &Value, errors: &mut Errors) {
    if !rule.has("http") {
        return;
    }
    let path = path.child("http").child("paths");
    if rule.items("http.paths").is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    for (index, http) in rule.items("http.paths").iter().enumerate() {
        http_path(&path.index(index), http, errors);
    }
}

/// Whether rules with wildcard hosts were stored before their paths were judged.
fn wildcard_rules(rules: &[Value]) -> bool {
    rules.iter().filter(|rule| rule.text("host").contains('*')).any(|rule| {
        let mut found = Errors::new();
        rule_paths(&Path::root(), rule, &mut found);
        !found.is_empty()
    })
}

fn tls(path: &Path, spec: &Value, old: &Value, errors: &mut Errors) {
    let bad = |tls: &Value| {
        let name = tls.text("secretName");
        if name.is_empty() { Vec::new() } else { names::dns1123_subdomain(name) }
    };
    let lenient = old.items("spec.tls").iter().any(|tls| !bad(tls).is_empty());
    for (index, tls) in spec.items("tls").iter().enumerate() {
        let path = path.index(index);
        for (index, host) in tls.items("hosts").iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            let messages = if host.contains('*') {
                names::wildcard_dns1123_subdomain(host)
            } else {
                names::dns1123_subdomain(host)
            };
            rules::text(&path.child("hosts").index(index), host, messages, errors);
        }
        if !lenient {
            rules::text(&path.child("secretName"), tls.text("secretName"), bad(tls), errors);
        }
    }
}

/// The class a new ingress names in two ways must be one.
pub(super) fn ingress_create(ingress: &Value, errors: &mut Errors) {
    let key = "kubernetes.io/ingress.class";
    let annotated = ingress.fields("metadata.annotations").and_then(|a| a.get(key)).and_then(Value::as_str);
    if let (Some(annotated), Some(class)) = (annotated, ingress.at("spec.ingressClassName").as_str())
        && annotated != class
    {
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(&Path::new("annotations").child(key), annotated, detail));
    }
}

pub(super) fn ingress_status(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::from("status.loadBalancer.ingress");
    for (index, ingress) in new.items("status.loadBalancer.ingress").iter().enumerate() {
        service::ingress_point(&path.index(index), ingress, old, errors);
    }
}

/// What may not be part of a path, so that nobody reads it in two ways.
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

fn http_path(path: &Path, http: &Value, errors: &mut Errors) {
    let kind = http.at("pathType");
    let value = http.text("path");
    match kind.as_str() {
        None => {
            errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified"));
            return;
        }
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), value, "must be an absolute path"));
            }
            for part in BAD_PARTS.iter().filter(|part| value.contains(**part)) {
                errors.push(FieldError::invalid(
                    &path.child("path"),
                    value,
                    format!("must not contain '{part}'"),
                ));
            }
            for end in BAD_ENDS.iter().filter(|end| value.ends_with(**end)) {
                errors.push(FieldError::invalid(
                    &path.child("path"),
                    value,
                    format!("cannot end with '{end}'"),
                ));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(FieldError::invalid(&path.child("path"), value, "must be an absolute path"));
            }
        }
        Some(other) => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&path.child("pathType"), other, &kinds));
        }
    }
    backend(&path.child("backend"), http.at("backend"), errors);
}

fn backend(path: &Path, backend: &Value, errors: &mut Errors) {
    match (backend.has("service"), backend.has("resource")) {
        (true, true) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", detail));
        }
        (false, false) => {
            errors.push(FieldError::invalid(path, "", "resource or service backend is required"));
        }
        (false, true) => typed_reference(&path.child("resource"), backend.at("resource"), errors),
        (true, false) => {
            let (whole, path, service) = (path, path.child("service"), backend.at("service"));
            let name = service.text("name");
            if rules::required(&path.child("name"), name, errors) {
                rules::label(&path.child("name"), name, errors);
            }
            let (named, number) = (service.text("port.name"), service.int("port.number").unwrap_or_default());
            if !named.is_empty() && number != 0 {
                errors.push(FieldError::invalid(whole, "", "cannot set both port name & port number"));
            } else if !named.is_empty() {
                rules::text(&path.child("port").child("name"), named, names::port_name(named), errors);
            } else if number != 0 {
                rules::port_number(&path.child("port").child("number"), service.at("port.number"), errors);
            } else {
                errors.push(FieldError::required(whole, "port name or number is required"));
            }
        }
    }
}

/// A reference by group, kind and name.
fn typed_reference(path: &Path, reference: &Value, errors: &mut Errors) {
    if let Some(group) = reference.at("apiGroup").as_str() {
        rules::subdomain(&path.child("apiGroup"), group, errors);
    }
    for key in ["kind", "name"] {
        rules::segment(&path.child(key), reference.text(key), errors);
    }
}

pub(super) fn ingress_class(class: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("controller");
    let controller = class.text("spec.controller");
    if controller.len() > 250 {
        errors.push(FieldError::too_long(&path, 250));
    }
    rules::domain_path(&path, controller, errors);
    if class.has("spec.parameters") {
        class_parameters(&Path::from("spec.parameters"), class.at("spec.parameters"), errors);
    }
}

fn class_parameters(path: &Path, parameters: &Value, errors: &mut Errors) {
    typed_reference(path, parameters, errors);
    let (scope, namespace) = (parameters.at("scope").as_str(), parameters.at("namespace").as_str());
    let (scope_path, namespace_path) = (path.child("scope"), path.child("namespace"));
    match (scope, namespace) {
        (None, _) => errors.push(FieldError::required(&scope_path, "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(&namespace_path, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => rules::label(&namespace_path, namespace, errors),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(&namespace_path, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(FieldError::not_supported(&scope_path, other, &["Cluster", "Namespace"]));
        }
    }
}

pub(super) fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("controller");
    rules::immutable(&path, new.at("spec.controller"), old.at("spec.controller"), errors);
}

/// Networks that `old` (null for a new policy) names are not judged again.
pub(super) fn network_policy(policy: &Value, old: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), policy.at("spec"));
    let known = networks(old.at("spec"));
    selector::label_selector(&path.child("podSelector"), spec.at("podSelector"), errors);
    for (rules_key, peers_key) in DIRECTIONS {
        for (index, rule) in spec.items(rules_key).iter().enumerate() {
            let path = path.child(rules_key).index(index);
            for (index, port) in rule.items("ports").iter().enumerate() {
                policy_port(&path.child("ports").index(index), port, errors);
            }
            for (index, peer) in rule.items(peers_key).iter().enumerate() {
                policy_peer(&path.child(peers_key).index(index), peer, &known, errors);
            }
        }
    }
    let types = spec.items("policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(&path.child("policyTypes"), spec.at("policyTypes").clone(), detail));
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        if !["Egress", "Ingress"].contains(&kind) {
            let path = path.child("policyTypes").index(index);
            errors.push(FieldError::not_supported(&path, kind, &["Ingress", "Egress"]));
        }
    }
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

fn policy_port(path: &Path, port: &Value, errors: &mut Errors) {
    if let Some(protocol) = port.at("protocol").as_str()
        && !PROTOCOLS.contains(&protocol)
    {
        errors.push(FieldError::not_supported(&path.child("protocol"), protocol, &PROTOCOLS));
    }
    let (end, end_path) = (port.int("endPort"), path.child("endPort"));
    match (port.at("port"), end) {
        (Value::Null, Some(end)) => {
            let detail = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(&end_path, end, detail));
        }
        (Value::Null, None) => {}
        (Value::String(name), end) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(&end_path, end, detail));
            }
            rules::text(&path.child("port"), name, names::port_name(name), errors);
        }
        (start, end) => {
            rules::port_number(&path.child("port"), start, errors);
            if let Some(end) = end {
                let start = start.as_i64().unwrap_or_default();
                if end < start {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&end_path, start, detail));
                }
                rules::port_number(&end_path, &Value::from(end), errors);
            }
        }
    }
}

fn policy_peer(path: &Path, peer: &Value, known: &[&str], errors: &mut Errors) {
    let mut kinds = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if peer.has(key) {
            kinds += 1;
            selector::label_selector(&path.child(key), peer.at(key), errors);
        }
    }
    if peer.has("ipBlock") {
        ip_block(&path.child("ipBlock"), peer.at("ipBlock"), known, errors);
        if kinds > 0 {
            errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
        }
    } else if kinds == 0 {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
}

fn ip_block(path: &Path, block: &Value, known: &[&str], errors: &mut Errors) {
    let cidr = block.text("cidr");
    if !rules::required(&path.child("cidr"), cidr, errors) {
        return;
    }
    address::cidr(&path.child("cidr"), cidr, known, errors);
    let Some((whole, length)) = address::parse_cidr(cidr) else { return };
    for (index, except) in block.items("except").iter().enumerate() {
        let (path, text) = (path.child("except").index(index), except.as_str().unwrap_or_default());
        address::cidr(&path, text, known, errors);
        let Some((part, part_length)) = address::parse_cidr(text) else { continue };
        let within = whole.is_ipv4() == part.is_ipv4()
            && address::masked(part, length) == address::masked(whole, length)
            && length < part_length;
        if !within {
            errors.push(FieldError::invalid(&path, text, "must be a strict subset of `cidr`"));
        }
    }
}

/// An address somebody has been given, and by whom it is held.
pub(super) fn ip_address(address: &Value, errors: &mut Errors) {
    let (path, parent) = (Path::from("spec.parentRef"), address.at("spec.parentRef"));
    if parent.is_null() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    if !parent.text("group").is_empty() {
        rules::subdomain(&path.child("group"), parent.text("group"), errors);
    }
    for key in ["resource", "name"] {
        rules::segment(&path.child(key), parent.text(key), errors);
    }
    let namespace = parent.text("namespace");
    if !namespace.is_empty() {
        rules::text(&path.child("namespace"), namespace, names::path_segment(namespace), errors);
    }
}

pub(super) fn ip_address_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::from("spec.parentRef");
    rules::immutable(&path, new.at("spec.parentRef"), old.at("spec.parentRef"), errors);
}

/// The canonical spelling of an address, as the name of an object.
pub(super) fn ip_name(name: &str) -> Vec<String> {
    let mut errors = Errors::new();
    address::canonical_ip(&Path::root(), name, &mut errors);
    errors.into_iter().map(|error| error.detail).collect()
}

const CIDRS: &str = "spec.cidrs";

fn service_cidrs(object: &Value, errors: &mut Errors) {
    let (path, cidrs) = (Path::from(CIDRS), object.items(CIDRS));
    if cidrs.is_empty() {
        errors.push(FieldError::required(&path, "at least one CIDR required"));
        return;
    }
    if cidrs.len() > 2 {
        errors.push(FieldError::invalid(&path, object.at("spec").clone(), "may only hold up to 2 values"));
        return;
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        address::canonical_cidr(&path.index(index), cidr.as_str().unwrap_or_default(), errors);
    }
    let family = |index: usize| {
        cidrs.get(index).and_then(Value::as_str).and_then(address::parse_cidr).map(|(ip, _)| ip.is_ipv4())
    };
    if family(0).is_some() && family(0) == family(1) {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&path, object.at(CIDRS).clone(), detail));
    }
}

pub(super) fn service_cidr_create(object: &Value, errors: &mut Errors) {
    service_cidrs(object, errors);
}

/// A range stays; one of the other family may be added.
pub(super) fn service_cidr_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (path, list, before) = (Path::from(CIDRS), new.items(CIDRS), old.items(CIDRS));
    let grows = before.len() == 1 && list.len() == 2;
    if list.len() != before.len() && !grows {
        errors.push(FieldError::invalid(&path, new.at(CIDRS).clone(), rules::IMMUTABLE));
        return;
    }
    for (index, (cidr, _)) in list.iter().zip(before).enumerate().filter(|(_, (a, b))| !same(a, b)) {
        errors.push(FieldError::invalid(&path.index(index), cidr.clone(), rules::IMMUTABLE));
    }
    if grows {
        service_cidrs(new, errors);
    }
}
