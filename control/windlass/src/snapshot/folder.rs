//! The directory of snapshots: `NAME-NODE-SECONDS.tar.gz`, whole or not there.

use super::archive::{self, Snapshot};
use anyhow::Context as _;
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".tar.gz";
/// What is being written; what a crash leaves of it is removed by the next one.
const UNFINISHED: &str = ".unfinished-";

/// A directory of snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

/// A file in it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) snapshot: anyhow::Result<Snapshot>,
}

/// A name that may stand in a file's name.
pub(crate) fn parse_name(text: &str) -> Result<&str, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.starts_with('.') || !text.chars().all(fine) {
        return Err("letters, digits, '-', '_' and '.' are expected, not '.' first".to_owned());
    }
    Ok(text)
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a new one is written, after what an earlier one of `node` left half done is gone. A node writes one at a time; others may
    /// write here, too.
    pub(crate) fn begin(&self, node: &str) -> anyhow::Result<PathBuf> {
        let work = self.0.join(format!("{UNFINISHED}{node}"));
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", work.display()));
            }
            _ => {}
        }
        pki::files::create_private_dir(&work)?;
        Ok(work)
    }

    /// Gives a finished file its place, durably.
    pub(crate) fn finish(&self, file: &Path, name: &str, node: &str) -> anyhow::Result<PathBuf> {
        let second = Timestamp::now().as_second();
        let mut path = self.0.join(format!("{name}-{node}-{second}{SUFFIX}"));
        // never over another one of the same second; nobody else writes here
        for n in 2.. {
            if !path.try_exists()? {
                break;
            }
            path = self.0.join(format!("{name}-{node}-{second}-{n}{SUFFIX}"));
        }
        pki::files::rename(file, &path)?;
        if let Some(work) = file.parent() {
            fs::remove_dir_all(work)?;
        }
        Ok(path)
    }

    /// The snapshots there are, oldest first.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read {}", self.0.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(SUFFIX) && !name.starts_with('.') {
                let (path, bytes) = (entry.path(), entry.metadata()?.len());
                found.push(Found { snapshot: archive::inspect(&path), path, bytes });
            }
        }
        found.sort_by_key(|f| (f.snapshot.as_ref().map_or(Timestamp::MIN, |s| s.created), f.path.clone()));
        Ok(found)
    }

    /// Removes all but the newest `keep` of those whose name begins with `name-node-`, and gives what it removed. One that
    /// cannot be read is nobody's to remove.
    pub(crate) fn prune(&self, name: &str, node: &str, keep: usize) -> anyhow::Result<Vec<PathBuf>> {
        let prefix = format!("{name}-{node}-");
        let ours = |f: &Found| f.path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix));
        let old: Vec<PathBuf> = self
            .files()?
            .into_iter()
            .filter(|f| f.snapshot.as_ref().is_ok_and(|s| s.node == node) && ours(f))
            .map(|f| f.path)
            .rev()
            .skip(keep)
            .collect();
        for path in &old {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(folder: &Folder, name: &str, node: &str, revision: u64) -> PathBuf {
        let file = folder.begin(node).unwrap().join("new");
        archive::write(&file, node, revision, None, &[]).unwrap();
        folder.finish(&file, name, node).unwrap()
    }

    fn revisions(folder: &Folder) -> Vec<u64> {
        folder.files().unwrap().iter().filter_map(|f| Some(f.snapshot.as_ref().ok()?.revision)).collect()
    }

    #[test]
    fn the_newest_scheduled_ones_stay_and_nobody_elses_goes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("snapshots"));
        assert!(folder.files().unwrap().is_empty(), "no directory, no snapshots");
        for n in 1..=4 {
            save(&folder, "scheduled", "n1", n);
        }
        save(&folder, "on-demand", "n1", 5);
        save(&folder, "scheduled", "n1-b", 6);
        fs::write(folder.path().join("scheduled-n1-0.tar.gz"), "damaged").unwrap();
        assert_eq!(folder.prune("scheduled", "n1", 2).unwrap().len(), 2);
        assert_eq!(revisions(&folder), [3, 4, 5, 6]);
        assert!(folder.path().join("scheduled-n1-0.tar.gz").exists());
    }

    #[test]
    fn what_a_crash_left_half_done_is_not_a_snapshot_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        let others = folder.begin("n2").unwrap();
        let left = folder.begin("n1").unwrap();
        fs::write(left.join("store.redb"), "half").unwrap();
        assert!(folder.files().unwrap().is_empty());
        let path = save(&folder, "on-demand", "n1", 1);
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        assert_eq!(names, [others, path], "what another node writes is its own");
    }

    #[test]
    fn names_stay_within_the_directory() {
        for bad in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_name("before-upgrade_1.36").unwrap(), "before-upgrade_1.36");
    }
}
