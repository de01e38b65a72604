//! One process a data directory: a lock the kernel drops when the process ends, however it ends.

use anyhow::{Context as _, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// The lock; held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock of `dir`, or says which other `what` has it.
pub(crate) fn take(dir: &Path, what: &str) -> anyhow::Result<Lock> {
    let mut file = open(dir)?;
    match file.try_lock() {
        Ok(()) => sign(file, dir),
        Err(TryLockError::WouldBlock) => {
            bail!("another {what}{} is using {}", holder(&mut file), dir.display());
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", dir.display())),
    }
}

/// Takes the lock of `dir`, as soon as the other `what` that may have it is gone. `None`: `stop` came first.
pub(crate) async fn wait(dir: &Path, what: &str, stop: &CancellationToken) -> anyhow::Result<Option<Lock>> {
    let mut file = open(dir)?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        tracing::info!("waiting for another {what}{} to end", holder(&mut file));
    }
    match locked(file, dir, stop).await? {
        Some(file) => sign(file, dir).map(Some),
        None => Ok(None),
    }
}

/// Takes the lock of a file, as soon as whoever has it is gone; what is in the file stays. `None`: `stop` came first.
pub(crate) async fn wait_for_file(path: &Path, stop: &CancellationToken) -> anyhow::Result<Option<Lock>> {
    Ok(locked(open_file(path)?, path, stop).await?.map(|file| Lock { _file: file }))
}

async fn locked(file: File, what: &Path, stop: &CancellationToken) -> anyhow::Result<Option<File>> {
    // locks taken twice by one process are one lock
    let locking = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    let Some(locked) = stop.run_until_cancelled(locking).await else { return Ok(None) };
    let locked = locked.context("wait for a lock")?;
    locked.map(Some).with_context(|| format!("lock {}", what.display()))
}

/// Comes true when a file is opened or removed. A file that cannot be watched is never.
pub(crate) async fn opened(path: &Path) {
    use inotify::{Inotify, WatchMask};
    let watched = Inotify::init().and_then(|inotify| {
        inotify.watches().add(path, WatchMask::OPEN | WatchMask::DELETE_SELF)?;
        inotify.into_event_stream(vec![0; 4096])
    });
    match watched {
        Ok(mut events) => drop(futures::StreamExt::next(&mut events).await),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot watch the lock file");
            std::future::pending().await
        }
    }
}

fn open(dir: &Path) -> anyhow::Result<File> {
    open_file(&dir.join("lock"))
}

fn open_file(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).with_context(|| format!("open lock {}", path.display()))
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    let pid = pid.trim();
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

/// Writes who has it, for the messages above; the lock itself is the kernel's.
fn sign(mut file: File, dir: &Path) -> anyhow::Result<Lock> {
    let signed =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    signed.with_context(|| format!("sign the lock of {}", dir.display()))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests {
    use super::*;

    #[test]
    fn two_servers_must_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "windlass server").unwrap();
        let error = take(dir.path(), "windlass server").unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            error,
            format!("another windlass server (process {pid}) is using {}", dir.path().display())
        );
        drop(first);
        take(dir.path(), "windlass server").unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_for_a_lock_must_not_be_deaf_to_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(dir.path(), "kubelet").unwrap();
        let stop = CancellationToken::new();
        let waiting = wait(dir.path(), "kubelet", &stop);
        let asked = async {
            tokio::task::yield_now().await;
            stop.cancel();
        };
        let (locked, ()) = tokio::join!(waiting, asked);
        assert!(locked.unwrap().is_none());
        // What still waits below ends with the test.
        drop(held);
    }

    #[tokio::test]
    async fn whoever_opens_a_lock_file_is_noticed_by_whoever_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.lock");
        std::fs::write(&path, "mine").unwrap();
        let stop = CancellationToken::new();
        let held = wait_for_file(&path, &stop).await.unwrap().unwrap();
        let noticed = opened(&path);
        let other = async {
            tokio::task::yield_now().await;
            wait_for_file(&path, &stop).await.unwrap()
        };
        let first = async {
            noticed.await;
            drop(held);
        };
        let (second, ()) = tokio::join!(other, first);
        assert!(second.is_some());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine", "its content is not ours");
    }

    #[tokio::test]
    async fn an_agent_waits_for_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "windlass agent").unwrap();
        let path = dir.path().to_owned();
        let second = tokio::spawn(async move {
            wait(&path, "windlass agent", &CancellationToken::new()).await.unwrap().unwrap()
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!second.is_finished(), "two agents must not run");
        drop(first);
        second.await.unwrap();
    }
}
