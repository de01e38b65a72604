//! Amounts of resources, and what a pod asks for.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;
use std::collections::BTreeMap;

/// What scoring assumes of a container that asks for no CPU, in thousandths of a core.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What scoring assumes of a container that asks for no memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts by resource.
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
            let Ok(amount) = Quantity::parse(&amount.0) else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral = amount.value(),
                name if is_scalar(name) => {
                    out.scalar.insert(name.to_owned(), amount.value());
                }
                _ => {}
            }
        }
        out
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

    /// Takes `other` away.
    pub fn sub(&mut self, other: &Self) {
        self.each(other, i64::saturating_sub);
    }

    /// Makes each amount at least that of `other`.
    pub fn at_least(&mut self, other: &Self) {
        self.each(other, i64::max);
    }
}

/// What a pod counts for on its node: the larger of its containers together and each moment of its initialisation, where
/// restartable init containers run on; a pod-level request replaces the sum of CPU, memory and huge pages; overhead is added.
pub fn pod_requests(spec: &api::PodSpec, status: Option<&api::PodStatus>) -> Resources {
    total(spec, |container, is_init| {
        let mut requests = Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        let statuses = status.and_then(|s| {
            if is_init { s.init_container_statuses.as_ref() } else { s.container_statuses.as_ref() }
        });
        // A resize in progress counts with the larger of what it had and what it asks for.
        let observed = statuses.and_then(|s| s.iter().find(|s| s.name == container.name));
        if let Some(observed) = observed {
            requests.at_least(&Resources::of(observed.allocated_resources.as_ref()));
            let actual = observed.resources.as_ref().and_then(|r| r.requests.as_ref());
            requests.at_least(&Resources::of(actual));
        }
        requests
    })
}

/// The same with a minimum for each container that asks for no CPU or memory: what scores count, so that pods without
/// requests spread too.
pub fn pod_requests_scored(spec: &api::PodSpec) -> Resources {
    total(spec, |container, _| {
        let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let asked = |name: &str| list.is_some_and(|l| l.contains_key(name));
        let mut requests = Resources::of(list);
        if !asked("cpu") {
            requests.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !asked("memory") {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    })
}

fn total(spec: &api::PodSpec, of: impl Fn(&api::Container, bool) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container, false));
    }
    let mut restartable = Resources::default();
    let mut initial = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut requests = of(container, true);
        if container.restart_policy.as_deref() == Some("Always") {
            restartable.add(&requests);
            initial.at_least(&restartable);
        } else {
            requests.add(&restartable);
            initial.at_least(&requests);
        }
    }
    sum.add(&restartable);
    sum.at_least(&initial);
    let level = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    if let Some(level) = level {
        let pod = Resources::of(Some(level));
        if level.contains_key("cpu") {
            sum.milli_cpu = pod.milli_cpu;
        }
        if level.contains_key("memory") {
            sum.memory = pod.memory;
        }
        for (name, amount) in pod.scalar.into_iter().filter(|(n, _)| n.starts_with("hugepages-")) {
            sum.scalar.insert(name, amount);
        }
    }
    sum.add(&Resources::of(spec.overhead.as_ref()));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn requests(spec: serde_json::Value) -> (i64, i64) {
        let r = pod_requests(&serde_json::from_value(spec).unwrap(), None);
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
    fn names_with_a_domain_are_counted() {
        for (name, counted) in
            [("example.com/gpu", true), ("hugepages-2Mi", true), ("foo", false), ("requests.a/b", false)]
        {
            assert_eq!(is_scalar(name), counted, "{name}");
        }
    }
}
