use super::*;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn config() -> Config {
    Config::new("n1", vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()], "/".into())
}

fn observed() -> Observed {
    Observed {
        machine: Machine {
            cpus: 2,
            memory: 1 << 30,
            storage: Some(1 << 34),
            boot_id: "boot-1".into(),
            ..Machine::default()
        },
        health: Health { errors: vec![], version: "containerd://1.6.20".into(), ..Health::default() },
        ..Observed::default()
    }
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> &'a NodeCondition {
    status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn a_first_status_has_the_conditions_in_upstreams_order() {
    let outcome = status(&config(), &observed(), &NodeStatus::default(), at(0));
    let conditions = outcome.status.conditions.as_ref().unwrap();
    let told: Vec<_> = conditions
        .iter()
        .map(|c| {
            (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap(), c.message.as_deref().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available"
            ),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]
    );
    assert_eq!(outcome.events, ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]);
    assert!(!outcome.rebooted);
    let addresses: Vec<_> =
        outcome.status.addresses.unwrap().into_iter().map(|a| (a.type_, a.address)).collect();
    let expected = [("InternalIP", "192.0.2.1"), ("InternalIP", "2001:db8::1"), ("Hostname", "n1")];
    assert_eq!(addresses, expected.map(|(t, a)| (t.to_owned(), a.to_owned())));
}

#[test]
fn readiness_follows_the_runtime_and_keeps_its_transition_time() {
    let ready = status(&config(), &observed(), &NodeStatus::default(), at(0)).status;
    let mut broken = observed();
    broken.health.errors = vec!["a".into(), "b".into()];
    broken.reported.errors = vec!["b".into()];
    let lost = status(&config(), &broken, &ready, at(10));
    assert_eq!(lost.events, ["NodeNotReady"]);
    let condition_lost = condition(&lost.status, "Ready");
    assert_eq!(condition_lost.message.as_deref(), Some("[a, b]"));
    assert_eq!(condition_lost.reason.as_deref(), Some("KubeletNotReady"));
    assert_eq!(condition_lost.last_transition_time, Some(Time(at(10))));
    let still = status(&config(), &broken, &lost.status, at(20));
    assert!(still.events.is_empty());
    assert_eq!(condition(&still.status, "Ready").last_transition_time, Some(Time(at(10))));
    assert_eq!(condition(&still.status, "Ready").last_heartbeat_time, Some(Time(at(20))));
    assert_eq!(status(&config(), &observed(), &still.status, at(30)).events, ["NodeReady"]);
}

#[test]
fn a_node_without_storage_is_not_ready() {
    let mut without = observed();
    without.machine.storage = None;
    let outcome = status(&config(), &without, &NodeStatus::default(), at(0));
    let message = condition(&outcome.status, "Ready").message.clone();
    assert_eq!(message.as_deref(), Some("missing node capacity for resources: ephemeral-storage"));
}

#[test]
fn what_others_own_is_kept() {
    let mut before = status(&config(), &observed(), &NodeStatus::default(), at(0)).status;
    let foreign =
        NodeCondition { type_: "NetworkUnavailable".into(), status: "False".into(), ..Default::default() };
    before.conditions.as_mut().unwrap().insert(0, foreign.clone());
    // whoever advertises a resource says only that it is there: all of it is for pods
    before.capacity.as_mut().unwrap().insert("example.com/gpu".into(), Quantity("2".into()));
    before.allocatable.as_mut().unwrap().insert("example.com/gone".into(), Quantity("1".into()));
    for map in [&mut before.capacity, &mut before.allocatable] {
        map.as_mut().unwrap().insert("hugepages-2Mi".into(), Quantity("4Mi".into()));
    }
    let after = status(&config(), &observed(), &before, at(10)).status;
    assert_eq!(after.conditions.as_ref().unwrap()[0], foreign);
    for map in [after.capacity.as_ref().unwrap(), after.allocatable.as_ref().unwrap()] {
        assert_eq!(map["example.com/gpu"].0, "2");
        assert!(!map.contains_key("hugepages-2Mi"), "a page size that is gone");
        assert!(!map.contains_key("example.com/gone"), "nobody advertises it any more");
    }
}

#[test]
fn a_reboot_is_noticed_once() {
    let before = status(&config(), &observed(), &NodeStatus::default(), at(0)).status;
    let mut rebooted = observed();
    rebooted.machine.boot_id = "boot-2".into();
    let after = status(&config(), &rebooted, &before, at(10));
    assert!(after.rebooted);
    assert!(!status(&config(), &rebooted, &after.status, at(20)).rebooted);
}

#[test]
fn the_largest_images_are_listed_with_five_names() {
    let image = |id: &str, size, tags: usize| Image {
        id: id.into(),
        size,
        repo_tags: (0..tags).map(|n| format!("{id}:{n}")).collect(),
        repo_digests: vec![format!("{id}@sha256:0")],
        ..Image::default()
    };
    let listed = images(vec![image("a", 1, 1), image("b", 3, 9), image("c", 2, 0)], 2);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].names.as_ref().unwrap(), &["b@sha256:0", "b:0", "b:1", "b:2", "b:3"]);
    assert_eq!((listed[0].size_bytes, listed[1].size_bytes), (Some(3), Some(2)));
    assert_eq!(images(vec![image("a", 1, 1), image("b", 3, 9)], -1).len(), 2);
}

fn any_observed() -> impl Strategy<Value = Observed> {
    (any::<[bool; 3]>(), proptest::collection::vec("[a-c]", 0..3), 0u64..4, any::<bool>()).prop_map(
        |([memory, disk, pid], errors, cpus, swap)| {
            let mut out = observed();
            out.reported = Reported {
                memory_pressure: memory,
                disk_pressure: disk,
                pid_pressure: pid,
                errors,
                ..Reported::default()
            };
            out.machine.cpus = cpus;
            out.machine.swap = u64::from(swap);
            out
        },
    )
}

proptest! {
    #[test]
    fn an_unchanged_world_changes_nothing(first in any_observed(), then in any_observed()) {
        let before = status(&config(), &first, &NodeStatus::default(), at(0)).status;
        let after = status(&config(), &then, &before, at(10)).status;
        let again = status(&config(), &then, &after, at(20));
        prop_assert!(!has_changed(&after, &again.status));
        prop_assert!(again.events.is_empty());
        prop_assert!(!again.rebooted);
    }
}

#[test]
fn a_node_that_shuts_down_must_not_be_ready() {
    let mut seen = observed();
    seen.reported.shutting_down = true;
    let told = status(&config(), &seen, &NodeStatus::default(), at(0)).status;
    let ready = condition(&told, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    assert_eq!(ready.message.as_deref(), Some("node is shutting down"));
}

#[test]
fn what_the_node_can_do_must_not_be_left_out() {
    let told =
        status(&config(), &observed(), &NodeStatus::default(), at(0)).status.declared_features.unwrap();
    assert!(told.contains(&"RestartAllContainersOnContainerExits".to_owned()), "{told:?}");
    assert!(told.is_sorted(), "{told:?}");
}

#[test]
fn a_clouds_own_addresses_must_not_be_written_over() {
    let of = |cloud, previous: &NodeStatus| {
        let config = Config { cloud, ..config() };
        let now = Timestamp::from_second(1).unwrap();
        let addresses = status(&config, &Observed::default(), previous, now).status.addresses.unwrap();
        addresses.into_iter().map(|a| a.address).collect::<Vec<_>>()
    };
    let none = NodeStatus::default();
    assert_eq!(of(None, &none), ["192.0.2.1", "2001:db8::1", "n1"]);
    assert_eq!(of(Some(Cloud { ips_given: true }), &none), ["192.0.2.1", "2001:db8::1", "n1"]);
    assert_eq!(of(Some(Cloud { ips_given: false }), &none), ["n1"]);
    let told = NodeAddress { type_: "ExternalIP".into(), address: "203.0.113.9".into() };
    let known = NodeStatus { addresses: Some(vec![told]), ..NodeStatus::default() };
    assert_eq!(of(Some(Cloud { ips_given: true }), &known), ["203.0.113.9"]);
    assert_eq!(of(None, &known), ["192.0.2.1", "2001:db8::1", "n1"]);
}
