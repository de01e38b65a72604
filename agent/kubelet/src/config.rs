//! What the kubelet is told: a `KubeletConfiguration` file plus what upstream takes as flags.
//!
//! Decoding is strict, as upstream's: an unknown or repeated field is an error. Fields of upstream's that this kubelet
//! does not act on are accepted, and named once in the log ([`Config::unsupported`]): none is ignored in silence.

//!
//! - [`sources`]: the file, drop-ins over it, flags over both; [`mod@file`]: the file as upstream spells it; [`check`]: what is refused
//! - [`reserved`]: what is kept from pods, and whether it is enforced; [`host`]: what the kubelet asks of its machine;
//!   [`tls`]: what its port agrees on; [`manifest`]: a URL of pods; [`shutdown`]: how long pods have at the machine's end

pub(crate) mod check;
mod file;
pub(crate) mod host;
pub(crate) mod manifest;
pub(crate) mod reserved;
pub(crate) mod shutdown;
pub(crate) mod sources;
pub(crate) mod tls;
pub(crate) mod user_namespaces;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::login::provider::{self, Provider};
use crate::pressure::policy::Policy;
use crate::pressure::threshold::Thresholds;
use crate::quantity::whole;
use file::File;
use host::Host;
use manifest::ManifestUrl;
use reserved::Enforcement;
use shutdown::Period;
use sources::Sources;

/// The API version of the file.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read kubelet configuration {}", .path.display())]
    Read {
        /// Path of the configuration file, as the flag names it.
        path: PathBuf,
        /// Error of the system call.
        source: std::io::Error,
    },
    /// The file is no `KubeletConfiguration`.
    #[error("decode kubelet configuration: {reason}")]
    Decode {
        /// What the decoder said.
        reason: String,
    },
    /// A value is out of its bounds, in upstream's words.
    #[error("invalid configuration: {0}")]
    Bounds(String),
    /// A drop-in is no `KubeletConfiguration`.
    #[error("kubelet drop-in {}", .path.display())]
    DropIn {
        /// Path of the drop-in.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Credential providers are not usable.
    #[error("set up credential providers")]
    Providers(#[from] provider::Error),
    /// A field holds a value it may not.
    #[error("kubelet configuration {field}: {reason}")]
    Invalid {
        /// As the file spells it, `evictionHard`.
        field: &'static str,
        /// What a value must be, and is not.
        reason: String,
    },
}

/// Who creates pod cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The kubelet, by writing to the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// How many of pods' images may be pulled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullParallelism {
    /// `serializeImagePulls`: one after another.
    Serial,
    /// At most this many; `None` is upstream's "no limit", which here is [`MAX_PARALLEL_PULLS`].
    Parallel(Option<u32>),
}

/// The bound on simultaneous pulls where the configuration sets none.
pub const MAX_PARALLEL_PULLS: u32 = 16;

/// Everything the kubelet is configured to, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name` of this machine's Node.
    pub node_name: String,
    /// This node's addresses, the primary first; at most one a family.
    pub node_ips: Vec<IpAddr>,
    /// Where pods' volumes and state live (`/var/lib/kubelet`).
    pub root_dir: PathBuf,
    /// Where pods' logs live.
    pub pod_logs_dir: PathBuf,
    /// Where links to containers' logs are made, for those who collect them.
    pub container_logs_dir: PathBuf,
    /// The runtime's socket.
    pub container_runtime_endpoint: String,
    /// Where static pods' manifests are read; none when unset.
    pub static_pod_path: Option<PathBuf>,
    /// Where a manifest of static pods is fetched from.
    pub static_pod_url: Option<ManifestUrl>,
    /// DNS servers of pods.
    pub cluster_dns: Vec<String>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The cgroup below which `kubepods` is made, as a path from the hierarchy's root.
    pub cgroup_root: String,
    /// Who creates pod cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Whether pods get cgroups by QoS class at all.
    pub cgroups_per_qos: bool,
    /// Whether CPU limits become quotas.
    pub cpu_cfs_quota: bool,
    /// The period of those quotas.
    pub cpu_cfs_quota_period: Duration,
    /// Whether memory that runs out kills one process of a container instead of all; without cgroup v2 it always does.
    pub single_process_oom_kill: bool,
    /// From which part of the way between what a container asks for and its limit on its memory is taken back before it is killed (feature gate
    /// `MemoryQoS`, `memoryThrottlingFactor`); `None`: only the limit counts.
    pub memory_throttling: Option<f64>,
    /// The resolver file pods inherit from.
    pub resolv_conf: Option<PathBuf>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How many pods it takes for each processor; zero: as many as `max_pods` says.
    pub pods_per_core: u32,
    /// How many images the node's status lists; -1: all.
    pub node_status_max_images: i32,
    /// How many user and group ids a pod has that does not use the host's.
    pub ids_per_pod: u32,
    /// How many processes a pod may have; unlimited when unset.
    pub pod_pids_limit: Option<i64>,
    /// Pulls a second (0: unlimited), and their burst.
    pub registry_pull_qps: u32,
    /// How many pulls may exceed the rate at once.
    pub registry_burst: u32,
    /// How many images are pulled at once.
    pub pulls: PullParallelism,
    /// Programs that know logins to registries; upstream's flags name them, not the file.
    pub credential_providers: Arc<[Provider]>,
    /// Events a second (0: unlimited) and their burst.
    pub event_record_qps: u32,
    /// How many events may exceed the rate at once.
    pub event_burst: u32,
    /// Deadline of most runtime calls.
    pub runtime_request_timeout: Duration,
    /// How often everything is looked at even when nothing reports a change.
    pub sync_frequency: Duration,
    /// The cap of the crash loop's backoff.
    pub max_container_restart_period: Duration,
    /// Sysctls beyond the safe ones that pods may set (a trailing `*` matches).
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Labels for this node's registration.
    pub node_labels: BTreeMap<String, String>,
    /// Whether pods without a seccomp profile get the runtime's.
    pub seccomp_default: bool,
    /// The address and port of the HTTPS server.
    pub address: IpAddr,
    /// See `address`.
    pub port: u16,
    /// How often the node's status is computed, and how often reported when unchanged.
    pub node_status_update_frequency: Duration,
    /// How often the status is reported when nothing changed.
    pub node_status_report_frequency: Duration,
    /// How long this node's Lease lasts.
    pub node_lease_duration_seconds: i32,
    /// Whether the node registers itself, and with which taints.
    pub register_node: bool,
    /// Taints of a new node, as the API spells them.
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    /// Resources kept from pods, as quantities by resource name.
    pub kube_reserved: BTreeMap<String, String>,
    /// Resources kept for the machine's own services; pods get neither these nor `kube_reserved`.
    pub system_reserved: BTreeMap<String, String>,
    /// How little may be left before the node is under pressure.
    pub eviction_hard: Thresholds,
    /// Every threshold, and what goes with them.
    pub eviction: Policy,
    /// Burstable pods get a share of the machine's swap, and others none (`memorySwap.swapBehavior`).
    pub limited_swap: bool,
    /// How long pods have when the machine shuts down, the lowest priority first; empty: it is not waited with.
    pub shutdown: Vec<Period>,
    /// The image filesystem is cleared of unused images from this share on, in percent,
    pub image_gc_high_percent: u32,
    /// down to this one.
    pub image_gc_low_percent: u32,
    /// Images stay this long at least.
    pub image_minimum_gc_age: Duration,
    /// Unused images go after this, full disk or not; zero: they do not.
    pub image_maximum_gc_age: Duration,
    /// `spec.providerID` of the node.
    pub provider_id: Option<String>,
    /// A container's log is rotated when it has so many bytes; `None`: never.
    pub container_log_max_bytes: Option<u64>,
    /// How many files a container's logs have, the one being written included.
    pub container_log_max_files: u32,
    /// How often logs are looked at.
    pub container_log_monitor_interval: Duration,
    /// How many containers' logs are rotated at once.
    pub container_log_workers: usize,
    /// How often manifests are read though no change was announced.
    pub file_check_frequency: Duration,
    /// The runtime's socket for images, where that is another one.
    pub image_service_endpoint: Option<String>,
    /// Range of pods' addresses that the runtime is told of, for a node without API server.
    pub pod_cidr: Option<String>,
    /// Pods' use of the node's disk is counted and limited (`localStorageCapacityIsolation`).
    pub local_storage: bool,
    /// For how long volumes' sizes are kept; `None`: they are not measured.
    pub volume_stats_period: Option<Duration>,
    /// What of the reserved resources is enforced.
    pub enforcement: Enforcement,
    /// Allocatable is what is not reserved, eviction thresholds aside (`--experimental-allocatable-ignore-eviction`).
    pub ignore_eviction: bool,
    /// What the kubelet asks of its machine and of its own process.
    pub host: Host,
    /// Requests to the API a second, and at once, events and heartbeats aside; `None`: as many as there are (`kubeAPIQPS`, `kubeAPIBurst`).
    pub requests: Option<(u32, u32)>,
    /// The client certificate is renewed (`rotateCertificates`).
    pub rotate_client: bool,
    /// The serving certificate is asked of the API server (`serverTLSBootstrap`).
    pub rotate_serving: bool,
    /// Another program knows this node's machine and prepares it (`--cloud-provider=external`).
    pub cloud_external: bool,
    /// Addresses were given, not found.
    pub node_ips_given: bool,
    /// Files that hold the machine's id, the first that is there counts (`--machine-id-file`).
    pub machine_id_files: Vec<PathBuf>,
    /// The same for the id of its boot (`--boot-id-file`).
    pub boot_id_files: Vec<PathBuf>,
    /// Fields of the file that are set and not acted on.
    pub unsupported: Vec<String>,
    /// Feature gates that somebody set.
    pub feature_gates: BTreeMap<String, bool>,
    /// `authentication` and `authorization` of the file, for the HTTPS server.
    pub authentication: Value,
    /// The section `authorization` of the file.
    pub authorization: Value,
    /// The HTTPS port is served at all (`enableServer`).
    pub serve: bool,
    /// Where `/healthz` is answered to this machine, without TLS; `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// Port where everybody may read, without TLS; `None`: there is none.
    pub read_only: Option<u16>,
    /// The oldest version of TLS (`VersionTLS12`), and names of TLS 1.2's cipher suites, all of them where there is none.
    pub tls_min_version: Option<String>,
    /// See `tls_min_version`.
    pub tls_cipher_suites: Vec<String>,
    /// Exec, attach, port-forward, run and logs are served (`enableDebuggingHandlers`).
    pub debugging: bool,
    /// The machine's logs are served (`enableSystemLogHandler`),
    pub system_logs: bool,
    /// and those of its services (`enableSystemLogQuery`).
    pub system_log_query: bool,
    /// Chains of iptables that other programs look for are made (`makeIPTablesUtilChains`).
    pub iptables_chains: bool,
    /// The kubelet's own cgroup, where it is not the one it runs in (`kubeletCgroups`).
    pub kubelet_cgroup: Option<String>,
    /// The cgroup of what is neither a pod nor ours (`systemCgroups`).
    pub system_cgroup: Option<String>,
    /// Serving certificate and key files, when configured.
    pub tls_cert_file: Option<PathBuf>,
    /// Key of `tls_cert_file`; may be the same file.
    pub tls_private_key_file: Option<PathBuf>,
}

impl Config {
    /// Upstream's defaults for a node of that name.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Self {
        // An empty file is valid, and holds every default.
        let eviction = Policy::hard(Thresholds::default(), Duration::ZERO);
        Self::from_file(File::default(), node_name.into(), node_ips, eviction)
    }

    /// Reads a configuration file.
    pub fn load(path: &Path, node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Result<Self, Error> {
        Self::read(&Sources { file: Some(path.to_owned()), ..Sources::default() }, node_name, node_ips)
    }

    /// Reads a configuration file's text (YAML or JSON).
    pub fn parse(text: &str, node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Result<Self, Error> {
        Self::of(sources::document(text)?, node_name.into(), node_ips)
    }

    /// Reads everything a kubelet may be told by: files, and flags over them.
    pub fn read(
        sources: &Sources,
        node_name: impl Into<String>,
        node_ips: Vec<IpAddr>,
    ) -> Result<Self, Error> {
        Self::of(sources.merged()?, node_name.into(), node_ips)
    }

    fn of(document: Value, node_name: String, node_ips: Vec<IpAddr>) -> Result<Self, Error> {
        check::bounds(&document)?;
        let file = File::of(document)?;
        let eviction = match &file.eviction_hard {
            Some(thresholds) => Thresholds::parse(thresholds)
                .map_err(|reason| Error::Invalid { field: "evictionHard", reason })?,
            None => Thresholds::default(),
        };
        let eviction = file.soft_eviction(Policy::hard(eviction, Duration::ZERO))?;
        let healthz = file.healthz()?;
        file.shutdown().check()?;
        file.memory_swap.is_limited()?;
        file.judge()?;
        let mut config = Self::from_file(file, node_name, node_ips, eviction);
        config.healthz = healthz;
        config.host.reserve_cpus(&mut config.kube_reserved, &mut config.system_reserved)?;
        config.check()?;
        Ok(config)
    }

    fn from_file(file: File, node_name: String, node_ips: Vec<IpAddr>, eviction: Policy) -> Self {
        let eviction_hard = eviction.hard.clone();
        let eviction = Policy {
            soft: eviction.soft,
            soft_grace: eviction.soft_grace,
            minimum_reclaim: eviction.minimum_reclaim,
            longest_grace: file.eviction_max_pod_grace_period.unwrap_or(0),
            ..Policy::hard(
                eviction_hard.clone(),
                file.eviction_pressure_transition_period.or(Duration::from_secs(300)),
            )
        };
        let pulls = match (file.serialize_image_pulls, file.max_parallel_image_pulls) {
            (Some(true), _) | (None, None | Some(1)) => PullParallelism::Serial,
            (_, most) => PullParallelism::Parallel(most),
        };
        let (unsupported, host, enforcement) = (file.without_effect(), file.host(), file.enforcement());
        let (requests, static_pod_url) = (file.requests(), file.manifest_url());
        let shutdown = file.shutdown().periods();
        let seconds = Duration::from_secs;
        Self {
            node_name,
            node_ips,
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: file.pod_logs_dir.unwrap_or_else(|| "/var/log/pods".into()),
            container_logs_dir: "/var/log/containers".into(),
            container_runtime_endpoint: file
                .container_runtime_endpoint
                .unwrap_or_else(|| "unix:///run/containerd/containerd.sock".to_owned()),
            static_pod_path: file.static_pod_path.filter(|p| !p.as_os_str().is_empty()),
            static_pod_url,
            cluster_dns: file.cluster_dns,
            cluster_domain: file.cluster_domain,
            cgroup_root: file.cgroup_root,
            cgroup_driver: file.cgroup_driver,
            cgroups_per_qos: file.cgroups_per_qos.unwrap_or(true),
            cpu_cfs_quota: file.cpu_cfs_quota.unwrap_or(true),
            cpu_cfs_quota_period: file.cpu_cfs_quota_period.or(Duration::from_millis(100)),
            single_process_oom_kill: file.single_process_oom_kill.unwrap_or(false),
            memory_throttling: machinery::gates::enabled("MemoryQoS", &file.feature_gates)
                .then(|| file.memory_throttling_factor.unwrap_or(0.9)),
            resolv_conf: file
                .resolv_conf
                .map_or_else(|| Some("/etc/resolv.conf".into()), Some)
                .filter(|p: &PathBuf| !p.as_os_str().is_empty()),
            max_pods: file.max_pods.unwrap_or(110),
            pods_per_core: file.pods_per_core,
            node_status_max_images: file.node_status_max_images.unwrap_or(50),
            ids_per_pod: file.user_namespaces.ids_per_pod.unwrap_or(user_namespaces::UNIT),
            pod_pids_limit: file.pod_pids_limit.filter(|limit| *limit > 0),
            registry_pull_qps: file.registry_pull_qps.unwrap_or(5),
            registry_burst: file.registry_burst.unwrap_or(10),
            pulls,
            credential_providers: Arc::default(),
            event_record_qps: file.event_record_qps.unwrap_or(50),
            event_burst: file.event_burst.unwrap_or(100),
            runtime_request_timeout: file.runtime_request_timeout.or(seconds(120)),
            sync_frequency: file.sync_frequency.or(seconds(60)),
            max_container_restart_period: file
                .crash_loop_back_off
                .max_container_restart_period
                .or(seconds(300)),
            allowed_unsafe_sysctls: file.allowed_unsafe_sysctls,
            node_labels: BTreeMap::new(),
            seccomp_default: file.seccomp_default.unwrap_or(false),
            address: file.address.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            port: file.port.unwrap_or(10250),
            node_status_update_frequency: file.node_status_update_frequency.or(seconds(10)),
            // Who asks for a look more or less often is told as often, unless he says otherwise.
            node_status_report_frequency: file
                .node_status_report_frequency
                .or(file.node_status_update_frequency.or(seconds(300))),
            node_lease_duration_seconds: file.node_lease_duration_seconds.unwrap_or(40),
            register_node: file.register_node.unwrap_or(true),
            register_with_taints: file.register_with_taints,
            kube_reserved: file.kube_reserved,
            system_reserved: file.system_reserved,
            eviction_hard,
            eviction,
            limited_swap: file.memory_swap.is_limited().unwrap_or(false),
            shutdown,
            image_gc_high_percent: file.image_gc_high_threshold_percent.unwrap_or(85),
            image_gc_low_percent: file.image_gc_low_threshold_percent.unwrap_or(80),
            image_minimum_gc_age: file.image_minimum_gc_age.or(seconds(120)),
            image_maximum_gc_age: file.image_maximum_gc_age.0,
            provider_id: file.provider_id.filter(|id| !id.is_empty()),
            container_log_max_bytes: file
                .container_log_max_size
                .map_or(Some(10 << 20), |size| u64::try_from(whole(&Quantity(size))).ok())
                .filter(|bytes| *bytes > 0),
            container_log_max_files: file.container_log_max_files.unwrap_or(5),
            container_log_monitor_interval: file.container_log_monitor_interval.or(seconds(10)),
            container_log_workers: file.container_log_max_workers.unwrap_or(1),
            file_check_frequency: file.file_check_frequency.or(seconds(20)),
            image_service_endpoint: file.image_service_endpoint.filter(|text| !text.is_empty()),
            pod_cidr: file.pod_cidr.filter(|text| !text.is_empty()),
            local_storage: file.local_storage_capacity_isolation.unwrap_or(true),
            volume_stats_period: file.volume_stats_agg_period.unless_negative(seconds(60)),
            enforcement,
            ignore_eviction: false,
            host,
            requests,
            rotate_client: file.rotate_certificates,
            rotate_serving: file.server_tls_bootstrap,
            cloud_external: false,
            node_ips_given: false,
            machine_id_files: Vec::new(),
            boot_id_files: Vec::new(),
            unsupported,
            feature_gates: file.feature_gates,
            serve: file.enable_server.unwrap_or(true),
            healthz: Some(file::HEALTHZ),
            read_only: file.read_only_port.filter(|port| *port > 0),
            tls_min_version: file.tls_min_version.filter(|text| !text.is_empty()),
            tls_cipher_suites: file.tls_cipher_suites,
            authentication: file.authentication,
            authorization: file.authorization,
            debugging: file.enable_debugging_handlers.unwrap_or(true),
            system_logs: file.enable_system_log_handler.unwrap_or(true),
            system_log_query: file.enable_system_log_query.unwrap_or(false),
            iptables_chains: file.make_iptables_util_chains.unwrap_or(true),
            kubelet_cgroup: file.kubelet_cgroups.filter(|name| !name.is_empty()),
            system_cgroup: file.system_cgroups.filter(|name| !name.is_empty()),
            tls_cert_file: file.tls_cert_file.filter(|p| !p.as_os_str().is_empty()),
            tls_private_key_file: file.tls_private_key_file.filter(|p| !p.as_os_str().is_empty()),
        }
    }

    /// The directory of a pod's volumes and state.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of a pod's logs.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The node's primary address as text; empty when it has none.
    pub fn host_ip(&self) -> String {
        self.node_ips.first().map(IpAddr::to_string).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
