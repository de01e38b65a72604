//! What an etcd member keeps in its file, made of what another store held: keys with the revisions they had there.
//!
//! The buckets of etcd's file: `key` has one record a change, named by its revision; `lease` the leases; `meta`, among other marks, up to where
//! history has been forgotten, which the store's revision is never below; the others say who is a member and how far the log has been
//! applied, and are taken from `seed`, the file of a new member that has stopped. Layout: `server/storage/schema` of etcd (3.4 to 3.6).

use crate::bolt::{self, Reader, Writer};
use crate::v3::{KeyValue, StoredLease};
use prost::Message as _;
use std::path::Path;

const KEYS: &[u8] = b"key";
const LEASES: &[u8] = b"lease";
const META: &[u8] = b"meta";
/// Marks of history: forgotten, and to be forgotten.
const FORGOTTEN: &[u8] = b"finishedCompactRev";
const FORGETTING: &[u8] = b"scheduledCompactRev";
/// Bytes of a revision's name: two numbers, and a letter between them.
const NAME: usize = 17;

/// A file being made.
pub struct Database {
    seed: Reader,
    writer: Writer,
}

impl Database {
    /// Begins the file `to`, which must not exist; it is a member as `seed` is.
    ///
    /// # Errors
    /// As [`bolt::Error`] says.
    pub fn begin(seed: &Path, to: &Path) -> Result<Self, bolt::Error> {
        Ok(Self { seed: Reader::open(seed)?, writer: Writer::create(to)? })
    }

    /// Gives it keys, in order of their revisions. Leases, as id and seconds left, may be made meanwhile.
    ///
    /// # Errors
    /// Those of `fill`, and as [`bolt::Error`] says.
    pub fn fill<E: From<bolt::Error>>(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&KeyValue) -> Result<(), bolt::Error>) -> Result<Vec<(i64, i64)>, E>,
    ) -> Result<(), E> {
        let mut keys = self.writer.bucket(KEYS);
        let mut leases = fill(&mut |kv| keys.put(&name(kv.mod_revision), &kv.encode_to_vec()))?;
        keys.finish()?;
        leases.sort_unstable();
        let mut bucket = self.writer.bucket(LEASES);
        for (id, ttl) in leases {
            bucket.put(&id.to_be_bytes(), &StoredLease { id, ttl, remaining_ttl: 0 }.encode_to_vec())?;
        }
        bucket.finish()?;
        Ok(())
    }

    /// Gives it the keys and leases of another member's file, history and all; gives that file's newest revision.
    ///
    /// # Errors
    /// As [`bolt::Error`] says.
    pub fn copy(&mut self, from: &Path) -> Result<i64, bolt::Error> {
        let newest = newest(from)?;
        let from = Reader::open(from)?;
        for bucket in [KEYS, LEASES] {
            let mut to = self.writer.bucket(bucket);
            from.each(bucket, |key, value| to.put(key, value))?;
            to.finish()?;
        }
        Ok(newest)
    }

    /// Finishes it as of `revision`, with no history before that: whoever asks for a change at or before it is told to look afresh.
    ///
    /// # Errors
    /// As [`bolt::Error`] says.
    pub fn finish(mut self, revision: i64) -> Result<(), bolt::Error> {
        for bucket in self.seed.buckets()? {
            if bucket == KEYS || bucket == LEASES {
                continue;
            }
            let mut marks = std::collections::BTreeMap::new();
            self.seed.each(&bucket, |key, value| {
                marks.insert(key.to_vec(), value.to_vec());
                Ok::<(), bolt::Error>(())
            })?;
            if bucket == META {
                marks.remove(FORGETTING);
                marks.insert(FORGOTTEN.to_vec(), name(revision).to_vec());
            }
            let mut to = self.writer.bucket(&bucket);
            marks.iter().try_for_each(|(key, value)| to.put(key, value))?;
            to.finish()?;
        }
        self.writer.finish()
    }
}

/// The newest revision in a member's file.
///
/// # Errors
/// As [`bolt::Error`] says.
pub fn newest(file: &Path) -> Result<i64, bolt::Error> {
    let file = Reader::open(file)?;
    // etcd begins there.
    let mut newest = 1;
    file.each(KEYS, |key, _| {
        newest = newest.max(revision(key));
        Ok::<(), bolt::Error>(())
    })?;
    file.each(META, |key, value| {
        if key == FORGOTTEN || key == FORGETTING {
            newest = newest.max(revision(value));
        }
        Ok::<(), bolt::Error>(())
    })?;
    Ok(newest)
}

/// How the first change of a revision is named.
fn name(revision: i64) -> [u8; NAME] {
    let mut name = [0; NAME];
    name[..8].copy_from_slice(&revision.to_be_bytes());
    name[8] = b'_';
    name
}

/// The revision in a name; 0 where it is none.
fn revision(name: &[u8]) -> i64 {
    name.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries<'a> = &'a [(&'a [u8], &'a [u8])];

    fn seed(path: &Path) {
        let mut writer = Writer::create(path).unwrap();
        let content: [(&[u8], Entries<'_>); 3] = [
            (b"key", &[(b"junk", b"")]),
            (b"members", &[(b"8e9e05c52164694d", b"{}")]),
            (b"meta", &[(b"consistent_index", b"\0\0\0\0\0\0\0\x04"), (FORGETTING, b"\0\0\0\0\0\0\0\x02_")]),
        ];
        for (name, entries) in content {
            let mut bucket = writer.bucket(name);
            entries.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
            bucket.finish().unwrap();
        }
        writer.finish().unwrap();
    }

    fn entries(path: &Path, bucket: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let reader = Reader::open(path).unwrap();
        reader
            .each(bucket, |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok::<(), bolt::Error>(())
            })
            .unwrap();
        found
    }

    #[test]
    fn the_seed_gives_the_membership_and_nothing_of_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        seed(&path("seed"));
        let mut database = Database::begin(&path("seed"), &path("db")).unwrap();
        let kv = KeyValue {
            key: "/registry/a".into(),
            value: "v".into(),
            create_revision: 7,
            mod_revision: 9,
            version: 2,
            lease: 5,
        };
        let filled = database.fill(|put| {
            put(&kv)?;
            Ok::<_, bolt::Error>(vec![(5, 60)])
        });
        filled.unwrap();
        database.finish(1000).unwrap();
        assert_eq!(entries(&path("db"), KEYS), [(name(9).to_vec(), kv.encode_to_vec())]);
        assert_eq!(entries(&path("db"), b"members").len(), 1);
        let marks = entries(&path("db"), META);
        assert_eq!(marks.len(), 2, "{marks:?}");
        assert_eq!(marks[1], (FORGOTTEN.to_vec(), name(1000).to_vec()));

        // A copy of that, moved on.
        let mut copy = Database::begin(&path("seed"), &path("copy")).unwrap();
        assert_eq!(copy.copy(&path("db")).unwrap(), 1000, "the mark counts, though no key is as new");
        copy.finish(2000).unwrap();
        assert_eq!(entries(&path("copy"), KEYS), entries(&path("db"), KEYS));
        assert_eq!(entries(&path("copy"), LEASES), entries(&path("db"), LEASES));
    }
}
