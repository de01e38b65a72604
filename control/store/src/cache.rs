//! The watch cache: one resource's objects in memory, listed and watched without touching the store.
//!
//! [`Cache::new`] gives the cache and its [`Feed`]; the caller runs the feed. A list is a [`Snapshot`]: consistent, O(1) to
//! take, and a run over shared bytes. A consistent read is `wait_until_fresh(backend.revision())`, then a snapshot.

mod fanout;
mod feed;
mod object;
mod ordered;
mod ring;
mod watcher;

pub use feed::Feed;
pub use object::{Cached, Change, ChangeKind, Indexed, Scope};
pub use watcher::Watcher;

use crate::{Backend, Entry, Revision};
use fanout::Fanout;
use ordered::Ordered;
use parking_lot::Mutex;
use ring::Ring;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How a [`Cache`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Changes kept for watches that start in the past.
    pub history: usize,
    /// Changes a watch may have waiting before it is ended.
    pub watch_queue: usize,
    /// How long a read waits for the cache to reach a revision (upstream: 3 seconds).
    pub fresh_timeout: Duration,
    /// Snapshots held for paged lists at once; a page of an older list is read from the store.
    pub held: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 4096, watch_queue: 1024, fresh_timeout: Duration::from_secs(3), held: 16 }
    }
}

/// How long a snapshot is held for the next page, as long as the store keeps history.
const HELD_FOR: Duration = Duration::from_secs(300);
/// First wait before progress is asked for again; doubles.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why the cache cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first list is not done.
    #[error("the watch cache of {prefix} is not filled yet")]
    NotReady {
        /// Key prefix of the resource, `/registry/pods/`.
        prefix: String,
    },
    /// A watch asked for changes that are no longer kept: the client must list (410 Expired).
    #[error("too old resource version: {asked} ({oldest})")]
    TooOld {
        /// The revision asked for.
        asked: Revision,
        /// The oldest revision a watch can start from.
        oldest: Revision,
    },
    /// The cache did not reach the revision in time (504 with cause ResourceVersionTooLarge).
    #[error("too large resource version: {asked}, current: {current}")]
    NotFresh {
        /// The revision asked for.
        asked: Revision,
        /// The revision the cache has come to.
        current: Revision,
    },
    /// The store did not say how far it has come.
    #[error("{why}")]
    Unavailable {
        /// Error text of the store.
        why: String,
    },
}

type Extract = Box<dyn Fn(&Entry) -> Indexed + Send + Sync>;

/// One resource's objects. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

struct Shared {
    prefix: String,
    backend: Arc<dyn Backend>,
    extract: Extract,
    options: Options,
    state: Mutex<State>,
    /// The state's revision, `None` until the first list is done.
    fresh: watch::Sender<Option<Revision>>,
}

struct State {
    map: Ordered<Arc<Cached>>,
    /// Every change up to here is in `map`.
    revision: Revision,
    /// The last revision at which `map` changed.
    changed: Revision,
    ring: Ring,
    fanout: Fanout,
    held: VecDeque<(Instant, Snapshot)>,
}

impl State {
    fn new(revision: Revision, history: usize) -> Self {
        Self {
            map: Ordered::new(),
            revision,
            changed: revision,
            ring: Ring::new(revision, history),
            fanout: Fanout::default(),
            held: VecDeque::new(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { map: self.map.clone(), changed: self.changed, revision: self.revision }
    }
}

/// The resource's objects at one moment.
#[derive(Clone)]
pub struct Snapshot {
    map: Ordered<Arc<Cached>>,
    changed: Revision,
    revision: Revision,
}

impl Snapshot {
    /// The revision shown: a list's resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object at a full key.
    pub fn get(&self, key: &str) -> Option<&Arc<Cached>> {
        self.map.get(key)
    }

    /// Objects whose full key starts with `prefix` and comes after `start_after`, in key order.
    pub fn range(&self, prefix: &str, start_after: Option<&str>) -> impl Iterator<Item = &Arc<Cached>> {
        self.map.range(prefix, start_after)
    }

    /// How many objects [`Snapshot::range`] would give; costs no walk over them.
    pub fn count(&self, prefix: &str, start_after: Option<&str>) -> usize {
        self.map.count(prefix, start_after)
    }

    fn shows(&self, revision: Revision) -> bool {
        self.changed <= revision && revision <= self.revision
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Objects in key order.
    pub objects: Vec<Arc<Cached>>,
    /// The revision the page shows.
    pub revision: Revision,
    /// How many objects follow the last one.
    pub remaining: usize,
}

impl Cache {
    /// A cache of everything under `prefix` (`/registry/pods/`, with the slash at its end). `extract` takes out of a stored value what
    /// the cache keeps; it must not fail on any value. Nothing happens until the [`Feed`] runs.
    pub fn new(
        backend: Arc<dyn Backend>,
        prefix: impl Into<String>,
        extract: impl Fn(&Entry) -> Indexed + Send + Sync + 'static,
        options: Options,
    ) -> (Self, Feed) {
        let shared = Arc::new(Shared {
            prefix: prefix.into(),
            backend,
            extract: Box::new(extract),
            state: Mutex::new(State::new(0, options.history)),
            options,
            fresh: watch::Sender::new(None),
        });
        (Self { shared: shared.clone() }, Feed { shared })
    }

    /// The resource's key prefix.
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// The keys `scope` lies within, for [`Snapshot::range`]. For [`Scope::Object`] it is the one key itself.
    pub fn key_prefix(&self, scope: &Scope) -> String {
        scope.key_prefix(&self.shared.prefix)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.fresh.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits for the first list, as long as a read waits for a revision ([`Options::fresh_timeout`]).
    pub async fn filled(&self) -> Result<(), Error> {
        let limit = self.shared.options.fresh_timeout;
        let waited = tokio::time::timeout(limit, self.ready()).await;
        waited.map_err(|_| Error::NotReady { prefix: self.shared.prefix.clone() })
    }

    /// The revision the cache has come to.
    pub fn revision(&self) -> Result<Revision, Error> {
        self.snapshot().map(|s| s.revision)
    }

    /// Waits until the cache shows `revision` or a later one; event-driven, bounded by [`Options::fresh_timeout`].
    pub async fn wait_until_fresh(&self, revision: Revision) -> Result<(), Error> {
        self.shared.wait_until_fresh(revision).await
    }

    /// Waits until the cache shows everything committed before the call: a consistent read.
    pub async fn refresh(&self) -> Result<Revision, Error> {
        let newest = self.shared.backend.newest().await;
        let revision = newest.map_err(|e| Error::Unavailable { why: supervise::chain(&e) })?;
        self.shared.wait_until_fresh(revision).await.map(|()| revision)
    }

    /// Everything committed before the call: as the cache has it, or as the store does where the watch stands still (upstream: the cacher's delegator
    /// goes on to etcd).
    pub async fn newest(&self) -> Result<Snapshot, Error> {
        match self.refresh().await {
            Ok(_) => self.snapshot(),
            Err(Error::NotFresh { asked, .. }) => {
                let loaded = self.shared.load(Some(asked)).await;
                Ok(loaded.map_err(|e| Error::Unavailable { why: supervise::chain(&e) })?.snapshot())
            }
            Err(error) => Err(error),
        }
    }

    /// All objects as of one revision.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let state = self.shared.ready_state()?;
        Ok(state.snapshot())
    }

    /// The objects exactly at `revision`, where the cache still has them; otherwise ask the store.
    pub fn snapshot_at(&self, revision: Revision) -> Option<Snapshot> {
        let state = self.shared.ready_state().ok()?;
        let now = state.snapshot();
        if now.shows(revision) {
            return Some(Snapshot { revision, ..now });
        }
        let held = state.held.iter().rev().map(|(_, s)| s).find(|s| s.shows(revision))?;
        Some(Snapshot { revision, ..held.clone() })
    }

    /// Keeps `snapshot` a while for [`Cache::snapshot_at`]: call it when a page of a list says that more follow.
    pub fn hold(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let bound = self.shared.options.held;
        state.held.retain(|(since, _)| now.duration_since(*since) < HELD_FOR);
        // Asking again does not make it young again.
        if state.held.iter().any(|(_, s)| s.changed == snapshot.changed) {
            return;
        }
        while state.held.len() >= bound.max(1) {
            state.held.pop_front();
        }
        state.held.push_back((now, snapshot.clone()));
    }

    /// The object at a full key now.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Cached>>, Error> {
        Ok(self.shared.ready_state()?.map.get(key).cloned())
    }

    /// One page of `scope`: at most `limit` objects (0: all) after the full key `start_after`, as of `at` (`None`: now). `Ok(None)`:
    /// the cache does not have that revision; ask the store. A page with more behind it is held for the next one.
    pub fn list(
        &self,
        scope: &Scope,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Option<Listing>, Error> {
        let snapshot = match at {
            None => self.snapshot()?,
            Some(revision) => match self.snapshot_at(revision) {
                Some(snapshot) => snapshot,
                None => return Ok(None),
            },
        };
        let prefix = self.key_prefix(scope);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let held = |o: &&Arc<Cached>| scope.holds(o);
        let objects: Vec<_> =
            snapshot.range(&prefix, start_after).filter(held).take(limit).cloned().collect();
        let remaining = match (objects.last(), scope) {
            (Some(last), Scope::Field { .. }) => {
                snapshot.range(&prefix, Some(&last.key)).filter(held).count()
            }
            (_, Scope::Object { .. }) | (None, _) => 0,
            (Some(last), _) => snapshot.count(&prefix, Some(&last.key)),
        };
        if remaining > 0 {
            self.hold(&snapshot);
        }
        Ok(Some(Listing { objects, revision: snapshot.revision, remaining }))
    }

    /// Lets go of what nobody asks for any more: changes and snapshots that are as old as the store's history is kept. A few small changes stay.
    pub fn forget_old(&self) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        state.held.retain(|(since, _)| now.duration_since(*since) < HELD_FOR);
        if let Some(since) = now.checked_sub(HELD_FOR) {
            state.ring.forget(since);
        }
    }

    /// Changes in `scope` after `from`.
    pub fn watch(&self, scope: &Scope, from: Revision) -> Result<Watcher, Error> {
        let mut state = self.shared.ready_state()?;
        let oldest = state.ring.oldest();
        if from < oldest {
            return Err(Error::TooOld { asked: from, oldest });
        }
        let missed = state
            .ring
            .after(from)
            .filter(|c| scope.holds(&c.object) || c.prev.as_ref().is_some_and(|p| scope.holds(p)))
            .cloned()
            .collect();
        let (id, live) = state.fanout.add(scope, from, self.shared.options.watch_queue);
        drop(state);
        Ok(Watcher { shared: self.shared.clone(), id, missed, live, from })
    }

    /// The objects now, and the changes in `scope` after them, without a gap: a watch that begins with the state.
    pub fn snapshot_and_watch(&self, scope: &Scope) -> Result<(Snapshot, Watcher), Error> {
        let mut state = self.shared.ready_state()?;
        let snapshot = state.snapshot();
        let from = snapshot.revision;
        let (id, live) = state.fanout.add(scope, from, self.shared.options.watch_queue);
        drop(state);
        Ok((snapshot, Watcher { shared: self.shared.clone(), id, missed: VecDeque::new(), live, from }))
    }
}

impl Shared {
    fn ready_state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        if self.fresh.borrow().is_none() {
            return Err(Error::NotReady { prefix: self.prefix.clone() });
        }
        Ok(self.state.lock())
    }

    /// Makes `state` the cache's, ending every watch.
    fn replace(&self, state: State) {
        let revision = state.revision;
        let next = {
            let mut now = self.state.lock();
            now.fanout.clear();
            // Watch ids go on counting: a watcher that is dropped later must not remove another's.
            let fanout = std::mem::take(&mut now.fanout);
            let held = std::mem::take(&mut now.held);
            std::mem::replace(&mut *now, State { fanout, held, ..state })
        };
        drop(next);
        self.fresh.send_replace(Some(revision));
    }

    /// Runs `change` on the state, which thereby comes to `revision`, with all that happened at it.
    ///
    /// Progress may have told of a revision before, so one of the revision come to is not old yet.
    fn update(&self, revision: Revision, change: impl FnOnce(&mut State) -> Vec<Change>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if revision < state.revision {
            return;
        }
        let changes = change(&mut state);
        state.revision = revision;
        for change in changes.into_iter().map(Arc::new) {
            state.changed = revision;
            state.fanout.publish(&change);
            state.ring.push(change, now);
        }
        drop(state);
        self.fresh.send_replace(Some(revision));
    }

    async fn wait_until_fresh(&self, revision: Revision) -> Result<(), Error> {
        let mut fresh = self.fresh.subscribe();
        let reached = |r: &Option<Revision>| r.is_some_and(|r| r >= revision);
        if reached(&fresh.borrow()) {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + self.options.fresh_timeout;
        let mut ask_again = ASK_AGAIN;
        loop {
            // The change that brings the revision may be another resource's: the watch must tell us that it passed. Asked
            // again because the feed may be between two watches, or the revision still ahead of the store.
            self.backend.request_progress(&self.prefix);
            let until = deadline.min(tokio::time::Instant::now() + ask_again);
            if matches!(tokio::time::timeout_at(until, fresh.wait_for(reached)).await, Ok(Ok(_))) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let current = fresh.borrow().unwrap_or_default();
                return Err(Error::NotFresh { asked: revision, current });
            }
            ask_again *= 2;
        }
    }
}
