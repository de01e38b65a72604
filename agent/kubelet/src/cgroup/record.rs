//! Which cgroups this node's kubelets have made, written down before they are made: for whoever undoes the node (`windlass reset`), since where
//! they are depends on settings and on what the runtime says, which may be gone by then.
//!
//! One path a line, as it is below the root of every hierarchy: that of all pods (`kubepods`, `a/kubepods`, `a.slice/a-kubepods.slice`), and each
//! of those above it that was not there before. What earlier lives of the node wrote stays.

use std::io;
use std::path::{Path, PathBuf};

use super::Cgroups;

/// The file, in the kubelet's root.
pub const FILE: &str = "pod-cgroups";

impl Cgroups {
    /// Writes down what [`Cgroups::prepare`] is about to make.
    pub(crate) fn record(&self, root_dir: &Path) -> io::Result<()> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let pods = inner.path(&inner.names(None, None));
        let file = root_dir.join(FILE);
        let known = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            known => known?,
        };
        let Some(text) = with(&known, &pods, |path| inner.tree.exists(path)) else { return Ok(()) };
        let new = root_dir.join(format!(".{FILE}.new"));
        std::fs::write(&new, text)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &file)
    }
}

/// What is known, and what is new beside it, the innermost first; nothing where all is known.
fn with(known: &str, pods: &Path, is_there: impl Fn(&Path) -> bool) -> Option<String> {
    let made = |path: &&Path| *path == pods || !(path.as_os_str().is_empty() || is_there(path));
    let new: Vec<String> = pods
        .ancestors()
        .filter(made)
        .map(|path| path.display().to_string())
        .filter(|path| !known.lines().any(|line| line == path))
        .collect();
    let text: String = new.iter().map(|line| format!("{line}\n")).collect();
    (!new.is_empty()).then(|| format!("{known}{text}"))
}

/// The paths of a record's text. Those that could lead out of a hierarchy are none.
pub fn read(text: &str) -> Vec<PathBuf> {
    let plain = |path: &PathBuf| {
        path.components().next().is_some()
            && path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    text.lines().map(PathBuf::from).filter(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::cgroups;

    #[test]
    fn a_cgroup_that_was_there_before_must_not_be_written_down() {
        let is_there = |path: &Path| path == Path::new("mine");
        let text = with("", Path::new("mine/nodes/kubepods"), is_there).unwrap();
        assert_eq!(text, "mine/nodes/kubepods\nmine/nodes\n");
        // Made meanwhile, and said already.
        assert_eq!(with(&text, Path::new("mine/nodes/kubepods"), |_| true), None);
        // Another root later: the earlier one's stays.
        assert_eq!(with(&text, Path::new("kubepods"), |_| true).unwrap(), format!("{text}kubepods\n"));
    }

    #[test]
    fn a_record_must_not_lead_out_of_the_hierarchies() {
        assert_eq!(read("a/kubepods\n/etc\n../x\na/../../b\n\n."), [PathBuf::from("a/kubepods")]);
    }

    #[test]
    fn the_record_is_there_before_the_cgroups_are() {
        let (tree, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = cgroups(tree.path());
        of.record(root.path()).unwrap();
        of.record(root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join(FILE)).unwrap(), "kubepods\n");
        assert!(!tree.path().join("kubepods").exists());
    }
}
