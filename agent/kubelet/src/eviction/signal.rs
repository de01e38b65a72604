//! What is left, as the kernel counts it. Blocking.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::machine::{self, kibibytes};
use crate::pressure::threshold::{Left, Observations, Signal};

/// Observes everything: memory and process ids of the machine, the filesystem of `root`, those of `images`.
#[must_use]
pub fn observe(root: &Path, images: &[PathBuf]) -> Observations {
    let mut out = Observations::new();
    out.extend(memory(Path::new("/sys/fs/cgroup")).map(|left| (Signal::MemoryAvailable, left)));
    out.extend(processes().map(|left| (Signal::PidAvailable, left)));
    if let Some((bytes, inodes)) = filesystem(root) {
        out.insert(Signal::NodefsAvailable, bytes);
        out.extend(inodes.map(|left| (Signal::NodefsInodesFree, left)));
    }
    for (bytes, inodes) in images.iter().filter_map(|dir| filesystem(dir)) {
        out.insert(Signal::ImagefsAvailable, bytes);
        out.extend(inodes.map(|left| (Signal::ImagefsInodesFree, left)));
    }
    out
}

/// The machine's memory without its working set: what is in use and not file pages that can be dropped at once.
fn memory(cgroups: &Path) -> Option<Left> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let capacity = kibibytes(&meminfo, "MemTotal:")?;
    let (usage, inactive) = match fs::read_to_string(cgroups.join("memory/memory.stat")) {
        // Version 1: the root's own counters, its children's included.
        Ok(stat) => {
            let usage = fs::read_to_string(cgroups.join("memory/memory.usage_in_bytes")).ok()?;
            (usage.trim().parse().ok()?, counter(&stat, "total_inactive_file")?)
        }
        // Version 2: the root has statistics but no usage.
        Err(_) => {
            let stat = fs::read_to_string(cgroups.join("memory.stat")).ok()?;
            let used = counter(&stat, "anon")?.checked_add(counter(&stat, "file")?)?;
            (used, counter(&stat, "inactive_file")?)
        }
    };
    Some(Left { available: capacity.saturating_sub(usage.saturating_sub(inactive)), capacity })
}

/// One line of a cgroup's `memory.stat`.
fn counter(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Process ids, and the threads there are.
fn processes() -> Option<Left> {
    let capacity = machine::most_pids()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    Some(Left { available: capacity.saturating_sub(machine::threads(&load)?), capacity })
}

/// Bytes and inodes left for those who are not root. Some filesystems count no inodes.
fn filesystem(dir: &Path) -> Option<(Left, Option<Left>)> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
    let [blocks, available, size, files, free] = [
        u64::from(stat.blocks()),
        u64::from(stat.blocks_available()),
        u64::from(stat.fragment_size()),
        u64::from(stat.files()),
        u64::from(stat.files_free()),
    ];
    let bytes = Left { available: available.saturating_mul(size), capacity: blocks.saturating_mul(size) };
    Some((bytes, (files > 0).then_some(Left { available: free, capacity: files })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        assert_eq!(machine::threads("11.25 12.24 8.30 11/742 16958\n"), Some(742));
        assert_eq!(machine::threads("nonsense"), None);
        let stat = "inactive_file 5\ntotal_inactive_file 7\nanon 3\nfile x\n";
        assert_eq!(counter(stat, "total_inactive_file"), Some(7));
        assert_eq!(counter(stat, "inactive_file"), Some(5));
        assert_eq!(counter(stat, "file"), None);
    }

    #[test]
    fn both_cgroup_versions_tell_the_working_set() {
        let dir = tempfile::tempdir().unwrap();
        let total = memory_total();
        fs::write(dir.path().join("memory.stat"), "anon 1000\nfile 500\ninactive_file 200\n").unwrap();
        assert_eq!(memory(dir.path()).unwrap().available, total - 1300);
        fs::create_dir(dir.path().join("memory")).unwrap();
        fs::write(dir.path().join("memory/memory.stat"), "total_inactive_file 300\n").unwrap();
        fs::write(dir.path().join("memory/memory.usage_in_bytes"), "5000\n").unwrap();
        assert_eq!(memory(dir.path()).unwrap().available, total - 4700);
    }

    fn memory_total() -> u64 {
        kibibytes(&fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:").unwrap()
    }

    #[test]
    fn this_machine_can_be_observed() {
        let all = observe(Path::new("/"), &["/".into()]);
        assert!(all.len() >= 4, "{all:?}");
        assert!(all.values().all(|left| left.available <= left.capacity && left.capacity > 0), "{all:?}");
    }
}
