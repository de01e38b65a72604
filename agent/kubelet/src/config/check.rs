//! What a configuration may not say. Upstream: `pkg/kubelet/apis/config/validation`.

use super::{Config, Error, reserved, tls, user_namespaces};
use machinery::goformat::go_quote;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// Feature gates that this kubelet acts on.
pub(crate) const GATES: [&str; 6] = [
    "ContainerCheckpoint",
    "GracefulNodeShutdown",
    "GracefulNodeShutdownBasedOnPodPriority",
    "KubeletCrashLoopBackOffMax",
    "MemoryQoS",
    "RotateKubeletServerCertificate",
];

/// Numbers and what they must be: the field, its flag where there is one, the least, the greatest, and the words for what is outside.
const BOUNDS: &[(&str, &str, i64, i64, &str)] = &[
    ("nodeLeaseDurationSeconds", "", 0, i64::MAX, "must be greater than 0"),
    ("eventBurst", "event-burst", 0, i64::MAX, NEGATIVE),
    ("eventRecordQPS", "event-qps", 0, i64::MAX, NEGATIVE),
    ("healthzPort", "healthz-port", 0, 65535, "must be between 1 and 65535, inclusive"),
    (
        "imageGCHighThresholdPercent",
        "image-gc-high-threshold",
        0,
        100,
        "must be between 0 and 100, inclusive",
    ),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold", 0, 100, "must be between 0 and 100, inclusive"),
    ("iptablesDropBit", "iptables-drop-bit", 0, 31, "must be between 0 and 31, inclusive"),
    ("iptablesMasqueradeBit", "iptables-masquerade-bit", 0, 31, "must be between 0 and 31, inclusive"),
    ("kubeAPIBurst", "kube-api-burst", 0, i64::MAX, NEGATIVE),
    ("kubeAPIQPS", "kube-api-qps", 0, i64::MAX, NEGATIVE),
    ("nodeStatusMaxImages", "node-status-max-images", -1, i64::MAX, "must be -1 or greater"),
    ("maxOpenFiles", "max-open-files", 0, i64::MAX, NEGATIVE),
    ("maxPods", "max-pods", 0, i64::MAX, NEGATIVE),
    ("oomScoreAdj", "oom-score-adj", -1000, 1000, "must be between -1000 and 1000, inclusive"),
    ("podsPerCore", "pods-per-core", 0, i64::MAX, NEGATIVE),
    ("port", "port", 1, 65535, "must be between 1 and 65535, inclusive"),
    ("readOnlyPort", "read-only-port", 0, 65535, "must be between 0 and 65535, inclusive"),
    ("registryBurst", "registry-burst", 0, i64::MAX, NEGATIVE),
    ("registryPullQPS", "registry-qps", 0, i64::MAX, NEGATIVE),
    ("maxParallelImagePulls", "", 1, i64::MAX, "must be a positive number"),
    ("containerLogMaxWorkers", "", 1, i64::MAX, "must be greater than or equal to 1"),
];
const NEGATIVE: &str = "must not be a negative number";

/// Words of which one is to be said, of fields that are not acted on all the same: field, flag, words.
const CHOICES: &[(&str, &str, &[&str])] = &[
    ("hairpinMode", "hairpin-mode", &["none", "hairpin-veth", "promiscuous-bridge"]),
    (
        "imagePullCredentialsVerificationPolicy",
        "",
        &["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"],
    ),
    ("memoryReservationPolicy", "", &["None", "TieredReservation"]),
    (
        "topologyManagerPolicy",
        "topology-manager-policy",
        &["none", "best-effort", "restricted", "single-numa-node"],
    ),
    ("topologyManagerScope", "topology-manager-scope", &["container", "pod"]),
];

/// Judges such words.
fn choices(document: &Value) -> Result<(), Error> {
    for (field, flag, words) in CHOICES {
        let Some(said) = document[*field].as_str().filter(|said| !said.is_empty()) else { continue };
        if words.contains(&said) {
            continue;
        }
        let flag = if flag.is_empty() { String::new() } else { format!(" (--{flag})") };
        let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
        let (said, last) = (go_quote(said), quoted.last().map_or("", String::as_str));
        let others = quoted[..quoted.len() - 1].join(", ");
        return Err(Error::Bounds(match *field {
            "topologyManagerPolicy" => {
                format!("{field}{flag} {said} must be one of: [{}]", quoted.join(" "))
            }
            "topologyManagerScope" => format!("{field}{flag} {said} must be one of: {others}, or {last}"),
            _ => format!("option {said} specified for {field}{flag}. Valid options are {others} or {last}"),
        }));
    }
    Ok(())
}

/// Judges the numbers of a document, before they are read into types they may not fit.
pub(super) fn bounds(document: &Value) -> Result<(), Error> {
    choices(document)?;
    for (field, flag, least, greatest, words) in BOUNDS {
        let Some(value) = document[*field].as_i64() else { continue };
        if !(*least..=*greatest).contains(&value) {
            let flag = if flag.is_empty() { String::new() } else { format!(" (--{flag})") };
            return Err(Error::Bounds(format!("{field}{flag} {value} {words}")));
        }
    }
    if document["runOnce"] == true {
        let words = "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set";
        return Err(Error::Bounds(words.to_owned()));
    }
    if document["serializeImagePulls"] == true && document["maxParallelImagePulls"].as_i64() > Some(1) {
        let words = "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false";
        return Err(Error::Bounds(words.to_owned()));
    }
    Ok(())
}

impl Config {
    /// Whether a feature is on.
    pub(crate) fn enabled(&self, gate: &str) -> bool {
        machinery::gates::enabled(gate, &self.feature_gates)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let invalid = |field, reason: &str| Err(Error::Invalid { field, reason: reason.to_owned() });
        if self.cluster_dns.iter().any(|server| server.parse::<IpAddr>().is_err()) {
            return invalid("clusterDNS", "every entry must be an IP address");
        }
        if self.max_pods == 0 {
            return invalid("maxPods", "must be greater than 0");
        }
        let (first, last) = (Duration::from_secs(1), Duration::from_secs(300));
        if !(first..=last).contains(&self.max_container_restart_period) {
            return invalid("crashLoopBackOff.maxContainerRestartPeriod", "must be between 1s and 300s");
        }
        let (low, high) = (self.image_gc_low_percent, self.image_gc_high_percent);
        if low >= high {
            return Err(Error::Bounds(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than \
                 imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            )));
        }
        let period = self.cpu_cfs_quota_period;
        if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period) {
            let told = machinery::duration::format(i64::try_from(period.as_nanos()).unwrap_or(i64::MAX));
            return Err(Error::Bounds(format!(
                "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {told} must be between 1ms and 1sec, inclusive"
            )));
        }
        if self.ids_per_pod == 0 || !self.ids_per_pod.is_multiple_of(user_namespaces::UNIT) {
            return invalid("userNamespaces.idsPerPod", "must be a multiple of 65536");
        }
        if self.container_log_max_files < 2 {
            return invalid("containerLogMaxFiles", "must be greater than 1");
        }
        if !self.cgroups_per_qos && !matches!(self.cgroup_root.as_str(), "" | "/") {
            return invalid("cgroupRoot", "needs cgroupsPerQOS");
        }
        if self.cgroup_root.split('/').any(|part| part == "..") {
            return invalid("cgroupRoot", "must not contain '..'");
        }
        let gates = self.feature_gates.iter().map(|(name, on)| (name.as_str(), *on));
        machinery::gates::check(gates, &GATES).map_err(Error::Bounds)?;
        if self.container_log_monitor_interval < Duration::from_secs(3) {
            return Err(Error::Bounds(
                "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
                    .to_owned(),
            ));
        }
        let oldest = self.image_maximum_gc_age;
        if !oldest.is_zero() && oldest <= self.image_minimum_gc_age {
            return Err(Error::Bounds(format!(
                "imageMaximumGCAge {oldest:?} must be greater than imageMinimumGCAge {:?}",
                self.image_minimum_gc_age
            )));
        }
        if self.system_log_query && !self.system_logs {
            return Err(Error::Bounds(
                "enableSystemLogHandler is required for enableSystemLogQuery".to_owned(),
            ));
        }
        tls::agreed(self.tls_min_version.as_deref(), &self.tls_cipher_suites).map_err(Error::Bounds)?;
        reserved::check(self)
    }
}
