//! How long to wait before a container is started again.
//!
//! The first restart is immediate and arms a delay of 10 s; each further one doubles it, up to a cap. A container that
//! ran for ten minutes starts afresh. What was learned lives in the worker; after a restart of the kubelet it is
//! estimated from the number of attempts, which the runtime keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

pub const FIRST: Duration = Duration::from_secs(10);
/// A container that ran this long is taken for healthy.
pub const RESET_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    armed: Timestamp,
}

/// The delays of one pod's containers, by container name.
#[derive(Clone, Debug)]
pub struct Backoffs {
    cap: Duration,
    entries: BTreeMap<String, Entry>,
}

impl Backoffs {
    /// No delays; none will exceed `cap`.
    pub fn new(cap: Duration) -> Self {
        Self { cap, entries: BTreeMap::new() }
    }

    /// Gives a container not known yet the delay its attempts have earned it (a fresh kubelet meeting an old pod).
    pub fn seed(&mut self, name: &str, attempts: u32, ended: Timestamp) {
        if attempts > 0 && !self.entries.contains_key(name) {
            let delay = FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(self.cap);
            self.entries.insert(name.to_owned(), Entry { delay, armed: ended });
        }
    }

    /// The delay armed for a container and when it is over, if a container that ended at `ended` must wait for it.
    pub fn hold(&self, name: &str, ended: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let entry = self.entries.get(name)?;
        if since(entry.armed, ended) > RESET_AFTER {
            return None;
        }
        let until = ended.checked_add(jiff::SignedDuration::try_from(entry.delay).ok()?).ok()?;
        (now < until).then_some((entry.delay, until))
    }

    /// Notes that a container which ended at `ended` is started again at `now`.
    pub fn started(&mut self, name: &str, ended: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(name) {
            Some(entry) if since(entry.armed, ended) <= RESET_AFTER => {
                entry.delay.saturating_mul(2).min(self.cap)
            }
            _ => FIRST.min(self.cap),
        };
        self.entries.insert(name.to_owned(), Entry { delay, armed: now });
    }
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_then_delays_double_to_the_cap() {
        let mut backoffs = Backoffs::new(Duration::from_secs(300));
        let mut now = 0;
        assert_eq!(backoffs.hold("c", at(0), at(0)), None);
        backoffs.started("c", at(0), at(0));
        for want in [10, 20, 40, 80, 160, 300, 300] {
            now += 1;
            let (delay, until) = backoffs.hold("c", at(now), at(now)).unwrap();
            assert_eq!(delay.as_secs(), want);
            assert_eq!(until, at(now + i64::try_from(want).unwrap()));
            let ended = now;
            now = until.as_second();
            assert_eq!(backoffs.hold("c", at(ended), at(now)), None);
            backoffs.started("c", at(ended), at(now));
        }
    }

    #[test]
    fn ten_healthy_minutes_reset_the_delay() {
        let mut backoffs = Backoffs::new(Duration::from_secs(300));
        backoffs.started("c", at(0), at(0));
        backoffs.started("c", at(5), at(15));
        assert_eq!(backoffs.hold("c", at(15 + 601), at(15 + 601)), None);
        backoffs.started("c", at(15 + 601), at(15 + 601));
        assert_eq!(backoffs.hold("c", at(617), at(617)).unwrap().0, FIRST);
    }

    #[test]
    fn a_fresh_kubelet_estimates_from_attempts() {
        let mut backoffs = Backoffs::new(Duration::from_secs(300));
        backoffs.seed("c", 3, at(100));
        assert_eq!(backoffs.hold("c", at(100), at(100)).unwrap().0.as_secs(), 40);
        backoffs.seed("c", 1, at(100));
        assert_eq!(backoffs.hold("c", at(100), at(100)).unwrap().0.as_secs(), 40, "known entries stay");
    }
}
