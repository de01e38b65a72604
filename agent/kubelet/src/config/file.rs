//! A `KubeletConfiguration` as upstream spells it, strict: a field that is unknown is refused.

use super::host::Host;
use super::manifest::ManifestUrl;
use super::reserved::Enforcement;
use super::shutdown::{Period, Shutdown};
use super::{API_VERSION, CgroupDriver, Error, user_namespaces};
use crate::pressure::policy::Policy;
use crate::pressure::threshold::{Signal, Thresholds, is_container_filesystem};
use machinery::goformat::go_quote;
use machinery::quantity::Quantity;
use machinery::unset::says_nothing;
use machinery::{gates, names};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A Go duration (`1m30s`), zero when absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// This, or `default` for zero.
    pub(super) fn or(self, default: Duration) -> Duration {
        if self.0.is_zero() { default } else { self.0 }
    }
}

/// The same where a negative one says "not at all".
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SignedSpan(i64);

impl SignedSpan {
    /// This, `default` for zero, `None` for a negative one.
    pub(super) fn unless_negative(self, default: Duration) -> Option<Duration> {
        u64::try_from(self.0).ok().map(|nanos| Span(Duration::from_nanos(nanos)).or(default))
    }
}

impl<'de> Deserialize<'de> for SignedSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |_| serde::de::Error::custom(format!("time: invalid duration {text:?}"));
        machinery::duration::parse(&text).map(Self).map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        given.as_str().and_then(go_duration).map(Span).ok_or_else(|| {
            let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            serde::de::Error::custom(format!("time: invalid duration {text:?}"))
        })
    }
}

/// `None` for what is no duration, and for negative ones.
fn go_duration(text: &str) -> Option<Duration> {
    let nanos = machinery::duration::parse(text).ok()?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct CrashLoop {
    pub(super) max_container_restart_period: Span,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct MemorySwap {
    pub(super) swap_behavior: String,
}

impl MemorySwap {
    /// Burstable pods get a share of the machine's swap.
    pub(super) fn is_limited(&self) -> Result<bool, Error> {
        match self.swap_behavior.as_str() {
            "" | "NoSwap" => Ok(false),
            "LimitedSwap" => Ok(true),
            other => Err(Error::Bounds(format!(
                "memorySwap.swapBehavior {other:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""
            ))),
        }
    }
}

/// The file as upstream spells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    api_version: Option<String>,
    kind: Option<String>,
    pub(super) pod_logs_dir: Option<PathBuf>,
    pub(super) container_runtime_endpoint: Option<String>,
    pub(super) static_pod_path: Option<PathBuf>,
    #[serde(rename = "clusterDNS")]
    pub(super) cluster_dns: Vec<String>,
    pub(super) cluster_domain: String,
    pub(super) cgroup_root: String,
    pub(super) cgroup_driver: CgroupDriver,
    #[serde(rename = "cgroupsPerQOS")]
    pub(super) cgroups_per_qos: Option<bool>,
    #[serde(rename = "cpuCFSQuota")]
    pub(super) cpu_cfs_quota: Option<bool>,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub(super) cpu_cfs_quota_period: Span,
    #[serde(rename = "singleProcessOOMKill")]
    pub(super) single_process_oom_kill: Option<bool>,
    pub(super) memory_throttling_factor: Option<f64>,
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) max_pods: Option<u32>,
    pub(super) pods_per_core: u32,
    pub(super) node_status_max_images: Option<i32>,
    pub(super) user_namespaces: user_namespaces::Settings,
    pub(super) pod_pids_limit: Option<i64>,
    #[serde(rename = "registryPullQPS")]
    pub(super) registry_pull_qps: Option<u32>,
    pub(super) registry_burst: Option<u32>,
    pub(super) serialize_image_pulls: Option<bool>,
    pub(super) max_parallel_image_pulls: Option<u32>,
    #[serde(rename = "eventRecordQPS")]
    pub(super) event_record_qps: Option<u32>,
    pub(super) event_burst: Option<u32>,
    pub(super) runtime_request_timeout: Span,
    pub(super) sync_frequency: Span,
    pub(super) crash_loop_back_off: CrashLoop,
    pub(super) allowed_unsafe_sysctls: Vec<String>,
    pub(super) seccomp_default: Option<bool>,
    pub(super) enable_debugging_handlers: Option<bool>,
    pub(super) enable_system_log_handler: Option<bool>,
    pub(super) enable_system_log_query: Option<bool>,
    pub(super) kubelet_cgroups: Option<String>,
    pub(super) system_cgroups: Option<String>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) node_status_update_frequency: Span,
    pub(super) node_status_report_frequency: Span,
    pub(super) node_lease_duration_seconds: Option<i32>,
    pub(super) register_node: Option<bool>,
    pub(super) register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    pub(super) kube_reserved: BTreeMap<String, String>,
    pub(super) system_reserved: BTreeMap<String, String>,
    pub(super) eviction_hard: Option<BTreeMap<String, String>>,
    pub(super) eviction_pressure_transition_period: Span,
    pub(super) eviction_soft: BTreeMap<String, String>,
    pub(super) eviction_soft_grace_period: BTreeMap<String, String>,
    pub(super) eviction_minimum_reclaim: BTreeMap<String, String>,
    pub(super) eviction_max_pod_grace_period: Option<i64>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub(super) image_gc_high_threshold_percent: Option<u32>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub(super) image_gc_low_threshold_percent: Option<u32>,
    #[serde(rename = "imageMinimumGCAge")]
    pub(super) image_minimum_gc_age: Span,
    #[serde(rename = "imageMaximumGCAge")]
    pub(super) image_maximum_gc_age: Span,
    pub(super) container_log_monitor_interval: Span,
    #[serde(rename = "providerID")]
    pub(super) provider_id: Option<String>,
    pub(super) container_log_max_size: Option<String>,
    pub(super) container_log_max_files: Option<u32>,
    pub(super) container_log_max_workers: Option<usize>,
    pub(super) file_check_frequency: Span,
    pub(super) image_service_endpoint: Option<String>,
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    pub(super) local_storage_capacity_isolation: Option<bool>,
    pub(super) volume_stats_agg_period: SignedSpan,
    shutdown_grace_period: Span,
    shutdown_grace_period_critical_pods: Span,
    shutdown_grace_period_by_pod_priority: Vec<Period>,
    pub(super) memory_swap: MemorySwap,
    enforce_node_allocatable: Option<Vec<String>>,
    kube_reserved_cgroup: String,
    system_reserved_cgroup: String,
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: String,
    fail_swap_on: Option<bool>,
    #[serde(rename = "failCgroupV1")]
    fail_cgroup_v1: Option<bool>,
    protect_kernel_defaults: bool,
    max_open_files: Option<u64>,
    oom_score_adj: Option<i32>,
    pub(super) feature_gates: BTreeMap<String, bool>,
    pub(super) rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub(super) server_tls_bootstrap: bool,
    pub(super) enable_server: Option<bool>,
    #[serde(rename = "kubeAPIQPS")]
    kube_api_qps: Option<u32>,
    #[serde(rename = "kubeAPIBurst")]
    kube_api_burst: Option<u32>,
    http_check_frequency: Span,
    #[serde(rename = "staticPodURL")]
    static_pod_url: String,
    #[serde(rename = "staticPodURLHeader")]
    static_pod_url_header: BTreeMap<String, Vec<String>>,
    #[serde(rename = "makeIPTablesUtilChains")]
    pub(super) make_iptables_util_chains: Option<bool>,
    healthz_bind_address: Option<String>,
    healthz_port: Option<u16>,
    pub(super) read_only_port: Option<u16>,
    pub(super) tls_min_version: Option<String>,
    pub(super) tls_cipher_suites: Vec<String>,
    // Judged or merged before, or of no effect in upstream's either; they say nothing here.
    run_once: bool,
    streaming_connection_idle_timeout: Span,
    merge_default_eviction_settings: bool,
    iptables_masquerade_bit: Option<i32>,
    iptables_drop_bit: Option<i32>,
    pub(super) authentication: Value,
    pub(super) authorization: Value,
    pub(super) tls_cert_file: Option<PathBuf>,
    pub(super) tls_private_key_file: Option<PathBuf>,
    #[serde(flatten, deserialize_with = "known_only")]
    unsupported: BTreeMap<String, Value>,
}

/// Where `/healthz` is answered by default.
pub(super) const HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10248);

impl File {
    /// The file of a document.
    pub(super) fn of(document: Value) -> Result<Self, Error> {
        let decode = |reason: String| Error::Decode { reason };
        let file: Self = serde_json::from_value(document).map_err(|error| decode(error.to_string()))?;
        for (field, got, want) in
            [("apiVersion", &file.api_version, API_VERSION), ("kind", &file.kind, "KubeletConfiguration")]
        {
            if got.as_deref() != Some(want) {
                return Err(Error::Invalid { field, reason: format!("{got:?} is not {want:?}") });
            }
        }
        Ok(file)
    }

    /// Fields that say something, and have no effect here.
    pub(super) fn without_effect(&self) -> Vec<String> {
        let is_wish = |field: &str, value: &Value| {
            let usual = INERT.iter().any(|(name, usual)| *name == field && value.as_str() == Some(*usual));
            !usual && !says_nothing(value)
        };
        let fields = self.unsupported.iter().filter(|(field, value)| is_wish(field, value));
        fields.map(|(field, _)| field.clone()).collect()
    }

    /// What the file may not say, where that is seen in it only. Upstream: `ValidateKubeletConfiguration`.
    pub(super) fn judge(&self) -> Result<(), Error> {
        let refused = |words: String| Err(Error::Bounds(words));
        let enabled = |gate: &str| gates::enabled(gate, &self.feature_gates);
        if self.server_tls_bootstrap && !enabled("RotateKubeletServerCertificate") {
            return refused(
                "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate".to_owned(),
            );
        }
        if let Some(factor) =
            self.memory_throttling_factor.filter(|factor| !(*factor > 0.0 && *factor <= 1.0))
        {
            return refused(format!(
                "memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"
            ));
        }
        let shutdown = self.shutdown();
        if !(shutdown.whole.is_zero() && shutdown.critical.is_zero() || enabled("GracefulNodeShutdown")) {
            return refused(
                "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate GracefulNodeShutdown"
                    .to_owned(),
            );
        }
        if !shutdown.by_priority.is_empty() && !enabled("GracefulNodeShutdownBasedOnPodPriority") {
            return refused(
                "Specifying shutdownGracePeriodByPodPriority requires feature gate GracefulNodeShutdownBasedOnPodPriority"
                    .to_owned(),
            );
        }
        let period = self.crash_loop_back_off.max_container_restart_period;
        if !period.0.is_zero() && !enabled("KubeletCrashLoopBackOffMax") {
            return refused(
                "FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set"
                    .to_owned(),
            );
        }
        if self.system_cgroups.as_ref().is_some_and(|name| !name.is_empty()) && self.cgroup_root.is_empty() {
            return refused(
                "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified"
                    .to_owned(),
            );
        }
        for taint in &self.register_with_taints {
            let value = taint.value.as_deref().unwrap_or_default();
            let good = names::qualified_name(&taint.key).is_empty()
                && names::label_value(value).is_empty()
                && ["NoSchedule", "PreferNoSchedule", "NoExecute", ""].contains(&taint.effect.as_str());
            if !good {
                return refused(format!("invalid taint: {{{} {value} {} <nil>}}", taint.key, taint.effect));
            }
            if taint.time_added.is_some() {
                return refused("taint.TimeAdded is not nil".to_owned());
            }
        }
        if let Some(size) = &self.container_log_max_size
            && let Err(why) = Quantity::parse(size)
        {
            return refused(format!("failed to parse container log max size {}: {why}", go_quote(size)));
        }
        self.pod_logs_dir.as_deref().map_or(Ok(()), check_logs_dir)
    }

    /// Where `/healthz` is answered; port 0: nowhere.
    pub(super) fn healthz(&self) -> Result<Option<SocketAddr>, Error> {
        let text = self.healthz_bind_address.as_deref().filter(|text| !text.is_empty());
        let ip = text.map_or(Ok(HEALTHZ.ip()), str::parse).map_err(|_| Error::Invalid {
            field: "healthzBindAddress",
            reason: "must be an IP address".to_owned(),
        })?;
        let port = self.healthz_port.unwrap_or(HEALTHZ.port());
        Ok((port > 0).then(|| SocketAddr::new(ip, port)))
    }

    /// Requests to the API a second and at once; without either field there is no limit here.
    pub(super) fn requests(&self) -> Option<(u32, u32)> {
        let (qps, burst) = (self.kube_api_qps.filter(|qps| *qps > 0), self.kube_api_burst.filter(|n| *n > 0));
        (qps.is_some() || burst.is_some()).then(|| (qps.unwrap_or(50), burst.unwrap_or(100)))
    }

    /// The manifest that is to be fetched.
    pub(super) fn manifest_url(&self) -> Option<ManifestUrl> {
        let all = self.static_pod_url_header.iter();
        let headers = all.flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())));
        (!self.static_pod_url.is_empty()).then(|| ManifestUrl {
            url: self.static_pod_url.clone(),
            headers: headers.collect(),
            period: self.http_check_frequency.or(Duration::from_secs(20)),
        })
    }

    /// What is asked of the machine.
    pub(super) fn host(&self) -> Host {
        let usual = Host::default();
        Host {
            max_open_files: self.max_open_files.unwrap_or(usual.max_open_files),
            oom_score: self.oom_score_adj.unwrap_or(usual.oom_score),
            refuse_swap: self.fail_swap_on == Some(true),
            refuse_cgroup_v1: self.fail_cgroup_v1 == Some(true),
            protect_kernel: self.protect_kernel_defaults,
            tune_kernel: usual.tune_kernel,
            reserved_cpus: self.reserved_system_cpus.clone(),
        }
    }

    /// How long pods have when the machine shuts down.
    pub(super) fn shutdown(&self) -> Shutdown {
        Shutdown {
            whole: self.shutdown_grace_period.0,
            critical: self.shutdown_grace_period_critical_pods.0,
            by_priority: self.shutdown_grace_period_by_pod_priority.clone(),
        }
    }

    /// What of the reservations is enforced.
    pub(super) fn enforcement(&self) -> Enforcement {
        let (kube, system) = (self.kube_reserved_cgroup.clone(), self.system_reserved_cgroup.clone());
        match &self.enforce_node_allocatable {
            Some(wanted) => Enforcement { wanted: wanted.clone(), kube, system },
            None => Enforcement { kube, system, ..Enforcement::default() },
        }
    }

    /// Adds what the file says of soft thresholds, each of which needs a grace period.
    pub(super) fn soft_eviction(&self, policy: Policy) -> Result<Policy, Error> {
        let invalid = |field| move |reason| Error::Invalid { field, reason };
        let soft = Thresholds::parse(&self.eviction_soft).map_err(invalid("evictionSoft"))?;
        let mut soft_grace = BTreeMap::new();
        for (name, text) in &self.eviction_soft_grace_period {
            let field = "evictionSoftGracePeriod";
            if is_container_filesystem(name) {
                continue;
            }
            let signal = Signal::named(name).map_err(invalid(field))?;
            let span = go_duration(text).ok_or_else(|| format!("invalid eviction grace period: {text}"));
            soft_grace.insert(signal, span.map_err(invalid(field))?);
        }
        if let Some((signal, _)) = soft.all().find(|(signal, _)| !soft_grace.contains_key(signal)) {
            let reason = format!("grace period must be specified for the soft eviction threshold {signal:?}");
            return Err(Error::Invalid { field: "evictionSoft", reason });
        }
        let reclaim = Thresholds::parse(&self.eviction_minimum_reclaim);
        let minimum_reclaim = reclaim.map_err(invalid("evictionMinimumReclaim"))?;
        Ok(Policy { soft, soft_grace, minimum_reclaim, ..policy })
    }
}

/// The directory of pods' logs, whose names collectors read.
fn check_logs_dir(path: &Path) -> Result<(), Error> {
    let text = path.to_string_lossy();
    let quoted = go_quote(&text);
    // Rust's own parts leave out what is empty or a dot.
    let mut parts = text.strip_prefix('/').unwrap_or(&text).split('/');
    let words = if !path.is_absolute() {
        "must be absolute path"
    } else if text != "/" && parts.any(|part| matches!(part, "" | "." | "..")) {
        "must be normalized"
    } else if !text.is_ascii() {
        "mut contains ASCII characters only"
    } else {
        return Ok(());
    };
    Err(Error::Bounds(format!("pod logs path {quoted} {words}")))
}

/// Upstream's fields this kubelet does not act on; anything else is unknown.
const UNSUPPORTED: &[&str] = &[
    "configMapAndSecretChangeDetectionStrategy",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "hairpinMode",
    "imagePullCredentialsVerificationPolicy",
    "kernelMemcgNotification",
    "logging",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "preloadedImagesVerificationAllowlist",
    "qosReserved",
    "reservedMemory",
    "showHiddenMetricsForVersion",
    "tlsCurvePreferences",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "volumePluginDir",
];

/// Values of theirs that ask for what is done here anyway.
const INERT: &[(&str, &str)] = &[
    ("configMapAndSecretChangeDetectionStrategy", "Watch"),
    ("cpuManagerPolicy", "none"),
    ("memoryManagerPolicy", "None"),
    ("memoryReservationPolicy", "None"),
    ("topologyManagerPolicy", "none"),
    ("topologyManagerScope", "container"),
];

fn known_only<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    let rest = BTreeMap::<String, Value>::deserialize(deserializer)?;
    match rest.keys().find(|key| !UNSUPPORTED.contains(&key.as_str())) {
        None => Ok(rest),
        Some(key) => Err(serde::de::Error::custom(format!("strict decoding error: unknown field {key:?}"))),
    }
}
