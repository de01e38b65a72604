//! What the network must know about its node.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::settings::Settings;

/// How the pod network of this node is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name` of this machine's Node.
    pub node: String,
    /// Where the container runtime reads CNI configurations; `10-windlass.conflist` there is ours.
    pub conf_dir: PathBuf,
    /// Where host-local keeps its leases.
    pub data_dir: PathBuf,
    /// The bridge that pods are joined to.
    pub bridge: String,
    /// How packets go between nodes, where the cluster's ConfigMap says nothing else.
    pub settings: Settings,
    /// Ranges of every node's pods, beyond those that the Node objects say: traffic to them keeps its source.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where the plugins ask before a pod has its interface, so that its packets are judged from the first; `None`: nowhere.
    pub policy_socket: Option<PathBuf>,
    /// The plugins to put in place; `None` if somebody else does.
    pub plugins: Option<Plugins>,
}

/// Where the CNI plugins are and where the container runtime looks for them.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// The program `windlass-cni`.
    pub program: PathBuf,
    /// The container runtime's directory of plugins. A plugin that is there already stays.
    pub bin_dir: PathBuf,
}

impl Config {
    /// The usual paths (`/etc/cni/net.d`, `/var/lib/cni/networks`) and the bridge `cni0`.
    #[must_use]
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            conf_dir: "/etc/cni/net.d".into(),
            data_dir: "/var/lib/cni/networks".into(),
            bridge: "cni0".into(),
            settings: Settings::default(),
            cluster_cidrs: Vec::new(),
            policy_socket: None,
            plugins: None,
        }
    }
}
