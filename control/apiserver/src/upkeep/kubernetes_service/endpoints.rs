//! The Endpoints and EndpointSlice of the `kubernetes` Service, from the addresses that should be listed.

use super::{NAME, NAMESPACE};
use crate::registry::kind::Kind;
use crate::write::Writer;
use machinery::access::{Get as _, object_at, set_at};
use machinery::object;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What becomes of listed ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Ours,
    /// Whoever came first decides: all servers are to have the same.
    AsTheyAre,
}

fn addresses(subset: &Value) -> Vec<String> {
    subset.items("addresses").iter().map(|address| address.text("ip").to_owned()).collect()
}

/// The subsets that list `wanted`, in place of `present`.
fn subsets(present: &[Value], wanted: &[String], port: &Value, ports: Ports) -> Vec<Value> {
    let one = match present {
        [one] => Some(one),
        _ => None,
    };
    let kept = one.map(|one| one.items("ports")).filter(|_| ports == Ports::AsTheyAre);
    let same_ports =
        one.is_some_and(|one| ports == Ports::AsTheyAre || one.items("ports") == std::slice::from_ref(port));
    let same = |one: &Value| {
        let listed = addresses(one);
        let set: BTreeSet<&String> = listed.iter().collect();
        listed.len() == wanted.len() && set == wanted.iter().collect()
    };
    if same_ports && one.is_some_and(same) {
        return present.to_vec();
    }
    if wanted.is_empty() {
        return Vec::new();
    }
    let list: Vec<Value> = wanted.iter().map(|ip| json!({"ip": ip})).collect();
    vec![json!({"addresses": list, "ports": kept.unwrap_or(std::slice::from_ref(port))})]
}

/// Addresses with ours, no more than `count`: those that come after ours go first, from the start again where there are none
/// (upstream: `reconcilers/instancecount.go`).
pub(super) fn counted(listed: Vec<String>, ours: &str, count: usize) -> Vec<String> {
    let mut all: Vec<String> = listed;
    if !all.iter().any(|ip| ip == ours) {
        all.push(ours.to_owned());
    }
    all.sort();
    all.dedup();
    while all.len() > count.max(1) {
        let own = all.iter().position(|ip| ip == ours).unwrap_or(0);
        all.remove((own + 1) % all.len());
    }
    all
}

pub(super) fn without(mut listed: Vec<String>, ours: &str) -> Vec<String> {
    listed.retain(|ip| ip != ours);
    listed
}

/// The slice that says what the Endpoints say: addresses of one family.
fn slice(subsets: &[Value]) -> Value {
    let subset = subsets.first();
    let listed = subset.map(addresses).unwrap_or_default();
    let is_ipv6 = |ip: &String| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    let ipv6 = !listed.is_empty() && listed.iter().all(is_ipv6);
    let endpoints: Vec<Value> = listed
        .iter()
        .filter(|ip| is_ipv6(ip) == ipv6)
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    let ports: &[Value] = subset.map(|subset| subset.items("ports")).unwrap_or_default();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// Writes both, with the addresses that `wanted` makes of those that are listed. Nothing is made where there is none, unless `makes`.
pub(super) async fn write(
    writer: &Writer,
    ports: Ports,
    makes: bool,
    wanted: &(dyn Fn(Vec<String>) -> Vec<String> + Send + Sync),
) -> Result<(), Status> {
    let kinds = Kind::of("", "endpoints").zip(Kind::of("discovery.k8s.io", "endpointslices"));
    let Some((endpoints, slices)) = kinds else { return Ok(()) };
    let port = json!({"name": "https", "port": writer.registry.config.secure_port, "protocol": "TCP"});
    if makes {
        let bare = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            // Nobody else is to make a slice of it.
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        });
        writer.ensure(&endpoints, bare).await?;
    }
    let change = |old: &Value| {
        let mut new = old.clone();
        let present = old.items("subsets");
        let listed = present.first().map(addresses).unwrap_or_default();
        set_at(&mut new, "subsets", subsets(present, &wanted(listed), &port, ports));
        object_at(&mut new, "metadata.labels")
            .insert("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".into());
        object::set_resource_version(&mut new, "");
        Ok(new)
    };
    let written = match writer.amend(&endpoints, NAMESPACE, NAME, "", &change).await {
        Err(error) if error.code == 404 && !makes => return Ok(()),
        written => written?,
    };
    write_slice(writer, &slices, slice(written.items("subsets"))).await
}

async fn write_slice(writer: &Writer, kind: &Kind, wanted: Value) -> Result<(), Status> {
    let there = writer.registry.read(kind, NAMESPACE, NAME).await?;
    if let Some(there) = there.filter(|there| there.present("addressType") != wanted.present("addressType")) {
        // It never changes.
        writer.discard_seen(kind, &there).await?;
    }
    writer.ensure(kind, wanted.clone()).await?;
    let change = |old: &Value| {
        let mut new = old.clone();
        for field in ["endpoints", "ports"] {
            set_at(&mut new, field, wanted.at(field).clone());
        }
        set_at(&mut new, "metadata.labels", wanted.present("metadata.labels").cloned().unwrap_or_default());
        object::set_resource_version(&mut new, "");
        Ok(new)
    };
    writer.amend(kind, NAMESPACE, NAME, "", &change).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> Value {
        json!({"name": "https", "port": number, "protocol": "TCP"})
    }

    fn subset(ips: &[&str], number: u16) -> Value {
        let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"addresses": list, "ports": [port(number)]})
    }

    fn texts(ips: &[&str]) -> Vec<String> {
        ips.iter().map(|ip| (*ip).to_owned()).collect()
    }

    #[test]
    fn what_says_the_same_must_not_be_written_anew() {
        let there = [subset(&["10.0.0.2", "10.0.0.1"], 6443)];
        let wanted = texts(&["10.0.0.1", "10.0.0.2"]);
        assert_eq!(subsets(&there, &wanted, &port(6443), Ports::Ours), there);
        // Another server's ports stay while this one runs, and go when it starts.
        assert_eq!(subsets(&there, &wanted, &port(443), Ports::AsTheyAre), there);
        assert_eq!(
            subsets(&there, &wanted, &port(443), Ports::Ours),
            [subset(&["10.0.0.1", "10.0.0.2"], 443)]
        );
    }

    #[test]
    fn a_server_without_a_lease_is_not_listed() {
        let there = [subset(&["10.0.0.1", "10.0.0.2"], 6443)];
        let left = subsets(&there, &texts(&["10.0.0.2"]), &port(6443), Ports::AsTheyAre);
        assert_eq!(left, [subset(&["10.0.0.2"], 6443)]);
        assert!(subsets(&there, &[], &port(6443), Ports::Ours).is_empty());
        let twice = [there[0].clone(), there[0].clone()];
        assert_eq!(
            subsets(&twice, &texts(&["10.0.0.1"]), &port(443), Ports::AsTheyAre),
            [subset(&["10.0.0.1"], 443)]
        );
    }

    #[test]
    fn as_many_servers_are_listed_as_are_counted_ours_among_them() {
        let listed = texts(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(counted(listed.clone(), "10.0.0.2", 3), listed);
        assert_eq!(counted(listed.clone(), "10.0.0.2", 2), texts(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(counted(listed.clone(), "10.0.0.3", 2), texts(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(counted(listed.clone(), "10.0.0.4", 1), texts(&["10.0.0.4"]));
        assert_eq!(without(listed, "10.0.0.2"), texts(&["10.0.0.1", "10.0.0.3"]));
    }

    #[test]
    fn the_slice_has_one_family() {
        let mixed = slice(&[subset(&["10.0.0.1", "fd00::1"], 6443)]);
        assert_eq!(
            (&mixed["addressType"], mixed["endpoints"].as_array().unwrap().len()),
            (&json!("IPv4"), 1)
        );
        assert_eq!(slice(&[subset(&["fd00::1"], 6443)])["addressType"], "IPv6");
        assert_eq!(slice(&[])["endpoints"], json!([]));
    }
}
