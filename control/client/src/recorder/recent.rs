//! A bounded map that forgets what was used the longest ago.

use std::collections::HashMap;
use std::hash::Hash;

pub(super) struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    most: usize,
    clock: u64,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), most, clock: 0 }
    }

    /// The entry of a key, used now.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        self.entries.insert(key, (self.clock, value));
        if self.entries.len() > self.most {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.entries.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_must_not_be_forgotten_first() {
        let mut recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        assert_eq!(recent.get(&"a"), Some(&mut 1));
        recent.insert("c", 3);
        assert_eq!(
            (recent.get(&"a").copied(), recent.get(&"b").copied(), recent.get(&"c").copied()),
            (Some(1), None, Some(3))
        );
    }
}
