//! Filesystems: what is free on them, and how they are mounted.

use crate::check::facts::{Disk, Mounted};
use crate::reset::unescaped;
use std::collections::BTreeSet;
use std::path::Path;

/// The filesystems of these directories, each once; of one that is not there yet, that of the nearest above it.
pub(super) fn disks<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<Disk> {
    let mut found: Vec<Disk> = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let Some(there) = path.ancestors().find(|above| above.is_dir()) else { continue };
        let Ok(disk) = nix::sys::statvfs::statvfs(there) else { continue };
        if seen.insert(disk.filesystem_id()) {
            found.push(Disk {
                path: there.to_owned(),
                size: disk.fragment_size() * disk.blocks(),
                available: disk.fragment_size() * disk.blocks_available(),
            });
        }
    }
    found
}

/// How the filesystem of each directory is mounted.
pub(super) fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Vec<Mounted> {
    let table = super::text("/proc/self/mountinfo");
    let found = directories.into_iter().filter_map(|directory| {
        let real = directory.ancestors().find_map(|above| {
            let rest = directory.strip_prefix(above).ok()?;
            std::fs::canonicalize(above).ok().map(|real| real.join(rest))
        });
        Some(Mounted { directory: directory.to_owned(), ..mounted(&table, &real?)? })
    });
    found.collect()
}

/// The mount that a path without links is on, by the lines of `mountinfo`: what was mounted last on the longest way to it.
fn mounted(table: &str, directory: &Path) -> Option<Mounted> {
    let mount = |line: &str| {
        // "36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sda1 rw,errors=remount-ro"
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (at, options) = (unescaped(fields.next()?), fields.next()?);
        let of_all = filesystem.split(' ').nth(2).unwrap_or_default();
        let has = |options: &str, wanted: &str| options.split(',').any(|option| option == wanted);
        Some(Mounted {
            directory: directory.to_owned(),
            at,
            read_only: has(options, "ro") || has(of_all, "ro"),
            noexec: has(options, "noexec"),
        })
    };
    let above = table.lines().filter_map(mount).filter(|mount| directory.starts_with(&mount.at));
    above.max_by_key(|mount| mount.at.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_must_not_be_judged_twice() {
        let dir = tempfile::tempdir().unwrap();
        let found = disks([dir.path(), &*dir.path().join("not/there"), dir.path()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].size >= found[0].available);
    }

    #[test]
    fn the_nearest_and_last_mount_counts() {
        let table = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     2 1 8:2 / /var rw,nosuid,noexec - ext4 /dev/sda2 rw\n\
                     3 1 8:3 / /var/lib/my\\040data rw - ext4 /dev/sda3 ro,errors=remount-ro\n\
                     4 1 0:9 / /opt ro - tmpfs t rw\n\
                     5 4 0:10 / /opt rw - tmpfs t rw\n";
        let of = |directory: &str| {
            let found = mounted(table, Path::new(directory)).unwrap();
            (found.at.display().to_string(), found.read_only, found.noexec)
        };
        assert_eq!(of("/var/lib/containerd"), ("/var".into(), false, true));
        assert_eq!(of("/variable"), ("/".into(), false, false));
        assert_eq!(of("/var/lib/my data/x"), ("/var/lib/my data".into(), true, false));
        assert_eq!(of("/opt/cni/bin"), ("/opt".into(), false, false), "what hides the other");
    }

    #[test]
    fn every_directory_is_on_some_mount() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("not/there");
        assert_eq!(of([&*wanted]).iter().map(|mount| &mount.directory).collect::<Vec<_>>(), [&wanted]);
    }
}
