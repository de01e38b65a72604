//! The machine's mount table.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

/// Mount points at or below a directory, deepest (and latest) first.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table().filter(|mount| mount.starts_with(dir)).collect();
    found.reverse();
    found.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    found
}

/// Whether what is mounted at (or is) `real` is also mounted somewhere below `pods`: another pod has it.
pub fn shared_with(real: &Path, pods: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = std::fs::metadata(real) else { return false };
    let same = |mount: &PathBuf| {
        std::fs::metadata(mount).is_ok_and(|other| other.dev() == own.dev() && other.ino() == own.ino())
    };
    below(pods).iter().any(same)
}

/// Something is mounted exactly here; a link's own place is looked at, not where it leads.
pub fn is_mount_point(path: &Path) -> bool {
    // The kernel tells it of a path since 5.8. The table grows with every pod, and this is asked for every volume at every sync.
    let told = rustix::fs::statx(
        rustix::fs::CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::empty(),
    );
    match told {
        Ok(told) if told.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        Err(rustix::io::Errno::NOENT) => false,
        _ => table().any(|mount| mount == path),
    }
}

/// The mount points of our namespace, oldest first; read line by line, as the table may be large.
fn table() -> impl Iterator<Item = PathBuf> {
    let file = std::fs::File::open("/proc/self/mountinfo").ok();
    let lines = file.into_iter().flat_map(|file| std::io::BufReader::new(file).lines());
    lines.map_while(Result::ok).filter_map(|line| mount_point(&line))
}

/// The fifth field, with the kernel's octal escapes undone.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut out = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4)?;
        out.push(char::from(u8::from_str_radix(code, 8).ok()?));
        rest = &rest[at + 4..];
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table_are_undone() {
        let line = "1 2 0:3 / /a\\040b rw - tmpfs tmpfs rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/a b")));
    }

    #[test]
    fn mount_points_are_told_from_what_is_below_them_and_from_links() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self")));
        assert!(!is_mount_point(&link));
        assert!(!is_mount_point(dir.path().join("absent").as_path()));
        assert!(table().any(|mount| mount == Path::new("/proc")), "the table says the same");
        assert!(below(Path::new("/proc")).contains(&PathBuf::from("/proc")));
    }
}
