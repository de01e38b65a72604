//! ServiceCIDRs: a range says that it is ready, and goes only when no Service would be left with an address outside every range.
//!
//! Woken by: a ServiceCIDR, and the ones that overlap it; an address that was given back. Reads: ServiceCIDRs, IPAddresses. Writes:
//! the finalizer and the condition Ready. Promises: a range with addresses that no other range has stays, and says why.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Keeps a range until its addresses are free.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The field manager of the condition.
const MANAGER: &str = "service-cidr-controller";
/// Says who made an IPAddress; the API server's allocator makes those of Services.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// How long a range that may go stays, so that every API server has stopped giving addresses from it.
const GRACE: Duration = Duration::from_secs(10);

/// The address, if the object is of a Service's cluster IP.
fn of_service(address: &IPAddress) -> Option<IpAddr> {
    let ours = address.labels().get(MANAGED_BY).map(String::as_str) == Some(ALLOCATOR);
    address.metadata.name.as_deref().filter(|_| ours)?.parse().ok()
}

pub(crate) struct ServiceCidrs {
    ranges: Arc<Informer<ServiceCIDR>>,
    addresses: Arc<Informer<IPAddress>>,
    client: Client,
}

impl ServiceCidrs {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let (wake, ranges) = (queue.clone(), cluster.service_cidrs.clone());
        cluster.service_cidrs.on_change(move |old, new| {
            for range in [old, new].into_iter().flatten() {
                wake.add(key_of(&**range));
                let own = nets(range);
                let overlaps =
                    |other: &IpNet| own.iter().any(|net| net.contains(other) || other.contains(net));
                for other in ranges.list("").iter().filter(|other| nets(other).iter().any(overlaps)) {
                    wake.add(key_of(&**other));
                }
            }
        });
        let (wake, ranges) = (queue.clone(), cluster.service_cidrs.clone());
        cluster.ip_addresses.on_change(move |old, new| {
            let (Some(old), None) = (old, new) else { return };
            let Some(ip) = of_service(old) else { return };
            for range in ranges.list("").iter().filter(|range| nets(range).iter().any(|n| n.contains(&ip))) {
                wake.add(key_of(&**range));
            }
        });
        Self { ranges: cluster.service_cidrs.clone(), addresses: cluster.ip_addresses.clone(), client }
    }
}

pub(crate) fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = range.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Whether `range` can go: another range holds each of its nets, or no address is in it alone. `others` are the other ranges' nets.
fn may_go(range: &[IpNet], others: &[IpNet], taken: &[IpAddr]) -> bool {
    let elsewhere = |ip: &IpAddr| others.iter().any(|net| net.contains(ip));
    range.iter().all(|net| others.iter().any(|other| other.contains(net)))
        || taken.iter().filter(|ip| range.iter().any(|net| net.contains(*ip))).all(elsewhere)
}

impl Reconcile for ServiceCidrs {
    const NAME: &'static str = MANAGER;

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(range) = self.ranges.get(key) else { return Ok(None) };
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        let mut finalizers = range.finalizers().to_vec();
        let held = finalizers.iter().any(|f| f == FINALIZER);
        let Some(deleted) = range.metadata.deletion_timestamp.as_ref() else {
            if !held {
                finalizers.push(FINALIZER.to_owned());
                self.set_finalizers(&api, &range, &finalizers).await?;
            }
            return self.set_ready(&api, &range, "True", "", "Kubernetes Service CIDR is ready").await;
        };
        let others: Vec<IpNet> =
            self.ranges.list("").iter().filter(|r| r.name_any() != *key.name).flat_map(|r| nets(r)).collect();
        let taken: Vec<IpAddr> = self.addresses.list("").iter().filter_map(|a| of_service(a)).collect();
        if !may_go(&nets(&range), &others, &taken) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            return self.set_ready(&api, &range, "False", "Terminating", message).await;
        }
        let since = Timestamp::now().duration_since(deleted.0).unsigned_abs();
        if let Some(left) = GRACE.checked_sub(since).filter(|left| !left.is_zero()) {
            return Ok(Some(left));
        }
        if held {
            finalizers.retain(|f| f != FINALIZER);
            self.set_finalizers(&api, &range, &finalizers).await?;
        }
        Ok(None)
    }
}

impl ServiceCidrs {
    async fn set_finalizers(
        &self,
        api: &Api<ServiceCIDR>,
        range: &ServiceCIDR,
        finalizers: &[String],
    ) -> Result<(), Error> {
        let name = range.name_any();
        let meta = json!({ "finalizers": finalizers, "resourceVersion": range.metadata.resource_version });
        let patch = Patch::Merge(json!({ "metadata": meta }));
        let patched = api.patch(&name, &PatchParams::default(), &patch).await;
        found(patched).map(drop).doing(|| format!("set the finalizers of service CIDR {name}"))
    }

    async fn set_ready(
        &self,
        api: &Api<ServiceCIDR>,
        range: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<Option<Duration>, Error> {
        let conditions = range.status.as_ref().and_then(|s| s.conditions.as_ref());
        let same = |c: &Condition| {
            c.type_ == "Ready" && c.status == status && c.reason == reason && c.message == message
        };
        if conditions.is_some_and(|all| all.iter().any(same)) {
            return Ok(None);
        }
        let name = range.name_any();
        let now = Time(Timestamp::now());
        let condition = json!({
            "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
        });
        let patch = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": name },
            "status": { "conditions": [condition] },
        });
        let applied =
            api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await;
        found(applied).map(|_| None).doing(|| format!("set the condition of service CIDR {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_when_every_address_is_in_another() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let range = nets(&["10.1.0.0/24", "fd00::/120"]);
        assert!(may_go(&range, &[], &[]));
        assert!(may_go(&range, &[], &ips(&["10.2.0.1"])));
        assert!(!may_go(&range, &[], &ips(&["10.1.0.1"])));
        assert!(!may_go(&range, &nets(&["10.1.0.0/25"]), &ips(&["10.1.0.1", "10.1.0.200"])));
        assert!(may_go(&range, &nets(&["10.1.0.0/25"]), &ips(&["10.1.0.1"])));
        assert!(may_go(&range, &nets(&["10.0.0.0/8", "fd00::/64"]), &ips(&["10.1.0.1"])));
        assert!(!may_go(&range, &nets(&["10.0.0.0/8"]), &ips(&["fd00::1"])));
    }
}
