//! The machine before the kubelet runs on it: what is refused, what of the kernel is set. Upstream: `setupKernelTunables` and its neighbours in
//! `pkg/kubelet/cm/container_manager_linux.go`.

use crate::config::host::{Host, cpus};
use crate::node::machine;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::BTreeSet;
use std::path::Path;

/// Why the kubelet does not run here; upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("running with swap on is not supported, please disable swap or set --fail-swap-on flag to false")]
    Swap,
    #[error(
        "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release"
    )]
    CgroupV1,
    #[error("invalid kernel flag: {name}, expected value: {expected}, actual value: {actual}")]
    Kernel { name: &'static str, expected: i64, actual: i64 },
    #[error("reserved-cpus: {list} is not a subset of online-cpus: {online}")]
    Processors { list: String, online: String },
}

/// Settings of the kernel that pods need.
const TUNABLES: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];
const SYSCTLS: &str = "/proc/sys";

/// What is seen of the machine.
#[derive(Clone, Debug)]
struct Facts {
    swap: bool,
    unified: bool,
    /// The processors that are on, as the kernel lists them.
    online: String,
    /// Values of [`TUNABLES`]; `None` for those that cannot be read.
    tunables: [Option<i64>; TUNABLES.len()],
}

/// Looks at the machine, and makes it and this process what they should be. What cannot be set is said in the log; only what is to be
/// refused is an error.
pub(crate) fn prepare(host: &Host, unified: bool) -> Result<(), Error> {
    let number =
        |name: &str| std::fs::read_to_string(Path::new(SYSCTLS).join(name)).ok()?.trim().parse().ok();
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let facts = Facts {
        swap: swaps.lines().count() > 1,
        unified,
        online: machine::online(),
        tunables: TUNABLES.map(|(name, _)| number(name)),
    };
    for (name, value) in judge(host, &facts)? {
        match std::fs::write(Path::new(SYSCTLS).join(name), value.to_string()) {
            Ok(()) => tracing::info!(name, value, "set a kernel setting that pods need"),
            Err(error) => tracing::info!(name, value, %error, "a kernel setting that pods need is not set"),
        }
    }
    let files = Rlimit { current: Some(host.max_open_files), maximum: Some(host.max_open_files) };
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::info!(%error, most = host.max_open_files, "the limit of open files is as it was");
    }
    if let Err(error) = supervise::process::set_oom_score(host.oom_score) {
        tracing::info!(%error, score = host.oom_score, "the kernel's preference for ending us is as it was");
    }
    Ok(())
}

/// What is to be set, unless something is refused.
fn judge(host: &Host, facts: &Facts) -> Result<Vec<(&'static str, i64)>, Error> {
    if host.refuse_swap && facts.swap {
        return Err(Error::Swap);
    }
    if host.refuse_cgroup_v1 && !facts.unified {
        return Err(Error::CgroupV1);
    }
    let set = |list: &str| cpus(list).unwrap_or_default();
    let online: BTreeSet<u32> = set(&facts.online);
    if !online.is_empty() && !set(&host.reserved_cpus).is_subset(&online) {
        let list = host.reserved_cpus.clone();
        return Err(Error::Processors { list, online: facts.online.clone() });
    }
    let found = TUNABLES.into_iter().zip(facts.tunables);
    let wrong = found.filter_map(|((name, expected), actual)| {
        actual.filter(|actual| *actual != expected).map(|actual| (name, expected, actual))
    });
    let wrong: Vec<_> = wrong.collect();
    match wrong.first() {
        Some(&(name, expected, actual)) if host.protect_kernel => {
            Err(Error::Kernel { name, expected, actual })
        }
        _ if host.tune_kernel => Ok(wrong.into_iter().map(|(name, expected, _)| (name, expected)).collect()),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_to_be_refused_must_not_be_taken() {
        let facts = Facts {
            swap: true,
            unified: false,
            online: "0-3".to_owned(),
            tunables: [Some(1), Some(0), Some(0), None, Some(1_000_000), Some(25_000_000)],
        };
        let usual = Host::default();
        assert_eq!(judge(&usual, &facts), Ok(Vec::new()));
        let tuned = Host { tune_kernel: true, ..usual.clone() };
        assert_eq!(judge(&tuned, &facts), Ok(vec![("kernel/panic", 10)]), "what cannot be read is let be");
        let kernel = Error::Kernel { name: "kernel/panic", expected: 10, actual: 0 };
        let reserved = |list: &str| Host { reserved_cpus: list.to_owned(), ..usual.clone() };
        let processors = Error::Processors { list: "3,4".to_owned(), online: "0-3".to_owned() };
        for (host, refused) in [
            (Host { refuse_swap: true, ..usual.clone() }, Error::Swap),
            (Host { refuse_cgroup_v1: true, ..usual.clone() }, Error::CgroupV1),
            (Host { protect_kernel: true, ..usual.clone() }, kernel),
            (reserved("3,4"), processors),
        ] {
            assert_eq!(judge(&host, &facts), Err(refused));
        }
        assert!(judge(&reserved("0-1,3"), &facts).is_ok());
        let fine = Facts { swap: false, unified: true, ..facts };
        let strict = Host { refuse_swap: true, refuse_cgroup_v1: true, ..usual };
        assert!(judge(&strict, &fine).is_ok());
    }
}
