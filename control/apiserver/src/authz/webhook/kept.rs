//! Answers that are kept for a while, the first ones giving way to new ones.
//!
//! Permissions and everything else are in a queue each, as each has one time of its own: what is first in a queue ends first, and who asks
//! many questions that are refused does not push out what is allowed.

use super::Said;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Answers that are kept, of both kinds.
pub(super) const MOST: usize = 8192;

/// The answers, by what was asked.
#[derive(Default)]
pub(super) struct Kept {
    by_key: HashMap<String, Answer>,
    /// By their numbers, which ascend with time: what was refused, and what was allowed.
    queues: [BTreeMap<u64, String>; 2],
    next: u64,
}

struct Answer {
    until: Instant,
    number: u64,
    said: Said,
}

impl Kept {
    pub(super) fn get(&self, key: &str) -> Option<Said> {
        let answer = self.by_key.get(key).filter(|answer| answer.until > Instant::now())?;
        Some(answer.said.clone())
    }

    /// Keeps an answer for `time`. Those that have ended make room, and the first of the longer queue where all is full.
    pub(super) fn keep(&mut self, key: String, time: Duration, said: Said) {
        let now = Instant::now();
        self.forget(&key);
        for queue in 0..self.queues.len() {
            while let Some(first) = self.first(queue).filter(|first| self.ended(first, now)) {
                self.forget(&first);
            }
        }
        if self.by_key.len() >= MOST {
            let longer = usize::from(self.queues[1].len() > self.queues[0].len());
            if let Some(first) = self.first(longer) {
                self.forget(&first);
            }
        }
        self.next += 1;
        self.queues[usize::from(said.allowed())].insert(self.next, key.clone());
        self.by_key.insert(key, Answer { until: now + time, number: self.next, said });
    }

    fn first(&self, queue: usize) -> Option<String> {
        self.queues[queue].first_key_value().map(|(_, key)| key.clone())
    }

    fn ended(&self, key: &str, now: Instant) -> bool {
        self.by_key.get(key).is_none_or(|answer| answer.until <= now)
    }

    fn forget(&mut self, key: &str) {
        if let Some(answer) = self.by_key.remove(key) {
            self.queues[usize::from(answer.said.allowed())].remove(&answer.number);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_key.len(), self.queues.iter().map(BTreeMap::len).sum::<usize>());
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(allowed: bool) -> Said {
        Said { allowed: Some(allowed), ..Said::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_must_not_push_out_what_is_allowed() {
        let mut kept = Kept::default();
        kept.keep("ours".to_owned(), Duration::from_secs(300), said(true));
        for index in 0..2 * MOST {
            kept.keep(index.to_string(), Duration::from_secs(30), said(false));
        }
        assert_eq!(kept.get("ours"), Some(said(true)));
        assert_eq!(kept.get(&(2 * MOST - 1).to_string()), Some(said(false)));
        assert_eq!((kept.get("0"), kept.len()), (None, MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_must_not_stay_after_its_time_nor_beside_a_newer_one() {
        let mut kept = Kept::default();
        kept.keep("a".to_owned(), Duration::from_secs(30), said(false));
        kept.keep("a".to_owned(), Duration::from_secs(300), said(true));
        assert_eq!((kept.get("a"), kept.len()), (Some(said(true)), 1));
        kept.keep("b".to_owned(), Duration::from_secs(30), said(false));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(kept.get("b"), None);
        kept.keep("c".to_owned(), Duration::from_secs(30), said(false));
        assert_eq!((kept.get("a"), kept.len()), (Some(said(true)), 2));
    }
}
