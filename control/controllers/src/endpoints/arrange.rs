//! How the slices that are there become the desired ones. Pure.

use super::content::{Content, Slot};
use super::plan::Desired;
use super::topology::{self, Held, Zones};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is to be done.
pub(super) struct Arranged {
    pub(super) steps: Vec<Slot>,
    /// By address type, where zones share the endpoints: how many each has, or why they do not share.
    pub(super) shared: BTreeMap<&'static str, Result<Held, String>>,
}

/// Steps from the slices that are there to the desired ones. Endpoints stay in their slice; new ones fill slices with fewer than `most`. With
/// `zones` these share the endpoints.
pub(super) fn arrange(
    desired: &[Desired],
    existing: &[Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
    zones: Option<&Zones>,
    most: usize,
) -> Arranged {
    let mut used = BTreeSet::new();
    let mut contents = Vec::new();
    for group in desired {
        let same = existing
            .iter()
            .filter(|s| s.address_type == group.address_type && same_ports(s.ports.as_deref(), &group.ports));
        let same: Vec<&Arc<EndpointSlice>> = same.filter(|s| used.insert(s.name_any())).collect();
        contents.extend(fill(group, &same, labels, most.max(1)));
    }
    let mut shared = BTreeMap::new();
    if let Some(zones) = zones {
        for family in desired.iter().map(|group| group.address_type).collect::<BTreeSet<_>>() {
            let mut slices: Vec<&mut Content> =
                contents.iter_mut().filter(|c| c.address_type == family && !c.goes()).collect();
            shared.insert(family, topology::share(zones, &mut slices));
        }
    }
    let mut steps: Vec<Slot> = contents.into_iter().filter_map(|content| content.step(labels)).collect();
    steps.extend(existing.iter().map(|s| s.name_any()).filter(|name| !used.contains(name)).map(Slot::Delete));
    // make before break: a service never is without endpoints in between
    steps.sort_by_key(|s| match s {
        Slot::Create(_) => 0,
        Slot::Update(..) => 1,
        Slot::Delete(_) => 2,
    });
    Arranged { steps, shared }
}

fn same_ports(old: Option<&[EndpointPort]>, new: &[EndpointPort]) -> bool {
    let facts = |ports: &[EndpointPort]| -> BTreeSet<_> {
        let fact = |p: &EndpointPort| {
            (p.name.clone().unwrap_or_default(), p.protocol.clone(), p.port, p.app_protocol.clone())
        };
        ports.iter().map(fact).collect()
    };
    facts(old.unwrap_or_default()) == facts(new)
}

/// Whether endpoints are the same, whoever shall prefer them.
fn same_but_for_hints(old: &[Endpoint], new: &[Endpoint]) -> bool {
    let plain = |e: &Endpoint| Endpoint { hints: None, ..e.clone() };
    old.len() == new.len() && old.iter().zip(new).all(|(a, b)| plain(a) == plain(b))
}

/// Puts a group's endpoints into the slices that it has, and into new ones.
fn fill(
    group: &Desired,
    existing: &[&Arc<EndpointSlice>],
    labels: &BTreeMap<String, String>,
    most: usize,
) -> Vec<Content> {
    let identity =
        |e: &Endpoint| (e.target_ref.as_ref().and_then(|t| t.uid.clone()), e.addresses.first().cloned());
    let content = |old: Option<Arc<EndpointSlice>>, endpoints: Vec<Endpoint>| Content {
        address_type: group.address_type,
        ports: group.ports.clone(),
        old,
        endpoints,
        unchanged: false,
        placeholder: false,
    };
    let mut wanted: BTreeMap<_, &Endpoint> = group.endpoints.iter().map(|e| (identity(e), e)).collect();
    let mut contents = Vec::new();
    for slice in existing {
        let kept = slice.endpoints.iter().flatten().filter_map(|e| wanted.remove(&identity(e)));
        contents.push(content(Some((*slice).clone()), kept.cloned().collect()));
    }
    let mut newcomers: Vec<Endpoint> = wanted.into_values().cloned().collect();
    for content in &mut contents {
        let room = most.saturating_sub(content.endpoints.len()).min(newcomers.len());
        content.endpoints.extend(newcomers.drain(..room));
    }
    contents.extend(newcomers.chunks(most).map(|chunk| content(None, chunk.to_vec())));
    if contents.is_empty() {
        contents.push(content(None, Vec::new()));
    }
    if contents.iter().all(|c| c.endpoints.is_empty()) {
        contents[0].placeholder = true;
    }
    for content in &mut contents {
        content.unchanged = content.old.as_ref().is_some_and(|old| {
            let there = old.endpoints.as_deref().unwrap_or_default();
            old.labels() == labels && same_but_for_hints(there, &content.endpoints)
        });
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;
    use proptest::prelude::*;

    fn steps(
        desired: &[Desired],
        existing: &[Arc<EndpointSlice>],
        labels: &BTreeMap<String, String>,
    ) -> Vec<Slot> {
        arrange(desired, existing, labels, None, 100).steps
    }

    fn desired_of(addresses: &BTreeSet<u16>) -> Vec<Desired> {
        let endpoint = |n: &u16| Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)],
            target_ref: Some(ObjectReference { uid: Some(n.to_string()), ..ObjectReference::default() }),
            ..Endpoint::default()
        };
        vec![Desired {
            address_type: "IPv4",
            ports: Vec::new(),
            endpoints: addresses.iter().map(endpoint).collect(),
        }]
    }

    #[test]
    fn a_slice_takes_no_more_than_it_may() {
        let (desired, labels) = (desired_of(&(0..250).collect()), BTreeMap::new());
        for (most, sizes) in [(100, vec![100, 100, 50]), (1000, vec![250]), (200, vec![200, 50])] {
            let steps = arrange(&desired, &[], &labels, None, most).steps;
            let size = |slot: &Slot| match slot {
                Slot::Create(slice) => slice.endpoints.as_ref().map(Vec::len),
                _ => None,
            };
            assert_eq!(steps.iter().filter_map(size).collect::<Vec<_>>(), sizes, "{most}");
        }
        let there = apply(Vec::new(), arrange(&desired, &[], &labels, None, 200).steps, &mut 0);
        let fewer = arrange(&desired, &there, &labels, None, 100).steps;
        assert!(fewer.is_empty(), "what is there is not dealt anew");
    }

    fn apply(
        mut slices: Vec<Arc<EndpointSlice>>,
        steps: Vec<Slot>,
        next: &mut u32,
    ) -> Vec<Arc<EndpointSlice>> {
        for step in steps {
            match step {
                Slot::Create(mut slice) => {
                    *next += 1;
                    slice.metadata.name = Some(format!("s{next}"));
                    slices.push(Arc::new(slice));
                }
                Slot::Update(name, mut slice) => {
                    slice.metadata.name = Some(name.clone());
                    let at = slices.iter().position(|s| s.name_any() == name).unwrap();
                    slices[at] = Arc::new(slice);
                }
                Slot::Delete(name) => slices.retain(|s| s.name_any() != name),
            }
        }
        slices
    }

    proptest! {
        #[test]
        fn slices_converge_and_hold_every_endpoint_once(rounds in proptest::collection::vec(proptest::collection::btree_set(0u16..400, 0..350), 1..6)) {
            let (mut slices, mut next, labels) = (Vec::new(), 0, BTreeMap::new());
            for wanted in rounds {
                let desired = desired_of(&wanted);
                slices = apply(slices.clone(), steps(&desired, &slices, &labels), &mut next);
                let held: Vec<String> = slices.iter().flat_map(|s| s.endpoints.clone().unwrap()).map(|e| e.addresses[0].clone()).collect();
                prop_assert_eq!(held.len(), wanted.len());
                prop_assert_eq!(held.into_iter().collect::<BTreeSet<_>>().len(), wanted.len());
                prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().unwrap().len() <= 100));
                prop_assert!(!slices.is_empty());
                prop_assert!(steps(&desired, &slices, &labels).is_empty(), "a converged state plans nothing");
            }
        }
    }
}
