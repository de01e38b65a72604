//! Log lines go to standard error: coloured for a terminal, plain for a file, with syslog's priorities for the journal, JSON when asked.

use crate::cli::{LogFormat, Logging};
use std::fmt;
use std::io::IsTerminal as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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
        LogFormat::Text if to_journal() => {
            let format = Prioritised(Format::default().without_time().with_ansi(false));
            base.with_ansi(false).event_format(format).init();
        }
        LogFormat::Text => base.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => base.json().init(),
    }
}

/// Whether standard error is the journal's own stream (systemd.exec(5), `JOURNAL_STREAM`).
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let found = nix::sys::stat::fstat(std::io::stderr());
    found.is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// What begins a line for the journal (sd-daemon(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Lines that begin with their priority; the journal has the time.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn an_error_must_not_be_a_notice_in_the_journal() {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let format = Prioritised(Format::default().without_time().with_ansi(false).with_target(false));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(format)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("broken");
            tracing::info!("fine");
        });
        let text = String::from_utf8(sink.0.lock().clone()).unwrap();
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["<3>ERROR broken", "<6> INFO fine"]);
    }

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
