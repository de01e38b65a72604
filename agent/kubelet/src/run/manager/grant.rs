//! The manager and pods' resources: what a worker is told its pod has, and what of it the pod's author asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Handle, Manager};
use crate::allocate;
use crate::pod::allocation::{self, Allocation, Pending};
use crate::{admit, recorder};

/// How long the manager's loop waits for the node's labels.
const NODE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Handle {
    /// Passes on a newer pod, with the resources it was granted until it is granted others.
    pub(super) fn take(&mut self, pod: &Arc<Pod>) {
        if Arc::ptr_eq(&self.asked, pod) {
            return;
        }
        self.asked = Arc::clone(pod);
        self.desired.send_modify(|desired| {
            desired.pod = Allocation::of(&desired.pod).put(pod);
            if Arc::ptr_eq(&desired.pod, pod) {
                desired.pending = None;
            }
        });
    }

    fn waits(&self) -> bool {
        let desired = self.desired.borrow();
        let over = desired.removed
            || desired.rejected.is_some()
            || desired.pod.metadata.deletion_timestamp.is_some()
            || over(&desired.pod);
        !over && !Arc::ptr_eq(&desired.pod, &self.asked)
    }

    fn tell(&self, pending: Option<Pending>) {
        self.desired.send_if_modified(|desired| {
            let news = desired.pending != pending || pending.is_none();
            if pending.is_none() {
                desired.pod = Arc::clone(&self.asked);
            }
            desired.pending = pending;
            news
        });
    }
}

fn over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

impl Manager {
    /// Grants what fits of the resources that running pods ask for, in order.
    pub(super) async fn grant(&mut self) {
        let waiting = self.workers.iter().filter(|(_, handle)| handle.waits());
        let mut waiting: Vec<_> = waiting
            .map(|(uid, handle)| (allocate::order(&handle.asked, &handle.desired.borrow().pod), uid.clone()))
            .collect();
        waiting.sort();
        for (_, uid) in waiting {
            let Some(asked) = self.workers.get(&uid).map(|handle| Arc::clone(&handle.asked)) else {
                continue;
            };
            let labels = self.labels_for(&asked).await;
            let refused = allocate::refusal(&asked, &self.active(&uid), &self.node(labels.as_ref()));
            let Some(handle) = self.workers.get(&uid) else { continue };
            let before = handle.desired.borrow().pending.clone();
            let told = |p: &Pending| (p.reason, p.generation);
            match &refused {
                None => {
                    let generation = asked.metadata.generation.unwrap_or(0);
                    let text = allocation::message("Pod resize started", &asked, generation, "");
                    self.context.recorder.normal(&asked, None, "ResizeStarted", text);
                }
                Some(pending) if before.as_ref().map(told) != Some(told(pending)) => {
                    let prefix = format!("Pod resize {}", pending.reason);
                    let text = allocation::message(&prefix, &asked, pending.generation, &pending.message);
                    let reason =
                        if pending.reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
                    let subject = recorder::Subject::pod(&asked, None);
                    self.context.recorder.record(subject, recorder::Kind::Warning, reason, text);
                }
                Some(_) => {}
            }
            handle.tell(refused);
            self.share_due = true;
        }
    }

    /// The other pods that are to run here, with what they were granted.
    pub(super) fn active(&self, but: &str) -> Vec<Arc<Pod>> {
        let active = |(uid, handle): (&String, &Handle)| {
            let desired = handle.desired.borrow();
            let view = self.context.pods.by_uid(crate::pod::uid(&desired.pod));
            let phase = view.and_then(|v| v.status.phase.clone());
            let over = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
            (uid != but && !over && desired.rejected.is_none()).then(|| Arc::clone(&desired.pod))
        };
        self.workers.iter().filter_map(active).collect()
    }

    /// The node's labels, for a pod that asks for some. The manager cannot be shared, only lent: hence `&mut`.
    pub(super) async fn labels_for(&mut self, pod: &Pod) -> Option<BTreeMap<String, String>> {
        let client = self.client.clone().filter(|_| admit::is_selective(pod))?;
        let name = self.context.config.node_name.clone();
        let nodes = kube::Api::<Node>::all(client);
        // Where the node cannot be read, the scheduler's word is good enough: nobody waits long for it.
        let node = tokio::time::timeout(NODE_PATIENCE, nodes.get_opt(&name)).await.ok()?;
        node.ok().flatten().map(|n| n.metadata.labels.unwrap_or_default())
    }

    fn strict_groups(&self) -> bool {
        let health = self.context.health.borrow();
        health.features.as_ref().is_some_and(|f| f.supplemental_groups_policy == Some(true))
    }

    pub(super) fn node<'a>(&'a self, labels: Option<&'a BTreeMap<String, String>>) -> admit::Node<'a> {
        admit::Node {
            name: &self.context.config.node_name,
            labels,
            allocatable: &self.context.machine.allocatable,
            strict_groups: self.strict_groups(),
            apparmor: self.apparmor,
        }
    }
}
