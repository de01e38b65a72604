//! What this machine offers pods, as configured.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cgroup::tree::Tree;
use crate::config::Config;
use crate::node::machine;
use crate::node::resources::{self, Reservation, Resources};
use crate::pressure::threshold::Signal;
use crate::quantity::{milli, whole};

/// The machine's size as pods' limits depend on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of memory.
    pub memory: i64,
    /// What pods may ask for in total.
    pub allocatable: Arc<Resources>,
    /// What the cgroup of all pods is limited to: without what eviction keeps free.
    pub limit: Arc<Resources>,
    /// Cgroups are of version 2.
    pub unified: bool,
    /// The sizes of its huge pages, in bytes.
    pub page_sizes: Arc<[i64]>,
}

impl Machine {
    /// Reads memory, CPUs and disk; `config` says what is reserved.
    pub fn read(config: &Config) -> Self {
        let machine = machine::read(&config.root_dir);
        let pods = resources::pods(&machine, config.max_pods, 0);
        let reserved = reservation(config);
        let allocatable = Arc::new(resources::allocatable(&machine, pods, &reserved));
        let kept = Reservation { eviction_memory: None, eviction_storage: None, ..reserved };
        Self {
            memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
            allocatable,
            limit: Arc::new(resources::allocatable(&machine, pods, &kept)),
            unified: matches!(Tree::detect(), Tree::V2(_)),
            page_sizes: machine::page_sizes().into(),
        }
    }
}

/// `kubeReserved` and `systemReserved` added up.
fn reservation(config: &Config) -> Reservation {
    let sum = |name: &str, read: fn(&Quantity) -> i64| {
        let maps = [&config.kube_reserved, &config.system_reserved];
        let amounts = maps.into_iter().filter_map(|map| map.get(name));
        amounts.map(|text| u64::try_from(read(&Quantity(text.clone()))).unwrap_or(0)).sum()
    };
    Reservation {
        cpu_millis: sum("cpu", milli),
        memory: sum("memory", whole),
        storage: sum("ephemeral-storage", whole),
        eviction_memory: config.eviction_hard.of(Signal::MemoryAvailable),
        eviction_storage: config.eviction_hard.of(Signal::NodefsAvailable),
    }
}
