//! The etcd engine: several servers on one store, laid out as upstream's API server lays it out.
//!
//! [`Etcd::open`] gives the [`Backend`] and the tasks that keep it: their owner runs them for as long as the store is used.
//!
//! **Writes** (`write`) are transactions that compare the key's mod revision. One whose answer is lost is sent again only where that cannot
//! do harm: with an expected revision, which no later write can have again. A creation is not repeated, since what it made may have been
//! deleted since; it is looked up. What stays undecided is told as such ([`Error::Undecided`]), never as success or conflict.
//!
//! **Watches** all come from one watch of the whole key space (`follow`), fanned out by the hub that the embedded engine uses, too. So every
//! revision of the store passes by, and that a quiet prefix is up to date needs no progress request, which etcd answers rightly from 3.4.31
//! and 3.5.13 on only: a consistent read asks etcd for its newest revision (`newest`, one quorum read for all who ask at once) and waits
//! until the watch has passed it. A watch that starts in the past or was too slow reads a watch of its own (`history`) until it has caught
//! up with the common one. Both resume after the last revision that is whole, at another member if need be; a common watch that stands
//! still while etcd's revision moves (a frozen member) is given up by `probe`.
//!
//! **History** is compacted as upstream does it (`compactor`), so that our servers and stock ones agree. **Expiry** is by leases that are
//! shared as upstream shares them (`lease`). **Values** at rest are the [`Encoding`]'s business.

mod compactor;
mod failure;
mod follow;
mod history;
mod keys;
mod lease;
mod newest;
mod probe;
mod read;
mod response;
mod write;

use crate::encoding::Encoding;
use crate::hub::{self, Hub};
use crate::{Backend, Entry, Error, Event, Expect, Page, Revision};
pub use ::etcd::Config;
pub use keys::{rooted, stored};

use ::etcd::{Client, Failure};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use keys::Keys;
use lease::Leases;
use newest::Newest;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use supervise::Task;
use tokio::sync::Notify;

/// etcd's bound on a request by default, 1.5 MiB.
const MAX_REQUEST: usize = 3 << 19;

/// Which etcd, and how it is used.
#[derive(Clone)]
pub struct Options {
    /// The members.
    pub client: Config,
    /// Where keys lie: `/registry`.
    pub prefix: String,
    /// How often history is compacted; zero: never by us.
    pub compaction_interval: Duration,
    /// How values lie there.
    pub encoding: Arc<dyn Encoding>,
    /// How long what may take or last.
    pub tuning: Tuning,
}

/// How long what may take or last, as upstream has it by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// For how many seconds keys that expire are given the same lease, at most.
    pub lease_reuse: u64,
    /// How long a healthy etcd takes to answer.
    pub health: Duration,
    /// How long one takes to answer that is ready for requests.
    pub ready: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        let patience = Duration::from_secs(2);
        Tuning { lease_reuse: 60, health: patience, ready: patience }
    }
}

/// A store in etcd.
pub struct Etcd {
    core: Arc<Core>,
}

/// What the engine's parts share.
struct Core {
    client: Client,
    keys: Keys,
    encoding: Arc<dyn Encoding>,
    hub: Arc<Hub>,
    /// The newest revision heard of, from whatever answer.
    known: AtomicU64,
    newest: Newest,
    leases: Leases,
    tuning: Tuning,
    /// Why the last probe failed.
    ailing: Mutex<Ailing>,
    /// How many responses the common watch has had, parts included.
    responses: AtomicU64,
    /// The common watch stands still.
    stalled: Notify,
}

impl Etcd {
    /// Opens the store: asks for its revision, which takes a quorum. The tasks are to run until the store is dropped.
    ///
    /// # Errors
    /// For members that cannot be spoken to.
    pub async fn open(options: Options) -> Result<(Self, Vec<Task>), Error> {
        let what = || "open etcd".to_owned();
        let client = Client::new(&options.client)
            .map_err(|source| Error::Engine { what: what(), source: source.into() })?;
        let (revision, compacted) =
            compactor::marks(&client).await.map_err(|f| failure::of_read(what(), f))?;
        let core = Arc::new(Core {
            client,
            keys: Keys::new(&options.prefix),
            encoding: options.encoding,
            hub: Arc::new(Hub::new(revision, compacted)),
            known: AtomicU64::new(revision),
            newest: Newest::default(),
            leases: Leases::new(options.tuning.lease_reuse),
            tuning: options.tuning,
            ailing: Mutex::default(),
            responses: AtomicU64::new(0),
            stalled: Notify::new(),
        });
        let mut tasks = vec![follow::task(&core), probe::task(&core)];
        if !options.compaction_interval.is_zero() {
            tasks.push(compactor::task(&core, options.compaction_interval));
        }
        Ok((Self { core }, tasks))
    }
}

impl Etcd {
    /// The client of the members, which may be told of others.
    #[must_use]
    pub fn client(&self) -> Client {
        self.core.client.clone()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.core.hub.close();
    }
}

impl Core {
    /// Notes that etcd has come to a revision.
    fn heard(&self, revision: Revision) {
        self.known.fetch_max(revision, Ordering::Relaxed);
    }

    fn known(&self) -> Revision {
        self.known.load(Ordering::Relaxed)
    }

    /// etcd's newest revision, asked for after the call began.
    async fn ask_newest(&self) -> Result<Revision, Error> {
        self.newest.get(|| async { self.note(compactor::marks(&self.client).await) }).await
    }

    /// The same, asked for whoever looks how etcd is: not together with those who wait for a frozen member.
    async fn look(&self, patience: Duration) -> Result<Revision, Error> {
        self.note(compactor::marks_hedged(&self.client, patience).await)
    }

    fn note(&self, marks: Result<(Revision, Revision), Failure>) -> Result<Revision, Error> {
        let (revision, compacted) =
            marks.map_err(|f| failure::of_read("read the newest revision".to_owned(), f))?;
        self.heard(revision);
        self.hub.forget(compacted);
        Ok(revision)
    }
}

/// What is wrong with etcd, in words.
#[derive(Default)]
struct Ailing {
    /// So that it is not healthy.
    health: Option<String>,
    /// So that it is not ready.
    ready: Option<String>,
}

fn unless(why: Option<&str>) -> Result<(), Error> {
    match why {
        None => Ok(()),
        Some(why) => Err(Error::Unavailable { what: "reach etcd".to_owned(), source: why.to_owned().into() }),
    }
}

/// A revision as etcd counts.
fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision of etcd's, which are never negative.
fn unsigned(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or_default()
}

impl Backend for Etcd {
    fn revision(&self) -> Revision {
        self.core.known()
    }

    fn newest(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.core.ask_newest().boxed()
    }

    fn compacted(&self) -> Revision {
        self.core.hub.compacted()
    }

    fn longest_write(&self) -> Duration {
        write::LONGEST
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let key = key.to_owned();
        async move { self.core.get(&key).await }.boxed()
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let (prefix, start_after) = (prefix.to_owned(), start_after.map(str::to_owned));
        async move { self.core.list(&prefix, start_after.as_deref(), limit, at).await }.boxed()
    }

    fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<Entry, Error>> {
        let key = key.to_owned();
        async move { self.core.put(&key, value, expect, ttl).await }.boxed()
    }

    fn delete(&self, key: &str, expect: Expect) -> BoxFuture<'_, Result<(Entry, Revision), Error>> {
        let key = key.to_owned();
        async move { self.core.delete(&key, expect).await }.boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        Ok(hub::watch(self.core.hub.clone(), self.core.clone(), prefix, from))
    }

    fn request_progress(&self, prefix: &str) {
        self.core.hub.request_progress(prefix, self.core.known());
    }

    fn health(&self) -> Result<(), Error> {
        unless(self.core.ailing.lock().health.as_deref())
    }

    fn readiness(&self) -> Result<(), Error> {
        unless(self.core.ailing.lock().ready.as_deref())
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        async move { compactor::compact(&self.core, revision).await }.boxed()
    }
}
