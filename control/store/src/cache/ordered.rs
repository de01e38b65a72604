//! An ordered map that is cheap to snapshot: sorted chunks behind two levels of `Arc`.
//!
//! A snapshot is one reference count. A write beside a living snapshot copies one chunk and the list of chunks (for
//! 100,000 objects about 1,500 pointers); without one it is in place. Ranges are runs through contiguous memory, and
//! counting a range looks only at chunk lengths, which a pointer-per-node tree cannot offer.

use std::sync::Arc;

/// A chunk splits in two when it would grow past this.
const CHUNK: usize = 128;
/// Neighbours that fit together in this many are joined.
const JOIN: usize = CHUNK / 2;

/// A value that carries its own key.
pub(super) trait Keyed: Clone {
    fn key(&self) -> &str;
}

/// The map. No chunk is empty.
#[derive(Clone)]
pub(super) struct Ordered<V> {
    chunks: Arc<Vec<Arc<Vec<V>>>>,
}

/// A place in the map: chunk, and index in it.
type Position = (usize, usize);

impl<V: Keyed> Ordered<V> {
    pub(super) fn new() -> Self {
        Self { chunks: Arc::new(Vec::new()) }
    }

    /// The first place whose key is not `before`; `before` must hold for a run from the start and then never again.
    fn partition(&self, before: impl Fn(&str) -> bool) -> Position {
        let chunk = self.chunks.partition_point(|c| c.last().is_some_and(|v| before(v.key())));
        let index = self.chunks.get(chunk).map_or(0, |c| c.partition_point(|v| before(v.key())));
        (chunk, index)
    }

    pub(super) fn get(&self, key: &str) -> Option<&V> {
        let (chunk, index) = self.partition(|k| k < key);
        self.chunks.get(chunk)?.get(index).filter(|v| v.key() == key)
    }

    /// Puts `value` at its key and gives what was there.
    pub(super) fn insert(&mut self, value: V) -> Option<V> {
        let (mut chunk, mut index) = self.partition(|k| k < value.key());
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunk == chunks.len() {
            // After every key: at the end of the last chunk.
            match chunk.checked_sub(1) {
                None => {
                    chunks.push(Arc::new(vec![value]));
                    return None;
                }
                Some(last) => (chunk, index) = (last, chunks[last].len()),
            }
        }
        let values = Arc::make_mut(&mut chunks[chunk]);
        if let Some(there) = values.get_mut(index).filter(|v| v.key() == value.key()) {
            return Some(std::mem::replace(there, value));
        }
        values.insert(index, value);
        if values.len() > CHUNK {
            // Keys that come in order fill their chunks.
            let at = if index + 1 == values.len() { CHUNK } else { CHUNK / 2 };
            let upper = values.split_off(at);
            chunks.insert(chunk + 1, Arc::new(upper));
        }
        None
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let (chunk, index) = self.partition(|k| k < key);
        self.chunks.get(chunk)?.get(index).filter(|v| v.key() == key)?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let values = Arc::make_mut(&mut chunks[chunk]);
        let removed = values.remove(index);
        let left = values.len();
        if left == 0 {
            chunks.remove(chunk);
        } else if let Some(next) = chunks.get(chunk + 1)
            && left + next.len() <= JOIN
        {
            let next = chunks.remove(chunk + 1);
            Arc::make_mut(&mut chunks[chunk]).extend(next.iter().cloned());
        }
        Some(removed)
    }

    fn bounds(&self, prefix: &str, start_after: Option<&str>) -> (Position, Position) {
        let start = match start_after {
            Some(after) if after >= prefix => self.partition(|k| k <= after),
            _ => self.partition(|k| k < prefix),
        };
        let end = self.partition(|k| k < prefix || k.starts_with(prefix));
        (start, end.max(start))
    }

    /// Values whose key starts with `prefix` and comes after `start_after`, in key order.
    pub(super) fn range(&self, prefix: &str, start_after: Option<&str>) -> Range<'_, V> {
        let (next, end) = self.bounds(prefix, start_after);
        Range { chunks: &self.chunks, next, end }
    }

    /// How many values [`Ordered::range`] would give.
    pub(super) fn count(&self, prefix: &str, start_after: Option<&str>) -> usize {
        let (start, end) = self.bounds(prefix, start_after);
        if start.0 == end.0 {
            return end.1 - start.1;
        }
        let whole: usize = self.chunks[start.0..end.0].iter().map(|c| c.len()).sum();
        whole - start.1 + end.1
    }
}

/// A run of values in key order.
pub(super) struct Range<'a, V> {
    chunks: &'a [Arc<Vec<V>>],
    next: Position,
    end: Position,
}

impl<'a, V> Iterator for Range<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        while self.next < self.end {
            let chunk = self.chunks.get(self.next.0)?;
            if let Some(value) = chunk.get(self.next.1) {
                self.next.1 += 1;
                return Some(value);
            }
            self.next = (self.next.0 + 1, 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(String, u32);

    impl Keyed for Item {
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn key() -> impl Strategy<Value = String> {
        "[ab]{1,3}/[a-d]{0,4}"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_btree_and_snapshots_never_change(
            ops in prop::collection::vec((any::<bool>(), any::<bool>(), key(), any::<u32>()), 0..1500),
            prefix in "[ab]{0,2}/?",
            after in prop::option::of(key()),
        ) {
            let mut map = Ordered::new();
            let mut model = BTreeMap::new();
            let mut snapshot = (map.clone(), model.clone());
            for (n, (put, sure, key, value)) in ops.into_iter().enumerate() {
                if put || sure {
                    let old = map.insert(Item(key.clone(), value)).map(|i| i.1);
                    prop_assert_eq!(old, model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key).map(|i| i.1), model.remove(&key));
                }
                if n % 97 == 0 {
                    snapshot = (map.clone(), model.clone());
                }
            }
            for (map, model) in [(&map, &model), (&snapshot.0, &snapshot.1)] {
                let want: Vec<_> = model
                    .iter()
                    .filter(|(k, _)| k.starts_with(&prefix) && after.as_ref().is_none_or(|a| *k > a))
                    .map(|(k, v)| Item(k.clone(), *v))
                    .collect();
                let got: Vec<_> = map.range(&prefix, after.as_deref()).cloned().collect();
                prop_assert_eq!(map.count(&prefix, after.as_deref()), want.len());
                prop_assert_eq!(got, want);
                for (k, v) in model {
                    prop_assert_eq!(map.get(k).map(|i| i.1), Some(*v));
                }
                prop_assert!(map.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
            }
        }
    }
}
