//! File writes that are whole or not at all: a temporary neighbour, fsync, rename, fsync of the directory.
//!
//! Each writer has a neighbour of its own, so that several may write one file at once: the last one to rename is the one that counts. What a
//! writer that died left behind is removed by whoever makes sure of the directory next ([`create_private_dir`]).

use crate::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Mode of private keys and of files that hold credentials.
pub const PRIVATE: u32 = 0o600;
/// Mode of certificates and public keys.
pub const PUBLIC: u32 = 0o644;

/// Replaces `path` by `contents` with exactly `mode`, durably. After a crash the old or the new contents are there.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    replace(path, contents, mode).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let dir = parent(path);
    let temporary = dir.join(temporary(name));
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // the error that counts is on its way
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

/// What neighbours that are being written end in.
const UNFINISHED: &str = ".new";
/// How long a neighbour is left alone: no write takes so long.
const ABANDONED: Duration = Duration::from_secs(600);

/// A neighbour's name that nobody else has: another process has another id, and another machine's clock does not count here.
fn temporary(name: &OsStr) -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let (process, turn) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    hidden.push(format!(".{process}-{now:x}-{turn}{UNFINISHED}"));
    hidden
}

/// Removes what writers that died left in a directory; what cannot be removed harms nobody.
fn sweep(dir: &Path) {
    let is_unfinished = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with('.') && name.ends_with(UNFINISHED)
    };
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|found| found.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_unfinished(&entry.file_name()) && is_old(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file or directory another name in the same directory or another, durably; what has that name already is replaced where the kernel does so.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|source| Error::Write { path: to.to_owned(), source })?;
    sync_dir(to)?;
    if from.parent() != to.parent() { sync_dir(from) } else { Ok(()) }
}

/// Makes a rename or removal of `path` durable.
pub fn sync_dir(path: &Path) -> Result<(), Error> {
    let synced = File::open(parent(path)).and_then(|dir| dir.sync_all());
    synced.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// The text of a file, or `None` when there is no such file.
pub fn read_optional(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The text of a file that must exist.
pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Creates a directory and its parents, readable by its owner alone; in one that was there, nothing is left of writes that nobody finishes.
pub fn create_private_dir(path: &Path) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| Error::Write { path: path.to_owned(), source })?;
    sweep(path);
    Ok(())
}

/// Where a certificate and its key are.
pub(crate) fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn two_writers_of_one_file_must_not_fail_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_atomic(path, &[writer; 4096], PRIVATE).unwrap();
                        let read = fs::read(path).unwrap();
                        assert!(read.len() == 4096 && read.iter().all(|byte| *byte == read[0]), "torn");
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), ["f"]);
        // A directory is in the way of every one.
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(write_atomic(&dir.path().join("d"), b"x", PRIVATE).is_err());
        assert_eq!(names(dir.path()), ["d", "f"]);
    }

    #[test]
    fn what_a_writer_left_must_not_stay_and_one_at_work_must_not_be_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - 2 * ABANDONED;
        for (name, at) in [
            (".ca.key.new", old),
            (".ca.key.7-1-0.new", old),
            (".ca.key.8-1-0.new", SystemTime::now()),
            ("ca.key.new", old),
            (".ca.key", old),
        ] {
            File::create(dir.path().join(name)).unwrap().set_modified(at).unwrap();
        }
        create_private_dir(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".ca.key", ".ca.key.8-1-0.new", "ca.key.new"]);
    }
}
