//! Amounts of resources, and what a pod asks for.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::{Format, Quantity};
use machinery::totals::{Amounts, Asks, Resize, Side};
use std::collections::BTreeMap;

/// What scoring assumes of a container that asks for no CPU, in thousandths of a core.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What scoring assumes of a container that asks for no memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// What a pod requests or a node has, by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral: i64,
    /// Extended resources, huge pages and attachable volumes.
    pub scalar: BTreeMap<String, i64>,
}

/// Whether scheduling counts the resource by its name.
fn is_scalar(name: &str) -> bool {
    let prefixed = name.contains('/') && (!name.starts_with("requests.") || name.contains("kubernetes.io/"));
    prefixed || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

impl Resources {
    /// Amounts of a `requests` or `allocatable` map. What does not parse counts as nothing: the API server refuses it.
    pub fn of(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let mut out = Self::default();
        for (name, amount) in list.into_iter().flatten() {
            if let Ok(amount) = Quantity::parse(&amount.0) {
                out.set(name, &amount);
            }
        }
        out
    }

    fn set(&mut self, name: &str, amount: &Quantity) {
        match name {
            "cpu" => self.milli_cpu = amount.milli_value(),
            "memory" => self.memory = amount.value(),
            "ephemeral-storage" => self.ephemeral = amount.value(),
            name if is_scalar(name) => {
                self.scalar.insert(name.to_owned(), amount.value());
            }
            _ => {}
        }
    }

    fn each(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral = f(self.ephemeral, other.ephemeral);
        for (name, &amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = f(*own, amount);
        }
    }

    /// Adds `other`; a sum past the range of 64 bits stays at its end.
    pub fn add(&mut self, other: &Self) {
        self.each(other, i64::saturating_add);
    }

    pub fn sub(&mut self, other: &Self) {
        self.each(other, i64::saturating_sub);
    }
}

impl From<&Amounts> for Resources {
    fn from(amounts: &Amounts) -> Self {
        let mut out = Self::default();
        amounts.iter().for_each(|(name, amount)| out.set(name, amount));
        out
    }
}

/// What a pod counts for on its node; a resize under way as far as it can be granted.
pub(crate) fn pod_requests(pod: &api::Pod) -> Resources {
    Resources::from(&Asks::of(pod, Side::Requests, Resize::Counted).total())
}

/// The same with a minimum for each container that asks for no CPU or memory: what scores count, so that pods without
/// requests spread too.
pub(crate) fn pod_requests_scored(pod: &api::Pod) -> Resources {
    let least = Amounts::from([
        ("cpu".to_owned(), Quantity::from_milli(DEFAULT_MILLI_CPU, Format::DecimalSi)),
        ("memory".to_owned(), Quantity::new(DEFAULT_MEMORY, Format::BinarySi)),
    ]);
    Resources::from(&Asks::of(pod, Side::Requests, Resize::Counted).with_least(&least).total())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn requests(spec: serde_json::Value) -> (i64, i64) {
        let r = pod_requests(&serde_json::from_value(json!({ "spec": spec })).unwrap());
        (r.milli_cpu, r.memory)
    }

    fn container(cpu: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}})
    }

    #[test]
    fn sidecars_run_on_and_init_containers_take_turns() {
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = "Always".into();
        // The second init container runs beside the sidecar: 300 + 900.
        let init = json!([container("1"), sidecar, container("900m")]);
        assert_eq!(
            requests(json!({"containers": [container("500m")], "initContainers": init})),
            (1200, 2048)
        );
        assert_eq!(requests(json!({"containers": [container("2")], "initContainers": init})), (2300, 2048));
    }

    #[test]
    fn a_pod_level_request_replaces_the_sum_and_overhead_is_added() {
        let spec = json!({
            "containers": [container("2")], "overhead": {"cpu": "250m"},
            "resources": {"requests": {"cpu": "1"}},
        });
        assert_eq!(requests(spec), (1250, 1024));
    }

    #[test]
    fn a_pod_asking_in_vain_must_not_fill_its_node() {
        let status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "1"}});
        let pod = |reason: &str| {
            let pending = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            let pod = json!({"spec": {"containers": [container("99")]},
                "status": {"containerStatuses": [status], "conditions": pending}});
            serde_json::from_value(pod).unwrap()
        };
        assert_eq!(pod_requests(&pod("Infeasible")).milli_cpu, 1000);
        assert_eq!(pod_requests_scored(&pod("Infeasible")).milli_cpu, 1000);
        assert_eq!(pod_requests(&pod("Deferred")).milli_cpu, 99000);
    }

    #[test]
    fn names_with_a_domain_are_counted() {
        for (name, counted) in
            [("example.com/gpu", true), ("hugepages-2Mi", true), ("foo", false), ("requests.a/b", false)]
        {
            assert_eq!(is_scalar(name), counted, "{name}");
        }
    }
}
