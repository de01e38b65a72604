//! What this machine offers pods, and how it presents itself, as configured.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::Config;
use crate::node::resources::{self, Reservation, Resources};
use crate::node::{self, machine};
use crate::pod::spec::quantity::{milli, whole};

/// The machine's size as pods' limits depend on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of memory.
    pub memory: i64,
    /// What pods may ask for in total.
    pub allocatable: Arc<Resources>,
    /// What the cgroup of all pods is limited to: without what eviction keeps free.
    pub limit: Arc<Resources>,
}

impl Machine {
    /// Reads this machine.
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
        ..Reservation::default()
    }
}

/// How the node registers and reports itself.
pub fn presentation(config: &Config) -> node::Config {
    let mut own = node::Config::new(&config.node_name, config.node_ips.clone(), config.root_dir.clone());
    own.labels = config.node_labels.clone();
    own.taints = config.register_with_taints.clone();
    own.register = config.register_node;
    own.port = config.port;
    own.max_pods = config.max_pods;
    own.reservation = reservation(config);
    own.check_period = config.node_status_update_frequency;
    own.report_period = config.node_status_report_frequency;
    let seconds = u64::try_from(config.node_lease_duration_seconds).unwrap_or(40);
    own.lease_duration = std::time::Duration::from_secs(seconds.max(1));
    own
}
