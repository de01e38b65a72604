//! One write transaction: compare-and-swaps evaluated in order, expiries, a slice of compaction. Nothing here commits;
//! the writer does, once for all of it.

use super::record::{Kind, Record};
use super::tables::{COMPACTED, EXPIRY, INDEX, LOG, META, Marks, REVISION, SWEPT, Source};
use crate::{Entry, Error, Event, Expect, Revision};
use redb::{ReadableTable, Table, WriteTransaction};

/// A key's newest record, from the index.
#[derive(Clone, Copy)]
struct Newest {
    revision: Revision,
    create: Revision,
    deadline: u64,
}

impl Newest {
    fn is_live(self) -> bool {
        self.create != 0
    }
}

/// Open tables of one transaction, and the marks as they will be after it.
pub(super) struct Batch<'txn> {
    log: Table<'txn, u64, &'static [u8]>,
    index: Table<'txn, &'static str, (u64, u64, u64)>,
    expiry: Table<'txn, (u64, u64), &'static str>,
    meta: Table<'txn, &'static str, u64>,
    before: Marks,
    marks: Marks,
    /// Changes so far, in revision order.
    events: Vec<Event>,
}

/// What a batch leaves behind once its transaction is committed.
pub(super) struct Outcome {
    pub(super) marks: Marks,
    pub(super) events: Vec<Event>,
    /// The earliest expiry deadline left.
    pub(super) next_deadline: Option<u64>,
    /// False where the transaction need not be committed.
    pub(super) changed: bool,
}

impl<'txn> Batch<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction, marks: Marks) -> Result<Self, Source> {
        Ok(Self {
            log: txn.open_table(LOG)?,
            index: txn.open_table(INDEX)?,
            expiry: txn.open_table(EXPIRY)?,
            meta: txn.open_table(META)?,
            before: marks,
            marks,
            events: Vec::new(),
        })
    }

    /// Compare-and-swap; the inner error is the caller's, the outer one the engine's. `deadline` 0 is never.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        expect: Expect,
        deadline: u64,
    ) -> Result<Result<Entry, Error>, Source> {
        let newest = self.newest(key)?;
        let live = newest.filter(|n| n.is_live());
        let prev = match live {
            Some(n) => self.load(n.revision)?,
            None => None,
        };
        let met = match expect {
            Expect::Absent => live.is_none(),
            Expect::At(revision) => live.is_some_and(|n| n.revision == revision),
        };
        if !met {
            return Ok(Err(Error::Conflict { key: key.to_owned(), current: prev.map(Box::new) }));
        }
        let revision = self.marks.revision + 1;
        let create = live.map_or(revision, |n| n.create);
        let record =
            Record { kind: Kind::Put, create, prev: newest.map_or(0, |n| n.revision), deadline, key, value };
        let entry = record.entry(revision);
        self.append(revision, &record, newest)?;
        self.events.push(Event::Put { entry: entry.clone(), prev });
        Ok(Ok(entry))
    }

    /// Compare-and-swap delete; errors as [`Batch::put`].
    pub(super) fn delete(
        &mut self,
        key: &str,
        expect: Expect,
    ) -> Result<Result<(Entry, Revision), Error>, Source> {
        let live = self.newest(key)?.filter(|n| n.is_live());
        let prev = match live {
            Some(n) => self.load(n.revision)?,
            None => None,
        };
        match (live, prev) {
            (Some(newest), Some(prev)) if expect == Expect::At(newest.revision) => {
                let revision = self.bury(key, newest, &prev)?;
                Ok(Ok((prev, revision)))
            }
            (_, prev) => Ok(Err(Error::Conflict { key: key.to_owned(), current: prev.map(Box::new) })),
        }
    }

    /// Deletes keys whose deadline is at or before `now`, at most `limit` of them.
    pub(super) fn expire(&mut self, now: u64, limit: usize) -> Result<(), Source> {
        let mut due = Vec::new();
        for row in self.expiry.range(..=(now, u64::MAX))?.take(limit) {
            let (at, key) = row?;
            due.push((at.value(), key.value().to_owned()));
        }
        for (at, key) in due {
            match self.newest(&key)? {
                Some(newest) if newest.is_live() && newest.revision == at.1 => {
                    if let Some(prev) = self.load(newest.revision)? {
                        self.bury(&key, newest, &prev)?;
                    }
                }
                // Rewriting or deleting a key removes its row; a row left over all the same must not come up again.
                _ => {
                    self.expiry.remove(at)?;
                }
            }
        }
        Ok(())
    }

    /// Makes `revision` the oldest readable one; the records it supersedes are removed by [`Batch::sweep`].
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision > self.marks.revision {
            return Err(Error::Future { asked: revision, current: self.marks.revision });
        }
        if revision < self.marks.compacted {
            return Err(Error::Compacted { asked: revision, oldest: self.marks.compacted });
        }
        self.marks.compacted = revision;
        Ok(())
    }

    /// Removes what compaction has made unreachable, looking at no more than `limit` records.
    ///
    /// A record at or before the compacted revision makes its predecessor unreachable, and a tombstone there makes itself
    /// unreachable: so each record is looked at once in its life.
    pub(super) fn sweep(&mut self, limit: usize) -> Result<(), Source> {
        let Marks { compacted, swept, .. } = self.marks;
        if swept >= compacted {
            return Ok(());
        }
        let mut reached = compacted;
        let mut superseded = Vec::new();
        let mut tombstones = Vec::new();
        for (count, row) in self.log.range(swept + 1..=compacted)?.enumerate() {
            let (revision, bytes) = row?;
            let revision = revision.value();
            if count == limit {
                reached = revision - 1;
                break;
            }
            let record = Record::decode(revision, bytes.value())?;
            if record.prev != 0 {
                superseded.push(record.prev);
            }
            if record.kind == Kind::Tombstone {
                tombstones.push((revision, record.key.to_owned()));
            }
        }
        for revision in superseded {
            self.log.remove(revision)?;
        }
        for (revision, key) in tombstones {
            self.log.remove(revision)?;
            if self.newest(&key)?.is_some_and(|n| n.revision == revision) {
                self.index.remove(key.as_str())?;
            }
        }
        self.marks.swept = reached;
        Ok(())
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    /// Writes the marks; the transaction may be committed afterwards.
    pub(super) fn finish(mut self) -> Result<Outcome, Source> {
        let changed = self.marks != self.before || !self.events.is_empty();
        if changed {
            self.meta.insert(REVISION, self.marks.revision)?;
            self.meta.insert(COMPACTED, self.marks.compacted)?;
            self.meta.insert(SWEPT, self.marks.swept)?;
        }
        let next_deadline = self.expiry.first()?.map(|(at, _)| at.value().0);
        Ok(Outcome { marks: self.marks, events: self.events, next_deadline, changed })
    }

    fn bury(&mut self, key: &str, newest: Newest, prev: &Entry) -> Result<Revision, Source> {
        let revision = self.marks.revision + 1;
        let record =
            Record { kind: Kind::Tombstone, create: 0, prev: newest.revision, deadline: 0, key, value: &[] };
        self.append(revision, &record, Some(newest))?;
        self.events.push(Event::Delete { prev: prev.clone(), revision });
        Ok(revision)
    }

    fn append(
        &mut self,
        revision: Revision,
        record: &Record<'_>,
        over: Option<Newest>,
    ) -> Result<(), Source> {
        self.log.insert(revision, record.encode().as_slice())?;
        self.index.insert(record.key, (revision, record.create, record.deadline))?;
        if let Some(over) = over.filter(|n| n.deadline != 0) {
            self.expiry.remove((over.deadline, over.revision))?;
        }
        if record.deadline != 0 {
            self.expiry.insert((record.deadline, revision), record.key)?;
        }
        self.marks.revision = revision;
        Ok(())
    }

    fn newest(&self, key: &str) -> Result<Option<Newest>, Source> {
        Ok(self.index.get(key)?.map(|row| {
            let (revision, create, deadline) = row.value();
            Newest { revision, create, deadline }
        }))
    }

    fn load(&self, revision: Revision) -> Result<Option<Entry>, Source> {
        let Some(bytes) = self.log.get(revision)? else { return Ok(None) };
        Ok(Some(Record::decode(revision, bytes.value())?.entry(revision)))
    }
}
