//! bbolt's file, in which an etcd member keeps what it has: read whole ([`Reader`]), and written whole from sorted keys ([`Writer`]).
//!
//! A file of pages: two of marks (the one of the newer transaction counts), a list of free pages, and B+ trees, one a bucket, whose roots are
//! named in a tree of their own. Both ends here are for files that nobody else has open. Numbers are little endian, as on every machine that
//! etcd supports. Layout: `go.etcd.io/bbolt/internal/common` (format version 2).

mod page;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::{Bucket, Writer};

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{what} database {}", path.display())]
    Io {
        /// Read or write.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no database, or not a whole one.
    #[error("database {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it went wrong.
        why: String,
    },
    /// A key came out of its turn.
    #[error("write database {}: a key does not follow the one before it", path.display())]
    Order {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { what: "read", path: path.to_owned(), source }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { what: "write", path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
