//! What the kubelet asks of its machine and of its own process, and what it refuses to run on.

use super::Error;
use std::collections::{BTreeMap, BTreeSet};

/// See the fields of a `KubeletConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Files this process may have open (`maxOpenFiles`).
    pub max_open_files: u64,
    /// How gladly the kernel ends this process where memory runs out (`oomScoreAdj`).
    pub oom_score: i32,
    /// Do not run where there is swap (`failSwapOn`; upstream's default is to refuse, ours is not).
    pub refuse_swap: bool,
    /// Do not run on cgroups of version 1 (`failCgroupV1`; the same).
    pub refuse_cgroup_v1: bool,
    /// Do not run where the kernel's settings are not what pods need, instead of changing them (`protectKernelDefaults`).
    pub protect_kernel: bool,
    /// Set the kernel's settings that pods need; an agent beside other programs leaves them as they are.
    pub tune_kernel: bool,
    /// Processors that pods' share is counted without (`reservedSystemCPUs`); a list such as `0-1,4`.
    pub reserved_cpus: String,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            max_open_files: 1_000_000,
            oom_score: -999,
            refuse_swap: false,
            refuse_cgroup_v1: false,
            protect_kernel: false,
            tune_kernel: false,
            reserved_cpus: String::new(),
        }
    }
}

impl Host {
    /// Reserved processors stand for what is reserved of processor time otherwise, as upstream has it.
    pub(super) fn reserve_cpus(
        &self,
        kube: &mut BTreeMap<String, String>,
        system: &mut BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let wrong = |reason| {
            let list = &self.reserved_cpus;
            Error::Bounds(format!(
                "unable to parse reservedSystemCPUs (--reserved-cpus) {list}, error: {reason}"
            ))
        };
        let reserved = cpus(&self.reserved_cpus).map_err(wrong)?;
        if !reserved.is_empty() {
            kube.remove("cpu");
            system.insert("cpu".to_owned(), reserved.len().to_string());
        }
        Ok(())
    }
}

/// The processors of a list such as `0-1,4`. Upstream: `k8s.io/utils/cpuset`.
pub(crate) fn cpus(list: &str) -> Result<BTreeSet<u32>, String> {
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("{text:?} is no processor"));
    let mut all = BTreeSet::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("invalid range {part:?} ({first} > {last})"));
        }
        all.extend(first..=last.min(MOST));
    }
    Ok(all)
}

/// No machine has more processors than this.
const MOST: u32 = 1 << 16;
