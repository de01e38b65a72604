//! What a cgroup uses, as the kernel counts it.

use std::path::Path;

use super::pressure::{self, Pressure};
use super::tree::Tree;
use crate::node::machine::kibibytes;

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
    /// The most swap in bytes, where there is a limit.
    pub swap_limit: Option<u64>,
    /// The memory limit in bytes, where there is one.
    pub memory_limit: Option<u64>,
    /// Processor time in nanoseconds, spent by the program itself and in the kernel for it.
    pub user: u64,
    pub system: u64,
    /// How a quota of processor time bit, where there is one.
    pub throttling: Option<Throttling>,
    /// Processes that were ended because the cgroup ran out of memory, where they are counted.
    pub oom_kills: Option<u64>,
    /// For want of processor, memory and disk; where that is counted.
    pub pressures: Pressures,
    /// Threads, where they are counted.
    pub processes: Option<u64>,
}

/// How a quota of processor time bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which something ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled: u64,
    /// Nanoseconds that was waited for the next one.
    pub waited: u64,
}

/// What was lost for want of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    pub cpu: Option<Pressure>,
    pub memory: Option<Pressure>,
    pub io: Option<Pressure>,
}

/// Nanoseconds of a tick of v1's `cpuacct.stat` (`USER_HZ` is 100 on every architecture we run on).
const TICK: u64 = 10_000_000;

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
                ..self.of_first(path)
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
                    swap_limit: number("memory", "memory.swap.max"),
                    memory_limit: number("memory", "memory.max"),
                    ..self.of_second(path, &cpu)
                }
            }
        };
        let droppable = match self {
            Self::V1(_) => counted("total_inactive_file"),
            Self::V2(_) => counted("inactive_file"),
        };
        if matches!(self, Self::V2(_)) && path.as_os_str().is_empty() {
            // The root does not count it: it is the machine's.
            let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            (usage.swap, usage.swap_limit) = machine_swap(&meminfo).unzip();
        }
        usage.working_set = usage.memory.saturating_sub(droppable.unwrap_or(0));
        usage.memory_limit = usage.memory_limit.filter(|limit| *limit < NO_LIMIT);
        usage.processes = number("pids", "pids.current");
        Some(usage)
    }

    /// What is counted in v1's files beside memory.
    fn of_first(&self, path: &Path) -> Usage {
        let read = |controller: &str, file: &str| self.file(controller, path, file).unwrap_or_default();
        let (times, cpu) = (read("cpuacct", "cpuacct.stat"), read("cpu", "cpu.stat"));
        let quota = read("cpu", "cpu.cfs_quota_us").trim().parse::<i64>().is_ok_and(|quota| quota > 0);
        let ticks = |name: &str| counter(&times, name).unwrap_or(0).saturating_mul(TICK);
        let of = |name: &str| counter(&cpu, name).unwrap_or(0);
        Usage {
            user: ticks("user"),
            system: ticks("system"),
            throttling: quota.then(|| Throttling {
                periods: of("nr_periods"),
                throttled: of("nr_throttled"),
                waited: of("throttled_time"),
            }),
            oom_kills: counter(&read("memory", "memory.oom_control"), "oom_kill"),
            ..Usage::default()
        }
    }

    /// The same of v2's, `cpu` being its `cpu.stat`.
    fn of_second(&self, path: &Path, cpu: &str) -> Usage {
        let read = |controller: &str, file: &str| self.file(controller, path, file).unwrap_or_default();
        let micros = |name: &str| counter(cpu, name).unwrap_or(0).saturating_mul(1000);
        let quota = read("cpu", "cpu.max");
        let quota = !quota.is_empty() && !quota.starts_with("max");
        let stalled =
            |controller: &str| pressure::parse(&read(controller, &format!("{controller}.pressure")));
        Usage {
            user: micros("user_usec"),
            system: micros("system_usec"),
            throttling: quota.then(|| Throttling {
                periods: counter(cpu, "nr_periods").unwrap_or(0),
                throttled: counter(cpu, "nr_throttled").unwrap_or(0),
                waited: micros("throttled_usec"),
            }),
            oom_kills: counter(&read("memory", "memory.events"), "oom_kill"),
            pressures: Pressures { cpu: stalled("cpu"), memory: stalled("memory"), io: stalled("io") },
            ..Usage::default()
        }
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

/// How much of the machine's swap is in use, and how much there is.
fn machine_swap(meminfo: &str) -> Option<(u64, u64)> {
    let all = kibibytes(meminfo, "SwapTotal:")?;
    Some((all.saturating_sub(kibibytes(meminfo, "SwapFree:")?), all))
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
        put("two/pod/memory.swap.current", "8\n");
        put("two/pod/memory.swap.max", "64\n");
        put("two/pod/memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n");
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
        assert_eq!((two.swap, two.swap_limit, two.oom_kills), (Some(8), Some(64), Some(1)));
        assert_eq!((one.throttling, one.pressures, two.throttling), (None, Pressures::default(), None));
        assert_eq!(Tree::V2(dir.path().join("two")).usage(Path::new("none")), None);
    }

    #[test]
    fn the_machines_swap_is_told_by_its_root() {
        let text = "MemTotal: 9 kB\nSwapTotal:       8 kB\nSwapFree:        5 kB\n";
        assert_eq!(machine_swap(text), Some((3 << 10, 8 << 10)));
        assert_eq!(machine_swap(""), None);
    }

    #[test]
    fn a_quota_that_bites_is_counted_by_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("memory.stat", "anon 1\nfile 1\n");
        put("memory.current", "2\n");
        put("cpu.max", "50000 100000\n");
        put("cpu.pressure", "some avg10=1.00 avg60=0.50 avg300=0.25 total=77\n");
        put("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        let times = "usage_usec 9\nuser_usec 5\nsystem_usec 4\n";
        put("cpu.stat", &format!("{times}nr_periods 10\nnr_throttled 3\nthrottled_usec 7\n"));
        let bitten = Throttling { periods: 10, throttled: 3, waited: 7000 };
        let two = Tree::V2(dir.path().to_owned()).usage(Path::new("")).unwrap();
        assert_eq!((two.throttling, two.user, two.system), (Some(bitten), 5000, 4000));
        assert_eq!(two.pressures.cpu.unwrap().some.total, 77);
        assert_eq!((two.pressures.memory, two.pressures.io), (None, Some(Pressure::default())));
        put("memory.usage_in_bytes", "2\n");
        put("cpuacct.usage", "9\n");
        put("cpuacct.stat", "user 2\nsystem 1\n");
        put("cpu.cfs_quota_us", "50000\n");
        put("cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 7000\n");
        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
        let mounts = ["cpu", "cpuacct", "memory"].map(|name| (name.to_owned(), dir.path().to_owned()));
        let first = Tree::V1(mounts.into());
        let one = first.usage(Path::new("")).unwrap();
        assert_eq!((one.throttling, one.oom_kills), (Some(bitten), Some(4)));
        assert_eq!((one.user, one.system), (2 * TICK, TICK));
        put("cpu.cfs_quota_us", "-1\n");
        assert_eq!(first.usage(Path::new("")).unwrap().throttling, None, "no quota, nothing to bite");
        put("cpu.max", "max 100000\n");
        put("cpu.stat", times);
        let second = Tree::V2(dir.path().to_owned());
        assert_eq!(second.usage(Path::new("")).unwrap().throttling, None);
    }
}
