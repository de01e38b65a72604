//! A pod's containers, and their ports that stand in each other's way.

use std::collections::HashMap;

use serde_json::Value;

use crate::{access::Get, field::Path, goformat::go_quote};

pub(super) fn warnings(path: &Path, spec: &Value, found: &mut Vec<String>) {
    let mut seen: HashMap<(i64, &str), Vec<(Path, &Value)>> = HashMap::new();
    for (path, port) in ports(path, spec) {
        let number = |key: &str| port.int(key).unwrap_or_default();
        if !port.text("hostIP").is_empty() && number("hostPort") == 0 {
            found.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                port.text("name"),
                number("containerPort"),
                port.text("protocol"),
                port.text("hostIP")
            ));
        }
        let others = seen.entry((number("containerPort"), port.text("protocol"))).or_default();
        for (other_path, other) in others.iter() {
            if let Some(how) = clash(port, other) {
                found.push(format!("{path}: {how} port definition with {other_path}"));
            }
        }
        others.push((path, port));
    }
    let mut names: HashMap<&str, Path> = HashMap::new();
    for (path, port) in ports(path, spec).filter(|(_, port)| !port.text("name").is_empty()) {
        let name = port.text("name");
        match names.get(name) {
            Some(first) => found.push(format!(
                "{path}: duplicate port name {} with {first}, services and probes that select ports by name will use {first}",
                go_quote(name)
            )),
            None => {
                names.insert(name, path);
            }
        }
    }
}

/// Every container of a pod, and where it stands.
pub(super) fn containers<'v>(path: &Path, spec: &'v Value) -> impl Iterator<Item = (Path, &'v Value)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        let path = path.child(list);
        spec.items(list).iter().enumerate().map(move |(index, container)| (path.index(index), container))
    })
}

fn ports<'v>(path: &Path, spec: &'v Value) -> impl Iterator<Item = (Path, &'v Value)> {
    containers(path, spec).flat_map(|(path, container)| {
        container.items("ports").iter().enumerate().map(move |(i, port)| (path.child("ports").index(i), port))
    })
}

/// How two ports of one number and protocol stand to each other.
fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    let host = |port: &Value| port.int("hostPort").unwrap_or_default();
    let (ip, other_ip) = (port.text("hostIP"), other.text("hostIP"));
    if ip == other_ip && host(port) == host(other) {
        Some("duplicate")
    } else if host(port) == 0 || host(other) == 0 {
        Some("overlapping")
    } else {
        (host(port) == host(other) && ip.is_empty() != other_ip.is_empty()).then_some("dangerously ambiguous")
    }
}
