use super::policy::{Memory, Policy};
use super::threshold::{Left, Signal, Thresholds};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const TRANSITION: Duration = Duration::from_secs(300);

fn left(available: u64) -> Left {
    Left { available, capacity: 1000 << 20 }
}

#[test]
fn pressure_rises_at_once_and_falls_after_the_transition() {
    let (policy, start) = (Policy::hard(Thresholds::default(), TRANSITION), Instant::now());
    let mut memory = Memory::default();
    let mut at = |available, seconds| {
        let observed = BTreeMap::from([
            (Signal::MemoryAvailable, left(available)),
            (Signal::NodefsAvailable, left(500 << 20)),
        ]);
        memory.judge(&policy, &observed, start + Duration::from_secs(seconds)).pressures
    };
    assert_eq!(at(100 << 20, 0), [false; 3], "the threshold itself is enough");
    assert_eq!(at((100 << 20) - 1, 10), [true, false, false]);
    assert_eq!(at(900 << 20, 300), [true, false, false]);
    assert_eq!(at(900 << 20, 310), [false; 3]);
}

#[test]
fn each_signal_has_its_pressure() {
    let judge = |thresholds, observed| {
        let policy = Policy::hard(thresholds, TRANSITION);
        Memory::default().judge(&policy, &observed, Instant::now()).pressures
    };
    let file = BTreeMap::from([("pid.available".to_owned(), "100".to_owned())]);
    let pids = Thresholds::parse(&file).unwrap();
    let observed = BTreeMap::from([(Signal::PidAvailable, left(99)), (Signal::MemoryAvailable, left(0))]);
    assert_eq!(judge(pids, observed), [false, false, true]);
    let observed = BTreeMap::from([(Signal::ImagefsInodesFree, left(0))]);
    assert_eq!(judge(Thresholds::default(), observed), [false, true, false]);
}

#[test]
fn thresholds_are_read_as_upstream_spells_them() {
    let parse =
        |name: &str, text: &str| Thresholds::parse(&BTreeMap::from([(name.to_owned(), text.to_owned())]));
    let small = parse("memory.available", "1Gi").unwrap();
    assert!(small.is_met(Signal::MemoryAvailable, left(1 << 20)) && !small.watches(Signal::NodefsAvailable));
    assert!(parse("nodefs.available", "5%").unwrap().is_met(Signal::NodefsAvailable, left(1 << 20)));
    assert!(!parse("nodefs.available", "0%").unwrap().watches(Signal::NodefsAvailable));
    assert!(!parse("nodefs.available", "100%").unwrap().watches(Signal::NodefsAvailable));
    for (name, text) in [
        ("memory.free", "1"),
        ("memory.available", "-1"),
        ("memory.available", "lots"),
        ("nodefs.available", "101%"),
        ("nodefs.available", "-1%"),
        ("nodefs.available", "x%"),
    ] {
        assert!(parse(name, text).is_err(), "{name} {text}");
    }
}

#[test]
fn thresholds_of_containers_layers_must_not_be_refused_nor_count() {
    let file = |text: &str| BTreeMap::from([("containerfs.available".to_owned(), text.to_owned())]);
    assert_eq!(Thresholds::parse(&file("10%")).unwrap(), Thresholds::none());
    assert!(Thresholds::parse(&file("lots")).is_err());
}
