//! The labels and annotations that tie the runtime's sandboxes and containers to pods, named as upstream names them: a
//! kubelet of upstream's adopts our containers, and we adopt its.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: the hash of the container's name and image.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where in the container its last words are.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: what to take its last words from.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the container's preStop handler, for stopping it when its pod is unknown.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Annotation: the container's ports, for the handler's named ports.
pub const PORTS: &str = "io.kubernetes.container.ports";
/// Annotation: the grace of a pod already being deleted.
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
/// Annotation: the pod's own grace.
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The selector of everything of one pod.
pub fn of_pod(uid: &str) -> HashMap<String, String> {
    HashMap::from([(POD_UID.to_owned(), uid.to_owned())])
}

/// A sandbox's labels: the pod's own, and who it is.
pub fn sandbox(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.clone().unwrap_or_default();
    let mut labels: HashMap<_, _> = own.into_iter().collect();
    identify(&mut labels, pod);
    labels
}

/// A sandbox's annotations: the pod's own.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect()
}

pub fn container(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = HashMap::from([(CONTAINER_NAME.to_owned(), container.name.clone())]);
    identify(&mut labels, pod);
    labels
}

fn identify(labels: &mut HashMap<String, String>, pod: &Pod) {
    for (key, value) in [
        (POD_NAME, crate::pod::name(pod)),
        (POD_NAMESPACE, crate::pod::namespace(pod)),
        (POD_UID, crate::pod::uid(pod)),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
}

/// A container's annotations: what a kubelet that lost everything else needs to stop and describe it.
pub fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let mut all = HashMap::from([
        (CONTAINER_HASH.to_owned(), crate::pod::container_hash(container)),
        (RESTART_COUNT.to_owned(), attempt.to_string()),
        (MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (MESSAGE_POLICY.to_owned(), message_policy(container).to_owned()),
    ]);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    add(DELETION_GRACE, pod.metadata.deletion_grace_period_seconds.map(|s| s.to_string()));
    let grace = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    add(TERMINATION_GRACE, grace.map(|s| s.to_string()));
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    add(PRE_STOP, pre_stop.and_then(|handler| serde_json::to_string(handler).ok()));
    add(PORTS, container.ports.as_ref().and_then(|ports| serde_json::to_string(ports).ok()));
    all
}

/// `terminationMessagePath`, defaulted.
pub fn message_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log")
}

/// `terminationMessagePolicy`, defaulted.
pub fn message_policy(container: &Container) -> &str {
    container.termination_message_policy.as_deref().unwrap_or("File")
}
