//! One server a data directory: a lock the kernel drops when the process ends, however it ends.

use anyhow::{Context as _, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

/// The lock; held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Takes the lock of `dir`, or says who has it.
pub(super) fn take(dir: &Path) -> anyhow::Result<Lock> {
    let path = dir.join("lock");
    let open = || format!("open lock {}", path.display());
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).with_context(open)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            bail!("another windlass server{who} is using {}", dir.display());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    // For the message above; the lock itself is the kernel's.
    file.set_len(0).and_then(|()| file.rewind()).with_context(open)?;
    writeln!(file, "{}", std::process::id()).with_context(open)?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_must_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        let error = take(dir.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            error,
            format!("another windlass server (process {pid}) is using {}", dir.path().display())
        );
        drop(first);
        take(dir.path()).unwrap();
    }
}
