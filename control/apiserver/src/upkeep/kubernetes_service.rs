//! The `kubernetes` Service in `default`: how pods reach this server.
//!
//! Woken at the start and every ten seconds. Reads the Service and its endpoints; writes the Service if it is missing, and
//! this server's address into the Endpoints and EndpointSlice named `kubernetes`. Promises that while a server runs its
//! address is listed, that it leaves other servers' addresses alone, and that a server that stops in order is
//! no longer listed afterwards. The Service takes the first address of the primary range. Upstream:
//! `pkg/controlplane/controller/kubernetesservice`.

use crate::registry::kind::Kind;
use crate::write::Writer;
use machinery::access::{Get as _, set_at};
use machinery::status::Status;
use serde_json::{Value, json};
use std::net::IpAddr;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// Brings Service and endpoints to what they should be.
pub(super) async fn reconcile(writer: &Writer) -> Result<(), Status> {
    let Some((services, ..)) = kinds() else { return Ok(()) };
    writer.ensure(&services, service(writer)).await?;
    endpoints(writer, true).await
}

/// Takes this server's address out of the endpoints.
pub(super) async fn withdraw(writer: &Writer) -> Result<(), Status> {
    endpoints(writer, false).await
}

fn kinds() -> Option<(Kind, Kind, Kind)> {
    Some((
        Kind::of("", "services")?,
        Kind::of("", "endpoints")?,
        Kind::of("discovery.k8s.io", "endpointslices")?,
    ))
}

fn service(writer: &Writer) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"provider": "kubernetes", "component": "apiserver"},
        },
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": writer.registry.config.secure_port}],
        },
    });
    if let Some(ip) = service_ip(writer) {
        set_at(&mut service, "spec.clusterIP", ip.to_string());
        set_at(&mut service, "spec.clusterIPs", json!([ip.to_string()]));
    }
    service
}

/// The first address of the primary range.
fn service_ip(writer: &Writer) -> Option<IpAddr> {
    writer.registry.config.service_cidrs.first().and_then(|n| n.hosts().next())
}

async fn endpoints(writer: &Writer, listed: bool) -> Result<(), Status> {
    let (Some((_, endpoints, slices)), Some(ip)) = (kinds(), writer.registry.config.advertise_address) else {
        return Ok(());
    };
    let ours = ip.to_string();
    let port = json!({"name": "https", "port": writer.registry.config.secure_port, "protocol": "TCP"});
    let legacy = json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            // We write the slice ourselves.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
    });
    writer.ensure(&endpoints, legacy).await?;
    let change = |old: &Value| {
        let present = old.items("subsets").iter().flat_map(|s| s.items("addresses"));
        let all = addresses(present.map(|a| a.text("ip")), &ours, listed);
        let mut new = old.clone();
        let list: Vec<Value> = all.iter().map(|ip| json!({"ip": ip})).collect();
        let subsets = if list.is_empty() { json!([]) } else { json!([{"addresses": list, "ports": [port]}]) };
        set_at(&mut new, "subsets", subsets);
        machinery::object::set_resource_version(&mut new, "");
        Ok(new)
    };
    writer.amend(&endpoints, NAMESPACE, NAME, "", &change).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [],
        "ports": [port],
    });
    writer.ensure(&slices, slice).await?;
    let change = |old: &Value| {
        let present = old.items("endpoints").iter().flat_map(|e| e.items("addresses"));
        let all = addresses(present.filter_map(Value::as_str), &ours, listed);
        let mut new = old.clone();
        let list: Vec<Value> =
            all.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        set_at(&mut new, "endpoints", list);
        set_at(&mut new, "ports", json!([port]));
        machinery::object::set_resource_version(&mut new, "");
        Ok(new)
    };
    writer.amend(&slices, NAMESPACE, NAME, "", &change).await?;
    Ok(())
}

/// The sorted addresses with `ours` among them, or not.
fn addresses<'a>(present: impl Iterator<Item = &'a str>, ours: &str, listed: bool) -> Vec<String> {
    let mut all: Vec<String> = present.filter(|ip| *ip != ours).map(str::to_owned).collect();
    if listed {
        all.push(ours.to_owned());
    }
    all.sort();
    all
}
