//! Log lines go to standard error: coloured for a terminal, plain for a file, JSON when asked.

use crate::cli::{LogFormat, Logging};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Without a level: the long-running commands inform, and everybody's libraries only warn.
const DEFAULT: &str =
    "info,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,h2=warn,kube_client=warn,kube_runtime=warn";
/// Added to whatever is asked for: the client library warns with the whole body of an answer that it cannot read, secrets included.
const ALWAYS: &str = "kube_client::client=error";

fn filter(asked: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("{asked},{ALWAYS}"))
}

/// Starts logging. An unreadable filter is reported and the default used.
pub(crate) fn start(options: &Logging) {
    let asked = options.log_level.as_deref().filter(|text| !text.is_empty());
    let filter = filter(asked.unwrap_or(DEFAULT)).or_else(|error| {
        eprintln!("warning: log level {asked:?}: {error}");
        filter(DEFAULT)
    });
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(ALWAYS));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => base.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn what_an_answer_held_must_not_reach_a_log() {
        for asked in [DEFAULT, "debug", "trace", "info,kubelet=debug", "kube_client=debug"] {
            let subscriber = tracing_subscriber::registry().with(filter(asked).unwrap());
            let (bodies, failures) = tracing::subscriber::with_default(subscriber, || {
                (
                    tracing::enabled!(target: "kube_client::client", Level::WARN),
                    tracing::enabled!(target: "kube_client::client::builder", Level::ERROR),
                )
            });
            assert!(!bodies && failures, "{asked}");
        }
    }
}
