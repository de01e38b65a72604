//! The revisioned store. [`Backend`] is the seam: the embedded engine implements it today, etcd fits it unchanged.
//!
//! Keys are laid out as upstream lays them out in etcd (`/registry/...`), values are canonical JSON. A revision counts
//! committed writes; it never goes back, also across restarts.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// A point in the store's history. The first write is revision 1; 0 means "nothing written yet".
pub type Revision = u64;

/// One stored value with its history marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full key, `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// Canonical JSON bytes.
    pub value: Bytes,
    /// Revision at which the key came to be.
    pub create_revision: Revision,
    /// Revision of the last write to the key: the object's `resourceVersion`.
    pub mod_revision: Revision,
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key must not exist.
    Absent,
    /// The key must exist with exactly this `mod_revision`.
    At(Revision),
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written; `prev` is what it held before, if anything.
    Put { entry: Entry, prev: Option<Entry> },
    /// A key was removed at `revision`; `prev` is what it held.
    Delete { prev: Entry, revision: Revision },
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
    Conflict { key: String, current: Option<Box<Entry>> },
    /// The revision asked for is older than the oldest kept.
    #[error("revision {asked} has been compacted; the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future; the newest is {current}")]
    Future { asked: Revision, current: Revision },
    /// The engine failed; `what` names the operation and its subject.
    #[error("{what}")]
    Engine {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is shutting down.
    #[error("{what}: the store is closed")]
    Closed { what: String },
}

/// The store seen by the API server. Every write is durable (survives `kill -9`) before its future resolves.
pub trait Backend: Send + Sync + 'static {
    /// The newest committed revision.
    fn revision(&self) -> Revision;
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
    /// Forgets history older than `revision`.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;
}
