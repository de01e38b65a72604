//! The embedded engine: one redb file, one writer thread, readers on MVCC snapshots.
//!
//! [`Store::open`] gives the [`Backend`]. Dropping the store finishes the writes already queued.

mod batch;
mod read;
mod record;
mod retention;
mod snapshot;
mod tables;
mod writer;

use crate::hub::{self, Hub};
use crate::{Backend, Entry, Error, Event, Expect, Page, Revision};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use read::Reader;
use retention::Retention;
pub use snapshot::{Living, advance, each_living, newest};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, oneshot};
use writer::{Command, Reply, Work, Writer};

/// How a [`Store`] behaves; the defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for the file's pages.
    pub cache_bytes: usize,
    /// How long past revisions stay readable (upstream compacts every 5 minutes).
    pub history: Duration,
    /// How many past revisions stay readable at most.
    pub max_revisions: u64,
    /// Largest value (etcd's request limit, 1.5 MiB).
    pub max_value: usize,
    /// Writes that may wait at once; further callers wait for their turn.
    pub queue: usize,
    /// Writes in one commit at most; 1 turns group commit off.
    pub max_group: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            history: Duration::from_secs(300),
            max_revisions: 1_000_000,
            max_value: 3 << 19,
            queue: 4096,
            max_group: 1024,
        }
    }
}

/// Store of one server in one redb file; cheap to clone.
pub struct Store {
    hub: Arc<Hub>,
    reader: Arc<Reader>,
    permits: Arc<Semaphore>,
    max_value: usize,
    commits: Arc<AtomicU64>,
    /// Both `None` only while dropping.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `path`, making it where there is none. A file that is locked, damaged or no store gives an
    /// error naming it.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let (db, marks) = tables::open(path, options.cache_bytes)?;
        let db = Arc::new(db);
        let reader = Arc::new(Reader::new(db.clone()));
        let hub = Arc::new(Hub::new(marks.revision, marks.compacted));
        let (commands, receiver) = mpsc::channel();
        let permits = Arc::new(Semaphore::new(options.queue.max(1)));
        let max_value = options.max_value;
        let commits_made = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            db,
            hub: hub.clone(),
            commands: receiver,
            retention: Retention::new(options.history, options.max_revisions),
            options,
            marks,
            // Makes the first turn look at once: what came due while the store was closed, and the true deadline.
            next_deadline: Some(0),
            commits: commits_made.clone(),
            broken: false,
            reader: reader.clone(),
        };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|e| Error::Engine {
                what: format!("start the writer of {}", path.display()),
                source: e.into(),
            })?;
        Ok(Self {
            hub,
            reader,
            permits,
            max_value,
            commits: commits_made,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Durable commits since the store was opened: writes divided by this is what group commit saves.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Writes the newest state to a store of its own at `path`, which must not exist: everything acknowledged before the
    /// call is in it. Writers do not wait. Gives the revision it shows.
    pub async fn snapshot(&self, path: impl AsRef<Path>) -> Result<Revision, Error> {
        let (reader, path) = (self.reader.clone(), path.as_ref().to_owned());
        blocking("snapshot to", &path.display().to_string(), move || snapshot::write(&reader, &path)).await
    }

    async fn submit<T>(
        &self,
        what: &str,
        subject: &str,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<T, Error> {
        let closed = || Error::Closed { what: format!("{what} {subject}") };
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(closed)?;
        commands.send(Command { work: work(reply), permit }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // The writer catches its panics; there is nothing to learn from the join.
            let _ = thread.join();
        }
    }
}

impl Backend for Store {
    fn health(&self) -> Result<(), Error> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(Error::Closed { what: "write".to_owned() }),
        }
    }

    fn compacted(&self) -> Revision {
        self.hub.compacted()
    }

    fn revision(&self) -> Revision {
        self.hub.published()
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let (reader, key) = (self.reader.clone(), key.to_owned());
        async move {
            let subject = key.clone();
            blocking("read", &subject, move || reader.get(&key)).await
        }
        .boxed()
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let (reader, prefix, start_after) =
            (self.reader.clone(), prefix.to_owned(), start_after.map(str::to_owned));
        async move {
            let subject = prefix.clone();
            blocking("list", &subject, move || reader.list(&prefix, start_after.as_deref(), limit, at)).await
        }
        .boxed()
    }

    fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<Entry, Error>> {
        let key = key.to_owned();
        async move {
            let size = key.len() + value.len();
            if size > self.max_value {
                return Err(Error::TooLarge { key, size, limit: self.max_value });
            }
            let deadline = ttl.map_or(0, |ttl| deadline(epoch_millis(), ttl));
            let subject = key.clone();
            self.submit("write", &subject, |reply| Work::Put { key, value, expect, deadline, reply }).await
        }
        .boxed()
    }

    fn delete(&self, key: &str, expect: Expect) -> BoxFuture<'_, Result<(Entry, Revision), Error>> {
        let key = key.to_owned();
        async move {
            let subject = key.clone();
            self.submit("delete", &subject, |reply| Work::Delete { key, expect, reply }).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        Ok(hub::watch(self.hub.clone(), self.reader.clone(), prefix, from))
    }

    fn request_progress(&self, prefix: &str) {
        // What is committed is published.
        self.hub.request_progress(prefix, 0);
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let subject = format!("to revision {revision}");
            self.submit("compact", &subject, |reply| Work::Compact { revision, reply }).await
        }
        .boxed()
    }
}

/// Runs a read off the async threads: it may touch the disk.
async fn blocking<T: Send + 'static>(
    verb: &str,
    subject: &str,
    read: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|e| Err(Error::Engine { what: format!("{verb} {subject}"), source: e.into() }))
}

/// Milliseconds since the epoch: deadlines must outlive the process.
fn epoch_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// When a key written at `now` expires. Rounded up by at most a sixtieth of its life (and a minute), so that keys written
/// close together go in one commit.
fn deadline(now: u64, ttl: Duration) -> u64 {
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let step = (ttl / 60).clamp(1, 60_000);
    now.saturating_add(ttl).div_ceil(step).saturating_mul(step)
}
