//! Pauses that double, one for each thing that keeps failing.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// The pauses. Entries that have not failed for twice the longest pause are dropped.
pub(crate) struct Backoff<K> {
    first: Duration,
    longest: Duration,
    entries: Mutex<HashMap<K, (Duration, Instant)>>,
}

impl<K: Hash + Eq> Backoff<K> {
    /// Pauses from `first` doubling up to `longest`.
    #[must_use]
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, entries: Mutex::default() }
    }

    /// What is left of the key's pause; when nothing is, the next pause begins now.
    pub(crate) fn wait_or_begin(&self, key: K) -> Option<Duration> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let stale = self.longest * 2;
        entries.retain(|_, (_, since)| now.duration_since(*since) < stale);
        match entries.get_mut(&key) {
            Some((pause, since)) => {
                let passed = now.duration_since(*since);
                if passed < *pause {
                    return Some(*pause - passed);
                }
                (*pause, *since) = ((*pause * 2).min(self.longest), now);
            }
            None => {
                entries.insert(key, (self.first, now));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_are_forgotten() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert_eq!(backoff.wait_or_begin("n"), None);
            let wait = backoff.wait_or_begin("n").unwrap();
            waits.push(wait.as_secs());
            tokio::time::advance(wait).await;
        }
        assert_eq!(waits, [1, 2, 4, 4]);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(backoff.wait_or_begin("n"), None);
        assert_eq!(backoff.wait_or_begin("n"), Some(Duration::from_secs(1)));
    }
}
