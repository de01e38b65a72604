use super::*;
use crate::endpoints::arrange::arrange;
use crate::endpoints::content::Slot;
use crate::endpoints::plan::Desired;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

fn node(zone: Option<&str>, cpu: &str, ready: &str) -> Arc<Node> {
    let node = json!({ "metadata": { "labels": zone.map(|z| json!({ ZONE: z })) },
        "status": { "allocatable": { "cpu": cpu }, "conditions": [{ "type": "Ready", "status": ready }] } });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn endpoint(index: usize, zone: Option<&str>) -> Endpoint {
    serde_json::from_value(
        json!({ "addresses": [format!("10.0.0.{index}")], "conditions": { "ready": true }, "zone": zone }),
    )
    .unwrap()
}

fn group(zones: &[Option<&str>]) -> Desired {
    let endpoints = zones.iter().enumerate().map(|(index, zone)| endpoint(index, *zone)).collect();
    Desired { address_type: "IPv4", ports: Vec::new(), endpoints }
}

/// What the family's outcome is, and the slices after it.
fn shared(
    zones: &Zones,
    desired: Desired,
    there: &[Arc<EndpointSlice>],
) -> (Result<Held, String>, Vec<Arc<EndpointSlice>>) {
    let mut arranged = arrange(&[desired], there, &BTreeMap::new(), Some(zones), 100);
    let slices = arranged.steps.into_iter().filter_map(|step| match step {
        Slot::Create(mut slice) | Slot::Update(_, mut slice) => {
            slice.metadata.name = Some("s".to_owned());
            Some(Arc::new(slice))
        }
        Slot::Delete(_) => None,
    });
    (arranged.shared.remove("IPv4").unwrap(), slices.collect())
}

fn held(all: &[(&str, usize)]) -> Held {
    all.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect()
}

#[test]
fn zones_share_endpoints_by_their_cpus() {
    let zones = Zones::of(&[node(Some("a"), "4", "True"), node(Some("b"), "4", "True")]);
    let (even, slices) = shared(&zones, group(&[Some("a"), Some("a"), Some("a"), Some("b")]), &[]);
    assert_eq!(even, Ok(held(&[("a", 2), ("b", 2)])), "one of a's is lent to b");
    let hints = slices[0]
        .endpoints
        .iter()
        .flatten()
        .filter_map(|e| Some(e.hints.as_ref()?.for_zones.as_ref()?[0].name.clone()));
    assert_eq!(hints.filter(|zone| zone == "b").count(), 2);
    let zones = Zones::of(&[node(Some("a"), "6", "True"), node(Some("b"), "2", "True")]);
    let (uneven, _) = shared(&zones, group(&[Some("a"), Some("a"), Some("b"), Some("b")]), &[]);
    assert_eq!(uneven, Ok(held(&[("a", 3), ("b", 1)])));
}

#[test]
fn hints_that_hold_must_not_be_dealt_anew() {
    let zones = Zones::of(&[node(Some("a"), "4", "True"), node(Some("b"), "4", "True")]);
    let all = || group(&[Some("a"), Some("a"), Some("a"), Some("b")]);
    let (_, there) = shared(&zones, all(), &[]);
    let (again, changed) = shared(&zones, all(), &there);
    assert_eq!((again, changed.len()), (Ok(held(&[("a", 2), ("b", 2)])), 0));
}

#[test]
fn hints_must_not_stand_where_they_cannot_be_shared() {
    let two = [node(Some("a"), "4", "True"), node(Some("b"), "4", "True")];
    let (_, there) = shared(&Zones::of(&two), group(&[Some("a"), Some("b")]), &[]);
    let why = |nodes: &[Arc<Node>], endpoints: &[Option<&str>]| {
        let (outcome, slices) = shared(&Zones::of(nodes), group(endpoints), &there);
        assert!(slices.iter().flat_map(|s| s.endpoints.iter().flatten()).all(|e| e.hints.is_none()));
        outcome.unwrap_err()
    };
    let insufficient =
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
    assert_eq!(why(&[node(Some("a"), "4", "True"), node(None, "4", "True")], &[Some("a"); 2]), insufficient);
    assert_eq!(why(&two[..1], &[Some("a"); 2]), insufficient, "one zone");
    assert_eq!(why(&two, &[Some("a")]), "Insufficient number of endpoints (1 endpoints, 2 zones)");
    assert_eq!(why(&two, &[Some("a"), None]), "One or more endpoints do not have a zone specified");
    let uneven = [node(Some("a"), "9", "True"), node(Some("b"), "1", "True"), node(None, "4", "False")];
    let text = why(&uneven, &[Some("a"), Some("b")]);
    assert!(text.ends_with("without exceeding overload threshold (2 endpoints, 2 zones)"), "{text}");
}

#[test]
fn a_zone_that_grew_is_noticed() {
    let even = Zones::of(&[node(Some("a"), "4", "True"), node(Some("b"), "4", "True")]);
    assert!(!even.overloads(&held(&[("a", 2), ("b", 2)])));
    assert!(even.overloads(&held(&[("a", 4), ("b", 1)])));
    assert!(even.overloads(&held(&[("a", 4)])), "a zone without any");
    assert!(Zones::default().overloads(&held(&[("a", 1)])), "nothing is known of the nodes any more");
}
