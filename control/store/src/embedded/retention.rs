//! How much history is kept: a pure clock of (moment, revision) samples.

use crate::Revision;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples in one kept span: history is between one and 1.2 times the span.
const SAMPLES: u32 = 5;

/// Decides what to compact.
pub(super) struct Retention {
    keep: Duration,
    max_revisions: u64,
    samples: VecDeque<(Instant, Revision)>,
}

impl Retention {
    pub(super) fn new(keep: Duration, max_revisions: u64) -> Self {
        Self { keep, max_revisions: max_revisions.max(1), samples: VecDeque::new() }
    }

    /// Notes that `revision` is the newest at `now`, and gives the revision to compact to, if one is due.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        revision: Revision,
        compacted: Revision,
    ) -> Option<Revision> {
        let spacing = self.keep / SAMPLES;
        let due = match self.samples.back() {
            None => true,
            Some(&(at, seen)) => seen != revision && now.duration_since(at) >= spacing,
        };
        if due {
            self.samples.push_back((now, revision));
        }
        // The newest sample stays: it says that nothing was written since.
        let mut by_age = 0;
        while self.samples.len() > 1
            && self.samples.get(1).is_some_and(|&(at, _)| now.duration_since(at) >= self.keep)
        {
            self.samples.pop_front();
        }
        if let Some(&(at, seen)) = self.samples.front()
            && now.duration_since(at) >= self.keep
        {
            by_age = seen;
        }
        // In steps of an eighth, so that a steady stream of writes does not compact on each one.
        let by_count = match revision.checked_sub(self.max_revisions) {
            Some(target) if target > compacted + self.max_revisions / 8 => target,
            _ => 0,
        };
        Some(by_age.max(by_count)).filter(|&target| target > compacted)
    }

    /// How long until [`Retention::observe`] can have something new to say without a write; `None`: never.
    pub(super) fn next(&self, now: Instant, revision: Revision, compacted: Revision) -> Option<Duration> {
        if revision <= compacted {
            return None;
        }
        let until = |at: Instant, span: Duration| (at + span).saturating_duration_since(now);
        let sample = match self.samples.back() {
            None => Some(Duration::ZERO),
            Some(&(at, seen)) => (seen != revision).then(|| until(at, self.keep / SAMPLES)),
        };
        let age =
            self.samples.iter().find(|&&(_, seen)| seen > compacted).map(|&(at, _)| until(at, self.keep));
        sample.into_iter().chain(age).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_for_the_span_and_then_let_go() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut r = Retention::new(Duration::from_secs(300), u64::MAX);
        let mut compacted = 0;
        for second in 0..3000 {
            // One write a second: revision n was written at second n.
            if let Some(target) = r.observe(at(second), second, compacted) {
                compacted = target;
            }
            assert!(
                second.saturating_sub(compacted) >= 300.min(second),
                "too much let go at {second}: {compacted}"
            );
            assert!(second - compacted <= 361, "too much kept at {second}: {compacted}");
        }
    }

    #[test]
    fn a_quiet_store_compacts_once_and_then_sleeps() {
        let start = Instant::now();
        let mut r = Retention::new(Duration::from_secs(300), u64::MAX);
        assert_eq!(r.observe(start, 9, 0), None);
        let wake = start + r.next(start, 9, 0).unwrap();
        assert_eq!(r.observe(wake, 9, 0), Some(9));
        assert_eq!(r.next(wake, 9, 9), None);
    }

    #[test]
    fn the_count_bounds_history_too() {
        let now = Instant::now();
        let mut r = Retention::new(Duration::from_secs(300), 1000);
        assert_eq!(r.observe(now, 1100, 0), None);
        assert_eq!(r.observe(now, 1200, 0), Some(200));
    }
}
