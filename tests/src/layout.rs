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

/// The lab's own address on its bridge; the registry answers here.
pub const GATEWAY: &str = "192.168.77.1";
/// The lab's own address on its second link, whose only way to the first one is by the lab: it routes, and knows nothing of pods.
pub const APART_GATEWAY: &str = "192.168.78.1";
/// Prefix length of the lab's links.
pub const PREFIX: u8 = 24;
/// The registry's port on [`GATEWAY`].
pub const REGISTRY_PORT: u16 = 5000;
/// The name images made by the lab carry: `lab.local/echo:1`.
pub const IMAGE_HOST: &str = "lab.local";

/// Address of the `index`-th node (from 1) on the lab's link.
#[must_use]
pub fn node_address(index: u8) -> String {
    format!("192.168.77.{}", 10 + index)
}

/// Address of the `index`-th node on the second link.
#[must_use]
pub fn apart_address(index: u8) -> String {
    format!("192.168.78.{}", 10 + index)
}

/// Where a node finds its kubelet's configuration.
pub const KUBELET_CONFIG: &str = "/etc/windlass/kubelet.yaml";
