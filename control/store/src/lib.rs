//! The revisioned store. [`Backend`] is the seam; two engines stand behind it.
//!
//! Keys are laid out as upstream lays them out in etcd (`/registry/...`), values are canonical JSON. A revision counts
//! committed writes; it never goes back, also across restarts.
//!
//! - [`embedded`]: the engine for one server, redb with group commit (`writer`, `batch`), history and its compaction
//!   (`record`, `retention`), reads at past revisions (`read`).
//! - [`etcd`]: the engine for several servers, laid out as upstream's API server lays it out; how values lie there: [`encoding`].
//! - `hub`: the watches of either engine.
//! - [`cache`]: the watch cache the API server lists and watches from: an ordered snapshot (`ordered`), the history
//!   ring (`ring`), scoped watchers (`fanout`), and what keeps it filled (`feed`).

#![warn(unreachable_pub)]

pub mod cache;
pub mod embedded;
pub mod encoding;
pub mod etcd;
mod hub;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// A point in the store's history. Revisions only grow; 0 means "nothing written yet".
pub type Revision = u64;

/// One stored value with its history marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full key, `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// Canonical JSON bytes.
    pub value: Bytes,
    /// Revision at which the key was created.
    pub create_revision: Revision,
    /// Revision of the last write to the key: the object's `resourceVersion`.
    pub mod_revision: Revision,
    /// The value lies in another form than a write would give it: a write of the same value is due.
    pub stale: bool,
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist with exactly this `mod_revision`.
    At(Revision),
}

/// A committed write or deletion, or progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written; `prev` is what it held before, if anything.
    Put {
        /// What the key holds now.
        entry: Entry,
        /// What it held before.
        prev: Option<Entry>,
    },
    /// A key was removed at `revision`; `prev` is what it held.
    Delete {
        /// What the key held.
        prev: Entry,
        /// The deletion's own revision.
        revision: Revision,
    },
    /// Nothing changed: the watcher has been given every change up to and including `revision`. Sent only after
    /// [`Backend::request_progress`].
    Progress {
        /// The newest revision the watch has passed.
        revision: Revision,
    },
}

impl Event {
    /// The revision at which the change happened, or up to which the watch has come.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { entry, .. } => entry.mod_revision,
            Self::Delete { revision, .. } | Self::Progress { revision } => *revision,
        }
    }

    /// The key changed; `None` for progress.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put { entry, .. } => Some(&entry.key),
            Self::Delete { prev, .. } => Some(&prev.key),
            Self::Progress { .. } => None,
        }
    }
}

/// One page of a list, all of it as of `revision`.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<Entry>,
    /// The revision the page shows.
    pub revision: Revision,
    /// True when more entries follow the last one.
    pub more: bool,
    /// How many entries follow this page.
    pub remaining: u64,
}

/// Why a store call failed. Each variant names the operation and its subject.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compare of a compare-and-swap failed; `current` is what the key holds now.
    #[error("write {key}: the key is not in the expected state")]
    Conflict {
        /// Full key, `/registry/pods/default/web`.
        key: String,
        /// What it holds now.
        current: Option<Box<Entry>>,
    },
    /// The revision asked for is older than the oldest kept.
    #[error("revision {asked} has been compacted; the oldest kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest readable one.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future; the newest is {current}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// Newest committed revision.
        current: Revision,
    },
    /// The value is larger than the store takes (etcd's bound, 1.5 MiB, by default).
    #[error("write {key}: request is too large: {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Full key, `/registry/pods/default/web`.
        key: String,
        /// Bytes of key and value.
        size: usize,
        /// The bound on them.
        limit: usize,
    },
    /// The write may have happened or not, or happen yet: its answer was lost.
    #[error("{what}: whether it has happened is not known")]
    Undecided {
        /// The operation and its subject.
        what: String,
        /// What became of the answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody took the call; nothing has happened.
    #[error("{what}: the store cannot be reached")]
    Unavailable {
        /// The operation and its subject.
        what: String,
        /// Transport error or lost answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine failed; `what` names the operation and its subject.
    #[error("{what}")]
    Engine {
        /// The operation and its subject.
        what: String,
        /// Transport error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is shutting down.
    #[error("{what}: the store is closed")]
    Closed {
        /// The operation and its subject.
        what: String,
    },
}

impl Error {
    /// Whether a write that failed so has not happened and will not.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::TooLarge { .. } | Self::Unavailable { .. })
    }
}

/// The store seen by the API server. Every write is durable (survives `kill -9`) before its future resolves.
pub trait Backend: Send + Sync + 'static {
    /// The newest committed revision, as far as this process knows.
    fn revision(&self) -> Revision;
    /// The newest committed revision, whoever committed it: asked for after the call.
    fn newest(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(std::future::ready(Ok(self.revision())))
    }
    /// The oldest revision that is sure to be readable still, in this store and in every cache of it.
    fn compacted(&self) -> Revision;
    /// How long after its begin a write may happen, whatever becomes of its answer: longer than that only where a member of the store
    /// itself stands still meanwhile.
    fn longest_write(&self) -> Duration {
        Duration::from_secs(15)
    }
    /// The entry at `key` now.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>>;
    /// Entries with `prefix`, in key order, after `start_after` (exclusive), at most `limit` (0: all), as of `at`
    /// (`None`: now). Errors with [`Error::Compacted`] or [`Error::Future`].
    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>>;
    /// Compare-and-swap write. With `ttl` the key is deleted (with a watch event) after that time.
    fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<Entry, Error>>;
    /// Compare-and-swap delete; gives the removed entry and the revision of the removal.
    fn delete(&self, key: &str, expect: Expect) -> BoxFuture<'_, Result<(Entry, Revision), Error>>;
    /// Every change under `prefix` after `from` (exclusive), in revision order, without gap. A watcher that falls
    /// behind the kept history gets [`Error::Compacted`] as its last item.
    fn watch(&self, prefix: &str, from: Revision) -> Result<BoxStream<'static, Result<Event, Error>>, Error>;
    /// Asks that every watch opened on exactly `prefix` soon yields [`Event::Progress`]: how a watcher of a quiet prefix
    /// learns that it is up to date.
    fn request_progress(&self, prefix: &str);
    /// Whether writes are taken. Costs nothing.
    ///
    /// # Errors
    /// Why none is.
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Whether requests can be answered in time. Costs nothing.
    ///
    /// # Errors
    /// Why they cannot.
    fn readiness(&self) -> Result<(), Error> {
        self.health()
    }
    /// Forgets history older than `revision`; `revision` itself stays readable.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;
}
