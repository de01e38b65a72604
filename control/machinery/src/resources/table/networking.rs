//! Services and what is behind and before them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::age,
    format::{labels, name, or, scalar, selector, some},
};
use crate::access::Get;

/// How many of a list fit into a cell.
const SHOWN: usize = 3;

fn texts(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(Value::as_str).collect()
}

pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = service.at("spec");
    let ports: Vec<String> = spec.items("ports").iter().map(service_port).collect();
    let first = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or(spec.text("clusterIP"));
    vec![
        name(service),
        json!(spec.text("type")),
        json!(or(first, "<none>")),
        json!(external_ip(service)),
        json!(or(&ports.join(","), "<none>")),
        age(service, now),
        json!(labels(spec.at("selector"))),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
    match port.int("nodePort").unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let spec = service.at("spec");
    let own = texts(spec.items("externalIPs"));
    match spec.text("type") {
        "ExternalName" => spec.text("externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = balancer(service);
            all.extend(own);
            or(&all.join(","), "<pending>").to_owned()
        }
        "ClusterIP" | "NodePort" => or(&own.join(","), "<none>").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses a load balancer answers at, each once.
fn balancer(object: &Value) -> Vec<&str> {
    let ingress = object.items("status.loadBalancer.ingress").iter();
    let mut all: Vec<&str> = ingress.map(|point| or(point.text("ip"), point.text("hostname"))).collect();
    all.retain(|text| !text.is_empty());
    all.sort_unstable();
    all.dedup();
    all
}

pub(super) fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in endpoints.items("subsets") {
        let (addresses, ports) = (subset.items("addresses"), subset.items("ports"));
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| address.text("ip").to_owned()));
        }
        for port in ports {
            let number = port.int("port").unwrap_or_default();
            for address in addresses {
                let ip = address.text("ip");
                all.push(if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                });
            }
        }
    }
    vec![name(endpoints), json!(or(&some(&all, SHOWN, ","), "<none>")), age(endpoints, now)]
}

pub(super) fn endpoint_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = slice
        .items("ports")
        .iter()
        .map(|port| match port.int("port") {
            Some(number) => number.to_string(),
            None => or(port.text("name"), "*").to_owned(),
        })
        .collect();
    let addresses: Vec<String> = slice
        .items("endpoints")
        .iter()
        .flat_map(|endpoint| texts(endpoint.items("addresses")))
        .map(str::to_owned)
        .collect();
    vec![
        name(slice),
        json!(slice.text("addressType")),
        json!(or(&some(&ports, SHOWN, ","), "<unset>")),
        json!(or(&some(&addresses, SHOWN, ","), "<unset>")),
        age(slice, now),
    ]
}

pub(super) fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = ingress.at("spec");
    let hosts: Vec<String> = spec
        .items("rules")
        .iter()
        .map(|rule| rule.text("host"))
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    let tls = !spec.items("tls").is_empty();
    vec![
        name(ingress),
        json!(or(spec.text("ingressClassName"), "<none>")),
        json!(or(&some(&hosts, SHOWN, ","), "*")),
        json!(balancer(ingress).join(",")),
        json!(if tls { "80, 443" } else { "80" }),
        age(ingress, now),
    ]
}

pub(super) fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = class.at("spec.parameters");
    let text = if parameters.is_object() {
        let kind = parameters.text("kind");
        match parameters.text("apiGroup") {
            "" => format!("{kind}/{}", parameters.text("name")),
            group => format!("{kind}.{group}/{}", parameters.text("name")),
        }
    } else {
        "<none>".to_owned()
    };
    vec![name(class), json!(class.text("spec.controller")), json!(text), age(class, now)]
}

pub(super) fn network_policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(policy), json!(selector(policy.at("spec.podSelector"))), age(policy, now)]
}

pub(super) fn ip_address(address: &Value, _: Timestamp) -> Vec<Value> {
    let parent = address.at("spec.parentRef");
    let parts =
        [parent.text("resource"), parent.text("group"), parent.text("namespace"), parent.text("name")];
    let [resource, group, namespace, own] = parts;
    let kind = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let text =
        [kind.as_str(), namespace, own].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
    vec![name(address), json!(or(&text.join("/"), "<none>"))]
}

pub(super) fn service_cidr(range: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<String> = range.items("spec.cidrs").iter().map(|cidr| scalar(cidr, "")).collect();
    vec![name(range), json!(ranges.join(",")), age(range, now)]
}
