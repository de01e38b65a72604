//! A pod's resources, as far as they may change while it runs: what it asks for, what the node has granted it, and what
//! its containers run with. Pure, but for the record on disk.
//!
//! The manager grants ([`crate::allocate`]) and hands the worker a pod with its granted resources in place of those it asks
//! for: everything downstream sees only what was granted. The worker remembers, in a file in the pod's directory, what was
//! granted and which containers still run with something older, so that a kubelet that was away while a pod was resized
//! finds what is left to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::spec::resources::{amount, limit};
use super::{Role, containers};
use crate::quantity::{milli, whole};

/// Why a pod still has what it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: it may be granted later. `Infeasible`: never on this node.
    pub reason: &'static str,
    pub message: String,
    /// The generation of the pod that asks.
    pub generation: i64,
}

/// Resources by container name, and those of the pod itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// `spec.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
    /// Of init and regular containers.
    #[serde(default)]
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// What a pod's spec says.
    pub fn of(pod: &Pod) -> Self {
        let own =
            |container: &Container| (container.name.clone(), container.resources.clone().unwrap_or_default());
        Self {
            pod: pod.spec.as_ref().and_then(|s| s.resources.clone()),
            containers: containers(pod).map(|(_, container)| own(container)).collect(),
        }
    }

    /// The pod with these resources; containers that are not listed keep theirs. The pod itself where nothing differs.
    pub fn put(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let mut own = Self::of(pod);
        own.containers.extend(self.containers.clone());
        own.containers.retain(|name, _| super::container(pod, name).is_some());
        own.pod.clone_from(&self.pod);
        if own == Self::of(pod) {
            return Arc::clone(pod);
        }
        let mut changed = (**pod).clone();
        if let Some(spec) = changed.spec.as_mut() {
            spec.resources = own.pod;
            let all = spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut());
            for container in all {
                if let Some(resources) = own.containers.remove(&container.name) {
                    container.resources = Some(resources);
                }
            }
        }
        Arc::new(changed)
    }
}

/// What may change of a container without another container: thousandths of a core and bytes, zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_request: i64,
    /// CPU limit, the pod's own where the container has none.
    pub cpu_limit: i64,
    pub memory_request: i64,
    /// Memory limit, the pod's own where the container has none.
    pub memory_limit: i64,
}

impl Amounts {
    /// Of a container in its pod.
    pub fn of(pod: Option<&ResourceRequirements>, container: Option<&ResourceRequirements>) -> Self {
        Self {
            cpu_request: amount(container, false, "cpu", milli).unwrap_or(0),
            cpu_limit: limit(pod, container, "cpu", milli).unwrap_or(0),
            memory_request: amount(container, false, "memory", whole).unwrap_or(0),
            memory_limit: limit(pod, container, "memory", whole).unwrap_or(0),
        }
    }
}

/// What a container that runs needs in order to have what it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// Its limits written again.
    Update,
    /// A new process, by its `resizePolicy`.
    Restart,
}

/// The change between two amounts, by the container's policy.
pub fn change(role: Role, container: &Container, granted: Amounts, running: Amounts) -> Change {
    let cpu = (granted.cpu_request, granted.cpu_limit) != (running.cpu_request, running.cpu_limit);
    let memory =
        (granted.memory_request, granted.memory_limit) != (running.memory_request, running.memory_limit);
    if !cpu && !memory {
        return Change::None;
    }
    let restarts = |name: &str| {
        let policy = container.resize_policy.iter().flatten().find(|p| p.resource_name == name);
        policy.is_some_and(|p| p.restart_policy == "RestartContainer")
    };
    // Init containers that run to completion are never restarted for it.
    if role != Role::Init && ((cpu && restarts("cpu")) || (memory && restarts("memory"))) {
        return Change::Restart;
    }
    Change::Update
}

/// What a worker remembers of its pod's resources.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What was granted last.
    pub granted: Allocation,
    /// What containers that run have instead, and the pod's own part of it.
    #[serde(default)]
    pub lagging: BTreeMap<String, ResourceRequirements>,
    /// What the pod's cgroup has instead of the granted pod-level resources.
    #[serde(default)]
    pub lagging_pod: Option<Option<ResourceRequirements>>,
}

impl Record {
    /// Where a pod's record is.
    pub fn path(pod_dir: &Path) -> PathBuf {
        pod_dir.join("resources.json")
    }

    /// Reads a pod's record; `None` where there is none, or none that can be understood: then the spec is what it runs with.
    pub fn read(pod_dir: &Path) -> Option<Self> {
        let text = std::fs::read(Self::path(pod_dir)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// As it is on disk.
    pub fn to_text(&self) -> Vec<u8> {
        // Strings, maps and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Writes a record's text, whole or not at all.
    pub fn write(text: &[u8], pod_dir: &Path) -> std::io::Result<()> {
        let (path, new) = (Self::path(pod_dir), pod_dir.join("resources.json.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }

    /// Takes up what the pod now has; `running` containers lag behind from here on. `true`: it is something new.
    pub fn grant(&mut self, pod: &Pod, running: impl Fn(&str) -> bool) -> bool {
        let granted = Allocation::of(pod);
        if granted == self.granted {
            return false;
        }
        let before = std::mem::replace(&mut self.granted, granted);
        for (name, resources) in before.containers {
            if self.granted.containers.get(&name) != Some(&resources) && running(&name) {
                self.lagging.entry(name).or_insert(resources);
            }
        }
        if self.granted.pod != before.pod && self.lagging_pod.is_none() {
            self.lagging_pod = Some(before.pod);
        }
        true
    }

    /// A container has what was granted, or does not run any more.
    pub fn settle(&mut self, name: &str) {
        self.lagging.remove(name);
    }

    /// What the pod's containers run with.
    pub fn running(&self) -> Allocation {
        let mut all = self.granted.clone();
        all.containers.extend(self.lagging.clone());
        if let Some(pod) = &self.lagging_pod {
            all.pod.clone_from(pod);
        }
        all
    }

    /// The pod with what its containers run with; the pod itself where nothing lags behind.
    pub fn running_pod(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.is_lagging() { self.running().put(pod) } else { Arc::clone(pod) }
    }

    /// Something still has less or more than was granted.
    pub fn is_lagging(&self) -> bool {
        !self.lagging.is_empty() || self.lagging_pod.is_some()
    }
}

/// The event's text: upstream's, with the resources as JSON.
pub fn message(prefix: &str, pod: &Pod, generation: i64, error: &str) -> String {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Entry<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        containers: Vec<Entry<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    let entries = |list: &'_ [Container]| -> Vec<(String, ResourceRequirements)> {
        list.iter().map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect()
    };
    let (init, main) = (entries(super::init_containers(pod)), entries(super::main_containers(pod)));
    fn borrowed(list: &[(String, ResourceRequirements)]) -> Vec<Entry<'_>> {
        list.iter().map(|(name, resources)| Entry { name, resources: resources.clone() }).collect()
    }
    let summary =
        Summary { init_containers: borrowed(&init), containers: borrowed(&main), generation, error };
    match serde_json::to_string(&summary) {
        Ok(text) => format!("{prefix}: {text}"),
        Err(_) => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(cpu: &str) -> Arc<Pod> {
        let spec: Value = json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": cpu}}, "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]},
            {"name": "b"}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_granted_pod_is_the_pod_where_nothing_differs() {
        let asked = pod("2");
        assert!(Arc::ptr_eq(&Allocation::of(&asked).put(&asked), &asked));
        let granted = Allocation::of(&pod("1")).put(&asked);
        assert_eq!(Allocation::of(&granted), Allocation::of(&pod("1")));
        assert_eq!(granted.metadata, asked.metadata);
    }

    #[test]
    fn policies_decide_between_update_and_restart() {
        let container = &super::super::main_containers(&pod("1"))[0].clone();
        let base = Amounts::default();
        let cpu = Amounts { cpu_limit: 1, ..base };
        let memory = Amounts { memory_request: 1, ..base };
        let changed = |granted| change(Role::Main, container, granted, base);
        assert_eq!(changed(base), Change::None);
        assert_eq!(changed(cpu), Change::Update);
        assert_eq!(changed(memory), Change::Restart);
    }

    #[test]
    fn a_restart_policy_of_its_own_must_not_keep_a_container_from_the_restart_its_resize_needs() {
        let mut container = super::super::main_containers(&pod("1"))[0].clone();
        container.restart_policy = Some("OnFailure".to_owned());
        let (base, memory) = (Amounts::default(), Amounts { memory_request: 1, ..Amounts::default() });
        assert_eq!(change(Role::Main, &container, memory, base), Change::Restart);
        assert_eq!(change(Role::Init, &container, memory, base), Change::Update);
        assert_eq!(change(Role::Sidecar, &container, memory, base), Change::Restart);
    }

    #[test]
    fn a_record_remembers_what_runs_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::default();
        assert!(record.grant(&pod("1"), |_| false));
        assert!(!record.is_lagging());
        assert!(record.grant(&pod("2"), |_| true));
        assert_eq!(record.lagging.keys().collect::<Vec<_>>(), ["a"]);
        Record::write(&record.to_text(), dir.path()).unwrap();
        let mut read = Record::read(dir.path()).unwrap();
        assert_eq!(read, record);
        // Another grant before the first was carried out: what runs is still the oldest.
        assert!(read.grant(&pod("3"), |_| true));
        assert_eq!(read.running().containers["a"].requests.as_ref().unwrap()["cpu"].0, "1");
        read.settle("a");
        assert_eq!(read.running(), Allocation::of(&pod("3")));
        assert!(!read.is_lagging());
    }

    #[test]
    fn messages() {
        assert_eq!(
            message("Pod resize Deferred", &pod("1"), 2, "why"),
            r#"Pod resize Deferred: {"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}},{"name":"b","resources":{}}],"generation":2,"error":"why"}"#
        );
    }
}
