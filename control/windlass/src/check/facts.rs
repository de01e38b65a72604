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
    pub(super) cni_conf_dir: PathBuf,
    pub(super) cni_bin_dir: PathBuf,
    /// Ranges of all pods, as `10.244.0.0/16`.
    pub(super) pod_ranges: Vec<String>,
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

/// A directory that a node needs, and how the filesystem that it is on is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) directory: PathBuf,
    /// Where the filesystem is mounted.
    pub(super) at: PathBuf,
    pub(super) read_only: bool,
    /// Programs on it cannot be run.
    pub(super) noexec: bool,
}

/// A port that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) port: u16,
    /// By whom, as far as that can be seen.
    pub(super) by: Option<Holder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// Its name, as the kernel has it.
    pub(super) program: String,
    /// The service of systemd's that it is part of.
    pub(super) unit: Option<String>,
}

/// A chain of nftables (iptables' are such, too) that drops what no rule of it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropping {
    /// `inet`, `ip` or `ip6`.
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    /// `input` or `forward`.
    pub(super) hook: String,
    /// What `nft list chain` says of it.
    pub(super) rules: String,
}

/// What packages are installed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packager {
    Apt,
    Dnf,
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
    /// Modules that are not loaded and that modprobe's settings forbid, and the files that do.
    pub(super) forbidden_modules: Vec<(String, Vec<PathBuf>)>,
    pub(super) packager: Option<Packager>,
    /// The boot loader is GRUB, with the usual file of its settings.
    pub(super) grub: bool,
    pub(super) cgroups: Option<Cgroups>,
    /// systemd is the first process.
    pub(super) systemd: bool,
    /// What `containerd --version` says.
    pub(super) containerd: Option<String>,
    /// What `containerd config dump` says.
    pub(super) containerd_config: Option<String>,
    /// containerd's own files.
    pub(super) containerd_files: BTreeMap<PathBuf, String>,
    /// Names of the images that containerd has for CRI.
    pub(super) images: Option<BTreeSet<String>>,
    /// The archive of our sandbox image.
    pub(super) own_image: Option<PathBuf>,
    /// containerd's socket accepts connections.
    pub(super) containerd_runs: bool,
    /// runc or crun is installed.
    pub(super) has_low_level_runtime: bool,
    /// What `nft --version` says.
    pub(super) nft: Option<String>,
    /// The kubelet's `cgroupDriver`, where its configuration says one.
    pub(super) kubelet_driver: Option<String>,
    /// The kubelet's configuration says how swap is used.
    pub(super) kubelet_swaps: bool,
    pub(super) ports_taken: Vec<Taken>,
    pub(super) now: Timestamp,
    /// The clock is kept by a time service.
    pub(super) clock_kept: Option<bool>,
    /// A time service is installed, which systemd can be told to start.
    pub(super) time_service: bool,
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
    pub(super) mounts: Vec<Mounted>,
    /// The file that pods' resolvers come from (none: the kubelet is told that there is none), and those resolvers.
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) resolvers: Vec<IpAddr>,
    /// Devices and files that memory is swapped to.
    pub(super) swaps: Vec<String>,
    /// NetworkManager is at work.
    pub(super) network_manager: bool,
    /// What firewalld and ufw say that they let pass, where they are at work.
    pub(super) firewalld: Option<String>,
    pub(super) ufw: Option<String>,
    pub(super) dropping: Vec<Dropping>,
    /// CNI configurations, by their files' names.
    pub(super) cni_files: BTreeSet<String>,
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
