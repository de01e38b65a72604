//! The queue between what wakes a reconciler and the reconciler: keys, each at most once, never two workers on one key.

pub use crate::key::Key;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// First and longest pause after failures of one key (upstream's item rate limiter).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1000));

/// The queue. Memory is bounded by the number of distinct keys.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    active: HashSet<Key>,
    again: HashSet<Key>,
    delayed: BTreeMap<(Instant, u64), Key>,
    /// Where each key stands in `delayed`: once, at its earliest time.
    waiting: HashMap<Key, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<Key, u32>,
}

impl Inner {
    fn add(&mut self, key: Key) {
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: Key, at: Instant) {
        if let Some(present) = self.waiting.get(&key) {
            if present.0 <= at {
                return;
            }
            self.delayed.remove(present);
        }
        self.sequence += 1;
        self.waiting.insert(key.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), key);
    }
}

impl Queue {
    /// Queues a key; when it is being worked on, it is worked on once more afterwards.
    pub fn add(&self, key: Key) {
        self.inner.lock().add(key);
        self.woken.notify_one();
    }

    /// Queues a key after a delay; of several delays of a key the one that ends first counts.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.inner.lock().add_at(key, Instant::now() + delay);
        self.woken.notify_one();
    }

    /// Queues a key after the time in which changes of it are gathered; at once where there is none.
    pub fn add_gathered(&self, key: Key, gather: Duration) {
        match gather.is_zero() {
            true => self.add(key),
            false => self.add_after(key, gather),
        }
    }

    /// The next key to work on; give it back with [`Queue::done`].
    pub async fn next(&self) -> Key {
        loop {
            let woken = self.woken.notified();
            let wait = {
                let mut inner = self.inner.lock();
                let now = Instant::now();
                while let Some(entry) = inner.delayed.first_entry().filter(|e| e.key().0 <= now) {
                    let key = entry.remove();
                    inner.waiting.remove(&key);
                    inner.add(key);
                }
                if let Some(key) = inner.ready.pop_front() {
                    inner.queued.remove(&key);
                    inner.active.insert(key.clone());
                    if !inner.ready.is_empty() {
                        self.woken.notify_one();
                    }
                    return key;
                }
                inner.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match wait {
                Some(at) => tokio::select! { () = woken => {}, () = sleep_until(at) => {} },
                None => woken.await,
            }
        }
    }

    /// The next key to work on, as a guard that gives it back: with an outcome, or as failed when it is dropped without one, so that a
    /// worker that ends leaves no key behind that nobody may work on.
    pub async fn take(&self) -> Taken<'_> {
        Taken { queue: self, key: self.next().await, outcome: Err(()) }
    }

    /// Gives a key back. `Ok(None)`: done; `Ok(Some(delay))`: once more then; `Err(())`: once more after this key's backoff.
    pub fn done(&self, key: Key, outcome: Result<Option<Duration>, ()>) {
        let mut inner = self.inner.lock();
        inner.active.remove(&key);
        let again = inner.again.remove(&key);
        match outcome {
            Ok(after) => {
                inner.failures.remove(&key);
                if let Some(after) = after {
                    inner.add_at(key.clone(), Instant::now() + after);
                }
            }
            Err(()) => {
                let failures = inner.failures.entry(key.clone()).or_default();
                *failures += 1;
                let pause = BACKOFF.0.saturating_mul(1 << (*failures - 1).min(20)).min(BACKOFF.1);
                inner.add_at(key.clone(), Instant::now() + pause);
            }
        }
        if again {
            inner.add(key);
        }
        drop(inner);
        self.woken.notify_one();
    }
}

/// A key that is being worked on.
pub struct Taken<'a> {
    queue: &'a Queue,
    key: Key,
    outcome: Result<Option<Duration>, ()>,
}

impl Taken<'_> {
    /// What is to be reconciled.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the key back, as [`Queue::done`].
    pub fn done(mut self, outcome: Result<Option<Duration>, ()>) {
        self.outcome = outcome;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.queue.done(self.key.clone(), self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_again_when_it_changed_meanwhile() {
        let queue = Queue::default();
        let key = Key::new("a", "b");
        queue.add(key.clone());
        queue.add(key.clone());
        let taken = queue.next().await;
        assert!(queue.inner.lock().ready.is_empty());
        queue.add(key.clone());
        queue.add(key.clone());
        assert!(queue.inner.lock().ready.is_empty(), "never two workers on one key");
        queue.done(taken, Ok(None));
        assert_eq!(queue.next().await, key);
        queue.done(key, Ok(None));
        assert!(tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_for_its_earliest_time() {
        let queue = Queue::default();
        let key = Key::new("", "n");
        for seconds in [50, 20, 30] {
            queue.add_after(key.clone(), Duration::from_secs(seconds));
        }
        let before = Instant::now();
        let taken = queue.next().await;
        assert_eq!(before.elapsed().as_secs(), 20);
        queue.done(taken, Ok(None));
        assert!(tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_are_gathered_are_worked_on_once() {
        let queue = Queue::default();
        let (at_once, gathered) = (Key::new("", "a"), Key::new("", "g"));
        let before = Instant::now();
        for _ in 0..3 {
            queue.add_gathered(gathered.clone(), Duration::from_secs(5));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        queue.add_gathered(at_once.clone(), Duration::ZERO);
        assert_eq!((queue.next().await, before.elapsed().as_secs()), (at_once, 3));
        assert_eq!((queue.next().await, before.elapsed().as_secs()), (gathered, 5));
        let more = tokio::time::timeout(Duration::from_secs(3600), queue.next()).await;
        assert!(more.is_err(), "worked on twice");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets_them() {
        let queue = Queue::default();
        let key = Key::new("", "n");
        queue.add(key.clone());
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let taken = queue.next().await;
            let before = Instant::now();
            queue.done(taken, Err(()));
            queue.done(queue.next().await, Err(()));
            pauses.push(before.elapsed());
        }
        assert!(pauses.windows(2).all(|w| w[0] < w[1]), "{pauses:?}");
        let taken = queue.next().await;
        queue.done(taken, Ok(None));
        assert!(queue.inner.lock().failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_ends_must_not_keep_its_key() {
        let queue = Queue::default();
        let key = Key::new("a", "b");
        queue.add(key.clone());
        let worker = async {
            let taken = queue.take().await;
            assert_eq!(*taken.key(), key);
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::from_millis(1), worker).await.is_err());
        let taken = tokio::time::timeout(Duration::from_secs(1), queue.take()).await.unwrap();
        assert_eq!(*taken.key(), key);
        taken.done(Ok(None));
        assert!(queue.inner.lock().failures.is_empty());
    }
}
