//! The tables of the store's file, and opening that file.

use crate::{Error, Revision};
use parking_lot::RwLock;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TransactionError, WriteTransaction,
};
use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Revision to record: the whole kept history.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Key to its newest record: (revision, create revision or 0 for a tombstone, expiry deadline or 0).
pub(super) const INDEX: TableDefinition<'static, &str, (u64, u64, u64)> = TableDefinition::new("index");
/// (deadline in milliseconds since the epoch, revision) to key: what expires next is the first row.
pub(super) const EXPIRY: TableDefinition<'static, (u64, u64), &str> = TableDefinition::new("expiry");
/// The store's own marks.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// Mark: layout of the file.
pub(super) const FORMAT: &str = "format";
/// Mark: the newest revision.
pub(super) const REVISION: &str = "revision";
/// Mark: the oldest readable revision.
pub(super) const COMPACTED: &str = "compacted";
/// Mark: up to where compaction has removed superseded records; lags behind [`COMPACTED`].
pub(super) const SWEPT: &str = "swept";

const CURRENT_FORMAT: u64 = 1;

/// The open file. redb writes its allocator state when it is dropped, and on a damaged file that can panic; nobody who
/// closes a store should have to care. After a failed write redb refuses everything until the file is reopened.
pub(super) struct StoreFile {
    path: PathBuf,
    cache_bytes: usize,
    db: RwLock<Option<Database>>,
}

impl StoreFile {
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, TransactionError> {
        self.db.read().as_ref().ok_or(StorageError::DatabaseClosed)?.begin_read()
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, TransactionError> {
        self.db.read().as_ref().ok_or(StorageError::DatabaseClosed)?.begin_write()
    }

    /// Closes the file and opens it again; gives what it holds now, which may be more than was acknowledged.
    pub(super) fn reopen(&self) -> Result<Marks, Error> {
        let mut db = self.db.write();
        close(db.take());
        let (fresh, marks) = attach_caught(&self.path, self.cache_bytes)?;
        *db = Some(fresh);
        Ok(marks)
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        close(self.db.get_mut().take());
    }
}

fn close(db: Option<Database>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
        tracing::error!(error = panic_text(&*panic), "store: the file is damaged, closing it failed");
    }
}

/// The marks of one consistent view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) swept: Revision,
}

/// What makes a file no store.
#[derive(Debug, thiserror::Error)]
enum NotAStore {
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error("format {0} is unknown to this version (it knows {CURRENT_FORMAT})")]
    Format(u64),
}

pub(super) fn marks(txn: &ReadTransaction) -> Result<Marks, redb::Error> {
    let meta = txn.open_table(META)?;
    let mark = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |v| v.value()));
    Ok(Marks { revision: mark(REVISION)?, compacted: mark(COMPACTED)?, swept: mark(SWEPT)? })
}

/// Opens the store's file, making it where there is none. Every failure names the file.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<(StoreFile, Marks), Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(|source| failed("create", path, source))?;
        }
        Err(e) => return Err(failed("open", path, e.into())),
    }
    let (db, marks) = attach_caught(path, cache_bytes)?;
    Ok((StoreFile { path: path.to_owned(), cache_bytes, db: RwLock::new(Some(db)) }, marks))
}

/// A damaged page can make redb panic instead of fail; the caller must get an error naming the file all the same.
fn attach_caught(path: &Path, cache_bytes: usize) -> Result<(Database, Marks), Error> {
    catch_unwind(AssertUnwindSafe(|| attach(path, cache_bytes)))
        .unwrap_or_else(|panic| Err(Box::new(NotAStore::Damaged(panic_text(&*panic)))))
        .map_err(|source| failed("open", path, source))
}

fn attach(path: &Path, cache_bytes: usize) -> Result<(Database, Marks), Source> {
    if fs::metadata(path)?.len() == 0 {
        // redb would take an empty file for a new store; `create` never leaves one behind.
        return Err(Box::new(NotAStore::Damaged("it is empty".to_owned())));
    }
    let db = Builder::new().set_cache_size(cache_bytes).open(path)?;
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let format = meta.get(FORMAT)?.map_or(0, |v| v.value());
    if format != CURRENT_FORMAT {
        return Err(Box::new(NotAStore::Format(format)));
    }
    let found = marks(&txn)?;
    txn.open_table(INDEX)?;
    txn.open_table(EXPIRY)?;
    if let Some((last, _)) = txn.open_table(LOG)?.last()?
        && last.value() > found.revision
    {
        let text = format!("the log reaches revision {}, the mark says {}", last.value(), found.revision);
        return Err(Box::new(NotAStore::Damaged(text)));
    }
    drop(txn);
    Ok((db, found))
}

/// Makes the file beside its place and moves it there: a crash leaves either no store or a whole one.
pub(super) fn create(path: &Path) -> Result<(), Source> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let db = Database::create(&fresh)?;
    let txn = db.begin_write()?;
    txn.open_table(META)?.insert(FORMAT, CURRENT_FORMAT)?;
    txn.open_table(LOG)?;
    txn.open_table(INDEX)?;
    txn.open_table(EXPIRY)?;
    txn.commit()?;
    drop(db);
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(())
}

pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn failed(verb: &str, path: &Path, source: Source) -> Error {
    Error::Engine { what: format!("{verb} store {}", path.display()), source }
}

/// The words of a caught panic.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "panic".to_owned())
}
