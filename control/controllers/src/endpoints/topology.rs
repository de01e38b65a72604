//! Which zone shall use which of a service's endpoints in topology mode `Auto`: zones share them by their CPUs, so that none gets more
//! than a fifth above its part. Pure; the algorithm is upstream's (`k8s.io/endpointslice/topologycache`).

use super::content::Content;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForZone};
use kube::ResourceExt;
use machinery::quantity::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an endpoint may get above its part.
const OVERLOAD: f64 = 0.2;
/// Nodes with these are not counted.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
const ZONE: &str = "topology.kubernetes.io/zone";

/// How many endpoints each zone has.
pub(super) type Held = BTreeMap<String, usize>;

/// The zones' parts of the CPUs; nothing where the nodes do not tell, or are in one zone.
#[derive(Debug, Default)]
pub(super) struct Zones(BTreeMap<String, f64>);

/// How many endpoints a zone shall have.
#[derive(Debug, PartialEq)]
struct Allocation {
    most: usize,
    desired: f64,
}

/// A node's zone, if it names one.
pub(super) fn zone_of(node: &Node) -> Option<String> {
    node.labels().get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

/// What counts of a node: its zone and its CPUs in thousandths; nothing of one that is not to be counted.
pub(super) fn counted(node: &Node) -> Option<(Option<String>, i64)> {
    let status = node.status.as_ref()?;
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready")?.status == "True";
    if !ready || EXCLUDED.iter().any(|label| node.labels().contains_key(*label)) {
        return None;
    }
    let cpu = status.allocatable.as_ref().and_then(|a| Quantity::parse(&a.get("cpu")?.0).ok());
    Some((zone_of(node), cpu.map_or(0, |cpu| cpu.milli_value())))
}

impl Zones {
    /// The zones of the nodes that are ready and no control plane.
    pub(super) fn of(nodes: &[Arc<Node>]) -> Self {
        let mut cpus: BTreeMap<String, i64> = BTreeMap::new();
        for (zone, cpu) in nodes.iter().filter_map(|node| counted(node)) {
            let Some(zone) = zone.filter(|_| cpu != 0) else { return Self::default() };
            *cpus.entry(zone).or_default() += cpu;
        }
        let total: i64 = cpus.values().sum();
        if total == 0 || cpus.len() < 2 {
            return Self::default();
        }
        Self(cpus.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total as f64)).collect())
    }

    fn allocations(&self, endpoints: usize) -> Result<BTreeMap<String, Allocation>, String> {
        let zones = self.0.len();
        if zones == 0 {
            return Err(
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
                    .to_owned(),
            );
        }
        if zones > endpoints {
            return Err(format!("Insufficient number of endpoints ({endpoints} endpoints, {zones} zones)"));
        }
        let least: BTreeMap<&String, usize> =
            self.0.iter().map(|(zone, part)| (zone, least(endpoints as f64 * part))).collect();
        let sum: usize = least.values().sum();
        let Some(spare) = endpoints.checked_sub(sum) else {
            return Err(format!(
                "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
                 ({endpoints} endpoints, {zones} zones)"
            ));
        };
        let allocation = |(zone, part): (&String, &f64)| {
            let least = least[zone];
            let desired = (part * endpoints as f64).max(least as f64);
            (zone.clone(), Allocation { most: least + spare, desired })
        };
        Ok(self.0.iter().map(allocation).collect())
    }

    /// Whether some zone has come to have too few of the endpoints.
    pub(super) fn overloads(&self, held: &Held) -> bool {
        if held.is_empty() || self.0.is_empty() {
            return !held.is_empty();
        }
        let total: usize = held.values().sum();
        self.0.iter().any(|(zone, part)| held.get(zone).is_none_or(|has| *has < least(total as f64 * part)))
    }
}

/// The fewest endpoints of which none gets too much, of as many as would be a zone's part.
fn least(part: f64) -> usize {
    (part * (1.0 / (1.0 + OVERLOAD))).ceil() as usize
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

fn prefer(zone: &str) -> Option<EndpointHints> {
    let zones = vec![ForZone { name: zone.to_owned() }];
    Some(EndpointHints { for_zones: Some(zones), ..EndpointHints::default() })
}

/// Sets the hints of a family's slices; those whose content does not change keep theirs while no zone has too many by them. Gives what
/// each zone has; or why the zones do not share, and there are no hints then.
pub(super) fn share(zones: &Zones, slices: &mut [&mut Content]) -> Result<Held, String> {
    let shared = try_share(zones, slices);
    if shared.is_err() {
        slices.iter_mut().flat_map(|slice| &mut slice.endpoints).for_each(|endpoint| endpoint.hints = None);
    }
    shared
}

fn try_share(zones: &Zones, slices: &mut [&mut Content]) -> Result<Held, String> {
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|e| is_ready(e)).count();
    let allocations = zones.allocations(ready)?;
    let mut held = Held::new();
    for slice in slices.iter_mut().filter(|slice| slice.unchanged) {
        match kept(slice.there(), &held, &allocations) {
            Some(hints) => {
                hints.into_iter().for_each(|(zone, count)| *held.entry(zone).or_default() += count);
                slice.endpoints = slice.there().to_vec();
            }
            None => slice.unchanged = false,
        }
    }
    let changing = slices.iter_mut().filter(|slice| !slice.unchanged).flat_map(|slice| &mut slice.endpoints);
    let mut changing: Vec<&mut Endpoint> = changing.filter(|endpoint| is_ready(endpoint)).collect();
    for endpoint in &mut changing {
        let Some(zone) = endpoint.zone.as_deref().filter(|zone| !zone.is_empty()) else {
            return Err("One or more endpoints do not have a zone specified".to_owned());
        };
        *held.entry(zone.to_owned()).or_default() += 1;
        endpoint.hints = prefer(zone);
    }
    let (mut giving, mut receiving) = exchange(&allocations, &held);
    for endpoint in changing {
        let Some(from) = endpoint.zone.as_ref().filter(|zone| giving.get(*zone).is_some_and(|n| *n > 0))
        else {
            continue;
        };
        let Some((to, wants)) = receiving.iter_mut().find(|(_, wants)| **wants > 0) else { break };
        *wants -= 1;
        giving.entry(from.clone()).and_modify(|n| *n -= 1);
        held.entry(from.clone()).and_modify(|n| *n = n.saturating_sub(1));
        *held.entry(to.clone()).or_default() += 1;
        endpoint.hints = prefer(to);
    }
    if held.is_empty() {
        return Err("No hints allocated for zones".to_owned());
    }
    Ok(held)
}

/// The hints a slice has, where they can stay: every ready endpoint has one, and no zone gets too many.
fn kept(endpoints: &[Endpoint], held: &Held, allocations: &BTreeMap<String, Allocation>) -> Option<Held> {
    let mut hints = Held::new();
    for endpoint in endpoints.iter().filter(|e| is_ready(e)) {
        let zones = endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        for zone in zones {
            *hints.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = held.get(zone).copied().unwrap_or(0);
        allocations.get(zone).is_some_and(|allocation| count + before <= allocation.most)
    };
    hints.iter().all(fits).then_some(hints)
}

/// How many endpoints zones give away, and how many others get: one at a time from who has the most too many to who lacks the most.
fn exchange(allocations: &BTreeMap<String, Allocation>, held: &Held) -> (Held, Held) {
    let over = |zone: &String, wanted: f64| held.get(zone).copied().unwrap_or(0) as f64 - wanted;
    let surplus = allocations.iter().map(|(zone, allocation)| (zone, over(zone, allocation.desired)));
    let (mut gives, mut wants): (BTreeMap<&String, f64>, BTreeMap<&String, f64>) =
        surplus.partition(|(_, surplus)| *surplus > 0.0);
    wants.values_mut().for_each(|surplus| *surplus = -*surplus);
    let most = |of: &BTreeMap<&String, f64>| {
        of.iter().rev().max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, n)| ((*zone).clone(), *n))
    };
    let (mut giving, mut receiving) = (Held::new(), Held::new());
    while let (Some((from, give)), Some((to, want))) = (most(&gives), most(&wants)) {
        if give < 0.5 || want < 0.5 || (give < 1.0 && want < 1.0) {
            break;
        }
        gives.get_mut(&from).into_iter().for_each(|n| *n -= 1.0);
        wants.get_mut(&to).into_iter().for_each(|n| *n -= 1.0);
        *giving.entry(from).or_default() += 1;
        *receiving.entry(to).or_default() += 1;
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests;
