//! Snapshots: the newest state of a store as a store of its own, without history; and the same for another engine to take over.
//!
//! One read transaction sees one moment; the writer goes on meanwhile. Lives of keys go with them: what comes due while a
//! snapshot lies on a shelf is deleted when it is opened.

use super::read::Reader;
use super::record::Record;
use super::tables::{self, COMPACTED, EXPIRY, INDEX, LOG, META, Marks, REVISION, SWEPT, Source};
use crate::{Entry, Error, Revision};
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, WriteTransaction};
use std::io;
use std::path::Path;

/// Memory for the pages of a snapshot while it is written.
const CACHE_BYTES: usize = 4 << 20;

/// Writes what `reader` sees now to a new file at `path`.
pub(super) fn write(reader: &Reader, path: &Path) -> Result<Revision, Error> {
    copy(reader, path).map_err(|source| tables::failed("write snapshot", path, source))
}

fn copy(reader: &Reader, path: &Path) -> Result<Revision, Source> {
    if path.try_exists()? {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    let from = reader.view()?;
    let Marks { revision, .. } = tables::marks(&from)?;
    let (index, log) = (from.open_table(INDEX)?, from.open_table(LOG)?);
    tables::create(path)?;
    let db = open(path)?;
    let to = db.begin_write()?;
    {
        let (mut new_index, mut new_log) = (to.open_table(INDEX)?, to.open_table(LOG)?);
        let mut expiry = to.open_table(EXPIRY)?;
        for row in index.iter()? {
            let (key, newest) = row?;
            let (written, create, deadline) = newest.value();
            if create == 0 {
                continue;
            }
            let found = log.get(written)?.ok_or("the index names a record that is not there")?;
            let record = Record { prev: 0, ..Record::decode(written, found.value())? };
            new_log.insert(written, record.encode().as_slice())?;
            new_index.insert(key.value(), newest.value())?;
            if deadline != 0 {
                expiry.insert((deadline, written), key.value())?;
            }
        }
    }
    mark(&to, revision)?;
    to.commit()?;
    Ok(revision)
}

/// Moves the closed store at `path` forward by `by` revisions and forgets its history. After a snapshot has been put in
/// the place of a later state, no revision that a client has seen may come again with another meaning: clients that ask
/// for one are sent to list afresh. Gives the new revision.
///
/// # Errors
/// With a file that is no store, or is open.
pub fn advance(path: &Path, by: Revision) -> Result<Revision, Error> {
    let forward = || -> Result<Revision, Source> {
        let db = open(path)?;
        let Marks { revision, .. } = tables::marks(&db.begin_read()?)?;
        let revision = revision.checked_add(by).ok_or("there are no revisions left")?;
        let txn = db.begin_write()?;
        mark(&txn, revision)?;
        txn.commit()?;
        Ok(revision)
    };
    forward().map_err(|source| tables::failed("advance", path, source))
}

/// The newest revision of the closed store at `path`.
///
/// # Errors
/// With a file that is no store, or is open.
pub fn newest(path: &Path) -> Result<Revision, Error> {
    let read = || -> Result<Revision, Source> { Ok(tables::marks(&open(path)?.begin_read()?)?.revision) };
    read().map_err(|source| tables::failed("read", path, source))
}

/// A key as it is in a closed store.
#[derive(Debug)]
pub struct Living {
    /// The key and its value.
    pub entry: Entry,
    /// When it expires, in milliseconds since the epoch.
    pub deadline: Option<u64>,
}

/// Shows `visit` every key of the closed store at `path`, in order of revisions; gives the store's revision.
///
/// # Errors
/// Those of `visit`; with a file that is no store, or is open.
pub fn each_living<E: From<Error>>(
    path: &Path,
    mut visit: impl FnMut(Living) -> Result<(), E>,
) -> Result<Revision, E> {
    let named = |source: Source| tables::failed("read", path, source);
    let engine = |source: redb::Error| named(source.into());
    let db = open(path).map_err(|e| named(e.into()))?;
    let txn = db.begin_read().map_err(|e| engine(e.into()))?;
    let Marks { revision, .. } = tables::marks(&txn).map_err(engine)?;
    let index = txn.open_table(INDEX).map_err(|e| engine(e.into()))?;
    let log = txn.open_table(LOG).map_err(|e| engine(e.into()))?;
    for row in log.iter().map_err(|e| engine(e.into()))? {
        let (written, bytes) = row.map_err(|e| engine(e.into()))?;
        let record = Record::decode(written.value(), bytes.value()).map_err(|e| named(e.into()))?;
        let newest = index.get(record.key).map_err(|e| engine(e.into()))?;
        // Others are history: overwritten since, or deleted.
        let Some((_, create, deadline)) =
            newest.map(|row| row.value()).filter(|row| row.0 == written.value())
        else {
            continue;
        };
        if create != 0 {
            visit(Living {
                entry: record.entry(written.value()),
                deadline: (deadline != 0).then_some(deadline),
            })?;
        }
    }
    Ok(revision)
}

fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).open(path)
}

/// Marks the state as that of `revision`, with no history before it.
fn mark(txn: &WriteTransaction, revision: Revision) -> Result<(), Source> {
    let mut meta = txn.open_table(META)?;
    for name in [REVISION, COMPACTED, SWEPT] {
        meta.insert(name, revision)?;
    }
    Ok(())
}
