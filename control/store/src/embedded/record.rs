//! How one revision lies in the log table.
//!
//! ```text
//! kind u8 | create u64 | prev u64 | deadline u64 | key length u32 | key | value      (integers little endian)
//! ```
//! `prev` is the revision the key was written at before (0: never), so a key's history is a chain from its newest
//! record backwards; reads of the past walk it.

use crate::{Entry, Revision};
use bytes::Bytes;
use std::sync::Arc;

const HEADER: usize = 1 + 8 + 8 + 8 + 4;

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key holds the record's value from here on.
    Put,
    /// The key is gone from here on.
    Tombstone,
}

/// A record as it lies in the log, borrowed from the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    /// Revision of the key's creation; the record's own revision for a creation.
    pub(super) create: Revision,
    /// The key's record before this one, 0 where there is none.
    pub(super) prev: Revision,
    /// When the key expires, in milliseconds since the epoch; 0 for never.
    pub(super) deadline: u64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

/// The log holds bytes that are no record.
#[derive(Debug, thiserror::Error)]
#[error("the record at revision {revision} is malformed: {why}")]
pub(super) struct Malformed {
    revision: Revision,
    why: &'static str,
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.key.len() + self.value.len());
        out.push(match self.kind {
            Kind::Put => 0,
            Kind::Tombstone => 1,
        });
        out.extend_from_slice(&self.create.to_le_bytes());
        out.extend_from_slice(&self.prev.to_le_bytes());
        out.extend_from_slice(&self.deadline.to_le_bytes());
        // Keys are bounded by the value limit, far below u32::MAX.
        out.extend_from_slice(&u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
        out
    }

    /// Reads a record found at `revision`.
    pub(super) fn decode(revision: Revision, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let bad = |why| Malformed { revision, why };
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(bad("shorter than its header"))?;
        let word =
            |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let kind = match header[0] {
            0 => Kind::Put,
            1 => Kind::Tombstone,
            _ => return Err(bad("unknown kind")),
        };
        let length = header.get(25..29).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let (key, value) = rest.split_at_checked(length as usize).ok_or(bad("shorter than its key"))?;
        let key = std::str::from_utf8(key).map_err(|_| bad("the key is not UTF-8"))?;
        Ok(Self { kind, create: word(1), prev: word(9), deadline: word(17), key, value })
    }

    /// The entry a put record stands for.
    pub(super) fn entry(&self, revision: Revision) -> Entry {
        Entry {
            key: Arc::from(self.key),
            value: Bytes::copy_from_slice(self.value),
            create_revision: self.create,
            mod_revision: revision,
            stale: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back(put: bool, create: u64, prev: u64, deadline: u64, key in ".{0,40}", value: Vec<u8>) {
            let kind = if put { Kind::Put } else { Kind::Tombstone };
            let record = Record { kind, create, prev, deadline, key: &key, value: &value };
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(7, &bytes).unwrap(), record);
        }

        #[test]
        fn junk_is_an_error_not_a_panic(bytes: Vec<u8>) {
            let _ = Record::decode(1, &bytes);
        }
    }
}
