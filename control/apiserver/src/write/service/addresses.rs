//! Cluster IPs: an address is a Service's once its IPAddress is made, which the store lets one server do.
//!
//! What is free is guessed by the watch cache; making the IPAddress decides. Upstream: `ipallocator/ipallocator.go`, `cidrallocator.go`.

use super::denied::{Denied, Refused};
use super::ip_address;
use super::subnet::{Subnet, ready};
use crate::registry::kind::Kind;
use crate::registry::options::DeleteOptions;
use crate::write::Writer;
use machinery::object;
use machinery::status::{Reason, Status};
use serde_json::Value;
use std::net::IpAddr;
use store::Revision;

/// Lost races for a free address after which the client is told. Somebody else wins each of them.
const TRIES: usize = 1000;

/// An address that is taken by an IPAddress of ours.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(super) ip: IpAddr,
    uid: String,
}

fn kind() -> Result<Kind, Status> {
    Kind::of("networking.k8s.io", "ipaddresses")
        .ok_or_else(|| Status::internal_error("IPAddresses are not served"))
}

impl Writer {
    /// The ranges addresses are given from now, the cluster's own first.
    pub(super) fn service_ranges(&self) -> Result<Vec<Subnet>, Status> {
        let mut ranges = ready(&self.stored_ranges()?);
        let own = |range: &Subnet| self.registry.config.service_cidrs.contains(&range.net);
        ranges.sort_by_key(|range| !own(range));
        Ok(ranges)
    }

    /// The stored ServiceCIDRs.
    pub(crate) fn stored_ranges(&self) -> Result<Vec<Value>, Status> {
        let kind = Kind::of("networking.k8s.io", "servicecidrs");
        kind.map_or(Ok(Vec::new()), |kind| self.registry.cached(&kind, ""))
    }

    /// Takes `asked` (or any address of a family) for a Service, named by its namespace and name.
    pub(super) async fn take_address(
        &self,
        at: usize,
        ipv4: bool,
        asked: Option<IpAddr>,
        service: (&str, &str),
    ) -> Result<Claim, Refused> {
        let denied = |why| Refused::Denied { at, why };
        let ranges = self.service_ranges()?;
        if let Some(ip) = asked {
            if !ranges.iter().any(|range| range.holds(ip)) {
                return Err(denied(Denied::NoRange));
            }
            return self.make_address(ip, service).await?.ok_or_else(|| denied(Denied::Taken("IP")));
        }
        let kind = kind()?;
        let cache = self.registry.cache(&kind)?;
        let snapshot = cache.snapshot().map_err(|e| crate::registry::storage::unready(&kind, &e))?;
        let seed = u128::from(self.registry.random());
        let all =
            ranges.iter().filter(|range| range.is_ipv4() == ipv4).flat_map(|range| range.candidates(seed));
        let free = all.filter(|ip| snapshot.get(&kind.resource.key("", &ip.to_string())).is_none());
        for ip in free.take(TRIES) {
            if let Some(claim) = self.make_address(ip, service).await? {
                return Ok(claim);
            }
        }
        Err(denied(Denied::Full))
    }

    /// Makes the IPAddress that says that a Service has `ip`; nothing where there is one.
    pub(crate) async fn make_address(
        &self,
        ip: IpAddr,
        (namespace, name): (&str, &str),
    ) -> Result<Option<Claim>, Status> {
        match self.make(&kind()?, ip_address::of(ip, namespace, name)).await {
            Ok(made) => Ok(Some(Claim { ip, uid: object::uid(&made.object).to_owned() })),
            Err(refused) if refused.reason == Reason::AlreadyExists => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Gives an address back whose Service was not written.
    pub(super) async fn give_address(&self, claim: &Claim) {
        self.drop_address(claim.ip, claim.uid.clone()).await;
    }

    /// Gives an address back that a Service had until the revision `until`: what was made later is somebody else's.
    pub(super) async fn return_address(&self, ip: IpAddr, service: (&str, &str), until: Revision) {
        let there = async {
            let kind = kind()?;
            match self.registry.entry(&kind, "", &ip.to_string()).await? {
                Some(entry) if entry.create_revision < until => {
                    self.registry.decode(&kind, &entry).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        match there.await {
            Ok(Some(address)) if ip_address::parent(&address) == Some(service) => {
                self.drop_address(ip, object::uid(&address).to_owned()).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%ip, %error, "a cluster IP is not given back; the repair will find it")
            }
        }
    }

    async fn drop_address(&self, ip: IpAddr, uid: String) {
        let exactly = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
        let dropped = match kind() {
            Ok(kind) => self.discard(&kind, "", &ip.to_string(), &exactly).await,
            Err(error) => Err(error),
        };
        match dropped {
            // Another one by now.
            Err(error) if error.reason == Reason::Conflict => {}
            Err(error) => {
                tracing::warn!(%ip, %error, "a cluster IP is not given back; the repair will find it")
            }
            Ok(()) => {}
        }
    }

    /// What a dry run says of `asked`, or of any address of a family: nothing is taken, and nothing looked for.
    pub(super) fn imagine_address(
        &self,
        at: usize,
        ipv4: bool,
        asked: Option<IpAddr>,
    ) -> Result<IpAddr, Refused> {
        let ranges = self.service_ranges()?;
        let first = ranges.iter().find(|range| range.is_ipv4() == ipv4);
        match (asked, first) {
            (None, Some(range)) => Ok(range.net.addr()),
            (Some(ip), Some(_)) if ranges.iter().any(|range| range.holds(ip)) => Ok(ip),
            (Some(ip), Some(range)) => {
                Err(Refused::Denied { at, why: Denied::Address(ip, range.net.to_string()) })
            }
            (_, None) => Err(Refused::Denied { at, why: Denied::Full }),
        }
    }
}
