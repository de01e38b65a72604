//! Limits of the kernel's connection tracking, as upstream's proxy sets them (`pkg/proxy/conntrack/sysctls.go`): flows of a busy node must
//! not be refused, nor those end whose client has closed and whose server goes on sending.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// At most so many flows are tracked, however many processors there are.
const MOST: u64 = 1024 * 1024;
/// Buckets of the table: flows to find in each when it is full.
const FLOWS_A_BUCKET: u64 = 4;

/// The most flows that are tracked.
const MAX: &str = "nf_conntrack_max";
const SYSCTLS: &str = "/proc/sys/net/netfilter";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const CPUS: &str = "/sys/devices/system/cpu/online";

/// The section `conntrack` of the configuration; what is zero or false is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tracked flows for each processor (`maxPerCore`).
    pub per_cpu: u64,
    /// Tracked flows at least (`min`), where `per_cpu` is set.
    pub least: u64,
    /// How long an established flow is remembered (`tcpEstablishedTimeout`).
    pub established: Duration,
    /// How long a flow is remembered whose client has closed (`tcpCloseWaitTimeout`); the kernel's minute is too short.
    pub close_wait: Duration,
    /// Packets out of their window are not invalid (`tcpBeLiberal`).
    pub liberal: bool,
    /// How long an unanswered UDP flow is remembered (`udpTimeout`).
    pub udp: Duration,
    /// How long an answered one is (`udpStreamTimeout`).
    pub udp_stream: Duration,
}

impl Default for Limits {
    /// Upstream's.
    fn default() -> Self {
        Self {
            per_cpu: 32 * 1024,
            least: 128 * 1024,
            established: Duration::from_secs(24 * 60 * 60),
            close_wait: Duration::from_secs(60 * 60),
            liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        }
    }
}

/// What is set: name and value.
fn wanted(cpus: u64, limits: &Limits) -> Vec<(&'static str, u64)> {
    let scaled = cpus.saturating_mul(limits.per_cpu);
    let flows = match limits.per_cpu {
        0 => 0,
        _ if scaled > MOST => MOST,
        _ => scaled.max(limits.least),
    };
    let all = [
        (MAX, flows),
        ("nf_conntrack_tcp_timeout_established", limits.established.as_secs()),
        ("nf_conntrack_tcp_timeout_close_wait", limits.close_wait.as_secs()),
        ("nf_conntrack_tcp_be_liberal", limits.liberal.into()),
        ("nf_conntrack_udp_timeout", limits.udp.as_secs()),
        ("nf_conntrack_udp_timeout_stream", limits.udp_stream.as_secs()),
    ];
    all.into_iter().filter(|(_, value)| *value > 0).collect()
}

/// Sets the limits in the calling thread's network namespace; call it once the rules, which load connection tracking, are there. What
/// belongs to the host alone (the size of the table) cannot be set elsewhere: said in the log, nothing else depends on it.
pub fn set(limits: &Limits) {
    let cpus = fs::read_to_string(CPUS).ok().and_then(|text| count(&text)).unwrap_or(1);
    for (name, value) in wanted(cpus, limits) {
        let set = write(&Path::new(SYSCTLS).join(name), |present| present != value, value);
        if let Err(error) = set {
            tracing::debug!(%error, name, value, "sysctl not set");
        } else if name == MAX {
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
        let usual = Limits::default();
        let max = |cpus| wanted(cpus, &usual)[0].1;
        assert_eq!([max(1), max(4), max(8), max(64)], [131_072, 131_072, 262_144, 1_048_576]);
        assert_eq!(
            wanted(1, &usual)[1..],
            [("nf_conntrack_tcp_timeout_established", 86400), ("nf_conntrack_tcp_timeout_close_wait", 3600)]
        );
    }

    #[test]
    fn a_limit_that_is_configured_must_not_be_left_out() {
        let seconds = Duration::from_secs;
        let usual = Limits { established: Duration::ZERO, close_wait: Duration::ZERO, ..Limits::default() };
        let cases = [
            (Limits { per_cpu: 0, ..usual.clone() }, vec![]),
            (Limits { per_cpu: 100_000, ..usual.clone() }, vec![("nf_conntrack_max", 200_000)]),
            (Limits { least: 500_000, ..usual.clone() }, vec![("nf_conntrack_max", 500_000)]),
            (Limits { per_cpu: 600_000, ..usual.clone() }, vec![("nf_conntrack_max", 1 << 20)]),
            (
                Limits { per_cpu: 0, established: seconds(90), ..usual.clone() },
                vec![("nf_conntrack_tcp_timeout_established", 90)],
            ),
            (
                Limits { per_cpu: 0, close_wait: seconds(5), ..usual.clone() },
                vec![("nf_conntrack_tcp_timeout_close_wait", 5)],
            ),
            (Limits { per_cpu: 0, liberal: true, ..usual.clone() }, vec![("nf_conntrack_tcp_be_liberal", 1)]),
            (Limits { per_cpu: 0, udp: seconds(7), ..usual.clone() }, vec![("nf_conntrack_udp_timeout", 7)]),
            (
                Limits { per_cpu: 0, udp_stream: seconds(8), ..usual },
                vec![("nf_conntrack_udp_timeout_stream", 8)],
            ),
        ];
        for (limits, expected) in cases {
            assert_eq!(wanted(2, &limits), expected, "{limits:?}");
        }
    }

    #[test]
    fn processors_are_counted() {
        assert_eq!(
            [count("0\n"), count("0-3"), count("0-3,8,10-11\n"), count(""), count("3-0")],
            [Some(1), Some(4), Some(7), None, None]
        );
    }
}
