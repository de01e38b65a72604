//! The last changes, for watches that start a little in the past.

use super::object::Change;
use crate::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// Every change after `oldest` that the cache has seen, at most `capacity` of them.
pub(super) struct Ring {
    oldest: Revision,
    capacity: usize,
    changes: VecDeque<Arc<Change>>,
}

impl Ring {
    pub(super) fn new(oldest: Revision, capacity: usize) -> Self {
        Self { oldest, capacity: capacity.max(1), changes: VecDeque::new() }
    }

    /// A watch can start at this revision or later.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        if self.changes.len() == self.capacity
            && let Some(gone) = self.changes.pop_front()
        {
            self.oldest = gone.revision;
        }
        self.changes.push_back(change);
    }

    /// Changes after `from`, oldest first; `from` is not before [`Ring::oldest`].
    pub(super) fn after(&self, from: Revision) -> impl Iterator<Item = &Arc<Change>> {
        self.changes.range(self.changes.partition_point(|c| c.revision <= from)..)
    }
}
