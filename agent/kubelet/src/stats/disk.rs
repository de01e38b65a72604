//! What filesystems have left and directories take. Blocking.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Sizes older than this are forgotten first.
pub const FRESH: Duration = Duration::from_secs(60);
/// How many directories' sizes are remembered.
const REMEMBERED: usize = 8192;
/// Entries looked at in one directory tree at most: what is beyond is not counted.
const MOST_ENTRIES: usize = 2_000_000;

/// Bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// Bytes for those who are not root.
    pub available: u64,
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes taken.
    pub used: u64,
    /// Inodes in all; 0 where they are not counted.
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Filesystem {
    /// The filesystem a path is on.
    pub fn of(path: &Path) -> Option<Self> {
        let stat = nix::sys::statvfs::statvfs(path).ok()?;
        #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
        let [size, blocks, free, available, inodes, inodes_free] = [
            u64::from(stat.fragment_size()),
            u64::from(stat.blocks()),
            u64::from(stat.blocks_free()),
            u64::from(stat.blocks_available()),
            u64::from(stat.files()),
            u64::from(stat.files_free()),
        ];
        Some(Self {
            available: available.saturating_mul(size),
            capacity: blocks.saturating_mul(size),
            used: blocks.saturating_sub(free).saturating_mul(size),
            inodes,
            inodes_free,
        })
    }

    /// What is taken of it.
    pub fn taken(&self) -> Used {
        Used { bytes: self.used, inodes: self.inodes.saturating_sub(self.inodes_free) }
    }
}

/// What a tree takes on its own filesystem; what several names lead to counts once.
pub fn walk(root: &Path) -> Used {
    let mut used = Used::default();
    let Ok(own) = std::fs::symlink_metadata(root) else { return used };
    let device = own.dev();
    let mut several = HashSet::new();
    let mut open = vec![root.to_owned()];
    used += size(&own);
    let mut seen = 0;
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device || (!meta.is_dir() && meta.nlink() > 1 && !several.insert(meta.ino())) {
                continue;
            }
            used += size(&meta);
            if meta.is_dir() && seen < MOST_ENTRIES {
                open.push(entry.path());
            }
        }
    }
    used
}

fn size(meta: &std::fs::Metadata) -> Used {
    Used { bytes: meta.blocks().saturating_mul(512), inodes: 1 }
}

/// Sizes of directories as they were found lately.
#[derive(Clone, Debug, Default)]
pub struct Cache(Arc<Mutex<HashMap<PathBuf, (Instant, Used)>>>);

impl Cache {
    /// What a tree takes, walked again when that was found longer than `age` ago.
    pub fn walk(&self, root: &Path, age: Duration) -> Used {
        let now = Instant::now();
        if let Some((at, used)) = self.0.lock().get(root)
            && now.duration_since(*at) < age
        {
            return *used;
        }
        let used = walk(root);
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
        }
        known.insert(root.to_owned(), (now, used));
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let used = walk(dir.path());
        assert_eq!(used.inodes, 4, "the root, a directory, a file, a link");
        assert!((10_000..200_000).contains(&used.bytes), "{used:?}");
        let cache = Cache::default();
        assert_eq!(cache.walk(dir.path(), FRESH), used);
        std::fs::write(dir.path().join("h"), "1").unwrap();
        assert_eq!(cache.walk(dir.path(), FRESH), used, "not looked at again");
        assert_eq!(cache.walk(dir.path(), Duration::ZERO).inodes, 5);
    }

    #[test]
    fn filesystems_add_up() {
        let found = Filesystem::of(Path::new("/")).unwrap();
        assert!(found.used + found.available <= found.capacity && found.capacity > 0, "{found:?}");
    }
}
