//! The numbers of one write of a Service.
//!
//! Whatever takes numbers, writes a Service or gives numbers back is done in a task of the server's ([`Writer::outlive`]), which goes on when
//! the request ends: what a write left over goes back though nobody waits for its answer. A grant whose request ends before its write begins
//! goes back by itself. Only where the store does not say what became of a write do its numbers stay for the repair.

use super::addresses::Claim;
use super::denied::{Denied, Refused};
use super::needs::{self, Needs};
use super::{GRACE, Held, families, held, ip_address, names};
use crate::registry::Registry;
use crate::registry::call::Call;
use crate::registry::kind::Kind;
use crate::registry::storage::refused;
use crate::write::Writer;
use bytes::Bytes;
use futures::future::{BoxFuture, join, join_all};
use jiff::Timestamp;
use machinery::status::Status;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Entry, Expect, Revision};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Numbers taken for an object that is about to be written; none for anything but a Service.
pub(crate) struct Grant(Option<Box<Numbers>>);

/// Numbers that are taken, and that no stored Service has.
#[derive(Default)]
struct Claims {
    addresses: Vec<Claim>,
    ports: Vec<u16>,
}

struct Numbers {
    writer: Arc<Writer>,
    /// Namespace and name.
    service: (String, String),
    claims: Claims,
    /// What the stored state no longer needs once this write is done.
    superseded: Held,
    since: Instant,
    /// The same by the clock that goes on while a machine sleeps.
    made: Timestamp,
}

// === impl Writer ===

impl Writer {
    /// Does a piece of work that goes on when its request ends.
    async fn outlive<T: Send + 'static>(&self, piece: BoxFuture<'static, T>) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        self.services.spawn(async move { drop(answer.send(piece.await)) });
        answered.await.map_err(|_| Status::internal_error("the write of a Service ended without an answer"))
    }
}

// === impl Claims ===

impl Claims {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }
}

// === impl Grant ===

impl Grant {
    /// Grants a new Service what it needs; anything but a Service needs nothing.
    pub(crate) async fn for_create(
        writer: &Writer,
        call: &Call<'_>,
        object: &mut Value,
    ) -> Result<Self, Status> {
        if !call.kind.is("", "services") {
            return Ok(Self(None));
        }
        Self::settle(writer, call.options.dry_run, object, None).await
    }

    /// Grants a changed Service what it needs beyond what it has.
    pub(crate) async fn for_update(
        writer: &Writer,
        call: &Call<'_>,
        new: &mut Value,
        old: &Value,
    ) -> Result<Self, Status> {
        if !call.kind.is("", "services") || new.get("spec") == old.get("spec") {
            return Ok(Self(None));
        }
        Self::settle(writer, call.options.dry_run, new, Some(old)).await
    }

    /// Boxed: it creates an object itself, and all other writes are none the larger for it.
    fn settle<'a>(
        writer: &'a Writer,
        dry_run: bool,
        service: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Self, Status>> {
        Box::pin(async move {
            let cluster: Vec<&str> =
                writer.registry.config.service_cidrs.iter().map(|n| ip_address::family(n.addr())).collect();
            families::settle(&cluster, service, old)?;
            let needs = Needs::of(service, old)?;
            let mut numbers = Box::new(Numbers::of(writer.own()?, names(service)));
            let (needs, (ips, ports)) = if dry_run {
                let imagined = imagine(writer, &needs, &numbers.service.1).await?;
                (needs, imagined)
            } else if needs.is_empty() {
                (needs, Default::default())
            } else {
                let piece = async move {
                    let claimed = numbers.claim(&needs).await;
                    (numbers, needs, claimed)
                };
                let (kept, needs, claimed) = writer.outlive(Box::pin(piece)).await?;
                numbers = kept;
                (needs, claimed?)
            };
            needs.fill(service, &ips, &ports);
            let (before, after) = (old.map(held).unwrap_or_default(), held(service));
            numbers.superseded = Held {
                ips: before.ips.difference(&after.ips).copied().collect(),
                ports: before.ports.difference(&after.ports).copied().collect(),
            };
            Ok(Self(Some(numbers)))
        })
    }

    /// Writes the object as [`Registry::write`] does. Refused where its numbers are so old that somebody may take them for forgotten.
    pub(crate) async fn write(
        &mut self,
        registry: &Registry,
        kind: &Kind,
        key: &str,
        bytes: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Option<Entry>, Status> {
        let Some(numbers) = self.in_time()? else {
            return registry.write(kind, key, bytes, expect, ttl).await;
        };
        let (writer, kind, key) = (numbers.writer.clone(), *kind, key.to_owned());
        writer.outlive(Box::pin(numbers.write(kind, key, bytes, expect, ttl))).await?
    }

    /// Removes `entry` in place of the write of `object`, which nothing holds any more; false where something else is stored by now. That
    /// state itself is not written: a server that died after it would leave an object that nobody deletes.
    pub(crate) async fn finish(
        &mut self,
        writer: &Writer,
        kind: &Kind,
        entry: &Entry,
        object: &Value,
    ) -> Result<bool, Status> {
        let Some(numbers) = self.in_time()? else {
            return Ok(remove(writer, kind, entry, object).await?.is_some());
        };
        let (kind, key, at) = (*kind, entry.key.clone(), entry.mod_revision);
        writer.outlive(Box::pin(numbers.finish(kind, key, at, held(object)))).await?
    }

    fn in_time(&mut self) -> Result<Option<Box<Numbers>>, Status> {
        if let Some(numbers) = &self.0 {
            numbers.in_time()?;
        }
        Ok(self.0.take())
    }

    /// Gives back what was claimed for a write that did not begin.
    pub(crate) async fn close(self) {
        if let Some(mut numbers) = self.0.filter(|numbers| !numbers.claims.is_empty()) {
            let writer = numbers.writer.clone();
            let given = writer.outlive(Box::pin(async move { numbers.refuse().await })).await;
            if let Err(error) = given {
                tracing::warn!(%error, "give back what a Service was granted");
            }
        }
    }
}

// === impl Numbers ===

impl Drop for Numbers {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut self.claims);
        self.writer.ports.give_later(claims.ports);
        self.writer.leftovers.add(claims.addresses);
    }
}

impl Numbers {
    fn of(writer: Arc<Writer>, service: (String, String)) -> Self {
        let (since, made) = (Instant::now(), Timestamp::now());
        Numbers { writer, service, claims: Claims::default(), superseded: Held::default(), since, made }
    }

    fn service(&self) -> (&str, &str) {
        (&self.service.0, &self.service.1)
    }

    /// Claims addresses and ports at once: they share the store's commit.
    async fn claim(&mut self, needs: &Needs) -> Result<(Vec<IpAddr>, Vec<u16>), Status> {
        let (writer, service) = (self.writer.clone(), self.service.clone());
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
                Ok(claim) => self.claims.addresses.push(claim),
                Err(refused) => {
                    refusal.get_or_insert(of_address(needs, service.1, refused));
                }
            }
        }
        match ports {
            Ok(ports) => self.claims.ports = ports,
            Err(refused) => {
                refusal.get_or_insert(of_ports(needs, service.1, refused));
            }
        }
        match refusal {
            None => {
                let ips = self.claims.addresses.iter().map(|claim| claim.ip).collect();
                Ok((ips, self.claims.ports.clone()))
            }
            Some(refusal) => {
                self.refuse().await;
                Err(refusal)
            }
        }
    }

    /// A write begins so early that it is over, if only the store knows how, before a repair takes its claims for forgotten.
    fn in_time(&self) -> Result<(), Status> {
        let slept = Duration::try_from(Timestamp::now().duration_since(self.made)).unwrap_or_default();
        let within = begin_within(self.writer.registry.backend.longest_write());
        if !self.claims.is_empty() && self.since.elapsed().max(slept) > within {
            let why = "the Service was not written in time after it got addresses and ports";
            return Err(Status::timeout(why, 1));
        }
        Ok(())
    }

    async fn write(
        mut self: Box<Self>,
        kind: Kind,
        key: String,
        bytes: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Option<Entry>, Status> {
        // Whatever ends this task now, nobody but the store knows whose they are.
        let claims = std::mem::take(&mut self.claims);
        match self.writer.registry.backend.put(&key, bytes, expect, ttl).await {
            Ok(entry) => {
                self.settle(entry.mod_revision).await;
                Ok(Some(entry))
            }
            Err(error) => {
                if error.is_refusal() {
                    self.claims = claims;
                    self.refuse().await;
                }
                refused(&kind, &key, "write", &error)
            }
        }
    }

    async fn finish(
        mut self: Box<Self>,
        kind: Kind,
        key: Arc<str>,
        at: Revision,
        held: Held,
    ) -> Result<bool, Status> {
        let claims = std::mem::take(&mut self.claims);
        let Some((_, revision)) = self.writer.registry.remove(&kind, &key, at).await? else {
            self.claims = claims;
            self.refuse().await;
            return Ok(false);
        };
        self.settle(revision).await;
        give_back(&self.writer, held, self.service(), revision).await;
        Ok(true)
    }

    /// The write is done: what it superseded goes back.
    async fn settle(&mut self, revision: Revision) {
        let superseded = std::mem::take(&mut self.superseded);
        if superseded != Held::default() {
            give_back(&self.writer, superseded, self.service(), revision).await;
        }
    }

    async fn refuse(&mut self) {
        let Claims { addresses, ports } = std::mem::take(&mut self.claims);
        let given = addresses.iter().map(|claim| self.writer.give_address(claim));
        join(join_all(given), self.writer.ports.give(ports, self.since)).await;
    }
}

/// A write begins no later after its claims than this. Upstream's repair lets a claim live as long as ours, and may be at work beside it.
fn begin_within(longest_write: Duration) -> Duration {
    GRACE.saturating_sub(longest_write)
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

/// Removes `entry` as [`Registry::remove`] does; what a Service held goes back. `last` is its last state.
pub(crate) async fn remove(
    writer: &Writer,
    kind: &Kind,
    entry: &Entry,
    last: &Value,
) -> Result<Option<Revision>, Status> {
    let at = entry.mod_revision;
    if !kind.is("", "services") {
        let removed = writer.registry.remove(kind, &entry.key, at).await?;
        return Ok(removed.map(|(_, revision)| revision));
    }
    let (own, kind, key) = (writer.own()?, *kind, entry.key.clone());
    let (held, service) = (held(last), names(last));
    let piece = async move {
        let Some((_, revision)) = own.registry.remove(&kind, &key, at).await? else { return Ok(None) };
        give_back(&own, held, (&service.0, &service.1), revision).await;
        Ok(Some(revision))
    };
    writer.outlive(Box::pin(piece)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_must_not_begin_so_late_that_its_claims_may_be_taken_for_forgotten() {
        for longest in [0, 15, 26, 60, 600].map(Duration::from_secs) {
            let over = begin_within(longest) + longest;
            assert!(over <= GRACE || begin_within(longest).is_zero(), "{longest:?}: {over:?}");
        }
    }
}
