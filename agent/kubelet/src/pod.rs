//! One pod: what is asked of it, what is seen of it, and what follows from the two. [`crate::worker`] acts on it.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use crate::config::shutdown::SYSTEM_CRITICAL;

pub(crate) mod addresses;
pub(crate) mod allocation;
pub(crate) mod backoff;
pub(crate) mod observed;
pub mod plan;
pub(crate) mod qos;
pub(crate) mod spec;
pub(crate) mod status;

/// Where a pod came from: the annotation `kubernetes.io/config.source`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The annotation holding a static pod's hash.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The annotation that makes an API pod the mirror of a static pod with that hash.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation holding when the kubelet first saw a pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// What a pod's containers are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs to completion before the next.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order and keeps running.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

/// A pod's UID; empty only for objects no API server and no manifest reader made.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as upstream names pods in messages.
pub fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The pod comes from a manifest, not from the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

/// Whether the node cannot do without a pod: it is never evicted. Upstream: `IsCriticalPod`.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || priority(pod) >= SYSTEM_CRITICAL
}

/// A pod's priority, zero where it has none.
pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

/// The pod only shows a static pod in the API.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

/// An init container that keeps running.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `restartPolicy`, defaulted.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// The pod uses the host's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// Init containers, in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default()
}

/// Regular containers, in order.
pub fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default()
}

/// Every init and regular container with its role, in start order.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let init =
        init_containers(pod).iter().map(|c| (if is_sidecar(c) { Role::Sidecar } else { Role::Init }, c));
    init.chain(main_containers(pod).iter().map(|c| (Role::Main, c)))
}

/// Those that run as long as the pod does, and so hold its host ports: sidecars and regular containers.
pub fn lasting_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    containers(pod).filter(|(role, _)| !matches!(role, Role::Init)).map(|(_, container)| container)
}

/// Ephemeral containers, in order.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// An ephemeral container as a container: all that starts one but the container it aims at.
pub fn of_ephemeral(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// The container of that name, of any kind.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, Cow<'a, Container>)> {
    let lasting = containers(pod).find(|(_, c)| c.name == name).map(|(role, c)| (role, Cow::Borrowed(c)));
    lasting.or_else(|| {
        let found = ephemeral_containers(pod).iter().find(|c| c.name == name)?;
        Some((Role::Ephemeral, Cow::Owned(of_ephemeral(found))))
    })
}

/// How long the pod may take to stop: the deletion's grace if it is being deleted, the spec's otherwise.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let asked = match pod.metadata.deletion_timestamp {
        Some(_) => pod.metadata.deletion_grace_period_seconds.unwrap_or(spec),
        None => spec,
    };
    asked.max(0)
}

/// Upstream's container hash: a changed name or image means a changed container. What is hashed is not the JSON text but
/// how upstream's printer shows its bytes (`HashContainer`).
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let text = serde_json::json!({"image": image, "name": container.name}).to_string();
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    fnv(&format!("([]uint8)[{}]", bytes.join(" ")))
}

/// Whether a container with that hash was made from this spec: also by a kubelet of ours before hashes were upstream's.
pub fn is_made_from(hash: &str, container: &Container) -> bool {
    let ours = || fnv(&serde_json::json!({"image": container.image, "name": container.name}).to_string());
    hash == container_hash(container) || hash == ours()
}

/// FNV-1a of 32 bits, in hexadecimal.
fn fnv(text: &str) -> String {
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_must_not_be_taken_for_another_by_a_kubelet_that_comes_after() {
        let container = |image: &str| Container {
            name: "test_container".to_owned(),
            image: Some(image.to_owned()),
            ..Container::default()
        };
        let own = container("foo/image:v1");
        // as upstream's own test has it
        assert_eq!(container_hash(&own), "8e45cbd0");
        assert!(is_made_from("8e45cbd0", &own) && !is_made_from("8e45cbd0", &container("foo/image:v2")));
        let before = fnv(r#"{"image":"foo/image:v1","name":"test_container"}"#);
        assert!(before != "8e45cbd0" && is_made_from(&before, &own), "of a kubelet of ours before");
    }
}
