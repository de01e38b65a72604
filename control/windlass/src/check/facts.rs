//! What a machine is looked at for. Nothing is decided here; what could not be found out is `None`.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

/// What the machine is to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The server it joins.
    pub(super) server: Option<String>,
    pub(super) data_dir: PathBuf,
    pub(super) kubelet_root: PathBuf,
    pub(super) kubelet_config: Option<PathBuf>,
    /// Its node's name, where it is not the host's.
    pub(super) node_name: Option<String>,
    pub(super) cluster_dns: Vec<IpAddr>,
    /// Its container runtime is another one than containerd, whose settings are not looked at.
    pub(super) is_other_runtime: bool,
    /// Ports that it listens on.
    pub(super) ports: Vec<u16>,
    pub(super) is_server: bool,
    /// It runs already, so that ports are taken by itself.
    pub(super) is_running: bool,
}

/// How cgroups are mounted, and the controllers there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cgroups {
    /// Version 2 alone.
    Unified(BTreeSet<String>),
    /// Version 1, perhaps with an empty hierarchy of version 2 beside it.
    Legacy(BTreeSet<String>),
}

/// A directory's filesystem; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) available: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) machine_id: String,
    pub(super) is_ready: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// `uname -r`.
    pub(super) kernel: String,
    /// Modules that are neither there nor can be loaded.
    pub(super) missing_modules: Vec<String>,
    pub(super) cgroups: Option<Cgroups>,
    /// systemd is the first process.
    pub(super) systemd: bool,
    /// What `containerd --version` says.
    pub(super) containerd: Option<String>,
    /// What `containerd config dump` says.
    pub(super) containerd_config: Option<String>,
    /// containerd's socket accepts connections.
    pub(super) containerd_runs: bool,
    /// runc or crun is installed.
    pub(super) has_low_level_runtime: bool,
    /// What `nft --version` says.
    pub(super) nft: Option<String>,
    /// The kubelet's `cgroupDriver`, where its configuration says one.
    pub(super) kubelet_driver: Option<String>,
    pub(super) ports_taken: Vec<u16>,
    pub(super) now: Timestamp,
    /// The clock is kept by a time service.
    pub(super) clock_kept: Option<bool>,
    /// The server's clock at `now`.
    pub(super) server_clock: Option<Timestamp>,
    /// When the program was made.
    pub(super) made: Option<Timestamp>,
    pub(super) host_name: String,
    pub(super) machine_id: String,
    /// Nodes that can be seen from here.
    pub(super) members: Vec<Member>,
    /// MemTotal, in bytes.
    pub(super) memory: u64,
    pub(super) disks: Vec<Disk>,
    /// The file that pods' resolvers come from, and those resolvers.
    pub(super) resolv_conf: PathBuf,
    pub(super) resolvers: Vec<IpAddr>,
    /// Devices and files that memory is swapped to.
    pub(super) swaps: Vec<String>,
    /// Services of systemd that are active, of those that are asked for.
    pub(super) services: BTreeSet<String>,
    /// NetworkManager is told to leave our interfaces alone.
    pub(super) interfaces_unmanaged: bool,
    /// SELinux is enforcing.
    pub(super) selinux: bool,
    /// SELinux has a policy for containers.
    pub(super) selinux_policy: bool,
    /// AppArmor is on.
    pub(super) apparmor: bool,
    pub(super) apparmor_parser: bool,
    pub(super) sysctls: BTreeMap<String, String>,
}
