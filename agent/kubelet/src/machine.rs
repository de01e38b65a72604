//! What this machine offers pods, as configured.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cgroup::Cgroups;
use crate::cgroup::tree::Tree;
use crate::config::Config;
use crate::node::machine;
use crate::node::resources::{self, PIDS, Reservation, Resources};
use crate::pod::spec::resources::Swap;
use crate::pressure::threshold::{Signal, Threshold};
use crate::quantity::{milli, whole};

/// The machine's size as pods' limits depend on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of memory.
    pub memory: i64,
    /// What pods may ask for in total.
    pub allocatable: Arc<Resources>,
    /// What the cgroup of all pods is limited to: without what eviction keeps free, or all there is where nothing is enforced.
    pub limit: Arc<Resources>,
    /// Cgroups are of version 2.
    pub unified: bool,
    /// The sizes of its huge pages, in bytes.
    pub page_sizes: Arc<[i64]>,
    /// Its swap, and what containers may have of it.
    pub swap: Swap,
}

impl Machine {
    /// Reads memory, CPUs and disk; `config` says what is reserved.
    pub fn read(config: &Config) -> Self {
        Self::of(machine::read(&config.root_dir), config)
    }

    fn of(mut machine: machine::Machine, config: &Config) -> Self {
        machine.storage = machine.storage.filter(|_| config.local_storage);
        let pods = resources::pods(&machine, config.max_pods, config.pods_per_core);
        let reserved = reservation(config);
        let allocatable = Arc::new(resources::allocatable(&machine, pods, &reserved));
        let none = Reservation { eviction_memory: None, eviction_storage: None, ..Reservation::default() };
        let kept = match config.enforcement.limits_pods() {
            true => Reservation { eviction_memory: None, eviction_storage: None, ..reserved },
            false => none,
        };
        let mut limit = resources::allocatable(&machine, pods, &kept);
        // No resource of the node's, and limited all the same.
        if let Some(most) = machine.pids {
            let reserved = if config.enforcement.limits_pods() { sum(config, PIDS, whole) } else { 0 };
            limit.insert(PIDS.to_owned(), Quantity(most.saturating_sub(reserved).to_string()));
        }
        let unified = matches!(Tree::detect(), Tree::V2(_));
        let capacity = i64::try_from(machine.swap).unwrap_or(i64::MAX);
        let swap = Swap { counted: Cgroups::limit_swap(), unified, shared: config.limited_swap, capacity };
        Self {
            memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
            allocatable,
            limit: Arc::new(limit),
            unified,
            page_sizes: machine::page_sizes().into(),
            swap,
        }
    }
}

/// What is reserved of a resource: `kubeReserved` and `systemReserved` added up.
fn sum(config: &Config, name: &str, read: fn(&Quantity) -> i64) -> u64 {
    let maps = [&config.kube_reserved, &config.system_reserved];
    let amounts = maps.into_iter().filter_map(|map| map.get(name));
    amounts.map(|text| u64::try_from(read(&Quantity(text.clone()))).unwrap_or(0)).sum()
}

fn reservation(config: &Config) -> Reservation {
    Reservation {
        cpu_millis: sum(config, "cpu", milli),
        memory: sum(config, "memory", whole),
        storage: sum(config, "ephemeral-storage", whole),
        eviction_memory: kept_free(config, Signal::MemoryAvailable),
        eviction_storage: kept_free(config, Signal::NodefsAvailable),
    }
}

/// What eviction keeps free of a resource, where allocatable is counted without it.
pub fn kept_free(config: &Config, signal: Signal) -> Option<Threshold> {
    config.eviction_hard.of(signal).filter(|_| !config.ignore_eviction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_what_pods_get_must_not_do_nothing() {
        let machine = machine::Machine {
            cpus: 4,
            memory: 8 << 30,
            storage: Some(100 << 30),
            pids: Some(5000),
            ..machine::Machine::default()
        };
        let of = |body: &str| {
            let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
            let config = Config::parse(&format!("{head}{body}"), "n", Vec::new()).unwrap();
            Machine::of(machine.clone(), &config)
        };
        let amount = |resources: &Resources, name: &str| resources.get(name).map(|q| q.0.clone());
        let usual = of("");
        assert_eq!(amount(&usual.allocatable, "pods").as_deref(), Some("110"));
        assert_eq!(amount(&of("podsPerCore: 3").allocatable, "pods").as_deref(), Some("12"));
        assert_eq!(
            amount(&of("reservedSystemCPUs: 0-1\nkubeReserved: {cpu: 500m}").allocatable, "cpu").as_deref(),
            Some("2")
        );
        let isolated = of("localStorageCapacityIsolation: false");
        assert_eq!(amount(&isolated.allocatable, "ephemeral-storage"), None);
        let pids = "kubeReserved: {pid: '1000'}\nsystemReserved: {pid: '500'}\n";
        assert_eq!(amount(&of(pids).limit, "pid").as_deref(), Some("3500"));
        assert_eq!(amount(&of(pids).allocatable, "pid"), None, "they are no resource of the node");
        let unlimited = of(&format!("{pids}enforceNodeAllocatable: [none]"));
        assert_eq!(amount(&unlimited.limit, "pid").as_deref(), Some("5000"));
        let reserved = "kubeReserved: {cpu: 500m}\n";
        assert_eq!(amount(&of(reserved).limit, "cpu").as_deref(), Some("3500m"));
        let free = of(&format!("{reserved}enforceNodeAllocatable: [none]"));
        assert_eq!(amount(&free.limit, "cpu").as_deref(), Some("4"), "nothing is enforced");
        assert_eq!(
            amount(&free.allocatable, "cpu").as_deref(),
            Some("3500m"),
            "and it is reserved all the same"
        );
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let mut config = Config::parse(head, "n", Vec::new()).unwrap();
        config.ignore_eviction = true;
        assert_eq!(
            amount(&Machine::of(machine.clone(), &config).allocatable, "memory").as_deref(),
            Some("8Gi")
        );
    }
}
