//! Removing a pod's directory. The mount table is the truth: what is mounted inside is unmounted first, deepest first,
//! and nothing is ever deleted through a mount.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Error, io, mount_table};

/// Unmounts what is mounted below `dir` and removes it; fine when it is gone.
pub fn remove(dir: &Path) -> Result<(), Error> {
    unmount_below(dir)?;
    let own = match std::fs::symlink_metadata(dir) {
        Ok(own) => own,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("stat", dir)(error)),
    };
    delete(dir, own.dev())
}

/// Unmounts everything at or below `dir`.
pub fn unmount_below(dir: &Path) -> Result<(), Error> {
    for mount in mount_table::below(dir) {
        match nix::mount::umount2(&mount, nix::mount::MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(io("unmount", &mount)(error.into())),
        }
    }
    Ok(())
}

fn delete(path: &Path, device: u64) -> Result<(), Error> {
    let own = std::fs::symlink_metadata(path).map_err(io("stat", path))?;
    if !own.is_dir() {
        return std::fs::remove_file(path).map_err(io("remove", path));
    }
    if own.dev() != device {
        let source = std::io::Error::other("something is mounted here");
        return Err(Error::Io { operation: "remove", path: path.to_owned(), source });
    }
    for entry in std::fs::read_dir(path).map_err(io("list", path))?.flatten() {
        delete(&entry.path(), device)?;
    }
    // A bind mount of the same file system is not seen by its device, but its directory is busy: this fails.
    std::fs::remove_dir(path).map_err(io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_removed_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (pod, outside) = (dir.path().join("pod"), dir.path().join("outside"));
        std::fs::create_dir_all(pod.join("volumes/x")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("keep"), "").unwrap();
        std::os::unix::fs::symlink(&outside, pod.join("volumes/x/link")).unwrap();
        remove(&pod).unwrap();
        assert!(!pod.exists());
        assert!(outside.join("keep").exists());
        remove(&pod).unwrap();
    }
}
