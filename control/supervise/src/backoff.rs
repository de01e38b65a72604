//! Pauses that double up to a bound. Each is jittered, so that what failed together is not tried again in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pauses of one thing that may fail again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first`, doubling up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause: between half of what it would be without jitter, and that.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause.mul_f64(0.5 + random() / 2.0)
    }

    /// Sleeps for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// It worked: the next pause is the first one.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A period that does not keep step with others: between nine tenths of `span` and eleven.
#[must_use]
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.9 + random() / 5.0)
}

/// From 0 up to 1. Good enough to spread retries, and for nothing else.
fn random() -> f64 {
    // Every `RandomState` has keys of its own.
    f64::from(u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(4));
        let mut backoff = Backoff::new(first, longest);
        for expected in [1, 2, 4, 4] {
            let (pause, expected) = (backoff.next_pause(), Duration::from_secs(expected));
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} of {expected:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= first);
    }

    #[test]
    fn two_must_not_pause_in_step() {
        let pauses = || {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(64));
            (0..6).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(), pauses());
    }
}
