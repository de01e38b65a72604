//! The end of the cluster: nothing of it is left. Its name makes it the last test.

use crate::harness::{LAB, cluster, lab};
use lab::cgroup::hierarchies;
use std::path::Path;

#[test]
fn the_lab_goes_without_a_trace() {
    cluster();
    lab(&["down"]);
    assert!(!Path::new("/var/lib/windlass-lab").join(LAB).exists());
    for hierarchy in hierarchies().unwrap() {
        let cgroup = hierarchy.mount.join("windlass-lab").join(LAB);
        assert!(!cgroup.exists(), "{}", cgroup.display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("windlass-lab/{LAB}")), "{mounts}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        assert!(
            !words.windows(2).any(|w| w == ["--lab", LAB]),
            "process {} is left: {words:?}",
            entry.path().display()
        );
    }
}
