//! A snapshot becomes a server's state: checked whole beside it, then put in its place in one step, so that a crash leaves
//! the one or the other. What was there is kept.

use super::archive::{self, Snapshot};
use crate::member::objects::{self, Objects};
use crate::member::shared::ENCRYPTION;
use crate::settings;
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    #[serde(flatten)]
    pub(super) snapshot: Snapshot,
    /// Where the state before it is.
    pub(super) replaced: Option<PathBuf>,
    /// The configuration of encryption that came with it.
    pub(super) encryption: Option<PathBuf>,
}

/// Makes the snapshot at `path` the state in `dir`, a server's directory that no server uses.
pub(super) fn restore(path: &Path, dir: &Path) -> anyhow::Result<Restored> {
    let parent = dir.parent().context("the server's directory has no parent")?;
    pki::files::create_private_dir(parent)?;
    let _lock = if dir.exists() { Some(crate::lock::take(dir, "windlass server")?) } else { None };
    check_exchangeable(dir, parent)?;
    let fresh = beside(dir, "restoring");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
    }
    let snapshot = archive::unpack(path, &fresh).inspect_err(|_| {
        // the error that counts is on its way
        let _ = fs::remove_dir_all(&fresh);
    })?;
    let store = settings::store_file(&fresh);
    // Clients have seen the revisions of what is replaced, and may come back with them.
    let floor = objects::forward(snapshot.revision.max(objects::served(dir)), Timestamp::now())?;
    if store.exists() {
        let ahead = floor.saturating_sub(store::embedded::newest(&store)?);
        store::embedded::advance(&store, ahead)?;
    } else {
        ensure!(settings::etcd_file(&fresh).exists(), "{} holds no objects", path.display());
        // It is moved forward when the first member is made of it, at the next start.
        let known = Objects { prefix: snapshot.prefix.clone(), floor: Some(floor), ..Objects::default() };
        known.write(&fresh)?;
    }
    let replaced = if dir.exists() {
        let aside = aside(dir, Timestamp::now());
        // Under its last name first: what is named as unfinished is anybody's to remove.
        pki::files::rename(&fresh, &aside)?;
        renameat2(AT_FDCWD, &aside, AT_FDCWD, dir, RenameFlags::RENAME_EXCHANGE)
            .inspect_err(|_| {
                // the error that counts is on its way
                let _ = fs::remove_dir_all(&aside);
            })
            .with_context(|| format!("exchange {} and {}", aside.display(), dir.display()))?;
        pki::files::sync_dir(dir)?;
        Some(aside)
    } else {
        pki::files::rename(&fresh, dir)?;
        None
    };
    let encryption = dir.join(ENCRYPTION.1);
    Ok(Restored { snapshot, replaced, encryption: encryption.exists().then_some(encryption) })
}

/// # Errors
/// The server's directory is a disk of its own: no other directory can take its place in one step.
fn check_exchangeable(dir: &Path, parent: &Path) -> anyhow::Result<()> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    if dir.exists() {
        ensure!(
            device(dir)? == device(parent)?,
            "{} is mounted: unmount it, restore, move what is in the new directory to the disk, and mount that again",
            dir.display()
        );
    }
    Ok(())
}

/// Where what is replaced at `now` goes: a place that is free, as there may be several restores in a second.
fn aside(dir: &Path, now: Timestamp) -> PathBuf {
    let first = format!("before-{}", now.as_second());
    let mut aside = beside(dir, &first);
    for n in 2.. {
        if !aside.exists() {
            break;
        }
        aside = beside(dir, &format!("{first}-{n}"));
    }
    aside
}

fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    dir.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::super::folder::Folder;
    use super::super::keeper::{Contents, Source};
    use super::*;
    use crate::cli::StorageFlags;
    use crate::member::objects::AHEAD;
    use crate::member::shared;
    use bytes::Bytes;
    use std::sync::Arc;
    use store::embedded::{Options, Store};
    use store::{Backend as _, Expect};

    async fn write(dir: &Path, key: &str) {
        pki::files::create_private_dir(&dir.join("pki")).unwrap();
        fs::write(dir.join("pki/ca.key"), key).unwrap();
        let store = Store::open(settings::store_file(dir), Options::default()).unwrap();
        store.put(key, Bytes::from_static(b"{}"), Expect::Absent, None).await.unwrap();
    }

    async fn save(dir: &Path, to: &Path) -> PathBuf {
        let store = Store::open(settings::store_file(dir), Options::default()).unwrap();
        let source = Source::Embedded(Arc::new(store));
        let contents = Contents { source: &source, server_dir: dir, node: "n1" };
        contents.save(&Folder::new(to.to_owned()), "on-demand").await.unwrap()
    }

    async fn state(dir: &Path) -> (Vec<String>, u64, String) {
        let store = Store::open(settings::store_file(dir), Options::default()).unwrap();
        let keys = store.list("/", None, 0, None).await.unwrap().entries;
        let key = fs::read_to_string(dir.join("pki/ca.key")).unwrap();
        (keys.iter().map(|e| e.key.to_string()).collect(), store.revision(), key)
    }

    #[tokio::test]
    async fn an_earlier_state_comes_back_with_its_keys_and_the_later_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("server");
        write(&server, "/a").await;
        let snapshot = save(&server, &dir.path().join("snapshots")).await;
        write(&server, "/b").await;
        let restored = restore(&snapshot, &server).unwrap();
        let (keys, revision, key) = state(&server).await;
        assert_eq!((keys, key), (vec!["/a".to_owned()], "/a".to_owned()));
        assert!(revision > 1 + AHEAD, "{revision}");
        let aside = restored.replaced.unwrap();
        assert_eq!(state(&aside).await, (vec!["/a".to_owned(), "/b".to_owned()], 2, "/b".to_owned()));
        // on a machine that has nothing
        let other = dir.path().join("other/server");
        assert!(restore(&snapshot, &other).unwrap().replaced.is_none());
        assert_eq!(state(&other).await.0, ["/a"]);
    }

    #[tokio::test]
    async fn a_second_restore_must_not_go_back_behind_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("server");
        write(&server, "/a").await;
        let early = save(&server, &dir.path().join("snapshots")).await;
        write(&server, "/b").await;
        let late = save(&server, &dir.path().join("snapshots")).await;
        restore(&late, &server).unwrap();
        write(&server, "/c").await;
        let seen = state(&server).await.1;
        let mut before = seen;
        // The other one; the same again.
        for snapshot in [&early, &early] {
            restore(snapshot, &server).unwrap();
            let now = state(&server).await.1;
            assert!(now > before, "{now} after {before}");
            before = now;
        }
        // On a machine that knows nothing of what was served.
        let other = dir.path().join("other/server");
        restore(&early, &other).unwrap();
        assert!(state(&other).await.1 > seen);
    }

    #[test]
    fn a_mounted_directory_must_not_be_found_out_after_the_work() {
        let dir = tempfile::tempdir().unwrap();
        check_exchangeable(&dir.path().join("nothing"), dir.path()).unwrap();
        check_exchangeable(dir.path(), dir.path().parent().unwrap()).unwrap();
        let error = check_exchangeable(Path::new("/proc"), Path::new("/")).unwrap_err().to_string();
        assert!(error.starts_with("/proc is mounted"), "{error}");
    }

    #[tokio::test]
    async fn a_restored_server_must_not_lack_what_reads_encrypted_objects() {
        let dir = tempfile::tempdir().unwrap();
        let (server, other) = (dir.path().join("server"), dir.path().join("other/server"));
        write(&server, "/a").await;
        // Where the operator has it, which no other machine does.
        let config = dir.path().join("encryption.yaml");
        fs::write(&config, "keys").unwrap();
        let mut flags = StorageFlags { encryption_provider_config: Some(config), ..StorageFlags::default() };
        shared::settle(&mut flags, &server).unwrap();
        let snapshot = save(&server, &dir.path().join("snapshots")).await;
        assert!(restore(&snapshot, &other).unwrap().encryption.is_some());
        let mut flags = StorageFlags::default();
        shared::settle(&mut flags, &other).unwrap();
        let found = flags.encryption_provider_config.unwrap();
        assert!(found.starts_with(&other), "{}", found.display());
        assert_eq!(fs::read_to_string(found).unwrap(), "keys");
        // And a snapshot of that one has it again.
        let again = save(&other, &dir.path().join("snapshots")).await;
        restore(&again, &dir.path().join("third/server")).unwrap();
        assert!(dir.path().join("third/server/encryption-provider-config.yaml").exists());
    }

    #[tokio::test]
    async fn a_server_that_runs_or_a_damaged_snapshot_must_not_change_anything() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("server");
        write(&server, "/a").await;
        let snapshot = save(&server, &dir.path().join("snapshots")).await;
        let before = state(&server).await;
        let lock = crate::lock::take(&server, "windlass server").unwrap();
        let error = restore(&snapshot, &server).unwrap_err().to_string();
        assert!(error.starts_with("another windlass server (process "), "{error}");
        drop(lock);
        let mut bytes = fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&snapshot, bytes).unwrap();
        assert!(restore(&snapshot, &server).is_err());
        assert_eq!(state(&server).await, before);
        assert!(!beside(&server, "restoring").exists());
    }
}
