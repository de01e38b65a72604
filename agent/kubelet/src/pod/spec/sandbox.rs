//! A pod's sandbox configuration.

use cri_proto::v1;
use k8s_openapi::api::core::v1::Pod;

use super::dns::{self, Resolver};
use super::resources::Node;
use super::{labels, resources, security};
use crate::config::Config;
use crate::user_namespace;

/// No sandbox can be described.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Name(#[from] dns::TooLong),
    #[error(transparent)]
    Users(#[from] user_namespace::Error),
}

/// The sandbox of a pod's `attempt`th try. `cgroup_parent` is spelled for the cgroup driver.
pub fn config(
    pod: &Pod,
    attempt: u32,
    config: &Config,
    host: &Resolver,
    cgroup_parent: String,
    node: &Node,
    users: v1::UserNamespace,
) -> Result<v1::PodSandboxConfig, Error> {
    let (name, namespace, uid) = (crate::pod::name(pod), crate::pod::namespace(pod), crate::pod::uid(pod));
    let host_network = crate::pod::host_network(pod);
    let sysctls = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref())
        .and_then(|s| s.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|s| (super::sysctl::name(&s.name), s.value.clone()))
        .collect();
    let (resources, overhead) = resources::sandbox(pod, node);
    let mut security = security::sandbox(pod);
    if let Some(namespaces) = security.namespace_options.as_mut() {
        namespaces.userns_options = Some(users);
    }
    Ok(v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        hostname: match host_network {
            true => String::new(),
            false => dns::kernel_name(pod, &config.cluster_domain)?,
        },
        log_directory: config.pod_log_dir(namespace, name, uid).to_string_lossy().into_owned(),
        dns_config: Some(dns::config(pod, host, &config.cluster_dns, &config.cluster_domain).0),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: labels::sandbox(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security),
            sysctls,
            overhead: Some(overhead),
            resources: Some(resources),
        }),
        windows: None,
    })
}

/// Of the containers that run while the pod does, each host port once. An init container's are nobody's: it may name those of a container
/// after it (upstream: `generatePodSandboxConfig`, which leaves out sidecars' as well).
fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let ports = crate::pod::lasting_containers(pod).flat_map(|c| c.ports.iter().flatten());
    let mut out: Vec<v1::PortMapping> = Vec::new();
    for port in ports {
        let mapping = v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        };
        let taken = |other: &v1::PortMapping| {
            (other.protocol, &other.host_ip, other.host_port)
                == (mapping.protocol, &mapping.host_ip, mapping.host_port)
        };
        if mapping.host_port == 0 || !out.iter().any(taken) {
            out.push(mapping);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_init_containers_host_port_must_not_be_mapped_beside_the_same_of_another() {
        let port = |container: u16, host: u16| json!([{"containerPort": container, "hostPort": host}]);
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "once", "ports": port(1, 8080)},
                {"name": "sidecar", "restartPolicy": "Always", "ports": port(2, 9090)},
            ],
            "containers": [
                {"name": "a", "ports": port(3, 8080)},
                {"name": "b", "ports": port(4, 9090)},
                {"name": "c", "ports": [{"containerPort": 5}, {"containerPort": 6}]},
                {"name": "d", "ports": [{"containerPort": 7, "hostPort": 9090, "protocol": "UDP"}]},
            ],
        }}))
        .unwrap();
        let mapped: Vec<_> = port_mappings(&pod).iter().map(|m| (m.container_port, m.host_port)).collect();
        assert_eq!(mapped, [(2, 9090), (3, 8080), (5, 0), (6, 0), (7, 9090)]);
    }
}
