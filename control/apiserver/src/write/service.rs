//! What a Service is given by the server: IP families, cluster addresses, node ports.
//!
//! Several servers give from the same ranges, so nothing counts but what is in the store: an address is claimed by making its IPAddress
//! (`addresses`), a port in the allocation that all share (`ports`), both before the Service is written. What a Service needs is decided by
//! pure functions (`families`, `needs`, on `subnet` and `allocation`).
//!
//! A [`Grant`] holds the claims of one write. Until the write begins, claims go back when it fails or its request ends; once it is done, what
//! it superseded goes back. Between the two nobody but the store knows what the Service has: a claim whose write's outcome is not known
//! stays, and so does everything a killed server held, until the repair (`upkeep::repair`) finds it. The repair lets a claim live for
//! [`GRACE`] after it saw it first; a write that might not be over by then does not begin. So a number may be lost for a while, but is never
//! given twice.
//! Upstream: `pkg/registry/core/service/storage/alloc.go`.

mod addresses;
pub(crate) mod allocation;
mod denied;
mod families;
mod grant;
pub(crate) mod ip_address;
mod leftovers;
mod needs;
pub(crate) mod ports;
pub(crate) mod subnet;

pub(crate) use grant::{Grant, remove};
pub(crate) use leftovers::Leftovers;

use machinery::access::Get as _;
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::Gk;
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long a claim lives without its Service (upstream: a request's longest time).
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ips: BTreeSet<IpAddr>,
    pub(crate) ports: BTreeSet<u16>,
}

/// Namespace and name.
fn names(service: &Value) -> (String, String) {
    (object::namespace(service).to_owned(), object::name(service).to_owned())
}

/// What a Service holds.
pub(crate) fn held(service: &Value) -> Held {
    let mut held = Held::default();
    if service_type(service) != "ExternalName" {
        held.ips = service.items("spec.clusterIPs").iter().filter_map(|v| v.as_str()?.parse().ok()).collect();
    }
    held.ports = ports_of(service).iter().filter_map(|port| port.node_port).collect();
    held.ports.extend(port_number(service.present("spec.healthCheckNodePort")));
    held
}

/// One of a Service's ports.
pub(crate) struct Port<'a> {
    pub(crate) number: u64,
    pub(crate) protocol: &'a str,
    pub(crate) node_port: Option<u16>,
}

/// A Service's ports.
pub(crate) fn ports_of(service: &Value) -> Vec<Port<'_>> {
    service.items("spec.ports").iter().map(Port::of).collect()
}

impl<'a> Port<'a> {
    fn of(port: &'a Value) -> Self {
        Self {
            number: port.present("port").and_then(Value::as_u64).unwrap_or_default(),
            protocol: port.text("protocol"),
            node_port: port_number(port.present("nodePort")),
        }
    }
}

fn service_type(service: &Value) -> &str {
    match service.text("spec.type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

/// Whether a Service has no address of its own.
pub(crate) fn is_headless(service: &Value) -> bool {
    service.text("spec.clusterIP") == "None"
        || service.items("spec.clusterIPs").first().and_then(Value::as_str) == Some("None")
}

/// A node port; 0 is none.
pub(crate) fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
}

fn spec(field: &str) -> Path {
    Path::new("spec").child(field)
}

fn invalid(name: &str, error: FieldError) -> Status {
    Status::invalid(&Gk::new("", "Service"), name, &[error])
}
