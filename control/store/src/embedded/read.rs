//! Reads: the newest state, the state at a past revision, and the changes between two revisions. Each call works on one
//! MVCC snapshot, so it never sees half a batch and never waits for the writer.

use super::record::{Kind, Record};
use super::tables::{self, INDEX, LOG, Marks, Source, StoreFile};
use crate::hub::{Changes, History};
use crate::{Entry, Error, Event, Page, Revision};
use futures::FutureExt;
use futures::future::BoxFuture;
use redb::ReadOnlyTable;
use std::ops::Bound;
use std::sync::Arc;

/// How many log records one page of changes looks at.
const CHANGES_SCANNED: usize = 4096;
/// How many changes one page holds at most.
const CHANGES_FOUND: usize = 512;

/// Reads one store file.
pub(super) struct Reader {
    db: Arc<StoreFile>,
}

/// A failed read: refused for its revision, or the engine's.
enum Failure {
    Refused(Error),
    Engine(Source),
}

impl<E: Into<Source>> From<E> for Failure {
    fn from(source: E) -> Self {
        Self::Engine(source.into())
    }
}

impl Failure {
    fn named(self, what: impl FnOnce() -> String) -> Error {
        match self {
            Self::Refused(e) => e,
            Self::Engine(source) => Error::Engine { what: what(), source },
        }
    }
}

impl Reader {
    pub(super) fn new(db: Arc<StoreFile>) -> Self {
        Self { db }
    }

    /// One consistent view of the file.
    pub(super) fn view(&self) -> Result<redb::ReadTransaction, redb::TransactionError> {
        self.db.begin_read()
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.try_get(key).map_err(|e| e.named(|| format!("read {key}")))
    }

    fn try_get(&self, key: &str) -> Result<Option<Entry>, Failure> {
        let txn = self.db.begin_read()?;
        let Some(row) = txn.open_table(INDEX)?.get(key)? else { return Ok(None) };
        let (revision, create, _) = row.value();
        if create == 0 {
            return Ok(None);
        }
        Ok(load(&txn.open_table(LOG)?, revision)?)
    }

    pub(super) fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        self.try_list(prefix, start_after, limit, at).map_err(|e| e.named(|| format!("list {prefix}")))
    }

    fn try_list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Failure> {
        let txn = self.db.begin_read()?;
        let Marks { revision: newest, compacted, .. } = tables::marks(&txn)?;
        let revision = at.unwrap_or(newest);
        if revision > newest {
            return Err(Failure::Refused(Error::Future { asked: revision, current: newest }));
        }
        if revision < compacted {
            return Err(Failure::Refused(Error::Compacted { asked: revision, oldest: compacted }));
        }
        let log = txn.open_table(LOG)?;
        let index = txn.open_table(INDEX)?;
        let from = match start_after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page { revision, ..Page::default() };
        for row in index.range::<&str>((from, Bound::Unbounded))? {
            let (key, newest) = row?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (written, create, _) = newest.value();
            let Some(written) = live_at(&log, written, create != 0, revision)? else { continue };
            if limit != 0 && page.entries.len() == limit {
                page.remaining += 1;
            } else if let Some(entry) = load(&log, written)? {
                page.entries.push(entry);
            }
        }
        page.more = page.remaining > 0;
        Ok(page)
    }

    /// Changes under `prefix` in (`after`, `until`], a bounded page of them.
    pub(super) fn logged(&self, prefix: &str, after: Revision, until: Revision) -> Result<Changes, Error> {
        self.try_changes(prefix, after, until)
            .map_err(|e| e.named(|| format!("watch {prefix} after {after}")))
    }

    fn try_changes(&self, prefix: &str, after: Revision, until: Revision) -> Result<Changes, Failure> {
        let txn = self.db.begin_read()?;
        let Marks { compacted, .. } = tables::marks(&txn)?;
        if after < compacted {
            return Err(Failure::Refused(Error::Compacted { asked: after, oldest: compacted }));
        }
        let log = txn.open_table(LOG)?;
        let mut page = Changes { events: Vec::new(), scanned: until };
        for (count, row) in log.range(after.saturating_add(1)..=until)?.enumerate() {
            let (revision, bytes) = row?;
            let revision = revision.value();
            if count == CHANGES_SCANNED || page.events.len() == CHANGES_FOUND {
                page.scanned = revision - 1;
                break;
            }
            let record = Record::decode(revision, bytes.value())?;
            if !record.key.starts_with(prefix) {
                continue;
            }
            let prev = if record.prev == 0 { None } else { load(&log, record.prev)? };
            match (record.kind, prev) {
                (Kind::Put, prev) => page.events.push(Event::Put { entry: record.entry(revision), prev }),
                (Kind::Tombstone, Some(prev)) => page.events.push(Event::Delete { prev, revision }),
                // A tombstone is only written over a live record, and that one is kept as long as the tombstone.
                (Kind::Tombstone, None) => {
                    return Err(format!("the value deleted at revision {revision} is missing").into());
                }
            }
        }
        Ok(page)
    }
}

impl History for Reader {
    fn changes(
        self: Arc<Self>,
        prefix: Arc<str>,
        after: Revision,
        until: Revision,
    ) -> BoxFuture<'static, Result<Changes, Error>> {
        async move {
            let subject = prefix.clone();
            super::blocking("watch", &subject, move || self.logged(&prefix, after, until)).await
        }
        .boxed()
    }
}

/// The revision of the record that a key's history shows at `at`, `None` where the key did not exist then.
fn live_at(
    log: &ReadOnlyTable<u64, &[u8]>,
    mut written: Revision,
    mut live: bool,
    at: Revision,
) -> Result<Option<Revision>, Source> {
    while written > at {
        let Some(bytes) = log.get(written)? else { return Ok(None) };
        let prev = Record::decode(written, bytes.value())?.prev;
        if prev == 0 {
            return Ok(None);
        }
        // A missing record is a compacted tombstone: live values are kept until they are superseded.
        let Some(bytes) = log.get(prev)? else { return Ok(None) };
        live = Record::decode(prev, bytes.value())?.kind == Kind::Put;
        written = prev;
    }
    Ok(live.then_some(written))
}

fn load(log: &ReadOnlyTable<u64, &[u8]>, revision: Revision) -> Result<Option<Entry>, Source> {
    let Some(bytes) = log.get(revision)? else { return Ok(None) };
    let record = Record::decode(revision, bytes.value())?;
    Ok((record.kind == Kind::Put).then(|| record.entry(revision)))
}
