//! Answers kept for a while: at most so many, each until its own time.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A bounded map whose entries end. Time is an argument, so that tests need no clock.
#[derive(Debug)]
pub struct Cache<K, V> {
    most: usize,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most `most` entries.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), entries: Mutex::new(HashMap::new()) }
    }

    /// The entry, unless it ended.
    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(end, _)| *end > now).map(|(_, value)| value.clone())
    }

    /// Keeps an entry for `life`. A full cache loses what ended, or else the entry that would end first.
    pub fn put(&self, key: K, value: V, life: Duration, now: Instant) {
        if life.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.len() >= self.most && !entries.contains_key(&key) {
            entries.retain(|_, (end, _)| *end > now);
            if entries.len() >= self.most {
                let first = entries.iter().min_by_key(|(_, (end, _))| *end).map(|(key, _)| key.clone());
                if let Some(first) = first {
                    entries.remove(&first);
                }
            }
        }
        entries.insert(key, (now + life, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_and_are_bounded() {
        let (cache, start, second) = (Cache::new(2), Instant::now(), Duration::from_secs(1));
        cache.put("a", 1, second * 3, start);
        cache.put("b", 2, second, start);
        assert_eq!(cache.get(&"b", start), Some(2));
        assert_eq!(cache.get(&"b", start + second), None);
        cache.put("c", 3, second * 2, start);
        assert_eq!(
            (cache.get(&"a", start), cache.get(&"b", start), cache.get(&"c", start)),
            (Some(1), None, Some(3))
        );
        cache.put("d", 4, Duration::ZERO, start);
        assert_eq!(cache.get(&"d", start), None);
    }
}
