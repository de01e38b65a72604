//! `fsGroup`: volumes readable (and writable) by a group.

use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::{Error, io};

/// What is asked of a volume's ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group; `None`: nothing is changed.
    pub group: Option<u32>,
    /// The group may only read.
    pub read_only: bool,
    /// A tree whose root is right is left alone (`fsGroupChangePolicy: OnRootMismatch`).
    pub only_when_different: bool,
}

impl Change {
    /// What a pod's security context asks.
    pub fn of(pod: &Pod) -> Self {
        let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        Self {
            group: context.and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok()),
            read_only: false,
            only_when_different: context.and_then(|c| c.fs_group_change_policy.as_deref())
                == Some("OnRootMismatch"),
        }
    }

    fn bits(&self) -> u32 {
        if self.read_only { 0o440 } else { 0o660 }
    }
}

/// Gives a tree to a group: files get the group's bits, directories keep new files in the group.
pub fn apply(path: &Path, change: &Change) -> Result<(), Error> {
    let Some(group) = change.group else { return Ok(()) };
    if change.only_when_different && is_right(path, group, change.bits()) {
        return Ok(());
    }
    walk(path, group, change.bits())
}

/// The root stands for everything below it.
fn is_right(path: &Path, group: u32, bits: u32) -> bool {
    let Ok(own) = std::fs::metadata(path) else { return false };
    let wanted = bits | 0o2110;
    own.is_dir() && own.gid() == group && own.permissions().mode() & wanted == wanted
}

fn walk(path: &Path, group: u32, bits: u32) -> Result<(), Error> {
    let own = std::fs::symlink_metadata(path).map_err(io("stat", path))?;
    let mut mode = own.permissions().mode() | bits;
    if own.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io("list", path))?.flatten() {
            walk(&entry.path(), group, bits)?;
        }
        mode |= 0o2110;
    }
    lchown(path, None, Some(group)).map_err(io("change group of", path))?;
    if own.is_symlink() {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("set mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_group_gets_its_bits_and_a_right_root_may_be_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d/f");
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        // Giving a file to one's own group needs no privilege.
        let group = std::fs::metadata(&file).unwrap().gid();
        let change = Change { group: Some(group), read_only: false, only_when_different: true };
        apply(dir.path(), &change).unwrap();
        assert_eq!(mode(&file), 0o660);
        assert_eq!(mode(&dir.path().join("d")) & 0o2070, 0o2070);
        assert_eq!(mode(Path::new("/etc/passwd")) & 0o022, 0, "links are not followed");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        apply(dir.path(), &change).unwrap();
        assert_eq!(mode(&file), 0o600, "the root was right");
        apply(dir.path(), &Change { only_when_different: false, ..change }).unwrap();
        assert_eq!(mode(&file), 0o660);
        apply(dir.path(), &Change { group: None, ..change }).unwrap();
    }
}
