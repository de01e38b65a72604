use super::*;
use machinery::binding::ClaimRef;
use serde_json::{Value, json};

fn claim(change: Value) -> Claim {
    let mut object = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    machinery::patch::merge::apply(&mut object, change.to_string().as_bytes()).unwrap();
    Claim::new(&object)
}

fn volume(change: Value) -> Volume {
    let mut object = json!({
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
        "status": {"phase": "Available"},
    });
    machinery::patch::merge::apply(&mut object, change.to_string().as_bytes()).unwrap();
    Volume::new(&object)
}

fn class(name: &str, provisioner: &str, late: bool) -> Class {
    Class { name: name.into(), provisioner: provisioner.into(), late, ..Class::default() }
}

fn decide(claim: &Claim, volumes: &[Volume], classes: &[Class], waiting: &[&str]) -> ForClaim {
    let volumes: Vec<&Volume> = volumes.iter().collect();
    let waiting: Vec<String> = waiting.iter().map(|p| (*p).to_owned()).collect();
    for_claim(claim, &Around { volumes: &volumes, classes, waiting: &waiting, provisions: true })
}

fn said(outcome: &ForClaim) -> (&str, &str) {
    match outcome {
        ForClaim::Pending(Some(w)) | ForClaim::Lost(w) | ForClaim::Provision(_, w) | ForClaim::Say(w) => {
            (w.reason, &w.message)
        }
        _ => ("", ""),
    }
}

#[test]
fn a_claim_takes_a_free_volume() {
    assert_eq!(decide(&claim(json!({})), &[volume(json!({}))], &[], &[]), ForClaim::Bind("v".into()));
    let none = decide(&claim(json!({})), &[], &[], &[]);
    assert_eq!(
        said(&none),
        ("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
    );
}

#[test]
fn a_claim_without_class_gets_the_newest_default() {
    let unclassed = claim(json!({"spec": {"storageClassName": null}}));
    let default = |name: &str, created| Class { default: true, created, ..class(name, "p", false) };
    let classes = [default("old", 1), default("new-b", 2), default("new-a", 2), class("other", "p", false)];
    assert_eq!(decide(&unclassed, &[], &classes, &[]), ForClaim::Assign("new-a".into()));
    let empty = decide(&claim(json!({})), &[], &classes, &[]);
    assert!(matches!(empty, ForClaim::Pending(_)), "the empty class is a choice");
}

#[test]
fn late_claims_wait_for_a_pod_and_then_for_its_node() {
    let late = claim(json!({"spec": {"storageClassName": "s"}}));
    let classes = [class("s", "example.com/p", true)];
    let free = volume(json!({"spec": {"storageClassName": "s"}}));
    let outcome = decide(&late, std::slice::from_ref(&free), &classes, &[]);
    assert_eq!(said(&outcome).0, "WaitForFirstConsumer", "the scheduler chooses, not the binder");
    let outcome = decide(&late, &[], &classes, &["a"]);
    assert_eq!(said(&outcome), ("WaitForPodScheduled", "waiting for pod a to be scheduled"));
    let outcome = decide(&late, &[], &classes, &["a", "b"]);
    assert_eq!(said(&outcome).1, "waiting for pods a,b to be scheduled");
    let chosen = claim(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}},
        "spec": {"storageClassName": "s"}}));
    let outcome = decide(&chosen, &[], &classes, &["a"]);
    assert!(matches!(&outcome, ForClaim::Provision(by, _) if by == "example.com/p"), "{outcome:?}");
}

#[test]
fn provisioners_are_asked_by_the_name_of_their_driver() {
    let of = |class: &str| claim(json!({"spec": {"storageClassName": class}}));
    let classes = [
        class("ebs", "kubernetes.io/aws-ebs", false),
        class("none", NO_PROVISIONER, false),
        class("own", "example.com/p", false),
    ];
    assert!(
        matches!(decide(&of("ebs"), &[], &classes, &[]), ForClaim::Provision(by, _) if by == "ebs.csi.aws.com")
    );
    assert!(
        matches!(decide(&of("own"), &[], &classes, &[]), ForClaim::Provision(by, _) if by == "example.com/p")
    );
    assert_eq!(
        said(&decide(&of("none"), &[], &classes, &[])),
        ("ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner")
    );
    assert_eq!(
        said(&decide(&of("gone"), &[], &classes, &[])),
        ("ProvisioningFailed", "storageclass.storage.k8s.io \"gone\" not found")
    );
}

#[test]
fn a_claim_that_names_its_volume_takes_no_other() {
    let named = claim(json!({"spec": {"volumeName": "v"}}));
    assert_eq!(decide(&named, &[], &[], &[]), ForClaim::Pending(None));
    assert_eq!(decide(&named, &[volume(json!({}))], &[], &[]), ForClaim::Bind("v".into()));
    let small = volume(json!({"spec": {"capacity": {"storage": "1Mi"}}}));
    assert_eq!(
        said(&decide(&named, &[small], &[], &[])),
        ("VolumeMismatch", "Cannot bind to requested volume \"v\": requested PV is too small")
    );
    let other = volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "d", "uid": "x"}}}));
    assert_eq!(
        said(&decide(&named, &[other], &[], &[])),
        ("FailedBinding", "volume \"v\" already bound to a different claim.")
    );
    let kept = volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}));
    assert_eq!(decide(&named, &[kept], &[], &[]), ForClaim::Bind("v".into()));
}

#[test]
fn a_bound_claim_that_loses_its_volume_is_lost() {
    let bound = |volume: &str| {
        claim(
            json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}}),
        )
    };
    let other = volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "x"}}}));
    assert_eq!(said(&decide(&bound(""), &[], &[], &[])).0, "ClaimLost");
    assert_eq!(said(&decide(&bound("v"), &[], &[], &[])).0, "ClaimLost");
    assert_eq!(said(&decide(&bound("v"), &[other], &[], &[])).0, "ClaimMisbound");
    assert_eq!(decide(&bound("v"), &[volume(json!({}))], &[], &[]), ForClaim::Bind("v".into()));
}

#[test]
fn a_volume_follows_its_claim() {
    let held = |uid: &str| {
        let mut v = volume(json!({}));
        v.claim = Some(ClaimRef { namespace: "n".into(), name: "c".into(), uid: uid.into() });
        v
    };
    let with = |name: &str| claim(json!({"spec": {"volumeName": name}}));
    assert_eq!(for_volume(&volume(json!({})), None, false), ForVolume::Phase("Available"));
    assert_eq!(for_volume(&held(""), Some(&with("v")), false), ForVolume::Phase("Available"));
    assert_eq!(for_volume(&held("u"), Some(&with("v")), false), ForVolume::Phase("Bound"));
    assert_eq!(for_volume(&held("u"), Some(&with("")), false), ForVolume::Wake);
    assert_eq!(for_volume(&held("u"), None, false), ForVolume::Reclaim);
    assert_eq!(for_volume(&held("older"), Some(&with("")), false), ForVolume::Reclaim);
    assert_eq!(for_volume(&held("u"), Some(&with("w")), false), ForVolume::Unbind);
    assert_eq!(for_volume(&held("u"), Some(&with("w")), true), ForVolume::Reclaim);
    let mut block = held("u");
    block.block = true;
    assert!(matches!(for_volume(&block, Some(&with("")), false), ForVolume::Mismatch(..)));
}

#[test]
fn a_provisioner_must_not_be_asked_where_that_is_switched_off() {
    let classes = [class("own", "example.com/p", false), class("none", NO_PROVISIONER, false)];
    let free = volume(json!({"spec": {"storageClassName": "own"}}));
    let decide = |name: &str, volumes: &[&Volume]| {
        let claim = claim(json!({"spec": {"storageClassName": name}}));
        for_claim(&claim, &Around { volumes, classes: &classes, waiting: &[], provisions: false })
    };
    for name in ["own", "none", "gone"] {
        assert_eq!(decide(name, &[]), ForClaim::Pending(None), "{name}");
    }
    assert_eq!(decide("own", &[&free]), ForClaim::Bind("v".into()), "what is there is bound all the same");
}
