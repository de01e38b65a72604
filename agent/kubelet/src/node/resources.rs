//! Capacity and allocatable, in the texts Go's quantities have. Upstream: `pkg/kubelet/cm` (node container manager).

use super::machine::Machine;
use crate::pressure::threshold::Threshold;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// What is kept from pods: `kubeReserved` and `systemReserved` added up, and the hard eviction thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of ephemeral storage.
    pub storage: u64,
    /// `evictionHard["memory.available"]`.
    pub eviction_memory: Option<Threshold>,
    /// `evictionHard["nodefs.available"]`.
    pub eviction_storage: Option<Threshold>,
}

impl Default for Reservation {
    /// Nothing reserved, upstream's eviction thresholds (100Mi of memory, 10% of the disk).
    fn default() -> Self {
        Self {
            cpu_millis: 0,
            memory: 0,
            storage: 0,
            eviction_memory: Some(Threshold::Bytes(100 << 20)),
            eviction_storage: Some(Threshold::Share(0.1)),
        }
    }
}

/// Process ids, as reservations name them: no resource of a node, and kept from its pods all the same.
pub(crate) const PIDS: &str = "pid";

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

/// How many pods the node takes.
#[must_use]
pub fn pods(machine: &Machine, max_pods: u32, pods_per_core: u32) -> u64 {
    match u64::from(pods_per_core).saturating_mul(machine.cpus) {
        0 => max_pods.into(),
        limit => limit.min(max_pods.into()),
    }
}

/// Everything the machine has.
#[must_use]
pub fn capacity(machine: &Machine, pods: u64) -> Resources {
    let mut out = BTreeMap::from([
        ("cpu".to_owned(), decimal(machine.cpus.saturating_mul(1000))),
        ("memory".to_owned(), binary(machine.memory)),
        ("pods".to_owned(), decimal(pods.saturating_mul(1000))),
    ]);
    if let Some(storage) = machine.storage {
        out.insert("ephemeral-storage".to_owned(), binary(storage));
    }
    for (size, bytes) in &machine.huge_pages {
        out.insert(huge_page_resource(*size), binary(*bytes));
    }
    out
}

/// What pods may have of it. Huge pages are memory pods cannot have otherwise.
#[must_use]
pub fn allocatable(machine: &Machine, pods: u64, reserved: &Reservation) -> Resources {
    let mut out = capacity(machine, pods);
    let cpu = machine.cpus.saturating_mul(1000).saturating_sub(reserved.cpu_millis);
    let eviction = |threshold: Option<Threshold>, of| threshold.map_or(0, |t| t.of(of));
    let huge: u64 = machine.huge_pages.values().sum();
    let memory = machine
        .memory
        .saturating_sub(reserved.memory)
        .saturating_sub(eviction(reserved.eviction_memory, machine.memory))
        .saturating_sub(huge);
    out.insert("cpu".to_owned(), decimal(cpu));
    out.insert("memory".to_owned(), binary(memory));
    if let Some(storage) = machine.storage {
        let left = storage
            .saturating_sub(reserved.storage)
            .saturating_sub(eviction(reserved.eviction_storage, storage));
        out.insert("ephemeral-storage".to_owned(), binary(left));
    }
    out
}

fn huge_page_resource(size: u64) -> String {
    format!("hugepages-{}", binary(size).0)
}

/// Bytes in canonical BinarySI form: the largest suffix that divides.
#[must_use]
pub fn binary(bytes: u64) -> Quantity {
    scaled(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// Thousandths in canonical DecimalSI form.
#[must_use]
pub fn decimal(millis: u64) -> Quantity {
    scaled(millis, 1000, &["m", "", "k", "M", "G", "T", "P"])
}

fn scaled(mut value: u64, base: u64, suffixes: &[&str]) -> Quantity {
    if value == 0 {
        return Quantity("0".to_owned());
    }
    let mut step = 0;
    while value.is_multiple_of(base) && step + 1 < suffixes.len() {
        value /= base;
        step += 1;
    }
    Quantity(format!("{value}{}", suffixes[step]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            memory: 16_393_244 << 10,
            storage: Some(61_255_492 << 10),
            huge_pages: BTreeMap::from([(2 << 20, 4 << 20), (1 << 30, 0)]),
            ..Machine::default()
        }
    }

    fn texts(resources: &Resources) -> Vec<(&str, &str)> {
        resources.iter().map(|(name, q)| (name.as_str(), q.0.as_str())).collect()
    }

    #[test]
    fn a_nodes_texts_are_upstreams() {
        let machine = machine();
        assert_eq!(
            texts(&capacity(&machine, pods(&machine, 110, 0))),
            [
                ("cpu", "2"),
                ("ephemeral-storage", "61255492Ki"),
                ("hugepages-1Gi", "0"),
                ("hugepages-2Mi", "4Mi"),
                ("memory", "16393244Ki"),
                ("pods", "110"),
            ]
        );
        let left = allocatable(&machine, 110, &Reservation { cpu_millis: 100, ..Reservation::default() });
        // 61255492Ki less a tenth, as kubelets of such a machine report it.
        assert_eq!(left["ephemeral-storage"].0, "56453061334");
        assert_eq!(left["cpu"].0, "1900m");
        assert_eq!(left["memory"].0, format!("{}Ki", 16_393_244 - 100 * 1024 - 4 * 1024));
    }

    #[test]
    fn reservations_beyond_the_machine_leave_nothing() {
        let reserved =
            Reservation { cpu_millis: 9000, memory: u64::MAX, storage: u64::MAX, ..Reservation::default() };
        let left = allocatable(&machine(), 110, &reserved);
        for name in ["cpu", "memory", "ephemeral-storage"] {
            assert_eq!(left[name].0, "0", "{name}");
        }
    }

    #[test]
    fn pods_are_limited_by_cores_when_asked() {
        assert_eq!(pods(&machine(), 110, 10), 20);
        assert_eq!(pods(&machine(), 15, 10), 15);
        assert_eq!(decimal(1_000_000).0, "1k");
    }
}
