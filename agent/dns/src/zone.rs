//! Every name of the cluster domain, and what a question about it finds. Pure.
//!
//! Names are given as labels, lower case, without the cluster domain: `web.default.svc` is `["web", "default", "svc"]`.

use crate::record::{Endpoint, Port, Service, Slice, dashed};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    Cname,
    Ns,
    Txt,
    /// Anything else: a name that exists has none of it.
    Other,
}

/// What a record says. Names are below the cluster domain, unless absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// An address of the name asked for.
    Address(IpAddr),
    /// A port at a host, whose addresses follow as additional records.
    Port {
        number: u16,
        /// The host, below the cluster domain.
        host: String,
        addresses: Vec<IpAddr>,
    },
    /// The name is another's alias (absolute).
    Alias(String),
    /// A name server of the zone, whose addresses follow as additional records.
    Server {
        /// The host, below the cluster domain.
        host: String,
        addresses: Vec<IpAddr>,
    },
    Text(String),
}

/// Names of the cluster domain, from Services and EndpointSlices.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    namespaces: HashMap<String, Namespace>,
    /// The namespaces there are, whether anything in them has a name or not.
    existing: HashSet<String>,
    /// `existing` is complete.
    listed: bool,
    /// Addresses that answer for the zone.
    servers: Vec<IpAddr>,
    /// Services of a cluster IP, for reverse questions: names below the domain.
    clusters: HashMap<IpAddr, Vec<String>>,
    /// Endpoints at an address, likewise.
    owners: HashMap<IpAddr, Vec<Owner>>,
}

/// An endpoint as the owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Its host name; without one it is called by its address.
    host: Option<Box<str>>,
    /// `web.default.svc`
    service: Arc<str>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    services: HashMap<String, Service>,
    slices: HashMap<String, BTreeMap<String, Slice>>,
    /// The service each slice is of: a list of slices costs time in proportion to its length.
    slice_of: HashMap<String, String>,
}

/// The version of the specification, answered at `dns-version`.
const SPECIFICATION: &str = "1.1.0";

/// The name server of a zone that no service answers for, as in its SOA record.
pub(crate) const SERVER: &str = "ns.dns";

impl Zone {
    /// Says which addresses answer for the zone.
    pub fn set_servers(&mut self, addresses: &[IpAddr]) {
        self.servers = addresses.to_vec();
    }

    /// Says whether there is such a namespace.
    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        if exists {
            self.existing.insert(name.to_owned());
        } else {
            self.existing.remove(name);
        }
    }

    /// Says that every namespace is known. Before (and where nobody may list them) any may exist.
    pub fn know_namespaces(&mut self) {
        self.listed = true;
    }

    /// Whether there is such a namespace; what has names in it may be seen before it is.
    fn exists(&self, namespace: &str) -> bool {
        self.existing.contains(namespace) || self.namespaces.contains_key(namespace)
    }

    /// Sets or removes a service.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Service>) {
        let space = self.namespaces.entry(namespace.to_owned()).or_default();
        let old = match service.clone() {
            Some(service) => space.services.insert(name.to_owned(), service),
            None => space.services.remove(name),
        };
        let host = format!("{name}.{namespace}.svc");
        for (service, add) in [(old, false), (service, true)] {
            if let Some(Service::Cluster(addresses, _)) = service {
                addresses.into_iter().for_each(|a| index(&mut self.clusters, a, host.clone(), add));
            }
        }
        self.forget_empty(namespace);
    }

    /// Sets or removes a slice by its own name.
    pub fn set_slice(&mut self, namespace: &str, name: &str, slice: Option<Slice>) {
        let space = self.namespaces.entry(namespace.to_owned()).or_default();
        let mut removed = None;
        if let Some(before) = space.slice_of.remove(name)
            && let Some(slices) = space.slices.get_mut(&before)
        {
            removed = slices.remove(name);
            if slices.is_empty() {
                space.slices.remove(&before);
            }
        }
        if let Some(slice) = &slice {
            space.slice_of.insert(name.to_owned(), slice.service.clone());
            space.slices.entry(slice.service.clone()).or_default().insert(name.to_owned(), slice.clone());
        }
        for (slice, add) in removed.into_iter().map(|s| (s, false)).chain(slice.map(|s| (s, true))) {
            let service: Arc<str> = format!("{}.{namespace}.svc", slice.service).into();
            for endpoint in slice.endpoints {
                let host = endpoint.named.then(|| endpoint.host.into());
                let owner = Owner { host, service: service.clone() };
                index(&mut self.owners, endpoint.address, owner, add);
            }
        }
        self.forget_empty(namespace);
    }

    fn forget_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(|n| n.services.is_empty() && n.slices.is_empty()) {
            self.namespaces.remove(namespace);
        }
    }

    /// The names an address has: a cluster IP its service's, else one for each service it is an endpoint of.
    #[must_use]
    pub fn reverse(&self, address: IpAddr) -> Vec<String> {
        if let Some(services) = self.clusters.get(&address) {
            return services.clone();
        }
        let owners = self.owners.get(&address).into_iter().flatten();
        let mut names: Vec<String> = owners
            .map(|Owner { host, service }| match host {
                Some(host) => format!("{host}.{service}"),
                None => format!("{}.{service}", dashed(address)),
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is found under a name; `None` when there is no such name.
    #[must_use]
    pub fn lookup(&self, name: &[&str], kind: Kind) -> Option<Vec<RecordData>> {
        match *name {
            [] if kind == Kind::Ns => Some(self.name_servers()),
            [] | ["svc"] => Some(Vec::new()),
            ["ns", "dns"] => Some(addresses(self.servers.clone(), kind)),
            ["dns-version"] => Some(if kind == Kind::Txt {
                vec![RecordData::Text(SPECIFICATION.into())]
            } else {
                Vec::new()
            }),
            [namespace, "svc"] => self.exists(namespace).then(Vec::new),
            ["pod"] => Some(Vec::new()),
            [namespace, "pod"] => (self.exists(namespace) || !self.listed).then(Vec::new),
            [address, namespace, "pod"] if self.exists(namespace) || !self.listed => pod(address, kind),
            [service, namespace, "svc"] => self.service(service, namespace, kind),
            [host, service, namespace, "svc"] if !host.starts_with('_') => {
                self.host(host, service, namespace, kind)
            }
            [protocol, service, namespace, "svc"] => self.protocol(protocol, service, namespace),
            [port, protocol, service, namespace, "svc"] => {
                self.port(port, protocol, service, namespace, kind)
            }
            _ => None,
        }
    }

    /// The services at our addresses, usually `kube-dns`; without one, a name of our own.
    fn name_servers(&self) -> Vec<RecordData> {
        let mut by_host: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for address in &self.servers {
            for host in self.clusters.get(address).into_iter().flatten() {
                by_host.entry(host).or_default().push(*address);
            }
        }
        if by_host.is_empty() && !self.servers.is_empty() {
            by_host.insert(SERVER, self.servers.clone());
        }
        let server = |(host, addresses): (&str, _)| RecordData::Server { host: host.to_owned(), addresses };
        by_host.into_iter().map(server).collect()
    }

    fn find(&self, service: &str, namespace: &str) -> Option<&Service> {
        self.namespaces.get(namespace)?.services.get(service)
    }

    /// The endpoints of a headless service.
    fn endpoints<'a>(
        &'a self,
        service: &str,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        let slices = self.namespaces.get(namespace).and_then(|n| n.slices.get(service));
        slices.into_iter().flat_map(BTreeMap::values).flat_map(|s| &s.endpoints)
    }

    fn service(&self, service: &str, namespace: &str, kind: Kind) -> Option<Vec<RecordData>> {
        let found = match self.find(service, namespace)? {
            Service::External(_) if kind == Kind::Srv => return Some(Vec::new()),
            Service::External(name) => return Some(vec![RecordData::Alias(name.clone())]),
            Service::Cluster(addresses, _) => addresses.clone(),
            Service::Headless => {
                let mut addresses: Vec<IpAddr> =
                    self.endpoints(service, namespace).map(|e| e.address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                // upstream's DNS answers "no such name" for a headless service without endpoints
                if addresses.is_empty() {
                    return None;
                }
                addresses
            }
        };
        if kind == Kind::Srv {
            return Some(self.ports(service, namespace, |_| true));
        }
        Some(addresses(found, kind))
    }

    fn host(&self, host: &str, service: &str, namespace: &str, kind: Kind) -> Option<Vec<RecordData>> {
        // whatever address the service has of its own, its endpoints are called by name, too
        self.find(service, namespace).filter(|s| !matches!(s, Service::External(_)))?;
        let mut found: Vec<IpAddr> = self
            .endpoints(service, namespace)
            .filter(|e| e.host.eq_ignore_ascii_case(host))
            .map(|e| e.address)
            .collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { None } else { Some(addresses(found, kind)) }
    }

    /// `_tcp.web.default.svc` exists when the service has such a port, but holds nothing itself.
    fn protocol(&self, protocol: &str, service: &str, namespace: &str) -> Option<Vec<RecordData>> {
        let protocol = protocol.strip_prefix('_')?;
        let found = self.ports(service, namespace, |p| p.protocol == protocol);
        (!found.is_empty()).then(Vec::new)
    }

    fn port(
        &self,
        port: &str,
        protocol: &str,
        service: &str,
        namespace: &str,
        kind: Kind,
    ) -> Option<Vec<RecordData>> {
        let (port, protocol) = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
        let found = self.ports(service, namespace, |p| p.name == port && p.protocol == protocol);
        match (found.is_empty(), kind) {
            (true, _) => None,
            (false, Kind::Srv) => Some(found),
            (false, _) => Some(Vec::new()),
        }
    }

    fn ports(&self, service: &str, namespace: &str, wanted: impl Fn(&Port) -> bool) -> Vec<RecordData> {
        let host = format!("{service}.{namespace}.svc");
        match self.find(service, namespace) {
            Some(Service::Cluster(addresses, ports)) => ports
                .iter()
                .filter(|p| wanted(p))
                .map(|p| RecordData::Port {
                    number: p.number,
                    host: host.clone(),
                    addresses: addresses.clone(),
                })
                .collect(),
            Some(Service::Headless) => {
                let endpoints = self.endpoints(service, namespace);
                let all = endpoints.flat_map(|e| e.ports.iter().filter(|p| wanted(p)).map(move |p| (e, p)));
                // an endpoint of two families is in slices of both, and one host all the same
                let mut at: HashMap<(u16, &str), usize> = HashMap::new();
                let mut out: Vec<(u16, &str, Vec<IpAddr>)> = Vec::new();
                for (endpoint, port) in all {
                    let index = *at.entry((port.number, endpoint.host.as_str())).or_insert_with(|| {
                        out.push((port.number, endpoint.host.as_str(), Vec::new()));
                        out.len() - 1
                    });
                    out[index].2.push(endpoint.address);
                }
                out.into_iter()
                    .map(|(number, name, addresses)| RecordData::Port {
                        number,
                        host: format!("{name}.{host}"),
                        addresses,
                    })
                    .collect()
            }
            Some(Service::External(_)) | None => Vec::new(),
        }
    }
}

/// Adds one to what an address leads to, or takes it away.
fn index<T: PartialEq>(map: &mut HashMap<IpAddr, Vec<T>>, address: IpAddr, one: T, add: bool) {
    let all = map.entry(address).or_default();
    if add {
        all.push(one);
    } else if let Some(at) = all.iter().position(|other| *other == one) {
        all.swap_remove(at);
    }
    if all.is_empty() {
        map.remove(&address);
    }
}

fn addresses(found: Vec<IpAddr>, kind: Kind) -> Vec<RecordData> {
    let wanted = |ip: &IpAddr| match kind {
        Kind::A => ip.is_ipv4(),
        Kind::Aaaa => ip.is_ipv6(),
        _ => false,
    };
    found.into_iter().filter(wanted).map(RecordData::Address).collect()
}

/// `10-1-2-3.default.pod`: the address its name says (the mode `pods insecure` of upstream's DNS).
fn pod(label: &str, kind: Kind) -> Option<Vec<RecordData>> {
    let is_v4 = label.matches('-').count() == 3 && !label.contains("--");
    let address = label.replace('-', if is_v4 { "." } else { ":" }).parse().ok()?;
    Some(addresses(vec![address], kind))
}

#[cfg(test)]
mod tests;
