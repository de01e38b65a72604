//! The last changes, for watches that start a little in the past.

use super::object::Change;
use crate::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// Every change after `oldest` that the cache has seen, at most `capacity` of them, and of no more than [`MOST_BYTES`].
pub(super) struct Ring {
    oldest: Revision,
    capacity: usize,
    /// Of the objects as the changes left them.
    bytes: usize,
    changes: VecDeque<Arc<Change>>,
}

/// Of the objects in changes that are kept. What they were before is an earlier change's object, or one change's worth more.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Changes that are kept however large they are (upstream's least capacity: 100).
const LEAST: usize = 100;

impl Ring {
    pub(super) fn new(oldest: Revision, capacity: usize) -> Self {
        Self { oldest, capacity: capacity.max(1), bytes: 0, changes: VecDeque::new() }
    }

    /// A watch can start at this revision or later.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.object.bytes.len();
        self.changes.push_back(change);
        let large = |ring: &Self| ring.bytes > MOST_BYTES && ring.changes.len() > LEAST;
        while self.changes.len() > self.capacity || large(self) {
            let Some(gone) = self.changes.pop_front() else { return };
            self.bytes -= gone.object.bytes.len();
            self.oldest = gone.revision;
        }
    }

    /// Changes after `from`, oldest first; `from` is not before [`Ring::oldest`].
    pub(super) fn after(&self, from: Revision) -> impl Iterator<Item = &Arc<Change>> {
        self.changes.range(self.changes.partition_point(|c| c.revision <= from)..)
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::{Cached, ChangeKind, Indexed};
    use super::*;
    use crate::Entry;

    fn change(revision: Revision, size: usize) -> Arc<Change> {
        let entry = Entry {
            key: "/r/a".into(),
            value: bytes::Bytes::new(),
            create_revision: 1,
            mod_revision: revision,
            stale: false,
        };
        let indexed = Indexed { bytes: vec![b'x'; size].into(), ..Indexed::default() };
        let object = Arc::new(Cached::new("/r/", &entry, indexed));
        Arc::new(Change { kind: ChangeKind::Modified, object, prev: None, revision })
    }

    #[test]
    fn changes_of_large_objects_must_not_be_kept_by_the_thousand() {
        let mut ring = Ring::new(0, 4096);
        for revision in 1..=1000 {
            ring.push(change(revision, 60 * 1024));
        }
        assert!(ring.bytes <= MOST_BYTES && ring.changes.len() > LEAST);
        assert_eq!(ring.after(ring.oldest()).count(), ring.changes.len());
    }

    #[test]
    fn a_few_changes_are_kept_however_large_and_small_ones_up_to_the_capacity() {
        let mut ring = Ring::new(0, 200);
        (1..=150).for_each(|revision| ring.push(change(revision, 1 << 20)));
        assert_eq!((ring.changes.len(), ring.oldest()), (LEAST, 50));
        (151..=600).for_each(|revision| ring.push(change(revision, 10)));
        assert_eq!((ring.changes.len(), ring.oldest(), ring.bytes), (200, 400, 2000));
    }
}
