//! What a cgroup uses, as the kernel counts it.

use std::path::Path;

use super::tree::Tree;

/// What a cgroup and those below it use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, in nanoseconds.
    pub cpu: u64,
    /// Memory in bytes, file pages included.
    pub memory: u64,
    /// The same without file pages that can be dropped at once.
    pub working_set: u64,
    /// Anonymous memory in bytes.
    pub rss: u64,
    /// File pages in bytes.
    pub cache: u64,
    /// Page faults, and those that went to a disk.
    pub faults: u64,
    pub major_faults: u64,
    /// Swap in bytes, where it is counted.
    pub swap: Option<u64>,
    /// The memory limit in bytes, where there is one.
    pub memory_limit: Option<u64>,
    /// Threads, where they are counted.
    pub processes: Option<u64>,
}

/// A limit above this is none (v1 writes the largest number there is).
const NO_LIMIT: u64 = 1 << 62;

impl Tree {
    /// Where a controller has its cgroup.
    fn file(&self, controller: &str, path: &Path, file: &str) -> Option<String> {
        let root = match self {
            Self::V2(mount) => mount,
            Self::V1(mounts) => mounts.get(controller)?,
        };
        std::fs::read_to_string(root.join(path).join(file)).ok()
    }

    /// What a cgroup uses; `None` where it is not there.
    pub fn usage(&self, path: &Path) -> Option<Usage> {
        let number = |controller: &str, file: &str| {
            self.file(controller, path, file).and_then(|text| text.trim().parse::<u64>().ok())
        };
        let stat = self.file("memory", path, "memory.stat")?;
        let counted = |name: &str| counter(&stat, name);
        let mut usage = match self {
            Self::V1(_) => Usage {
                cpu: number("cpuacct", "cpuacct.usage")?,
                memory: number("memory", "memory.usage_in_bytes")?,
                rss: counted("total_rss").unwrap_or(0),
                cache: counted("total_cache").unwrap_or(0),
                faults: counted("total_pgfault").unwrap_or(0),
                major_faults: counted("total_pgmajfault").unwrap_or(0),
                swap: counted("total_swap"),
                memory_limit: number("memory", "memory.limit_in_bytes"),
                ..Usage::default()
            },
            Self::V2(_) => {
                let cpu = self.file("cpu", path, "cpu.stat")?;
                // The root has no file of its own.
                let all = || counted("anon").zip(counted("file")).map(|(anon, file)| anon + file);
                Usage {
                    cpu: counter(&cpu, "usage_usec")?.saturating_mul(1000),
                    memory: number("memory", "memory.current").or_else(all)?,
                    rss: counted("anon").unwrap_or(0),
                    cache: counted("file").unwrap_or(0),
                    faults: counted("pgfault").unwrap_or(0),
                    major_faults: counted("pgmajfault").unwrap_or(0),
                    swap: number("memory", "memory.swap.current"),
                    memory_limit: number("memory", "memory.max"),
                    ..Usage::default()
                }
            }
        };
        let droppable = match self {
            Self::V1(_) => counted("total_inactive_file"),
            Self::V2(_) => counted("inactive_file"),
        };
        usage.working_set = usage.memory.saturating_sub(droppable.unwrap_or(0));
        usage.memory_limit = usage.memory_limit.filter(|limit| *limit < NO_LIMIT);
        usage.processes = number("pids", "pids.current");
        Some(usage)
    }

    /// A process in the cgroup or below it.
    pub fn any_process(&self, path: &Path) -> Option<u32> {
        let controller = "memory";
        let own = self.file(controller, path, "cgroup.procs")?;
        if let Some(pid) = own.lines().find_map(|line| line.trim().parse().ok()) {
            return Some(pid);
        }
        self.children(path).iter().find_map(|child| {
            let procs = self.file(controller, &path.join(child), "cgroup.procs")?;
            procs.lines().find_map(|line| line.trim().parse().ok())
        })
    }
}

/// One line of a statistics file.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("two/pod/memory.stat", "anon 300\nfile 200\ninactive_file 150\npgfault 7\npgmajfault 1\n");
        put("two/pod/memory.current", "600\n");
        put("two/pod/memory.max", "max\n");
        put("two/pod/cpu.stat", "usage_usec 5\nuser_usec 2\n");
        put("two/pod/pids.current", "3\n");
        let two = Tree::V2(dir.path().join("two")).usage(Path::new("pod")).unwrap();
        assert_eq!((two.cpu, two.memory, two.working_set, two.rss), (5000, 600, 450, 300));
        assert_eq!((two.memory_limit, two.processes, two.major_faults), (None, Some(3), 1));
        put("memory/pod/memory.stat", "rss 1\ntotal_rss 30\ntotal_inactive_file 15\ntotal_pgfault 7\n");
        put("memory/pod/memory.usage_in_bytes", "60\n");
        put("memory/pod/memory.limit_in_bytes", "1000\n");
        put("cpu/pod/cpuacct.usage", "99\n");
        let mounts = BTreeMap::from([
            ("memory".to_owned(), dir.path().join("memory")),
            ("cpuacct".to_owned(), dir.path().join("cpu")),
        ]);
        let one = Tree::V1(mounts).usage(Path::new("pod")).unwrap();
        assert_eq!((one.cpu, one.memory, one.working_set, one.rss), (99, 60, 45, 30));
        assert_eq!((one.memory_limit, one.processes), (Some(1000), None));
        assert_eq!(Tree::V2(dir.path().join("two")).usage(Path::new("none")), None);
    }
}
