//! What the port knows of pods: the kubelet's registry behind the smallest seam that serves.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use std::sync::Arc;

/// A pod as asked for and its status as computed here, which the API may not have yet.
#[derive(Clone, Debug)]
pub struct View {
    /// As its source has it: API or manifest.
    pub pod: Arc<Pod>,
    /// Newer than the API's while a report is under way.
    pub status: Arc<PodStatus>,
}

/// Pods of this node.
pub trait Pods: Send + Sync + 'static {
    /// Every pod of this node, in no order.
    fn all(&self) -> Vec<View>;
    /// The one of that name; the newest where an old one is still ending.
    fn by_name(&self, namespace: &str, name: &str) -> Option<View>;
}

impl Pods for crate::pods::Pods {
    fn all(&self) -> Vec<View> {
        Self::all(self).into_iter().map(View::from).collect()
    }

    fn by_name(&self, namespace: &str, name: &str) -> Option<View> {
        Self::by_name(self, namespace, name).map(View::from)
    }
}

impl From<crate::pods::View> for View {
    fn from(view: crate::pods::View) -> Self {
        Self { pod: view.pod, status: view.status }
    }
}

impl View {
    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether the pod's spec has a container of that name, of any kind.
    pub fn has_container(&self, name: &str) -> bool {
        let Some(spec) = &self.pod.spec else { return false };
        let named = |containers: &[Container]| containers.iter().any(|c| c.name == name);
        named(&spec.containers)
            || named(spec.init_containers.as_deref().unwrap_or_default())
            || spec.ephemeral_containers.iter().flatten().any(|c| c.name == name)
    }

    /// Whether that container has a terminal.
    pub fn has_terminal(&self, name: &str) -> bool {
        let Some(spec) = &self.pod.spec else { return false };
        let of = |containers: &[Container]| containers.iter().find(|c| c.name == name).map(|c| c.tty);
        let ephemeral = || spec.ephemeral_containers.iter().flatten().find(|c| c.name == name).map(|c| c.tty);
        of(&spec.containers)
            .or_else(|| of(spec.init_containers.as_deref().unwrap_or_default()))
            .or_else(ephemeral)
            .flatten()
            .unwrap_or(false)
    }

    /// The status of a container of any kind.
    pub fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = &self.status;
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
            .into_iter()
            .find_map(|list| list.iter().flatten().find(|s| s.name == name))
    }
}
