//! Log lines go to standard error: coloured for a terminal, plain for a file, JSON when asked.

use crate::cli::{LogFormat, Logging};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Without a level: the long-running commands inform, and everybody's libraries only warn.
const DEFAULT: &str =
    "info,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,h2=warn,kube_client=warn,kube_runtime=warn";

/// Starts logging. An unreadable filter is told and the default taken.
pub(crate) fn start(options: &Logging) {
    let asked = options.log_level.as_deref().filter(|text| !text.is_empty());
    let filter = match asked.map(EnvFilter::try_new) {
        None => EnvFilter::new(DEFAULT),
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            eprintln!("warning: log level {asked:?}: {error}");
            EnvFilter::new(DEFAULT)
        }
    };
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => base.json().init(),
    }
}
