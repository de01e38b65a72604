//! Own writes the informer has not shown yet. A controller that counts pods must not count before it sees the ones it just made or
//! removed, or it makes or removes them twice.

use crate::queue::Key;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// After this long an unseen write is given up on (upstream's `ExpectationsTimeout`).
const GIVE_UP: Duration = Duration::from_secs(300);

/// The unseen writes of each owner.
#[derive(Default)]
pub(crate) struct Expectations(Mutex<HashMap<Key, Pending>>);

struct Pending {
    created: HashSet<String>,
    deleted: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// `owner` is about to make a pod of this name.
    pub(crate) fn creating(&self, owner: &Key, name: &str) {
        self.with(owner, |p| p.created.insert(name.to_owned()));
    }

    /// `owner` is about to remove the pod with this uid.
    pub(crate) fn deleting(&self, owner: &Key, uid: &str) {
        self.with(owner, |p| p.deleted.insert(uid.to_owned()));
    }

    fn with(&self, owner: &Key, change: impl FnOnce(&mut Pending) -> bool) {
        let mut all = self.0.lock();
        let pending = all.entry(owner.clone()).or_insert_with(|| Pending {
            created: HashSet::new(),
            deleted: HashSet::new(),
            since: Instant::now(),
        });
        pending.since = Instant::now();
        change(pending);
    }

    /// A pod was seen, or its creation failed.
    pub(crate) fn created(&self, owner: &Key, name: &str) {
        self.settle(owner, |p| p.created.remove(name));
    }

    /// A pod was seen going or gone, or its removal failed.
    pub(crate) fn deleted(&self, owner: &Key, uid: &str) {
        self.settle(owner, |p| p.deleted.remove(uid));
    }

    fn settle(&self, owner: &Key, change: impl FnOnce(&mut Pending) -> bool) {
        let mut all = self.0.lock();
        if let Some(pending) = all.get_mut(owner) {
            change(pending);
            if pending.created.is_empty() && pending.deleted.is_empty() {
                all.remove(owner);
            }
        }
    }

    /// Whether everything was seen.
    #[must_use]
    pub(crate) fn met(&self, owner: &Key) -> bool {
        let mut all = self.0.lock();
        match all.get(owner) {
            None => true,
            Some(pending) if pending.since.elapsed() < GIVE_UP => false,
            Some(_) => {
                all.remove(owner);
                true
            }
        }
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }
}
