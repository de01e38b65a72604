//! What this machine has.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::Config;
use crate::pod::spec::quantity::{milli, whole};

/// The machine's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Logical CPUs.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
}

impl Machine {
    /// Reads this machine.
    pub fn read() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|t| t.trim().strip_suffix("kB")).and_then(|t| t.trim().parse::<i64>().ok());
        Self { cpus: i64::try_from(cpus).unwrap_or(1), memory: kib.unwrap_or(0) * 1024 }
    }

    /// What pods may ask for: the machine's size without what is reserved.
    pub fn allocatable(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let reserved = |name: &str, read: fn(&Quantity) -> i64| -> i64 {
            [&config.kube_reserved, &config.system_reserved]
                .into_iter()
                .filter_map(|map| map.get(name))
                .map(|text| read(&Quantity(text.clone())))
                .sum()
        };
        let cpu = (self.cpus * 1000 - reserved("cpu", milli)).max(0);
        let memory = (self.memory - reserved("memory", whole)).max(0);
        let cpu = if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") };
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu)),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
            ("pods".to_owned(), Quantity(config.max_pods.to_string())),
        ])
    }
}
