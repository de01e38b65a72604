//! Flags of `server` that are upstream's of kube-apiserver.

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::str::FromStr;

/// A value as upstream's table reads it. A configuration file may write it as a number or boolean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Text(String);

impl FromStr for Text {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            value @ (Value::Bool(_) | Value::Number(_)) => Ok(Self(value.to_string())),
            _ => Err(serde::de::Error::custom("a text, a number or a boolean is expected")),
        }
    }
}

/// Upstream's flags of the API server.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct ApiServerFlags {
    /// An AdmissionConfiguration: how admission plugins behave
    #[arg(long, env = "WINDLASS_ADMISSION_CONTROL_CONFIG_FILE", value_name = "FILE")]
    pub(crate) admission_control_config_file: Option<Text>,
    /// An audit Policy: which requests are audited, and how much of each
    #[arg(long, env = "WINDLASS_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub(crate) audit_policy_file: Option<Text>,
    /// File of the audit log; - for the standard output
    #[arg(long, env = "WINDLASS_AUDIT_LOG_PATH", value_name = "FILE")]
    pub(crate) audit_log_path: Option<Text>,
    /// Form of the audit log's lines: json or legacy [default: json]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) audit_log_format: Option<Text>,
    /// Version of the events in the audit log [default: audit.k8s.io/v1]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_VERSION", value_name = "VERSION")]
    pub(crate) audit_log_version: Option<Text>,
    /// Days after which old audit logs are removed; 0 for never [default: 366]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_MAXAGE", value_name = "DAYS")]
    pub(crate) audit_log_maxage: Option<Text>,
    /// Old audit logs that are kept; 0 for all [default: 100]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_MAXBACKUP", value_name = "N")]
    pub(crate) audit_log_maxbackup: Option<Text>,
    /// Megabytes after which another audit log is begun; 0 for never [default: 100]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_MAXSIZE", value_name = "MB")]
    pub(crate) audit_log_maxsize: Option<Text>,
    /// Compress old audit logs
    #[arg(
        long,
        env = "WINDLASS_AUDIT_LOG_COMPRESS",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) audit_log_compress: Option<Text>,
    /// Whether requests wait for the audit log: batch, blocking or blocking-strict [default: blocking]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_MODE", value_name = "MODE")]
    pub(crate) audit_log_mode: Option<Text>,
    /// Events that wait for the audit log at most, in batch mode [default: 10000]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_BATCH_BUFFER_SIZE", value_name = "N")]
    pub(crate) audit_log_batch_buffer_size: Option<Text>,
    /// Events written to the audit log at once, in batch mode [default: 1]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_BATCH_MAX_SIZE", value_name = "N")]
    pub(crate) audit_log_batch_max_size: Option<Text>,
    /// How long events wait for others, in batch mode
    #[arg(long, env = "WINDLASS_AUDIT_LOG_BATCH_MAX_WAIT", value_name = "DURATION")]
    pub(crate) audit_log_batch_max_wait: Option<Text>,
    /// Bound how often batches are written
    #[arg(
        long,
        env = "WINDLASS_AUDIT_LOG_BATCH_THROTTLE_ENABLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) audit_log_batch_throttle_enable: Option<Text>,
    /// Batches a second
    #[arg(long, env = "WINDLASS_AUDIT_LOG_BATCH_THROTTLE_QPS", value_name = "QPS")]
    pub(crate) audit_log_batch_throttle_qps: Option<Text>,
    /// Batches at once after a pause
    #[arg(long, env = "WINDLASS_AUDIT_LOG_BATCH_THROTTLE_BURST", value_name = "N")]
    pub(crate) audit_log_batch_throttle_burst: Option<Text>,
    /// Cut large events of the audit log
    #[arg(
        long,
        env = "WINDLASS_AUDIT_LOG_TRUNCATE_ENABLED",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) audit_log_truncate_enabled: Option<Text>,
    /// Bytes of a batch at most [default: 10485760]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_TRUNCATE_MAX_BATCH_SIZE", value_name = "BYTES")]
    pub(crate) audit_log_truncate_max_batch_size: Option<Text>,
    /// Bytes of an event at most [default: 102400]
    #[arg(long, env = "WINDLASS_AUDIT_LOG_TRUNCATE_MAX_EVENT_SIZE", value_name = "BYTES")]
    pub(crate) audit_log_truncate_max_event_size: Option<Text>,
    /// Kubeconfig of the service that audit events are posted to
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub(crate) audit_webhook_config_file: Option<Text>,
    /// Version of the events that are posted [default: audit.k8s.io/v1]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_VERSION", value_name = "VERSION")]
    pub(crate) audit_webhook_version: Option<Text>,
    /// Pause before a list of events is posted again [default: 10s]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_INITIAL_BACKOFF", value_name = "DURATION")]
    pub(crate) audit_webhook_initial_backoff: Option<Text>,
    /// Whether requests wait for the service: batch, blocking or blocking-strict [default: batch]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_MODE", value_name = "MODE")]
    pub(crate) audit_webhook_mode: Option<Text>,
    /// Events that wait for the service at most, in batch mode [default: 10000]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", value_name = "N")]
    pub(crate) audit_webhook_batch_buffer_size: Option<Text>,
    /// Events posted at once, in batch mode [default: 400]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_BATCH_MAX_SIZE", value_name = "N")]
    pub(crate) audit_webhook_batch_max_size: Option<Text>,
    /// How long events wait for others, in batch mode [default: 30s]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_BATCH_MAX_WAIT", value_name = "DURATION")]
    pub(crate) audit_webhook_batch_max_wait: Option<Text>,
    /// Bound how often batches are posted [default: true]
    #[arg(
        long,
        env = "WINDLASS_AUDIT_WEBHOOK_BATCH_THROTTLE_ENABLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) audit_webhook_batch_throttle_enable: Option<Text>,
    /// Batches a second [default: 10]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS", value_name = "QPS")]
    pub(crate) audit_webhook_batch_throttle_qps: Option<Text>,
    /// Batches at once after a pause [default: 15]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", value_name = "N")]
    pub(crate) audit_webhook_batch_throttle_burst: Option<Text>,
    /// Cut large events that are posted
    #[arg(
        long,
        env = "WINDLASS_AUDIT_WEBHOOK_TRUNCATE_ENABLED",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) audit_webhook_truncate_enabled: Option<Text>,
    /// Bytes of a batch at most [default: 10485760]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_TRUNCATE_MAX_BATCH_SIZE", value_name = "BYTES")]
    pub(crate) audit_webhook_truncate_max_batch_size: Option<Text>,
    /// Bytes of an event at most [default: 102400]
    #[arg(long, env = "WINDLASS_AUDIT_WEBHOOK_TRUNCATE_MAX_EVENT_SIZE", value_name = "BYTES")]
    pub(crate) audit_webhook_truncate_max_event_size: Option<Text>,
}
