//! The few fields of Service and EndpointSlice that have names.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use std::net::IpAddr;

/// A named port: `_http._tcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Port name; ports without one have no SRV record.
    pub name: String,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Port number, as SRV gives it.
    pub number: u16,
}

/// What a service's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// `spec.clusterIPs` and ports.
    Cluster(Vec<IpAddr>, Vec<Port>),
    /// No cluster IP: its endpoints' addresses.
    Headless,
    /// `spec.externalName`, answered by CNAME.
    External(String),
}

/// An endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 or IPv6.
    pub address: IpAddr,
    /// `hostname`, or the address with dashes.
    pub host: String,
    /// Whether `host` was given by the pod.
    pub named: bool,
    /// Ports of its slice.
    pub ports: Vec<Port>,
}

/// An endpoint slice: the name of its service and its ready endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// `metadata.name` of the Service.
    pub service: String,
    /// Ready ones (all of them where the service publishes not-ready addresses: the slice says ready then).
    pub endpoints: Vec<Endpoint>,
}

/// Reads a service; `None` when nothing can be said of it yet.
#[must_use]
pub(crate) fn read_service(service: &core::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        // an address is no name that could be another's alias
        let name = spec.external_name.clone().filter(|name| name.parse::<IpAddr>().is_err());
        return name.map(Service::External);
    }
    match spec.cluster_ip.as_deref() {
        Some("None") => return Some(Service::Headless),
        None | Some("") => return None,
        Some(_) => {}
    }
    let mut addresses: Vec<IpAddr> =
        spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    let ports =
        spec.ports.iter().flatten().filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port));
    Some(Service::Cluster(addresses, ports.collect()))
}

/// Reads a slice; `None` when it names no service or holds host names.
#[must_use]
pub(crate) fn read_slice(slice: &discovery::EndpointSlice) -> Option<Slice> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    if slice.address_type == "FQDN" {
        return None;
    }
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port?))
        .collect();
    let ready = |e: &&discovery::Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten().filter(ready).flat_map(|e| {
        let addresses = e.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
        addresses.map(|address| Endpoint {
            address,
            host: e.hostname.clone().unwrap_or_else(|| dashed(address)),
            named: e.hostname.is_some(),
            ports: ports.clone(),
        })
    });
    Some(Slice { service, endpoints: endpoints.collect() })
}

/// `10.1.2.3` as `10-1-2-3`, the name an address has as a label.
#[must_use]
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
    Some(Port { name: name.unwrap_or_default().to_owned(), protocol, number: u16::try_from(number).ok()? })
}
