//! The one thread that writes: group commit.
//!
//! What wakes it: a command in its queue, the earliest expiry deadline, or history coming of age. It takes everything
//! that waits in the queue (bounded), runs it as one [`Batch`] in one durable transaction, then publishes the changes to
//! the watches and answers the callers, in revision order. While the disk syncs, the next group gathers. A caller hears
//! of success only after the sync, of a conflict only after the writes it lost to are durable.

use super::batch::{Batch, Outcome};
use super::read::Reader;
use super::retention::Retention;
use super::tables::{Marks, Source, StoreFile, panic_text};
use super::{Options, epoch_millis};
use crate::hub::Hub;
use crate::{Entry, Error, Expect, Revision};
use bytes::Bytes;
use redb::Durability;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Bytes of values in one group.
const GROUP_BYTES: usize = 8 << 20;
/// Keys expired in one group.
const EXPIRED: usize = 1000;
/// Log records looked at for compaction beside a group of writes, and in a transaction of its own.
const SWEPT_BESIDE: usize = 256;
const SWEPT_ALONE: usize = 4096;
/// The clock on the wall may be set while the thread waits for a deadline: look again after this long.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Wait after an expiry or compaction of the thread's own failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// One operation, and where its result goes.
pub(super) struct Command {
    pub(super) work: Work,
    /// Held until the command is answered: bounds the queue.
    pub(super) permit: OwnedSemaphorePermit,
}

pub(super) enum Work {
    Put { key: String, value: Bytes, expect: Expect, deadline: u64, reply: Reply<Entry> },
    Delete { key: String, expect: Expect, reply: Reply<(Entry, Revision)> },
    Compact { revision: Revision, reply: Reply<()> },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A result waiting for the commit.
enum Done {
    Put(Result<Entry, Error>),
    Delete(Result<(Entry, Revision), Error>),
    Compact(Result<(), Error>),
}

/// One failure that every caller of a group gets.
#[derive(Clone, Debug)]
struct SharedFailure(Arc<str>);

impl fmt::Display for SharedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SharedFailure {}

pub(super) struct Writer {
    pub(super) db: Arc<StoreFile>,
    pub(super) hub: Arc<Hub>,
    pub(super) commands: Receiver<Command>,
    pub(super) options: Options,
    pub(super) marks: Marks,
    pub(super) retention: Retention,
    pub(super) next_deadline: Option<u64>,
    /// A commit failed: the file must be reopened before the next one.
    pub(super) broken: bool,
    pub(super) reader: Arc<Reader>,
    /// Durable transactions so far.
    pub(super) commits: Arc<AtomicU64>,
}

impl Writer {
    /// Runs until every sender is gone.
    pub(super) fn run(mut self) {
        loop {
            let wait = self.wait();
            let first = match self.commands.recv_timeout(wait) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let group = self.gather(first);
            let idle = group.is_empty();
            if !self.commit_group(group) && idle {
                std::thread::sleep(AFTER_FAILURE);
            }
        }
        self.hub.close();
    }

    /// How long to wait for a command before there is work without one.
    fn wait(&self) -> Duration {
        let Marks { revision, compacted, swept } = self.marks;
        if swept < compacted {
            return Duration::ZERO;
        }
        let expiry = self.next_deadline.map(|at| Duration::from_millis(at.saturating_sub(epoch_millis())));
        let history = self.retention.next(Instant::now(), revision, compacted);
        expiry
            .into_iter()
            .chain(history)
            .min()
            .map_or(Duration::from_secs(u64::from(u32::MAX)), |d| d.min(LONGEST_WAIT))
    }

    fn gather(&self, first: Option<Command>) -> Vec<Command> {
        let mut group: Vec<Command> = first.into_iter().collect();
        let size = |c: &Command| match &c.work {
            Work::Put { value, .. } => value.len(),
            _ => 0,
        };
        let mut bytes: usize = group.iter().map(size).sum();
        while !group.is_empty() && group.len() < self.options.max_group.max(1) && bytes < GROUP_BYTES {
            let Ok(command) = self.commands.try_recv() else { break };
            bytes += size(&command);
            group.push(command);
        }
        group
    }

    /// True where everything went well.
    fn commit_group(&mut self, group: Vec<Command>) -> bool {
        let mut works = Vec::with_capacity(group.len());
        let mut permits = Vec::with_capacity(group.len());
        for Command { work, permit } in group {
            works.push(work);
            permits.push(permit);
        }
        // A damaged page can make redb panic; callers must get an error, and the next group its chance.
        let done = catch_unwind(AssertUnwindSafe(|| self.recover().and_then(|()| self.transact(&works))))
            .unwrap_or_else(|panic| Err(panic_text(&*panic).into()));
        match done {
            Ok((results, outcome)) => {
                self.marks = outcome.marks;
                self.hub.forget(outcome.marks.compacted);
                self.next_deadline = outcome.next_deadline;
                if outcome.changed {
                    self.hub.publish(outcome.marks.revision, &outcome.events);
                }
                for (work, result) in works.into_iter().zip(results) {
                    answer(work, result);
                }
                true
            }
            Err(source) => {
                self.broken = true;
                tracing::error!(error = %source, writes = works.len(), "store: commit failed");
                let failure = SharedFailure(Arc::from(source.to_string()));
                works.into_iter().for_each(|work| refuse(work, &failure));
                false
            }
        }
    }

    /// Reopens the file after a failed commit (a full disk). Should that commit have reached the disk after all, its
    /// callers got an error, but its revisions stand: the watches get them now.
    fn recover(&mut self) -> Result<(), Source> {
        if !self.broken {
            return Ok(());
        }
        let found = self.db.reopen()?;
        if found.revision < self.marks.revision {
            let (now, was) = (found.revision, self.marks.revision);
            return Err(format!("the file went back from revision {was} to {now}").into());
        }
        while self.marks.revision < found.revision {
            let missed = self.reader.logged("", self.marks.revision, found.revision)?;
            self.marks.revision = missed.scanned;
            self.hub.publish(missed.scanned, &missed.events);
        }
        self.marks = found;
        self.hub.forget(found.compacted);
        self.broken = false;
        tracing::info!(revision = found.revision, "store: reopened after a failed commit");
        Ok(())
    }

    fn transact(&mut self, works: &[Work]) -> Result<(Vec<Done>, Outcome), Source> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        let mut batch = Batch::open(&txn, self.marks)?;
        let mut results = Vec::with_capacity(works.len());
        for work in works {
            results.push(match work {
                Work::Put { key, value, expect, deadline, .. } => {
                    Done::Put(batch.put(key, value, *expect, *deadline)?)
                }
                Work::Delete { key, expect, .. } => Done::Delete(batch.delete(key, *expect)?),
                Work::Compact { revision, .. } => Done::Compact(batch.compact(*revision)),
            });
        }
        batch.expire(epoch_millis(), EXPIRED)?;
        if let Some(target) =
            self.retention.observe(Instant::now(), batch.marks().revision, batch.marks().compacted)
        {
            // Within (compacted, revision] by the retention's contract, so never refused.
            let _ = batch.compact(target);
        }
        batch.sweep(if works.is_empty() { SWEPT_ALONE } else { SWEPT_BESIDE })?;
        let outcome = batch.finish()?;
        if outcome.changed {
            txn.commit()?;
            self.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            txn.abort()?;
        }
        Ok((results, outcome))
    }
}

/// A caller that has gone away does not want its answer.
fn answer(work: Work, done: Done) {
    match (work, done) {
        (Work::Put { reply, .. }, Done::Put(result)) => drop(reply.send(result)),
        (Work::Delete { reply, .. }, Done::Delete(result)) => drop(reply.send(result)),
        (Work::Compact { reply, .. }, Done::Compact(result)) => drop(reply.send(result)),
        // `transact` gives each work the result of its own kind.
        _ => {}
    }
}

fn refuse(work: Work, failure: &SharedFailure) {
    let failed = |what: String| Error::Engine { what, source: Box::new(failure.clone()) };
    match work {
        Work::Put { key, reply, .. } => drop(reply.send(Err(failed(format!("write {key}"))))),
        Work::Delete { key, reply, .. } => drop(reply.send(Err(failed(format!("delete {key}"))))),
        Work::Compact { revision, reply } => {
            drop(reply.send(Err(failed(format!("compact to revision {revision}")))));
        }
    }
}
