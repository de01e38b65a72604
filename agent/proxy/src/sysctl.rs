//! Limits of the kernel's connection tracking, as upstream's proxy sets them (`pkg/proxy/conntrack/sysctls.go`): flows of a busy node must
//! not be refused, nor those end whose client has closed and whose server goes on sending.

use std::path::Path;
use std::{fs, io};

/// Tracked flows for each processor (`conntrack.maxPerCore`), at least and at most.
const PER_CPU: u64 = 32 * 1024;
const LEAST: u64 = 128 * 1024;
const MOST: u64 = 1024 * 1024;
/// Seconds an established flow is remembered (`conntrack.tcpEstablishedTimeout`).
const ESTABLISHED: u64 = 24 * 60 * 60;
/// Seconds a flow is remembered whose client has closed (`conntrack.tcpCloseWaitTimeout`); the kernel's 60 are too few.
const CLOSE_WAIT: u64 = 60 * 60;
/// Buckets of the table: flows to find in each when it is full.
const FLOWS_A_BUCKET: u64 = 4;

const SYSCTLS: &str = "/proc/sys/net/netfilter";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const CPUS: &str = "/sys/devices/system/cpu/online";

/// What is set: name and value.
fn wanted(cpus: u64) -> [(&'static str, u64); 3] {
    [
        ("nf_conntrack_max", (cpus * PER_CPU).clamp(LEAST, MOST)),
        ("nf_conntrack_tcp_timeout_established", ESTABLISHED),
        ("nf_conntrack_tcp_timeout_close_wait", CLOSE_WAIT),
    ]
}

/// Sets the limits in the calling thread's network namespace; call it once the rules, which load connection tracking, are there. What
/// belongs to the host alone (the size of the table) cannot be set elsewhere: said in the log, nothing else depends on it.
pub(crate) fn set() {
    let cpus = fs::read_to_string(CPUS).ok().and_then(|text| count(&text)).unwrap_or(1);
    for (name, value) in wanted(cpus) {
        let set = write(&Path::new(SYSCTLS).join(name), |present| present != value, value);
        if let Err(error) = set {
            tracing::debug!(%error, name, value, "sysctl not set");
        } else if name == "nf_conntrack_max" {
            let buckets = value / FLOWS_A_BUCKET;
            if let Err(error) = write(Path::new(BUCKETS), |present| present < buckets, buckets) {
                tracing::debug!(%error, buckets, "buckets of connection tracking not set");
            }
        }
    }
}

/// Writes where something changes.
fn write(path: &Path, changes: impl FnOnce(u64) -> bool, value: u64) -> io::Result<()> {
    let present = fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)?;
    if changes(present) { fs::write(path, value.to_string()) } else { Ok(()) }
}

/// How many processors a list such as `0-3,8` has.
fn count(list: &str) -> Option<u64> {
    list.trim()
        .split(',')
        .map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some(to.parse::<u64>().ok()?.checked_sub(from.parse().ok()?)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_upstreams() {
        let max = |cpus| wanted(cpus)[0].1;
        assert_eq!([max(1), max(4), max(8), max(64)], [131_072, 131_072, 262_144, 1_048_576]);
        assert_eq!(
            wanted(1)[1..],
            [("nf_conntrack_tcp_timeout_established", 86400), ("nf_conntrack_tcp_timeout_close_wait", 3600)]
        );
    }

    #[test]
    fn processors_are_counted() {
        assert_eq!(
            [count("0\n"), count("0-3"), count("0-3,8,10-11\n"), count(""), count("3-0")],
            [Some(1), Some(4), Some(7), None, None]
        );
    }
}
