use super::*;
use proptest::prelude::*;
use serde_json::json;

fn claim(size: &str, modes: &[&str]) -> Claim {
    Claim::new(&json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u1"},
        "spec": {"accessModes": modes, "storageClassName": "s", "resources": {"requests": {"storage": size}}},
    }))
}

fn volume(name: &str, size: &str, modes: &[&str]) -> Volume {
    Volume::new(&json!({
        "metadata": {"name": name, "labels": {"disk": name}},
        "spec": {"accessModes": modes, "storageClassName": "s", "capacity": {"storage": size}},
        "status": {"phase": "Available"},
    }))
}

fn chosen(claim: &Claim, volumes: &[Volume], late: bool) -> Option<String> {
    best_for_binder(claim, &volumes.iter().collect::<Vec<_>>(), late).map(|v| v.name.clone())
}

#[test]
fn the_smallest_volume_of_the_fewest_modes_wins() {
    let rwo = &["ReadWriteOnce"][..];
    let all = &["ReadWriteOnce", "ReadOnlyMany"][..];
    let volumes = [
        volume("wide", "5Gi", all),
        volume("big", "20Gi", rwo),
        volume("fit", "10Gi", rwo),
        volume("late", "10Gi", rwo),
    ];
    assert_eq!(chosen(&claim("5Gi", rwo), &volumes, false).as_deref(), Some("fit"));
    assert_eq!(chosen(&claim("5Gi", &["ReadOnlyMany"]), &volumes, false).as_deref(), Some("wide"));
    assert_eq!(chosen(&claim("11Gi", rwo), &volumes, false).as_deref(), Some("big"));
    assert_eq!(chosen(&claim("21Gi", rwo), &volumes, false), None);
    assert_eq!(chosen(&claim("5Gi", &["ReadWriteMany"]), &volumes, false), None);
    assert_eq!(chosen(&claim("5Gi", rwo), &volumes, true), None, "the scheduler binds late claims");
}

#[test]
fn a_volume_kept_for_the_claim_comes_first_and_others_are_not_touched() {
    let rwo = &["ReadWriteOnce"][..];
    let mut kept = volume("kept", "50Gi", rwo);
    kept.claim = Some(ClaimRef { namespace: "n".into(), name: "c".into(), uid: String::new() });
    kept.phase = "Bound".into();
    let mut taken = volume("taken", "1Gi", rwo);
    taken.claim = Some(ClaimRef { namespace: "n".into(), name: "c".into(), uid: "other".into() });
    let volumes = [taken, volume("free", "5Gi", rwo), kept];
    assert_eq!(chosen(&claim("1Gi", rwo), &volumes, false).as_deref(), Some("kept"));
    assert_eq!(chosen(&claim("1Gi", rwo), &volumes, true).as_deref(), Some("kept"), "for late claims, too");
    assert_eq!(chosen(&claim("1Gi", rwo), &volumes[..2], false).as_deref(), Some("free"));
}

#[test]
fn selector_class_mode_and_phase_count() {
    let rwo = &["ReadWriteOnce"][..];
    let mut wants = claim("1Gi", rwo);
    wants.selector = Selector::from_label_selector(&json!({"matchLabels": {"disk": "b"}})).ok();
    let volumes = [volume("a", "1Gi", rwo), volume("b", "2Gi", rwo)];
    assert_eq!(chosen(&wants, &volumes, false).as_deref(), Some("b"));
    for change in [
        |v: &mut Volume| v.class = "other".into(),
        |v: &mut Volume| v.block = true,
        |v: &mut Volume| v.phase = "Released".into(),
        |v: &mut Volume| v.terminating = true,
        |v: &mut Volume| v.attributes = "gold".into(),
    ] {
        let mut other = volume("a", "1Gi", rwo);
        change(&mut other);
        assert_eq!(chosen(&claim("1Gi", rwo), &[other], false), None);
    }
}

#[test]
fn a_named_volume_says_why_it_does_not_fit() {
    let rwo = &["ReadWriteOnce"][..];
    let why = |v: &Volume| v.satisfies(&claim("5Gi", rwo)).unwrap_err();
    assert_eq!(why(&volume("v", "1Gi", rwo)), "requested PV is too small");
    assert_eq!(why(&volume("v", "5Gi", &["ReadOnlyMany"])), "incompatible accessMode");
    let mut gone = volume("v", "5Gi", rwo);
    gone.terminating = true;
    assert_eq!(why(&gone), "the volume is marked for deletion \"v\"");
    assert!(volume("v", "5Gi", rwo).satisfies(&claim("5Gi", rwo)).is_ok());
}

#[test]
fn a_node_takes_only_what_it_reaches() {
    let rwo = &["ReadWriteOnce"][..];
    let volumes = [volume("far", "1Gi", rwo), volume("near", "9Gi", rwo)];
    let near = |v: &Volume| v.name == "near";
    let found = best(&claim("1Gi", rwo), &volumes, &Search::Node(&near));
    assert_eq!(found.map(|v| v.name.as_str()), Some("near"));
}

proptest! {
    /// Whatever the volumes: what is chosen serves the claim, and no smaller volume of its modes does.
    #[test]
    fn the_choice_serves_the_claim(sizes in proptest::collection::vec((1_i64..9, 0_usize..3), 0..8), want in 1_i64..9) {
        let sets: [&[&str]; 3] = [&["ReadWriteOnce"], &["ReadWriteOnce", "ReadOnlyMany"], &["ReadOnlyMany"]];
        let volumes: Vec<Volume> = sizes
            .iter()
            .enumerate()
            .map(|(i, (size, set))| volume(&format!("v{i}"), &size.to_string(), sets[*set]))
            .collect();
        let claim = claim(&want.to_string(), &["ReadWriteOnce"]);
        let found = best_for_binder(&claim, &volumes.iter().collect::<Vec<_>>(), false);
        let serves = |v: &&Volume| v.satisfies(&claim).is_ok();
        prop_assert_eq!(found.is_some(), volumes.iter().any(|v| serves(&v)));
        if let Some(found) = found {
            prop_assert!(serves(&found));
            let better = |v: &&Volume| serves(v) && v.modes == found.modes && v.capacity < found.capacity;
            prop_assert!(!volumes.iter().any(|v| better(&v)));
        }
    }
}
