//! What the port is told: `authentication` and `authorization` of a `KubeletConfiguration`, with upstream's defaults.

use super::flags;
use crate::config::check::GATES;
use crate::config::tls;
use crate::eviction::candidate::bytes;
use machinery::gates;
use pki::handshake::Agreed;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the HTTPS port is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name, which reviews are about.
    pub node_name: String,
    /// IP and port, 10250 by default.
    pub address: SocketAddr,
    /// Certificate, key and client authorities.
    pub files: super::tls::Files,
    /// Versions and suites of TLS.
    pub agreed: Agreed,
    /// Which callers are known, and how.
    pub authentication: Authentication,
    /// What they may do.
    pub authorization: Authorization,
    /// The whole configuration, as `/configz` shows it.
    pub shown: Value,
    /// What upstream takes by flags, as `/flagz` shows it.
    pub flags: BTreeMap<String, String>,
    /// `enableDebuggingHandlers`: exec, attach, port-forward, run and container logs.
    pub debugging: bool,
    /// The directory of the machine's logs, where `/logs/` shows it (`enableSystemLogHandler`).
    pub system_logs: Option<PathBuf>,
    /// `/logs/?query=` is answered (`enableSystemLogQuery`).
    pub log_query: bool,
    /// `/checkpoint` is there (the feature `ContainerCheckpoint`).
    pub checkpoints: bool,
    /// Which features are on, as metrics.
    pub gates: String,
}

impl Config {
    /// The port's part of the kubelet's configuration.
    pub fn of(kubelet: &crate::Config) -> Result<Self, Error> {
        let missing = |section| Error { section, reason: "must be set".to_owned() };
        let (authentication, client_ca) = Authentication::parse(&kubelet.authentication)?;
        let shown = shown(kubelet);
        Ok(Self {
            node_name: kubelet.node_name.clone(),
            address: SocketAddr::new(kubelet.address, kubelet.port),
            files: super::tls::Files {
                certificate: kubelet.tls_cert_file.clone().ok_or_else(|| missing("tlsCertFile"))?,
                key: kubelet.tls_private_key_file.clone().ok_or_else(|| missing("tlsPrivateKeyFile"))?,
                client_ca,
            },
            agreed: tls::agreed(kubelet.tls_min_version.as_deref(), &kubelet.tls_cipher_suites)
                .map_err(|reason| Error { section: "tlsCipherSuites", reason })?,
            authentication,
            authorization: Authorization::parse(&kubelet.authorization)?,
            flags: flags::of(kubelet, &shown),
            shown,
            debugging: kubelet.debugging,
            system_logs: kubelet.system_logs.then(|| "/var/log".into()),
            log_query: kubelet.system_log_query,
            checkpoints: kubelet.enabled("ContainerCheckpoint"),
            gates: gates::metrics_where(|gate| match GATES.contains(&gate.name) {
                true => kubelet.enabled(gate.name),
                false => gate.default,
            }),
        })
    }
}

/// The configuration in force, as far as this kubelet acts on it, under its names in a `KubeletConfiguration`.
fn shown(kubelet: &crate::Config) -> Value {
    use crate::config::{CgroupDriver, PullParallelism};
    let seconds = |span: Duration| format!("{}s", span.as_secs_f64());
    let (serial, parallel) = match kubelet.pulls {
        PullParallelism::Serial => (true, None),
        PullParallelism::Parallel(most) => (false, most),
    };
    let fields = [
        ("kind", json!("KubeletConfiguration")),
        ("apiVersion", json!(crate::config::API_VERSION)),
        ("address", json!(kubelet.address)),
        ("allowedUnsafeSysctls", json!(kubelet.allowed_unsafe_sysctls)),
        ("authentication", json!(kubelet.authentication)),
        ("authorization", json!(kubelet.authorization)),
        (
            "cgroupDriver",
            json!(match kubelet.cgroup_driver {
                CgroupDriver::Cgroupfs => "cgroupfs",
                CgroupDriver::Systemd => "systemd",
            }),
        ),
        ("cgroupRoot", json!(kubelet.cgroup_root)),
        ("cgroupsPerQOS", json!(kubelet.cgroups_per_qos)),
        ("clusterDNS", json!(kubelet.cluster_dns)),
        ("clusterDomain", json!(kubelet.cluster_domain)),
        ("containerLogMaxFiles", json!(kubelet.container_log_max_files)),
        (
            "containerLogMaxSize",
            json!(kubelet.container_log_max_bytes.map_or_else(|| "-1".to_owned(), bytes)),
        ),
        ("containerLogMonitorInterval", json!(seconds(kubelet.container_log_monitor_interval))),
        ("containerRuntimeEndpoint", json!(kubelet.container_runtime_endpoint)),
        ("cpuCFSQuota", json!(kubelet.cpu_cfs_quota)),
        ("cpuCFSQuotaPeriod", json!(seconds(kubelet.cpu_cfs_quota_period))),
        (
            "crashLoopBackOff",
            json!({"maxContainerRestartPeriod": seconds(kubelet.max_container_restart_period)}),
        ),
        ("enableDebuggingHandlers", json!(kubelet.debugging)),
        ("enableSystemLogHandler", json!(kubelet.system_logs)),
        ("enableSystemLogQuery", json!(kubelet.system_log_query)),
        ("eventBurst", json!(kubelet.event_burst)),
        ("eventRecordQPS", json!(kubelet.event_record_qps)),
        ("evictionMaxPodGracePeriod", json!(kubelet.eviction.longest_grace)),
        ("evictionPressureTransitionPeriod", json!(seconds(kubelet.eviction.transition))),
        ("imageGCHighThresholdPercent", json!(kubelet.image_gc_high_percent)),
        ("imageGCLowThresholdPercent", json!(kubelet.image_gc_low_percent)),
        ("imageMaximumGCAge", json!(seconds(kubelet.image_maximum_gc_age))),
        ("imageMinimumGCAge", json!(seconds(kubelet.image_minimum_gc_age))),
        ("kubeReserved", json!(kubelet.kube_reserved)),
        ("kubeletCgroups", json!(kubelet.kubelet_cgroup)),
        ("maxParallelImagePulls", json!(parallel)),
        ("maxPods", json!(kubelet.max_pods)),
        ("memorySwap", json!({"swapBehavior": if kubelet.limited_swap { "LimitedSwap" } else { "NoSwap" }})),
        ("nodeLeaseDurationSeconds", json!(kubelet.node_lease_duration_seconds)),
        ("nodeStatusReportFrequency", json!(seconds(kubelet.node_status_report_frequency))),
        ("nodeStatusUpdateFrequency", json!(seconds(kubelet.node_status_update_frequency))),
        ("podLogsDir", json!(kubelet.pod_logs_dir)),
        ("podPidsLimit", json!(kubelet.pod_pids_limit.unwrap_or(-1))),
        ("port", json!(kubelet.port)),
        ("providerID", json!(kubelet.provider_id)),
        ("registerNode", json!(kubelet.register_node)),
        ("registerWithTaints", json!(kubelet.register_with_taints)),
        ("registryBurst", json!(kubelet.registry_burst)),
        ("registryPullQPS", json!(kubelet.registry_pull_qps)),
        ("resolvConf", json!(kubelet.resolv_conf)),
        ("runtimeRequestTimeout", json!(seconds(kubelet.runtime_request_timeout))),
        ("seccompDefault", json!(kubelet.seccomp_default)),
        ("serializeImagePulls", json!(serial)),
        ("shutdownGracePeriodByPodPriority", json!(kubelet.shutdown)),
        ("staticPodPath", json!(kubelet.static_pod_path)),
        ("syncFrequency", json!(seconds(kubelet.sync_frequency))),
        ("systemCgroups", json!(kubelet.system_cgroup)),
        ("systemReserved", json!(kubelet.system_reserved)),
        ("containerLogMaxWorkers", json!(kubelet.container_log_workers)),
        ("enableServer", json!(kubelet.serve)),
        ("enforceNodeAllocatable", json!(kubelet.enforcement.wanted())),
        ("failCgroupV1", json!(kubelet.host.refuse_cgroup_v1)),
        ("failSwapOn", json!(kubelet.host.refuse_swap)),
        ("featureGates", json!(kubelet.feature_gates)),
        ("fileCheckFrequency", json!(seconds(kubelet.file_check_frequency))),
        ("healthzBindAddress", json!(kubelet.healthz.map(|address| address.ip()))),
        ("healthzPort", json!(kubelet.healthz.map_or(0, |address| address.port()))),
        ("imageServiceEndpoint", json!(kubelet.image_service_endpoint)),
        ("localStorageCapacityIsolation", json!(kubelet.local_storage)),
        ("maxOpenFiles", json!(kubelet.host.max_open_files)),
        ("nodeStatusMaxImages", json!(kubelet.node_status_max_images)),
        ("oomScoreAdj", json!(kubelet.host.oom_score)),
        ("podCIDR", json!(kubelet.pod_cidr)),
        ("podsPerCore", json!(kubelet.pods_per_core)),
        ("protectKernelDefaults", json!(kubelet.host.protect_kernel)),
        ("readOnlyPort", json!(kubelet.read_only.unwrap_or(0))),
        ("reservedSystemCPUs", json!(kubelet.host.reserved_cpus)),
        ("rotateCertificates", json!(kubelet.rotate_client)),
        ("serverTLSBootstrap", json!(kubelet.rotate_serving)),
        ("tlsCipherSuites", json!(kubelet.tls_cipher_suites)),
        ("tlsMinVersion", json!(kubelet.tls_min_version)),
        (
            "volumeStatsAggPeriod",
            json!(kubelet.volume_stats_period.map_or_else(|| "-1s".to_owned(), seconds)),
        ),
        ("tlsCertFile", json!(kubelet.tls_cert_file)),
        ("tlsPrivateKeyFile", json!(kubelet.tls_private_key_file)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How callers are recognised, beside client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Callers without credentials are `system:anonymous` instead of refused.
    pub anonymous: bool,
    /// Bearer tokens are shown to the API server.
    pub tokens: bool,
    /// How long its answers are kept.
    pub cache: Duration,
}

/// How permissions are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody known may do everything.
    AlwaysAllow,
    /// The API server decides; its answers are kept so long.
    Webhook {
        /// How long an allowed review is cached.
        allowed: Duration,
        /// How long a denied review is cached.
        denied: Duration,
    },
}

/// The section cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("kubelet configuration {section}: {reason}")]
pub struct Error {
    section: &'static str,
    reason: String,
}

impl Default for Authentication {
    fn default() -> Self {
        Self { anonymous: false, tokens: true, cache: Duration::from_secs(120) }
    }
}

impl Default for Authorization {
    fn default() -> Self {
        Self::Webhook { allowed: Duration::from_secs(300), denied: Duration::from_secs(30) }
    }
}

impl Authentication {
    /// Reads the section; the second is `x509.clientCAFile`.
    pub fn parse(section: &Value) -> Result<(Self, Option<PathBuf>), Error> {
        let file: AuthenticationFile = read("authentication", section)?;
        let default = Self::default();
        let ca = file.x509.client_ca_file.filter(|path| !path.as_os_str().is_empty());
        let parsed = Self {
            anonymous: file.anonymous.enabled.unwrap_or(default.anonymous),
            tokens: file.webhook.enabled.unwrap_or(default.tokens),
            cache: span("authentication", file.webhook.cache_ttl.as_deref(), default.cache)?,
        };
        Ok((parsed, ca))
    }
}

impl Authorization {
    /// Reads the section `authorization` of a KubeletConfiguration.
    pub fn parse(section: &Value) -> Result<Self, Error> {
        let file: AuthorizationFile = read("authorization", section)?;
        match file.mode.as_deref().unwrap_or("Webhook") {
            "AlwaysAllow" => Ok(Self::AlwaysAllow),
            "Webhook" | "" => Ok(Self::Webhook {
                allowed: span(
                    "authorization",
                    file.webhook.cache_authorized_ttl.as_deref(),
                    Duration::from_secs(300),
                )?,
                denied: span(
                    "authorization",
                    file.webhook.cache_unauthorized_ttl.as_deref(),
                    Duration::from_secs(30),
                )?,
            }),
            other => {
                Err(Error { section: "authorization", reason: format!("unknown authorization mode {other}") })
            }
        }
    }
}

fn read<T: Default + for<'de> Deserialize<'de>>(section: &'static str, value: &Value) -> Result<T, Error> {
    if value.is_null() {
        return Ok(T::default());
    }
    T::deserialize(value).map_err(|error| Error { section, reason: error.to_string() })
}

/// A Go duration of whole units (`2m0s`); zero and absent are the default.
fn span(section: &'static str, text: Option<&str>, default: Duration) -> Result<Duration, Error> {
    let Some(text) = text.filter(|t| !t.is_empty() && *t != "0") else { return Ok(default) };
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let parsed = parsed.ok().and_then(|span| Duration::try_from(span).ok());
    let parsed =
        parsed.ok_or_else(|| Error { section, reason: format!("time: invalid duration {text:?}") })?;
    Ok(if parsed.is_zero() { default } else { parsed })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct AuthenticationFile {
    x509: X509File,
    webhook: TokenFile,
    anonymous: AnonymousFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct X509File {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokenFile {
    enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    cache_ttl: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AnonymousFile {
    enabled: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthorizationFile {
    mode: Option<String>,
    webhook: ReviewFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReviewFile {
    #[serde(rename = "cacheAuthorizedTTL")]
    cache_authorized_ttl: Option<String>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    cache_unauthorized_ttl: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_upstreams() {
        assert_eq!(Authentication::parse(&Value::Null).unwrap(), (Authentication::default(), None));
        assert_eq!(Authorization::parse(&json!({})).unwrap(), Authorization::default());
    }

    #[test]
    fn sections_are_read_and_nonsense_is_refused() {
        let section = json!({"x509": {"clientCAFile": "/ca"}, "webhook": {"enabled": false, "cacheTTL": "1m30s"}, "anonymous": {"enabled": true}});
        let (read, ca) = Authentication::parse(&section).unwrap();
        assert_eq!(read, Authentication { anonymous: true, tokens: false, cache: Duration::from_secs(90) });
        assert_eq!(ca, Some("/ca".into()));
        assert_eq!(
            Authorization::parse(&json!({"mode": "AlwaysAllow"})).unwrap(),
            Authorization::AlwaysAllow
        );
        for bad in
            [json!({"mode": "Maybe"}), json!({"webhook": {"cacheAuthorizedTTL": "soon"}}), json!({"x": 1})]
        {
            assert!(Authorization::parse(&bad).is_err(), "{bad}");
        }
    }
}
