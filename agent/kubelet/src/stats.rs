//! What the node and its pods use: the answers of `/stats/summary`, `/metrics/resource` and `/metrics/cadvisor`, and what
//! eviction ranks by.
//!
//! Nothing is measured until somebody asks. Counters come from the cgroups, disk usage from walking pods' directories (kept
//! for [`disk::FRESH`]), writable layers from the runtime.
//!
//! - [`collect`] measures; [`disk`]: filesystems and directories; [`network`]: interfaces; [`summary`], [`resource`],
//!   [`cadvisor`] write it down

pub(crate) mod cadvisor;
pub mod collect;
pub(crate) mod disk;
pub(crate) mod network;
pub(crate) mod resource;
pub(crate) mod summary;
pub(crate) mod system;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri_proto::client::Runtime;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::meters::Meters;
use crate::pods::Pods;
use crate::volume::claim::Claims;

/// A rate of processor use is taken between two looks that lie this far apart at least.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// How many cgroups' looks are remembered.
const REMEMBERED: usize = 4096;

/// Counters of processor time at one moment, and the rate found then.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    cpu: u64,
    rate: Option<u64>,
}

/// A shared handle to what can be measured.
#[derive(Clone)]
pub struct Stats {
    config: Arc<Config>,
    runtime: Runtime,
    cgroups: Cgroups,
    pods: Pods,
    claims: Claims,
    /// Looks at processor counters, by pod or container.
    looks: Arc<Mutex<HashMap<String, Look>>>,
    disk: disk::Cache,
    /// When this kubelet began.
    began: Timestamp,
    meters: Meters,
}

impl Stats {
    /// Measures the pods of this kubelet.
    pub fn new(config: Arc<Config>, runtime: Runtime, cgroups: Cgroups, pods: Pods, claims: Claims) -> Self {
        Self {
            config,
            runtime,
            cgroups,
            pods,
            claims,
            looks: Arc::default(),
            disk: disk::Cache::default(),
            began: Timestamp::now(),
            meters: Meters::default(),
        }
    }

    /// What this kubelet counts of its own work.
    pub(crate) fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// Nanoseconds of processor time a second, between the last look and this one; without one, the mean since `began`.
    fn rate(&self, key: &str, cpu: u64, began: Option<Timestamp>) -> Option<u64> {
        let now = Instant::now();
        let mut looks = self.looks.lock();
        if looks.len() >= REMEMBERED {
            looks.retain(|_, look| now.duration_since(look.at) < Duration::from_secs(300));
        }
        if let Some(last) = looks.get(key) {
            let span = now.duration_since(last.at);
            if span < RATE_SPAN {
                return last.rate;
            }
            let rate = (cpu >= last.cpu).then(|| per_second(cpu - last.cpu, span)).or(last.rate);
            looks.insert(key.to_owned(), Look { at: now, cpu, rate });
            return rate;
        }
        let age = began.and_then(|began| Duration::try_from(Timestamp::now().duration_since(began)).ok());
        let rate = age.filter(|age| *age >= RATE_SPAN).map(|age| per_second(cpu, age));
        looks.insert(key.to_owned(), Look { at: now, cpu, rate });
        rate
    }
}

impl Stats {
    /// What all pods use together. Blocking.
    pub fn pods_usage(&self) -> Option<crate::cgroup::usage::Usage> {
        self.cgroups.pods_usage()
    }

    /// Networks and disks, as old as they may be for those who ask (`volumeStatsAggPeriod`).
    pub fn usual_depth(&self) -> collect::Depth {
        collect::Depth::Everything(self.config.volume_stats_period.unwrap_or(disk::FRESH))
    }

    /// The configuration these are measured under.
    pub fn node_name(&self) -> &str {
        &self.config.node_name
    }

    /// Where the kubelet keeps pods.
    pub fn root_dir(&self) -> &std::path::Path {
        &self.config.root_dir
    }
}

fn per_second(amount: u64, span: Duration) -> u64 {
    let micros = span.as_micros().max(1);
    u64::try_from(u128::from(amount) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second() {
        assert_eq!(per_second(500, Duration::from_millis(500)), 1000);
        assert_eq!(per_second(u64::MAX, Duration::from_secs(2)), u64::MAX / 2);
        assert_eq!(per_second(1, Duration::ZERO), 1_000_000);
    }
}
