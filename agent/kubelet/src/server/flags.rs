//! The configuration as flags, as `/flagz` shows it. Upstream: `cmd/kubelet/app/options` for the names, `spf13/pflag` and
//! `component-base/cli/flag` for how values are written.

use crate::config::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// Flags and the fields of a `KubeletConfiguration` they are, by JSON pointer.
const FLAGS: [(&str, &str); 68] = [
    ("address", "/address"),
    ("allowed-unsafe-sysctls", "/allowedUnsafeSysctls"),
    ("anonymous-auth", "/authentication/anonymous/enabled"),
    ("authentication-token-webhook", "/authentication/webhook/enabled"),
    ("authentication-token-webhook-cache-ttl", "/authentication/webhook/cacheTTL"),
    ("authorization-mode", "/authorization/mode"),
    ("cgroup-driver", "/cgroupDriver"),
    ("cgroup-root", "/cgroupRoot"),
    ("cgroups-per-qos", "/cgroupsPerQOS"),
    ("client-ca-file", "/authentication/x509/clientCAFile"),
    ("cluster-dns", "/clusterDNS"),
    ("cluster-domain", "/clusterDomain"),
    ("container-log-max-files", "/containerLogMaxFiles"),
    ("container-log-max-size", "/containerLogMaxSize"),
    ("container-runtime-endpoint", "/containerRuntimeEndpoint"),
    ("cpu-cfs-quota", "/cpuCFSQuota"),
    ("cpu-cfs-quota-period", "/cpuCFSQuotaPeriod"),
    ("enable-debugging-handlers", "/enableDebuggingHandlers"),
    ("enable-server", "/enableServer"),
    ("enforce-node-allocatable", "/enforceNodeAllocatable"),
    ("event-burst", "/eventBurst"),
    ("event-qps", "/eventRecordQPS"),
    ("eviction-max-pod-grace-period", "/evictionMaxPodGracePeriod"),
    ("eviction-pressure-transition-period", "/evictionPressureTransitionPeriod"),
    ("fail-cgroupv1", "/failCgroupV1"),
    ("fail-swap-on", "/failSwapOn"),
    ("feature-gates", "/featureGates"),
    ("file-check-frequency", "/fileCheckFrequency"),
    ("healthz-bind-address", "/healthzBindAddress"),
    ("healthz-port", "/healthzPort"),
    ("image-gc-high-threshold", "/imageGCHighThresholdPercent"),
    ("image-gc-low-threshold", "/imageGCLowThresholdPercent"),
    ("image-service-endpoint", "/imageServiceEndpoint"),
    ("kube-reserved", "/kubeReserved"),
    ("kubelet-cgroups", "/kubeletCgroups"),
    ("local-storage-capacity-isolation", "/localStorageCapacityIsolation"),
    ("max-open-files", "/maxOpenFiles"),
    ("max-pods", "/maxPods"),
    ("minimum-image-ttl-duration", "/imageMinimumGCAge"),
    ("node-status-max-images", "/nodeStatusMaxImages"),
    ("node-status-update-frequency", "/nodeStatusUpdateFrequency"),
    ("oom-score-adj", "/oomScoreAdj"),
    ("pod-cidr", "/podCIDR"),
    ("pod-manifest-path", "/staticPodPath"),
    ("pod-max-pids", "/podPidsLimit"),
    ("pods-per-core", "/podsPerCore"),
    ("port", "/port"),
    ("protect-kernel-defaults", "/protectKernelDefaults"),
    ("provider-id", "/providerID"),
    ("read-only-port", "/readOnlyPort"),
    ("register-node", "/registerNode"),
    ("registry-burst", "/registryBurst"),
    ("registry-qps", "/registryPullQPS"),
    ("reserved-cpus", "/reservedSystemCPUs"),
    ("resolv-conf", "/resolvConf"),
    ("rotate-certificates", "/rotateCertificates"),
    ("rotate-server-certificates", "/serverTLSBootstrap"),
    ("runtime-request-timeout", "/runtimeRequestTimeout"),
    ("seccomp-default", "/seccompDefault"),
    ("serialize-image-pulls", "/serializeImagePulls"),
    ("sync-frequency", "/syncFrequency"),
    ("system-cgroups", "/systemCgroups"),
    ("system-reserved", "/systemReserved"),
    ("tls-cert-file", "/tlsCertFile"),
    ("tls-cipher-suites", "/tlsCipherSuites"),
    ("tls-min-version", "/tlsMinVersion"),
    ("tls-private-key-file", "/tlsPrivateKeyFile"),
    ("volume-stats-agg-period", "/volumeStatsAggPeriod"),
];

/// Every flag that is set, those without a field of the configuration included; `shown` is the configuration in force.
pub(super) fn of(kubelet: &Config, shown: &Value) -> BTreeMap<String, String> {
    let labels = kubelet.node_labels.iter().map(|(name, value)| format!("{name}={value}"));
    let addresses = kubelet.node_ips.iter().map(ToString::to_string);
    let taints = kubelet.register_with_taints.iter().map(|taint| {
        let value = taint.value.as_deref().filter(|value| !value.is_empty());
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        format!("{}{value}:{}", taint.key, taint.effect)
    });
    let own = [
        ("hostname-override", kubelet.node_name.clone()),
        ("node-ip", addresses.collect::<Vec<_>>().join(",")),
        ("node-labels", labels.collect::<Vec<_>>().join(",")),
        ("register-with-taints", taints.collect::<Vec<_>>().join(",")),
        ("root-dir", kubelet.root_dir.display().to_string()),
    ];
    let fields = FLAGS.iter().filter_map(|(flag, field)| Some((*flag, written(shown.pointer(field)?)?)));
    own.into_iter().chain(fields).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A value as a flag writes it; `None` for one that is not set.
fn written(value: &Value) -> Option<String> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(match value {
        Value::Null => return None,
        // A span of time in whatever units.
        Value::String(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            machinery::duration::parse(text).map_or_else(|_| text.clone(), machinery::duration::format)
        }
        Value::Array(all) => format!("[{}]", all.iter().map(plain).collect::<Vec<_>>().join(",")),
        Value::Object(all) => {
            let pairs = all.iter().map(|(name, value)| format!("{name}={}", plain(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        other => plain(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_must_not_be_written_as_json() {
        let cases = [
            (json!("cgroupfs"), Some("cgroupfs")),
            (json!("90s"), Some("1m30s")),
            (json!("10.0.0.1"), Some("10.0.0.1")),
            (json!("10Mi"), Some("10Mi")),
            (json!(110), Some("110")),
            (json!(true), Some("true")),
            (json!(["10.96.0.10", "::1"]), Some("[10.96.0.10,::1]")),
            (json!([]), Some("[]")),
            (json!({"cpu": "1", "memory": "1Gi"}), Some("cpu=1,memory=1Gi")),
            (Value::Null, None),
        ];
        for (value, expected) in cases {
            assert_eq!(written(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_flag_that_is_set_must_not_be_missing() {
        let mut config = Config::new("n1", vec!["192.0.2.1".parse().unwrap()]);
        config.max_pods = 42;
        config.provider_id = Some("lab://n1".to_owned());
        let shown =
            json!({"maxPods": config.max_pods, "providerID": config.provider_id, "tlsCertFile": null});
        let flags = of(&config, &shown);
        for (name, value) in [
            ("max-pods", "42"),
            ("provider-id", "lab://n1"),
            ("hostname-override", "n1"),
            ("node-ip", "192.0.2.1"),
        ] {
            assert_eq!(flags.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!flags.contains_key("tls-cert-file"));
    }
}
