//! What a Service is given by the server: IP families, cluster addresses, node ports.
//!
//! Several servers give from the same ranges, so nothing counts but what is in the store: an address is claimed by making its IPAddress
//! (`addresses`), a port in the allocation that all share (`ports`), both before the Service is written. What a Service needs is decided by
//! pure functions (`families`, `needs`, on `subnet` and `allocation`).
//!
//! A [`Grant`] holds the claims of one write. Until the write begins, claims go back when it fails or its request ends; once it is done, what
//! it superseded goes back. Between the two nobody but the store knows what the Service has: a claim whose write's outcome is not known
//! stays, and so does everything a killed server held, until the repair (`upkeep::repair`) finds it. The repair lets a claim live for
//! [`GRACE`]; a write that comes so late does not begin. So a number may be lost for a while, but is never given twice.
//! Upstream: `pkg/registry/core/service/storage/alloc.go`.

mod addresses;
pub(crate) mod allocation;
mod denied;
mod families;
pub(crate) mod ip_address;
mod leftovers;
mod needs;
pub(crate) mod ports;
pub(crate) mod subnet;

use super::Writer;
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use addresses::Claim;
use denied::{Denied, Refused};
use futures::future::{BoxFuture, join, join_all};
use jiff::Timestamp;
pub(crate) use leftovers::Leftovers;
use machinery::access::Get as _;
use machinery::field::{FieldError, Path};
use machinery::object;
use machinery::object::Gk;
use machinery::status::Status;
use needs::Needs;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use store::Revision;
use tokio::time::Instant;

/// How long a claim lives without its Service (upstream: a request's longest time).
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// A write begins no later after its claims than this: what is left until [`GRACE`] is more than a write takes.
const BEGIN_WITHIN: Duration = Duration::from_secs(45);

/// What one Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ips: BTreeSet<IpAddr>,
    pub(crate) ports: BTreeSet<u16>,
}

/// How far the write of a grant has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not begun, or refused by the store.
    Claimed,
    /// Begun; its outcome is not known.
    Writing,
    /// Done, at this revision.
    Written(Revision),
}

/// Numbers taken for a Service that is about to be written.
pub(crate) struct Grant<'w> {
    writer: &'w Writer,
    /// Namespace and name.
    service: (String, String),
    addresses: Vec<Claim>,
    ports: Vec<u16>,
    /// What the stored state no longer needs once this write is done.
    superseded: Held,
    stage: Stage,
    since: Instant,
    /// The same by the clock that goes on while a machine sleeps.
    made: Timestamp,
}

// === impl Grant ===

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::Claimed {
            self.writer.ports.give_later(std::mem::take(&mut self.ports));
            self.writer.leftovers.add(std::mem::take(&mut self.addresses));
        }
    }
}

impl<'w> Grant<'w> {
    fn empty(writer: &'w Writer) -> Self {
        Grant {
            writer,
            service: Default::default(),
            addresses: Vec::new(),
            ports: Vec::new(),
            superseded: Held::default(),
            stage: Stage::Claimed,
            since: Instant::now(),
            made: Timestamp::now(),
        }
    }

    /// Grants a new Service what it needs; anything but a Service needs nothing.
    pub(crate) async fn for_create(
        writer: &'w Writer,
        call: &Call<'_>,
        object: &mut Value,
    ) -> Result<Self, Status> {
        if !call.kind.is("", "services") {
            return Ok(Self::empty(writer));
        }
        Self::settle(writer, call.options.dry_run, object, None).await
    }

    /// Grants a changed Service what it needs beyond what it has.
    pub(crate) async fn for_update(
        writer: &'w Writer,
        call: &Call<'_>,
        new: &mut Value,
        old: &Value,
    ) -> Result<Self, Status> {
        if !call.kind.is("", "services") || new.get("spec") == old.get("spec") {
            return Ok(Self::empty(writer));
        }
        Self::settle(writer, call.options.dry_run, new, Some(old)).await
    }

    /// Boxed: it creates an object itself, and all other writes are none the larger for it.
    fn settle<'a>(
        writer: &'w Writer,
        dry_run: bool,
        service: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Self, Status>>
    where
        'w: 'a,
    {
        Box::pin(async move {
            let mut grant = Self::empty(writer);
            let name = object::name(service).to_owned();
            grant.service = (object::namespace(service).to_owned(), name.clone());
            let cluster: Vec<&str> =
                writer.registry.config.service_cidrs.iter().map(|n| ip_address::family(n.addr())).collect();
            families::settle(&cluster, service, old)?;
            let needs = Needs::of(service, old)?;
            let (ips, ports) = match dry_run {
                true => imagine(writer, &needs, &name).await?,
                false => grant.claim(&needs, &name).await?,
            };
            needs.fill(service, &ips, &ports);
            let (before, after) = (old.map(held).unwrap_or_default(), held(service));
            grant.superseded = Held {
                ips: before.ips.difference(&after.ips).copied().collect(),
                ports: before.ports.difference(&after.ports).copied().collect(),
            };
            Ok(grant)
        })
    }

    /// Claims addresses and ports at once: they share the store's commit.
    async fn claim(&mut self, needs: &Needs, name: &str) -> Result<(Vec<IpAddr>, Vec<u16>), Status> {
        let writer = self.writer;
        let service = self.service.clone();
        let service = (service.0.as_str(), service.1.as_str());
        let addresses = needs
            .addresses
            .iter()
            .map(|need| writer.take_address(need.place, need.ipv4, need.asked, service));
        let ports = writer.ports.take(needs.ports.clone());
        let (addresses, ports) = join(join_all(addresses), ports).await;
        let mut refusal = None;
        for address in addresses {
            match address {
                Ok(claim) => self.addresses.push(claim),
                Err(refused) => {
                    refusal.get_or_insert(of_address(needs, name, refused));
                }
            }
        }
        match ports {
            Ok(ports) => self.ports = ports,
            Err(refused) => {
                refusal.get_or_insert(of_ports(needs, name, refused));
            }
        }
        match refusal {
            None => Ok((self.addresses.iter().map(|claim| claim.ip).collect(), self.ports.clone())),
            Some(refusal) => {
                self.refuse().await;
                Err(refusal)
            }
        }
    }

    /// The write begins now. Refused where the claims are so old that somebody may take them for forgotten.
    pub(crate) fn writing(&mut self) -> Result<(), Status> {
        let claims = !self.addresses.is_empty() || !self.ports.is_empty();
        let slept = Duration::try_from(Timestamp::now().duration_since(self.made)).unwrap_or_default();
        if claims && self.since.elapsed().max(slept) > BEGIN_WITHIN {
            return Err(Status::timeout(
                "the Service was not written in time after it got addresses and ports",
                1,
            ));
        }
        self.stage = Stage::Writing;
        Ok(())
    }

    /// The store refused the write.
    pub(crate) fn lost(&mut self) {
        self.stage = Stage::Claimed;
    }

    /// The write is done.
    pub(crate) fn written(&mut self, revision: Revision) {
        self.stage = Stage::Written(revision);
    }

    /// Gives back what nobody has now.
    pub(crate) async fn close(mut self) {
        match self.stage {
            Stage::Claimed => self.refuse().await,
            Stage::Writing => {}
            Stage::Written(revision) if self.superseded != Held::default() => {
                let held = std::mem::take(&mut self.superseded);
                give_back(self.writer, held, (&self.service.0, &self.service.1), revision).await;
            }
            Stage::Written(_) => {}
        }
    }

    async fn refuse(&mut self) {
        let (addresses, ports) = (std::mem::take(&mut self.addresses), std::mem::take(&mut self.ports));
        let writer = self.writer;
        let given = addresses.iter().map(|claim| writer.give_address(claim));
        join(join_all(given), writer.ports.give(ports, self.since)).await;
    }
}

fn of_address(needs: &Needs, name: &str, refused: Refused) -> Status {
    match refused {
        Refused::Denied { at, why } => needs.refuse_address(name, at, &why.to_string(), why == Denied::Full),
        Refused::Failed(status) => status,
    }
}

fn of_ports(needs: &Needs, name: &str, refused: Refused) -> Status {
    match refused {
        Refused::Denied { at, why } => needs.refuse_port(name, at, &why.to_string()),
        Refused::Failed(status) => status,
    }
}

/// What a dry run says: nothing is taken.
async fn imagine(writer: &Writer, needs: &Needs, name: &str) -> Result<(Vec<IpAddr>, Vec<u16>), Status> {
    let mut ips = Vec::new();
    for need in &needs.addresses {
        let imagined = writer.imagine_address(need.place, need.ipv4, need.asked);
        ips.push(imagined.map_err(|refused| of_address(needs, name, refused))?);
    }
    let stored = match needs.ports.is_empty() {
        true => None,
        false => writer.ports.look(&writer.registry).await?,
    };
    let range = writer.ports.range;
    let is_taken = |port| stored.as_ref().is_some_and(|(all, _)| all.has(range, port));
    let ports = needs::imagine_ports(&needs.ports, is_taken);
    let ports = ports.map_err(|at| needs.refuse_port(name, at, &Denied::Taken("port").to_string()))?;
    Ok((ips, ports))
}

/// Gives back what a Service had until `until`.
fn give_back<'a>(
    writer: &'a Writer,
    held: Held,
    service: (&'a str, &'a str),
    until: Revision,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let addresses = held.ips.iter().map(|ip| writer.return_address(*ip, service, until));
        let ports = writer.ports.give(held.ports.iter().copied().collect(), Instant::now());
        join(join_all(addresses), ports).await;
    })
}

/// Gives back what a Service held that was removed at `at`; anything but a Service held nothing.
pub(crate) async fn release(writer: &Writer, kind: &Kind, object: &Value, at: Revision) {
    if kind.is("", "services") {
        let service = (object::namespace(object), object::name(object));
        give_back(writer, held(object), service, at).await;
    }
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
