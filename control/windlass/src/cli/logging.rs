//! Flags of every command about what is logged.

use clap::{Args, ValueEnum};

/// How much is logged, and how.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// Log level or filter, such as `debug` or `info,kubelet=debug`
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// Log as lines of text or of JSON
    #[arg(long, global = true, env = "WINDLASS_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}
