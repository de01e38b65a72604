//! The last changes, for watches that start a little in the past.

use super::object::Change;
use crate::Revision;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Every change after `oldest` that the cache has seen, at most `capacity` of them, and of no more than [`MOST_BYTES`].
pub(super) struct Ring {
    oldest: Revision,
    capacity: usize,
    /// Of the objects as the changes left them.
    bytes: usize,
    /// With when each was seen.
    changes: VecDeque<(Instant, Arc<Change>)>,
}

/// Of the objects in changes that are kept. What they were before is an earlier change's object, or one change's worth more.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Changes that are kept however large they are (upstream's least capacity: 100), while they are new.
const LEAST: usize = 100;
/// Of the objects in changes that are kept however old they are: a hundred of common size, and few of what is much larger.
const OLD_BYTES: usize = 256 * 1024;

impl Ring {
    pub(super) fn new(oldest: Revision, capacity: usize) -> Self {
        Self { oldest, capacity: capacity.max(1), bytes: 0, changes: VecDeque::new() }
    }

    /// A watch can start at this revision or later.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(super) fn push(&mut self, change: Arc<Change>, now: Instant) {
        self.bytes += change.object.bytes.len();
        self.changes.push_back((now, change));
        let large = |ring: &Self| ring.bytes > MOST_BYTES && ring.changes.len() > LEAST;
        while (self.changes.len() > self.capacity || large(self)) && self.drop_first() {}
    }

    /// Lets go of changes that were seen before `since`, but for the last [`LEAST`], or as many of them as [`OLD_BYTES`] hold.
    pub(super) fn forget(&mut self, since: Instant) {
        let old = |ring: &Self| ring.changes.front().is_some_and(|(at, _)| *at < since);
        let many = |ring: &Self| ring.changes.len() > LEAST || ring.bytes > OLD_BYTES;
        while many(self) && old(self) && self.drop_first() {}
        if self.changes.capacity() > 2 * self.changes.len().max(LEAST) {
            self.changes.shrink_to_fit();
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some((_, gone)) = self.changes.pop_front() else { return false };
        self.bytes -= gone.object.bytes.len();
        self.oldest = gone.revision;
        true
    }

    /// Changes after `from`, oldest first; `from` is not before [`Ring::oldest`].
    pub(super) fn after(&self, from: Revision) -> impl Iterator<Item = &Arc<Change>> {
        let first = self.changes.partition_point(|(_, c)| c.revision <= from);
        self.changes.range(first..).map(|(_, change)| change)
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::{Cached, ChangeKind, Indexed};
    use super::*;
    use crate::Entry;
    use std::time::Duration;

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
            ring.push(change(revision, 60 * 1024), Instant::now());
        }
        assert!(ring.bytes <= MOST_BYTES && ring.changes.len() > LEAST);
        assert_eq!(ring.after(ring.oldest()).count(), ring.changes.len());
    }

    #[test]
    fn a_few_changes_are_kept_however_large_and_small_ones_up_to_the_capacity() {
        let mut ring = Ring::new(0, 200);
        (1..=150).for_each(|revision| ring.push(change(revision, 1 << 20), Instant::now()));
        assert_eq!((ring.changes.len(), ring.oldest()), (LEAST, 50));
        (151..=600).for_each(|revision| ring.push(change(revision, 10), Instant::now()));
        assert_eq!((ring.changes.len(), ring.oldest(), ring.bytes), (200, 400, 2000));
    }

    #[test]
    fn old_changes_must_not_be_kept_for_good() {
        let began = Instant::now();
        let later = began + Duration::from_secs(300);
        let mut ring = Ring::new(0, 4096);
        (1..=500).for_each(|revision| ring.push(change(revision, 10), began));
        (501..=550).for_each(|revision| ring.push(change(revision, 10), later));
        ring.forget(began);
        assert_eq!((ring.changes.len(), ring.oldest()), (550, 0), "none is older");
        ring.forget(later);
        assert_eq!(
            (ring.changes.len(), ring.oldest(), ring.bytes),
            (LEAST, 450, 1000),
            "some stay however old they are"
        );
        assert_eq!(ring.after(450).next().map(|change| change.revision), Some(451));
        (551..=700).for_each(|revision| ring.push(change(revision, 10), later));
        ring.forget(later);
        assert_eq!(ring.oldest(), 500, "what is new stays");
        let mut large = Ring::new(0, 4096);
        (1..=100).for_each(|revision| large.push(change(revision, 60 * 1024), began));
        large.forget(later);
        assert_eq!((large.changes.len(), large.oldest()), (4, 96), "a hundred of these would be megabytes");
    }
}
