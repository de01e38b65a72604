//! The cgroup a process is accounted in. Upstream: `getContainer` of the container manager.

use super::tree::Tree;
use super::{Cgroups, Usage};

impl Cgroups {
    /// The cgroup of a process, as a path from the hierarchy's root. Blocking.
    pub fn of_process(pid: u32) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        accounted(&text, matches!(Tree::detect(), Tree::V2(_)))
    }

    /// Whether cgroups of this machine can limit swap. Blocking. The root of v2 has no such file: ours is looked at.
    pub fn limit_swap() -> bool {
        let file = match Tree::detect() {
            Tree::V2(mount) => Self::of_process(std::process::id())
                .map(|own| mount.join(own.trim_start_matches('/')).join("memory.swap.max")),
            Tree::V1(mounts) => mounts.get("memory").map(|mount| mount.join("memory.memsw.limit_in_bytes")),
        };
        file.is_some_and(|file| file.exists())
    }

    /// What a cgroup uses, by its path from the hierarchy's root. Blocking.
    pub fn usage_of(path: &str) -> Option<Usage> {
        Tree::detect().usage(path.trim_start_matches('/').as_ref())
    }
}

/// The cgroup named by a `/proc/PID/cgroup`; none where processor and memory are counted in different ones.
fn accounted(text: &str, unified: bool) -> Option<String> {
    let of = |controller: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|c| c == controller).then(|| path.to_owned())
        })
    };
    if unified {
        return of("");
    }
    let (cpu, memory) = (of("cpu")?, of("memory")?);
    (cpu == memory).then(|| of("name=systemd").unwrap_or(cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_where_it_is_counted() {
        assert_eq!(
            accounted("0::/system.slice/kubelet.service\n", true).unwrap(),
            "/system.slice/kubelet.service"
        );
        let both = "3:cpu,cpuacct:/a\n2:memory:/a\n0::/x\n";
        assert_eq!(accounted(both, false).unwrap(), "/a");
        assert_eq!(accounted(&format!("1:name=systemd:/a/b\n{both}"), false).unwrap(), "/a/b");
        assert_eq!(accounted("3:cpu:/a\n2:memory:/b\n", false), None);
    }
}
