//! An agent's settings.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use pki::bootstrap::JoinToken;
use pki::part::NodePart;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The program of the CNI plugins.
const PLUGINS_PROGRAM: &str = "windlass-cni";

/// An agent's configuration, whole and checked before anything is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The API server, `https://HOST:6443`; `None` for a stand-alone node.
    pub server: Option<String>,
    /// Lets a machine without credentials join.
    pub token: Option<JoinToken>,
    /// Kubeconfigs of parts of the node; a part without one gets a certificate of its own.
    pub part_kubeconfigs: BTreeMap<NodePart, PathBuf>,
    /// `metadata.name` of the Node.
    pub node_name: String,
    /// The machine's addresses, the primary one first; at least one.
    pub node_ips: Vec<IpAddr>,
    /// Our own state; the agent's part is below `agent/`.
    pub data_dir: PathBuf,
    /// Volumes and state of pods (`/var/lib/kubelet`).
    pub kubelet_root: PathBuf,
    /// Logs of pods (`/var/log/pods`).
    pub pod_logs_dir: PathBuf,
    /// Links to the logs by container name (`/var/log/containers`).
    pub container_logs_dir: PathBuf,
    /// Directory of CNI configuration (`/etc/cni/net.d`).
    pub cni_conf_dir: PathBuf,
    /// Directory of CNI plugins (`/opt/cni/bin`).
    pub cni_bin_dir: PathBuf,
    /// The container runtime's socket; `None` leaves it to the KubeletConfiguration file.
    pub runtime_endpoint: Option<String>,
    /// DNS servers of pods.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Names the resolvers of the machine, for all names that are not the cluster's.
    pub resolv_conf: PathBuf,
    /// Address ranges of all pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// Address ranges of services.
    pub service_cidrs: Vec<IpNet>,
    /// Address ranges of this node's pods, for a stand-alone node.
    pub pod_cidrs: Vec<IpNet>,
    /// Directory of static pod manifests.
    pub static_pod_path: Option<PathBuf>,
    /// A `KubeletConfiguration` file.
    pub kubelet_config: Option<PathBuf>,
    /// A directory of files laid over it.
    pub kubelet_drop_ins: Option<PathBuf>,
    /// What a kubelet's flags say, as a `KubeletConfiguration` has it; goes before the files.
    pub kubelet_flags: serde_json::Value,
    /// Some of the addresses were given, not found.
    pub node_ips_given: bool,
    /// What nobody said of this node, and its cluster may.
    pub unsaid: Unsaid,
    /// Another program knows this machine and prepares its node (`--cloud-provider=external`).
    pub cloud_external: bool,
    /// Files that hold the machine's id, and its boot's; the usual places where there are none.
    pub machine_id_files: Vec<PathBuf>,
    /// See `machine_id_files`.
    pub boot_id_files: Vec<PathBuf>,
    /// The kubelet sets the kernel's settings that pods need, as upstream's does.
    pub tune_kernel: bool,
    /// What eviction keeps free is not taken from what pods may have.
    pub ignore_eviction: bool,
    /// A `CredentialProviderConfig`, file or directory, and the directory of the programs it names.
    pub credential_providers: Option<(PathBuf, PathBuf)>,
    /// Labels the Node gets when it registers.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node gets when it registers.
    pub taints: Vec<Taint>,
    /// Whether the node registers itself; `None` leaves it to the KubeletConfiguration file.
    pub register: Option<bool>,
    /// The cgroup below which pods' cgroups are made; `None` leaves it to the KubeletConfiguration file.
    pub cgroup_root: Option<String>,
    /// Network policies are in force on this node.
    pub network_policy: bool,
    /// How pods of nodes reach each other.
    pub pod_network: network::Settings,
}

/// Settings that are defaults until the cluster is known ([`facts`](crate::facts)); none of them where everything was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsaid {
    /// [`Config::node_ips`].
    pub node_ips: bool,
    /// [`Config::cluster_cidrs`].
    pub cluster_cidrs: bool,
    /// [`Config::service_cidrs`].
    pub service_cidrs: bool,
    /// [`Config::cluster_dns`].
    pub cluster_dns: bool,
    /// [`Config::cluster_domain`].
    pub cluster_domain: bool,
}

impl Config {
    /// The defaults for a node.
    #[must_use]
    pub fn new(node_name: &str, node_ips: Vec<IpAddr>) -> Self {
        Self {
            server: None,
            token: None,
            part_kubeconfigs: BTreeMap::new(),
            node_name: node_name.to_owned(),
            node_ips,
            data_dir: "/var/lib/windlass".into(),
            kubelet_root: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: "/var/log/containers".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            runtime_endpoint: None,
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: default_resolv_conf(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            pod_cidrs: Vec::new(),
            static_pod_path: Some("/etc/windlass/manifests".into()),
            kubelet_config: None,
            kubelet_drop_ins: None,
            kubelet_flags: serde_json::Value::Null,
            node_ips_given: false,
            unsaid: Unsaid::default(),
            cloud_external: false,
            machine_id_files: Vec::new(),
            boot_id_files: Vec::new(),
            tune_kernel: false,
            ignore_eviction: false,
            credential_providers: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            register: None,
            cgroup_root: None,
            network_policy: true,
            pod_network: network::Settings::default(),
        }
    }

    /// What the pod network is told; the program of the CNI plugins lies beside our own.
    ///
    /// # Errors
    /// Our own place is unknown.
    pub fn network(&self) -> std::io::Result<network::Config> {
        Ok(network::Config {
            conf_dir: self.cni_conf_dir.clone(),
            cluster_cidrs: self.cluster_cidrs.clone(),
            settings: self.pod_network,
            plugins: Some(network::Plugins {
                program: std::env::current_exe()?.with_file_name(PLUGINS_PROGRAM),
                bin_dir: self.cni_bin_dir.clone(),
            }),
            ..network::Config::new(self.node_name.clone())
        })
    }

    /// What whoever judges pods' packets is told.
    #[must_use]
    pub fn policy(&self) -> policy::Config {
        policy::Config::new(self.node_name.clone(), self.cni_conf_dir.clone())
    }

    /// The same for a node of a cluster, where policies may be in force.
    ///
    /// # Errors
    /// Our own place is unknown.
    pub fn cluster_network(&self) -> std::io::Result<network::Config> {
        let policy_socket = self.network_policy.then(|| self.policy().socket());
        Ok(network::Config { policy_socket, ..self.network()? })
    }

    /// Where the agent keeps its credentials.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.data_dir.join("agent")
    }
}

/// A name a Node may have: a DNS subdomain (RFC 1123) of at most 253 characters.
pub fn check_node_name(name: &str) -> Result<(), String> {
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(())
    } else {
        Err(format!("node name {name:?} is not a lower-case RFC 1123 subdomain"))
    }
}

/// The usual file; where that names only a resolver on the machine itself (systemd-resolved), the file of the resolvers
/// behind it: pods cannot reach the machine's loopback.
#[must_use]
pub fn default_resolv_conf() -> PathBuf {
    const USUAL: &str = "/etc/resolv.conf";
    const BEHIND: &str = "/run/systemd/resolve/resolv.conf";
    let text = std::fs::read_to_string(USUAL).unwrap_or_default();
    if only_loopback(&text) && Path::new(BEHIND).is_file() { BEHIND.into() } else { USUAL.into() }
}

/// True when there are resolvers and all of them are on the loopback. Pure.
fn only_loopback(resolv_conf: &str) -> bool {
    let mut found = false;
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if address.is_some_and(|a| !a.is_loopback()) {
            return false;
        }
        found |= address.is_some();
    }
    found
}

/// The node's default name: the host name in lower case, as upstream.
pub fn host_name() -> std::io::Result<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))?;
    Ok(text.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_the_machine_itself_is_noticed() {
        assert!(only_loopback("# by systemd\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!only_loopback("nameserver 127.0.0.53\nnameserver 192.0.2.53\n"));
        assert!(!only_loopback("search example\n"));
    }

    #[test]
    fn node_names_are_subdomains() {
        for good in ["n1", "a.b-c.d", "1"] {
            assert!(check_node_name(good).is_ok(), "{good}");
        }
        for bad in ["", "N1", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(check_node_name(bad).is_err(), "{bad}");
        }
    }
}
