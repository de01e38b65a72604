//! A pod range for every node, out of the cluster's.
//!
//! Woken by: a node without a range. Reads: every node's ranges. Writes: `spec.podCIDRs`, once a node. Promises: no two nodes share a
//! range, also while the informer lags behind own writes; a node's range is free again when the node is gone.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use crate::recorder::{Recorder, Severity};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where nodes' pod ranges come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The cluster's, at most one a family; none where somebody else gives nodes their ranges.
    pub cluster: Vec<IpNet>,
    /// What no node gets, such as services' addresses.
    pub taken: Vec<IpNet>,
    /// Prefix length of a node's range, by family (upstream's `--node-cidr-mask-size`).
    pub prefixes: (u8, u8),
}

impl Default for Ranges {
    fn default() -> Self {
        Self { cluster: Vec::new(), taken: Vec::new(), prefixes: (24, 64) }
    }
}

/// The controller; run it with one worker.
pub(crate) struct NodeRanges {
    nodes: Arc<Informer<Node>>,
    ranges: Ranges,
    /// Ranges given out and not yet seen on their node.
    given: Mutex<BTreeMap<Key, Vec<IpNet>>>,
    client: Client,
    recorder: Recorder,
}

impl NodeRanges {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        ranges: Ranges,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.nodes.on_change(move |old, new| {
            if let Some(node) = new.or(old) {
                wake.add(key_of(&**node));
            }
        });
        Self { nodes: cluster.nodes.clone(), ranges, given: Mutex::default(), client, recorder }
    }
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let listed = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
    let single = spec.and_then(|s| s.pod_cidr.clone());
    listed.into_iter().chain(single).filter_map(|c| c.parse().ok()).collect()
}

impl Reconcile for NodeRanges {
    const NAME: &'static str = "cidrAllocator";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        if self.ranges.cluster.is_empty() {
            return Ok(None); // somebody else gives ranges, or nobody
        }
        let node = self.nodes.get(key);
        let settled = node.as_ref().is_none_or(|n| !ranges(n).is_empty());
        if settled {
            self.given.lock().remove(key);
            return Ok(None);
        }
        let Some(node) = node else { return Ok(None) };
        let mut taken: BTreeSet<IpNet> = self.nodes.list("").iter().flat_map(|n| ranges(n)).collect();
        taken.extend(&self.ranges.taken);
        taken.extend(self.given.lock().values().flatten().copied());
        let own = self.given.lock().get(key).cloned();
        let chosen = own.or_else(|| {
            let Ranges { cluster, prefixes, .. } = &self.ranges;
            cluster.iter().map(|range| first_free(*range, *prefixes, &taken)).collect()
        });
        let Some(chosen) = chosen else {
            let message = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder.record(Self::NAME, &*node, Severity::Normal, "CIDRNotAvailable", message);
            return Err(Error::Unusable(format!("no pod range is left for node {key}")));
        };
        self.given.lock().insert(key.clone(), chosen.clone());
        let texts: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        let patch = json!({ "metadata": { "uid": node.uid() }, "spec": { "podCIDR": texts.first(), "podCIDRs": texts } });
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if patched.as_ref().is_err_and(|error| code(error) != Some(404)) {
            let message = format!("Node {key} status is now: CIDRAssignmentFailed");
            self.recorder.record(Self::NAME, &*node, Severity::Normal, "CIDRAssignmentFailed", message);
        }
        found(patched).doing(|| format!("give node {key} the pod range {}", texts.join(",")))?;
        Ok(None)
    }
}

/// The first node range of `cluster` that overlaps nothing taken.
fn first_free(cluster: IpNet, prefixes: (u8, u8), taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    let overlaps = |range: &IpNet| taken.iter().any(|t| t.contains(range) || range.contains(t));
    match cluster {
        IpNet::V4(net) => {
            let prefix = prefixes.0.max(net.prefix_len());
            let step = 1u32.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            let first = u32::from(net.network());
            let count = 1u64 << (prefix - net.prefix_len());
            (0..count).find_map(|i| {
                let start = first.checked_add(u32::try_from(i).ok()?.checked_mul(step)?)?;
                let range = IpNet::V4(Ipv4Net::new(start.into(), prefix).ok()?);
                (!overlaps(&range)).then_some(range)
            })
        }
        IpNet::V6(net) => {
            let prefix = prefixes.1.max(net.prefix_len());
            let step = 1u128.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            let first = u128::from(net.network());
            // more nodes than this no cluster has
            let count = 1u64 << (prefix - net.prefix_len()).min(20);
            (0..count).find_map(|i| {
                let start = first.checked_add(u128::from(i).checked_mul(step)?)?;
                let address: std::net::Ipv6Addr = start.into();
                let range = IpNet::V6(Ipv6Net::new(address, prefix).ok()?);
                debug_assert!(matches!(range.addr(), IpAddr::V6(_)));
                (!overlaps(&range)).then_some(range)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_in_order_without_overlap_until_none_is_left() {
        let cluster: IpNet = "10.244.0.0/22".parse().unwrap();
        let mut taken = BTreeSet::from(["10.244.1.128/25".parse().unwrap()]);
        let mut given = Vec::new();
        while let Some(range) = first_free(cluster, (24, 64), &taken) {
            taken.insert(range);
            given.push(range.to_string());
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        let v6 = first_free(
            "fd00:1::/48".parse().unwrap(),
            (24, 64),
            &BTreeSet::from(["fd00:1::/64".parse().unwrap()]),
        );
        assert_eq!(v6.unwrap().to_string(), "fd00:1:0:1::/64");
        let small = first_free("10.0.0.0/26".parse().unwrap(), (24, 64), &BTreeSet::new());
        assert_eq!(small.unwrap().to_string(), "10.0.0.0/26");
    }
}
