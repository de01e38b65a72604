//! Where a lab keeps its files. Everything is below one folder, so that removing it removes the lab.

use std::path::{Path, PathBuf};

/// Folders and addresses of one lab, all derived from its name.
#[derive(Clone, Debug)]
pub struct Layout {
    name: String,
    root: PathBuf,
}

impl Layout {
    /// The lab `name`, below `/var/lib/windlass-lab`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), root: Path::new("/var/lib/windlass-lab").join(name) }
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Socket on which the supervisor answers.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// Process id of the supervisor.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("supervisor.pid")
    }

    /// What the supervisor printed.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// Content-addressed image blobs and tags, served by the registry.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// One node's folder.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node)
    }

    /// What is bound over the node's `path` (absolute).
    #[must_use]
    pub fn node_path(&self, node: &str, path: &str) -> PathBuf {
        self.node(node).join("fs").join(path.trim_start_matches('/'))
    }

    /// A log of one of the node's services.
    #[must_use]
    pub fn node_log(&self, node: &str, service: &str) -> PathBuf {
        self.node(node).join("log").join(format!("{service}.log"))
    }

    /// The cgroup of a node, relative to a hierarchy's mount.
    #[must_use]
    pub fn cgroup(&self, node: &str) -> String {
        format!("windlass-lab/{}/{node}", self.name)
    }
}

/// The lab's own addresses on its bridge, with the prefix lengths of its link.
const GATEWAY4: (&str, u8) = ("192.168.77.1", 24);
const GATEWAY6: (&str, u8) = ("fd77::1", 64);
/// The same on its second link, whose only way to the first one is by the lab: it routes, and knows nothing of pods.
pub const APART_GATEWAYS: &[(&str, u8)] = &[("192.168.78.1", 24)];
/// The registry's port on [`Family::gateway`].
pub const REGISTRY_PORT: u16 = 5000;
/// The registry's name on every node: containerd 1.6 reads no addresses of IPv6 in its files.
pub const REGISTRY: &str = "registry.lab";
/// The name images made by the lab carry: `lab.local/echo:1`.
pub const IMAGE_HOST: &str = "lab.local";

/// IPv4 address of the `index`-th node (from 1) on the lab's link.
#[must_use]
pub fn node_address(index: u8) -> String {
    format!("192.168.77.{}", 10 + index)
}

/// Address of the `index`-th node on the second link.
#[must_use]
pub fn apart_address(index: u8) -> String {
    format!("192.168.78.{}", 10 + index)
}

/// Whether an address is on the second link.
#[must_use]
pub fn is_apart(address: &str) -> bool {
    address.starts_with("192.168.78.")
}

/// The families that the nodes, pods and Services of a lab have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// IPv4 alone, and our default ranges.
    #[default]
    Ipv4,
    /// IPv4 first, and IPv6.
    Dual,
    /// IPv6 alone: nodes have no IPv4 but on their loopback.
    Ipv6,
}

impl Family {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Dual => "dual",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The lab's own addresses and the prefix lengths of its link, the primary one first.
    #[must_use]
    pub fn gateways(self) -> &'static [(&'static str, u8)] {
        match self {
            Self::Ipv4 => &[GATEWAY4],
            Self::Dual => &[GATEWAY4, GATEWAY6],
            Self::Ipv6 => &[GATEWAY6],
        }
    }

    /// The lab's own address; the registry answers here.
    #[must_use]
    pub fn gateway(self) -> &'static str {
        self.gateways()[0].0
    }

    /// Addresses of the `index`-th node (from 1) on the lab's link, the primary one first.
    #[must_use]
    pub fn addresses(self, index: u8) -> Vec<String> {
        let of = |(gateway, _): &(&str, u8)| match gateway.contains(':') {
            true => format!("fd77::{}", 10 + index),
            false => node_address(index),
        };
        self.gateways().iter().map(of).collect()
    }

    /// The primary one as URLs have it.
    #[must_use]
    pub fn host(self, index: u8) -> String {
        match self {
            Self::Ipv4 | Self::Dual => node_address(index),
            Self::Ipv6 => format!("[fd77::{}]", 10 + index),
        }
    }

    /// What a server is told of pods and Services.
    #[must_use]
    pub fn ranges(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 => &[],
            Self::Dual => {
                &["--cluster-cidr=10.244.0.0/16,fd00:244::/56", "--service-cidr=10.96.0.0/12,fd00:96::/112"]
            }
            Self::Ipv6 => &["--cluster-cidr=fd00:244::/56", "--service-cidr=fd00:96::/112"],
        }
    }
}

/// Where a node finds its kubelet's configuration.
pub const KUBELET_CONFIG: &str = "/etc/windlass/kubelet.yaml";
