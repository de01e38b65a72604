//! `fsGroup`: volumes readable (and writable) by a group.

use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::{Error, io};

/// Gives a tree to a group: files get the group's bits, directories keep new files in the group.
pub fn apply_group(path: &Path, group: Option<i64>, read_only: bool) -> Result<(), Error> {
    let Some(group) = group.and_then(|g| u32::try_from(g).ok()) else { return Ok(()) };
    let own = std::fs::symlink_metadata(path).map_err(io("stat", path))?;
    if own.gid() == group && own.permissions().mode() & 0o2000 != 0 && !read_only {
        // As upstream with OnRootMismatch: the root tells of the rest, and these trees are ours from the start.
        return Ok(());
    }
    walk(path, group, if read_only { 0o440 } else { 0o660 })
}

fn walk(path: &Path, group: u32, bits: u32) -> Result<(), Error> {
    let own = std::fs::symlink_metadata(path).map_err(io("stat", path))?;
    lchown(path, None, Some(group)).map_err(io("change group of", path))?;
    if own.is_symlink() {
        return Ok(());
    }
    let mut mode = own.permissions().mode() | bits;
    if own.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io("list", path))?.flatten() {
            walk(&entry.path(), group, bits)?;
        }
        mode |= 0o2110;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("set mode of", path))
}
