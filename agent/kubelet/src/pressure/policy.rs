//! When the node is under pressure, and when something must be done about it. Pure.
//!
//! A hard threshold acts at once, a soft one after its grace period. One that has acted stays met until its minimum
//! reclaim is there, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::threshold::{Left, Observations, Pressure, Resource, Signal, Threshold, Thresholds};

/// The `eviction*` fields of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `evictionHard`.
    pub hard: Thresholds,
    /// `evictionSoft`.
    pub soft: Thresholds,
    /// `evictionSoftGracePeriod`.
    pub soft_grace: BTreeMap<Signal, Duration>,
    /// `evictionMinimumReclaim`.
    pub minimum_reclaim: Thresholds,
    /// `evictionMaxPodGracePeriod`: seconds pods have when a soft threshold ends them.
    pub longest_grace: i64,
    /// `evictionPressureTransitionPeriod`.
    pub transition: Duration,
}

impl Policy {
    /// No soft thresholds, no minimum reclaim.
    pub fn hard(hard: Thresholds, transition: Duration) -> Self {
        Self {
            hard,
            soft: Thresholds::none(),
            soft_grace: BTreeMap::new(),
            minimum_reclaim: Thresholds::none(),
            longest_grace: 0,
            transition,
        }
    }

    /// Every threshold: its signal, whether it is soft, and its value. The memory of all pods together has the machine's.
    fn all(&self) -> impl Iterator<Item = (Signal, bool, Threshold)> {
        let hard = self.hard.all().map(|(signal, value)| (signal, false, value));
        let pods = self.hard.of(Signal::MemoryAvailable);
        let pods = pods.map(|value| (Signal::AllocatableMemoryAvailable, false, value));
        let soft = self.soft.all().map(|(signal, value)| (signal, true, value));
        hard.chain(pods).chain(soft).collect::<Vec<_>>().into_iter()
    }

    /// Signals that have a threshold.
    pub fn signals(&self) -> BTreeSet<Signal> {
        self.all().map(|(signal, ..)| signal).collect()
    }

    /// Whether any threshold is met, minimum reclaim included.
    pub fn is_starved(&self, observed: &Observations) -> bool {
        self.all().any(|(signal, _, value)| {
            observed.get(&signal).is_some_and(|left| self.is_met(signal, value, *left, true))
        })
    }

    /// Whether a hard threshold is met.
    pub fn is_hard_met(&self, observed: &Observations) -> bool {
        self.all().any(|(signal, soft, value)| {
            !soft && observed.get(&signal).is_some_and(|left| self.is_met(signal, value, *left, false))
        })
    }

    fn is_met(&self, signal: Signal, value: Threshold, left: Left, reclaim: bool) -> bool {
        let mut wanted = value.of(left.capacity);
        if reclaim && let Some(more) = self.minimum_reclaim.of(signal) {
            wanted = wanted.saturating_add(more.of(left.capacity));
        }
        left.available < wanted
    }
}

/// A threshold that wants something done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    pub signal: Signal,
    /// Pods may have some time.
    pub soft: bool,
    /// What should be left; bytes, inodes or process ids.
    pub threshold: u64,
    /// Bytes, inodes or process ids.
    pub available: u64,
}

/// What is remembered between observations.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    since: BTreeMap<(Signal, bool), Instant>,
    acting: BTreeSet<(Signal, bool)>,
    pressed: [Option<Instant>; Pressure::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The pressures to report, in the order of [`Pressure::ALL`].
    pub pressures: [bool; Pressure::ALL.len()],
    /// What to act on, memory first.
    pub act: Vec<Met>,
}

impl Memory {
    /// Takes in an observation.
    pub fn judge(&mut self, policy: &Policy, observed: &Observations, now: Instant) -> Verdict {
        let mut since = BTreeMap::new();
        let mut act = Vec::new();
        for (signal, soft, value) in policy.all() {
            let key = (signal, soft);
            let Some(left) = observed.get(&signal).copied() else { continue };
            if !policy.is_met(signal, value, left, self.acting.contains(&key)) {
                continue;
            }
            let first = self.since.get(&key).copied().unwrap_or(now);
            since.insert(key, first);
            self.pressed[signal.pressure() as usize] = Some(now);
            let grace = policy.soft_grace.get(&signal).copied().filter(|_| soft).unwrap_or_default();
            if now.duration_since(first) >= grace {
                let threshold = value.of(left.capacity);
                act.push(Met { signal, soft, threshold, available: left.available });
            }
        }
        act.sort_by_key(|met| met.signal.resource() != Resource::Memory);
        self.since = since;
        self.acting = act.iter().map(|met| (met.signal, met.soft)).collect();
        let transition = policy.transition;
        let pressures =
            self.pressed.map(|seen| seen.is_some_and(|at| at == now || now.duration_since(at) < transition));
        Verdict { pressures, act }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(all: &[(&str, &str)]) -> Thresholds {
        let file = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Thresholds::parse(&file).unwrap()
    }

    fn left(available: u64) -> Left {
        Left { available, capacity: 1000 }
    }

    #[test]
    fn soft_thresholds_wait_and_hard_ones_do_not() {
        let mut policy = Policy::hard(thresholds(&[("memory.available", "100")]), Duration::from_secs(300));
        policy.soft = thresholds(&[("memory.available", "30%")]);
        policy.soft_grace = BTreeMap::from([(Signal::MemoryAvailable, Duration::from_secs(30))]);
        let start = Instant::now();
        let mut memory = Memory::default();
        let mut at = |available, seconds| {
            let observed = BTreeMap::from([(Signal::MemoryAvailable, left(available))]);
            memory.judge(&policy, &observed, start + Duration::from_secs(seconds))
        };
        let first = at(200, 0);
        assert_eq!(
            (first.pressures, first.act.len()),
            ([true, false, false], 0),
            "pressure, but time is left"
        );
        assert!(at(200, 20).act.is_empty());
        let met = Met { signal: Signal::MemoryAvailable, soft: true, threshold: 300, available: 200 };
        assert_eq!(at(200, 30).act, [met]);
        assert!(at(400, 40).act.is_empty());
        assert!(at(200, 50).act.is_empty(), "the grace begins again");
        let hard = at(50, 60).act;
        assert!(hard.iter().any(|m| !m.soft && m.available == 50), "{hard:?}");
    }

    #[test]
    fn what_acts_goes_on_until_its_minimum_is_reclaimed() {
        let mut policy = Policy::hard(thresholds(&[("nodefs.available", "100")]), Duration::ZERO);
        policy.minimum_reclaim = thresholds(&[("nodefs.available", "50")]);
        let mut memory = Memory::default();
        let mut at = |available| {
            let observed = BTreeMap::from([(Signal::NodefsAvailable, left(available))]);
            !memory.judge(&policy, &observed, Instant::now()).act.is_empty()
        };
        assert!(!at(120), "not met yet");
        assert!(at(99));
        assert!(at(120), "not enough reclaimed");
        assert!(!at(150));
        assert!(!at(120));
    }

    #[test]
    fn memory_comes_first_and_pods_together_count() {
        let policy = Policy::hard(
            thresholds(&[("imagefs.available", "10%"), ("memory.available", "100")]),
            Duration::ZERO,
        );
        assert!(policy.signals().contains(&Signal::AllocatableMemoryAvailable));
        let observed = BTreeMap::from([
            (Signal::AllocatableMemoryAvailable, left(5)),
            (Signal::ImagefsAvailable, left(5)),
        ]);
        let verdict = Memory::default().judge(&policy, &observed, Instant::now());
        assert_eq!(verdict.act.first().map(|m| m.signal), Some(Signal::AllocatableMemoryAvailable));
        assert_eq!(verdict.pressures, [true, true, false]);
        assert!(policy.is_starved(&observed));
    }
}
