//! What a Service asks for and has. Pure.

use super::allocate::{Holder, Unavailable, Wish};
use super::ledger::Entry;
use crate::informer::key_of;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use kube::ResourceExt;
use machinery::load_balancer::{ADDRESSES, ANNOUNCED, FINALIZER, MODE, NODES, POOL, SHARING, is_ours};
use std::net::IpAddr;

fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    service.annotations().get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// What is done about the addresses in its status, if they are ours.
pub(super) fn mode(service: &Service) -> Option<&'static str> {
    match annotation(service, MODE) {
        Some(ANNOUNCED) => Some(ANNOUNCED),
        Some(NODES) => Some(NODES),
        _ => None,
    }
}

pub(super) fn is_balanced(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

pub(super) fn of_our_class(service: &Service) -> bool {
    is_ours(service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref()))
}

/// Whether it should have addresses of ours.
pub(super) fn is_wanted(service: &Service) -> bool {
    is_balanced(service) && of_our_class(service) && service.metadata.deletion_timestamp.is_none()
}

pub(super) fn has_finalizer(service: &Service) -> bool {
    service.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// `externalTrafficPolicy: Local`
pub(super) fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

/// The points its status tells of.
pub(super) fn points(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// The addresses its status tells of.
pub(super) fn addresses(service: &Service) -> Vec<IpAddr> {
    points(service).iter().filter_map(|point| point.ip.as_deref()?.parse().ok()).collect()
}

/// `metadata.resourceVersion` as the number it is.
pub(super) fn version(service: &Service) -> u64 {
    service.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

pub(super) fn holder(service: &Service) -> Holder {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    Holder {
        key: key_of(service),
        created: service.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        sharing: annotation(service, SHARING).filter(|_| of_our_class(service)).map(str::to_owned),
        ports: ports.map(|p| (p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), p.port)).collect(),
        local: is_local(service),
    }
}

/// What the ledger keeps of it: addresses that are nodes' are nobody's, those of other providers are theirs.
pub(super) fn entry(service: &Service) -> Entry {
    let addresses = if mode(service) == Some(NODES) { Vec::new() } else { addresses(service) };
    Entry { holder: holder(service), version: version(service), addresses }
}

/// What it asks for.
///
/// # Errors
/// What it asks for is no address.
pub(super) fn wish(service: &Service) -> Result<Wish, Unavailable> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut families: Vec<bool> = listed.iter().map(|family| family == "IPv6").collect();
    if families.is_empty() {
        families.push(false);
    }
    let texts = annotation(service, ADDRESSES)
        .or_else(|| spec.and_then(|spec| spec.load_balancer_ip.as_deref()).filter(|text| !text.is_empty()));
    let texts = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    let parse = |text: &str| text.parse().map_err(|_| Unavailable::NoAddress(text.to_owned()));
    let addresses: Vec<IpAddr> = texts.map(parse).collect::<Result<_, _>>()?;
    let foreign = addresses.iter().find(|address| !families.contains(&address.is_ipv6()));
    if let Some(address) = foreign {
        return Err(Unavailable::Family(*address));
    }
    Ok(Wish {
        families,
        any_family: spec.and_then(|spec| spec.ip_family_policy.as_deref()) == Some("PreferDualStack"),
        addresses,
        pool: annotation(service, POOL).map(str::to_owned),
    })
}
