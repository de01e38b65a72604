//! What a Service is given by the server: IP families, cluster addresses, node ports.
//!
//! A [`Grant`] takes what a Service needs before it is written and gives everything back when it is dropped without
//! [`Grant::keep`]; what an update no longer needs is given back by `keep`. The owner of a number is the Service's uid,
//! so a Service that is deleted and made again under its name cannot lose what it has just been granted.
//! Upstream: `pkg/registry/core/service/storage/alloc.go`.

use super::Writer;
use super::allocator::{Addresses, Denied, Ports};
use crate::registry::kind::Kind;
use machinery::access::{Get as _, list_at, object_at, set_at};
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::Gk;
use machinery::status::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// All numbers given to Services.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// By family, the cluster's primary one first.
    addresses: Vec<Addresses>,
    ports: Ports,
}

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    ips: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

// === impl Numbers ===

impl Numbers {
    pub(crate) fn new(nets: &[ipnet::IpNet], ports: (u16, u16)) -> Self {
        Numbers {
            addresses: nets.iter().map(|n| Addresses::new(*n)).collect(),
            ports: Ports::new(ports.0, ports.1),
        }
    }

    fn families(&self) -> Vec<&'static str> {
        self.addresses.iter().map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" }).collect()
    }

    /// Sets the service ranges besides the configured ones.
    fn set_more(&mut self, more: &[ipnet::IpNet]) {
        self.addresses.iter_mut().for_each(|addresses| addresses.set_more(more));
    }

    fn of_family(&mut self, family: &str) -> Option<&mut Addresses> {
        self.addresses.iter_mut().find(|a| a.is_ipv4() == (family == "IPv4"))
    }

    fn release(&mut self, held: &Held, owner: &str) {
        for ip in &held.ips {
            if let Some(addresses) = self.of_family(family(*ip)) {
                addresses.release(*ip, owner);
            }
        }
        for port in &held.ports {
            self.ports.release(*port, owner);
        }
    }

    /// Takes what a stored Service holds; what somebody else holds already is left to them and reported.
    pub(crate) fn adopt(&mut self, service: &Value) {
        let owner = object::uid(service);
        let held = held(service);
        let name = format!("{}/{}", object::namespace(service), object::name(service));
        for ip in &held.ips {
            if let Some(addresses) = self.of_family(family(*ip))
                && let Err(denied) = addresses.adopt(*ip, owner)
            {
                tracing::warn!(service = name, %ip, %denied, "a stored cluster IP cannot be taken");
            }
        }
        for port in &held.ports {
            if let Err(denied) = self.ports.take(*port, owner) {
                tracing::warn!(service = name, port, %denied, "a stored node port cannot be taken");
            }
        }
    }

    /// Compares what is taken with what stored Services hold: takes what is missing, and gives back what no stored Service
    /// has held in two audits running (in between, a Service may be under way to the store). Gives the new suspects.
    pub(crate) fn audit(&mut self, stored: &[Value], suspects: &BTreeSet<String>) -> BTreeSet<String> {
        let live: BTreeSet<&str> = stored.iter().map(object::uid).collect();
        stored.iter().for_each(|s| self.adopt(s));
        let mut found = BTreeSet::new();
        for owner in self.addresses.iter().flat_map(Addresses::owners).chain(self.ports.owners()) {
            if !live.contains(owner) {
                found.insert(owner.to_owned());
            }
        }
        for leaked in found.intersection(suspects) {
            tracing::warn!(owner = %leaked, "giving back numbers no stored Service holds");
            self.addresses.iter_mut().for_each(|a| a.release_all(leaked));
            self.ports.release_all(leaked);
        }
        found.difference(suspects).cloned().collect()
    }
}

// === impl Grant ===

/// Numbers taken for a Service that is about to be written.
pub(crate) struct Grant<'r> {
    writer: &'r Writer,
    owner: String,
    taken: Held,
    /// What the stored state no longer needs once this write is done.
    superseded: Held,
    kept: bool,
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        if !self.kept && self.taken != Held::default() {
            self.writer.numbers.lock().release(&self.taken, &self.owner);
        }
    }
}

impl<'r> Grant<'r> {
    fn empty(writer: &'r Writer) -> Self {
        Grant {
            writer,
            owner: String::new(),
            taken: Held::default(),
            superseded: Held::default(),
            kept: false,
        }
    }

    /// The write is done: the Service keeps what it was granted.
    pub(crate) fn keep(mut self) {
        self.kept = true;
        if self.superseded != Held::default() {
            self.writer.numbers.lock().release(&self.superseded, &self.owner);
        }
    }

    /// Grants a new Service what it needs; anything but a Service needs nothing.
    pub(crate) fn for_create(writer: &'r Writer, kind: &Kind, object: &mut Value) -> Result<Self, Status> {
        if !kind.is("", "services") {
            return Ok(Self::empty(writer));
        }
        Self::settle(writer, object, None)
    }

    /// Grants a changed Service what it needs beyond what it has.
    pub(crate) fn for_update(
        writer: &'r Writer,
        kind: &Kind,
        new: &mut Value,
        old: &Value,
    ) -> Result<Self, Status> {
        if !kind.is("", "services") || new.get("spec") == old.get("spec") {
            return Ok(Self::empty(writer));
        }
        Self::settle(writer, new, Some(old))
    }

    fn settle(writer: &'r Writer, service: &mut Value, old: Option<&Value>) -> Result<Self, Status> {
        let mut grant = Self::empty(writer);
        grant.owner = object::uid(service).to_owned();
        let before = old.map(held).unwrap_or_default();
        let more = ready_ranges(&writer.service_ranges()?);
        {
            let mut numbers = writer.numbers.lock();
            numbers.set_more(&more);
            settle_families(&numbers.families(), service, old)?;
            grant.addresses(&mut numbers, service, &before)?;
            grant.ports(&mut numbers, service, &before)?;
        }
        let after = held(service);
        grant.superseded = Held {
            ips: before.ips.difference(&after.ips).copied().collect(),
            ports: before.ports.difference(&after.ports).copied().collect(),
        };
        Ok(grant)
    }

    fn addresses(&mut self, numbers: &mut Numbers, service: &mut Value, before: &Held) -> Result<(), Status> {
        if service_type(service) == "ExternalName" {
            for field in ["clusterIP", "clusterIPs"] {
                // Validation refuses an address the client asked for; one the old type had goes.
                if service.at("spec").items(field).iter().all(|ip| {
                    ip.as_str().and_then(|ip| ip.parse().ok()).is_some_and(|ip| before.ips.contains(&ip))
                }) {
                    object_at(service, "spec").remove(field);
                }
            }
            return Ok(());
        }
        if is_headless(service) {
            set_at(service, "spec.clusterIP", "None");
            set_at(service, "spec.clusterIPs", json!(["None"]));
            return Ok(());
        }
        let name = object::name(service).to_owned();
        let asked: Vec<String> =
            service.items("spec.clusterIPs").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        let families: Vec<String> =
            service.items("spec.ipFamilies").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        let mut granted = Vec::new();
        for (i, wanted) in families.iter().enumerate() {
            let Some(addresses) = numbers.of_family(wanted) else { continue };
            let ip = match asked.get(i).filter(|ip| !ip.is_empty()) {
                Some(text) => {
                    let refuse = |why: String| {
                        let value = json!(asked);
                        invalid(&name, FieldError::invalid(&spec("clusterIPs"), value, why))
                    };
                    let ip: IpAddr =
                        text.parse().map_err(|_| refuse("must be a valid IP address".to_owned()))?;
                    if !before.ips.contains(&ip) {
                        addresses
                            .take(ip, &self.owner)
                            .map_err(|denied| refuse(format!("failed to allocate IP {ip}: {denied}")))?;
                        self.taken.ips.insert(ip);
                    }
                    text.clone()
                }
                None => {
                    let ip = addresses
                        .take_any(&self.owner, u128::from(self.writer.registry.random()))
                        .map_err(|denied| {
                            Status::internal_error(format!("failed to allocate a serviceIP: {denied}"))
                        })?;
                    self.taken.ips.insert(ip);
                    ip.to_string()
                }
            };
            granted.push(ip);
        }
        if let Some(first) = granted.first() {
            set_at(service, "spec.clusterIP", first.clone());
            set_at(service, "spec.clusterIPs", json!(granted));
        }
        Ok(())
    }

    fn ports(&mut self, numbers: &mut Numbers, service: &mut Value, before: &Held) -> Result<(), Status> {
        let kind = service_type(service).to_owned();
        let allocates = kind == "NodePort"
            || (kind == "LoadBalancer"
                && service.present("spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)));
        if kind != "NodePort" && kind != "LoadBalancer" {
            return Ok(());
        }
        let name = object::name(service).to_owned();
        // Asked for by number first: what is chosen freely must not take them.
        let count = service.items("spec.ports").len();
        for i in 0..count {
            let Some(port) = port_number(service.items("spec.ports").get(i).and_then(|p| p.get("nodePort")))
            else {
                continue;
            };
            if before.ports.contains(&port) {
                continue;
            }
            numbers.ports.take(port, &self.owner).map_err(|denied| {
                let path = spec("ports").index(i).child("nodePort");
                invalid(&name, FieldError::invalid(&path, port, denied.to_string()))
            })?;
            self.taken.ports.insert(port);
        }
        if allocates {
            // The same port over several protocols shares a node port where it is chosen freely.
            let mut chosen: BTreeMap<u64, (u16, Vec<String>)> = BTreeMap::new();
            for i in 0..count {
                let Some(port) = service.items("spec.ports").get(i) else { continue };
                let number = port.get("port").and_then(Value::as_u64).unwrap_or_default();
                let protocol = port.text("protocol").to_owned();
                if let Some(fixed) = port_number(port.get("nodePort")) {
                    chosen.entry(number).or_insert((fixed, Vec::new())).1.push(protocol);
                    continue;
                }
                let node_port = match chosen.get_mut(&number) {
                    Some((shared, protocols)) if !protocols.contains(&protocol) => {
                        protocols.push(protocol);
                        *shared
                    }
                    _ => {
                        let fresh = numbers
                            .ports
                            .take_any(&self.owner, u128::from(self.writer.registry.random()))
                            .map_err(|denied: Denied| {
                                Status::internal_error(format!("failed to allocate a nodePort: {denied}"))
                            })?;
                        self.taken.ports.insert(fresh);
                        chosen.insert(number, (fresh, vec![protocol]));
                        fresh
                    }
                };
                if let Some(Value::Object(port)) = list_at(service, "spec.ports").get_mut(i) {
                    port.insert("nodePort".to_owned(), node_port.into());
                }
            }
        }
        self.health_check_port(numbers, service, before)
    }

    fn health_check_port(
        &mut self,
        numbers: &mut Numbers,
        service: &mut Value,
        before: &Held,
    ) -> Result<(), Status> {
        let needs =
            service_type(service) == "LoadBalancer" && service.text("spec.externalTrafficPolicy") == "Local";
        if !needs {
            return Ok(());
        }
        match port_number(service.present("spec.healthCheckNodePort")) {
            Some(port) if before.ports.contains(&port) => Ok(()),
            Some(port) => {
                numbers.ports.take(port, &self.owner).map_err(|denied| {
                    Status::internal_error(format!(
                        "failed to allocate requested HealthCheck NodePort {port}: {denied}"
                    ))
                })?;
                self.taken.ports.insert(port);
                Ok(())
            }
            None => {
                let port = numbers
                    .ports
                    .take_any(&self.owner, u128::from(self.writer.registry.random()))
                    .map_err(|denied| {
                        Status::internal_error(format!(
                            "failed to allocate a HealthCheck NodePort : {denied}"
                        ))
                    })?;
                self.taken.ports.insert(port);
                set_at(service, "spec.healthCheckNodePort", port);
                Ok(())
            }
        }
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy` for a cluster with these families.
fn settle_families(cluster: &[&'static str], service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if service_type(service) == "ExternalName" {
        return Ok(());
    }
    let name = object::name(service).to_owned();
    let other = |family: &str| if family == "IPv4" { "IPv6" } else { "IPv4" };
    let mut families: Vec<String> =
        service.items("spec.ipFamilies").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let mut policy = service.text("spec.ipFamilyPolicy").to_owned();
    // From dual stack to single: the client changes the policy alone, and the second family goes.
    let was_dual = old.is_some_and(|o| o.items("spec.ipFamilies").len() == 2);
    if policy == "SingleStack" && was_dual && families.len() == 2 {
        families.truncate(1);
        list_at(service, "spec.clusterIPs").truncate(1);
    }
    for (i, ip) in service.items("spec.clusterIPs").iter().enumerate() {
        if let Some(ip) = ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok())
            && i == families.len()
        {
            families.push(family(ip).to_owned());
        }
    }
    if policy.is_empty() && families.len() == 2 {
        policy = "RequireDualStack".to_owned();
    }
    let default = cluster.first().copied().unwrap_or("IPv4");
    let selectorless =
        service.present("spec.selector").and_then(Value::as_object).is_none_or(|s| s.is_empty());
    if is_headless(service) && selectorless {
        // Nothing is allocated and the endpoints are somebody else's: both families are possible anywhere.
        if policy.is_empty() {
            policy = "RequireDualStack".to_owned();
        }
        if families.is_empty() {
            families.push(default.to_owned());
        }
        if let [one] = families.as_slice()
            && policy != "SingleStack"
        {
            families.push(other(one).to_owned());
        }
    } else {
        if policy.is_empty() {
            policy = "SingleStack".to_owned();
        }
        let path = spec("ipFamilyPolicy");
        if policy == "SingleStack" && families.len() == 2 {
            return Err(invalid(
                &name,
                FieldError::invalid(
                    &path,
                    "SingleStack",
                    "must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified",
                ),
            ));
        }
        if policy == "RequireDualStack" && cluster.len() < 2 {
            return Err(invalid(
                &name,
                FieldError::invalid(
                    &path,
                    "RequireDualStack",
                    "this cluster is not configured for dual-stack services",
                ),
            ));
        }
        for (i, family) in families.iter().enumerate() {
            if !cluster.contains(&family.as_str()) {
                return Err(invalid(
                    &name,
                    FieldError::invalid(
                        &spec("ipFamilies").index(i),
                        family.clone(),
                        "not configured on this cluster",
                    ),
                ));
            }
        }
        if families.is_empty() {
            families.push(default.to_owned());
        }
        if let [one] = families.as_slice()
            && policy != "SingleStack"
            && cluster.len() > 1
        {
            families.push(other(one).to_owned());
        }
    }
    set_at(service, "spec.ipFamilies", json!(families));
    set_at(service, "spec.ipFamilyPolicy", policy);
    Ok(())
}

impl Writer {
    /// The stored ServiceCIDRs.
    fn service_ranges(&self) -> Result<Vec<Value>, Status> {
        Kind::of("networking.k8s.io", "servicecidrs")
            .map_or(Ok(Vec::new()), |kind| self.registry.cached(&kind, ""))
    }
}

/// The ranges that addresses may be given from: of ServiceCIDRs that are ready and stay.
fn ready_ranges(stored: &[Value]) -> Vec<ipnet::IpNet> {
    let ready = |range: &&Value| {
        let conditions = range.items("status.conditions");
        range.present("metadata.deletionTimestamp").is_none()
            && conditions.iter().any(|c| c.text("type") == "Ready" && c.text("status") == "True")
    };
    let cidrs = stored.iter().filter(ready).flat_map(|range| range.items("spec.cidrs"));
    cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect()
}

/// Gives back what a removed Service held.
pub(crate) fn release(writer: &Writer, kind: &Kind, object: &Value) {
    if kind.is("", "services") {
        writer.numbers.lock().release(&held(object), object::uid(object));
    }
}

fn held(service: &Value) -> Held {
    let mut held = Held::default();
    if service_type(service) != "ExternalName" {
        held.ips = service.items("spec.clusterIPs").iter().filter_map(|v| v.as_str()?.parse().ok()).collect();
    }
    held.ports = service.items("spec.ports").iter().filter_map(|p| port_number(p.get("nodePort"))).collect();
    held.ports.extend(port_number(service.present("spec.healthCheckNodePort")));
    held
}

fn service_type(service: &Value) -> &str {
    match service.text("spec.type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn is_headless(service: &Value) -> bool {
    service.text("spec.clusterIP") == "None"
        || service.items("spec.clusterIPs").first().and_then(Value::as_str) == Some("None")
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
}

fn spec(field: &str) -> Path {
    Path::new("spec").child(field)
}

fn invalid(name: &str, error: FieldError) -> Status {
    Status::invalid(&Gk::new("", "Service"), name, &[error])
}
