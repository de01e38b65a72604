//! Events as lines of a file, or of the standard output. Upstream: `apiserver/plugin/pkg/audit/log`.
//!
//! Files are written to on threads that may block, so that a disk that hangs holds up the requests that wait for it and nothing else.

use super::backend::Backend;
use super::counters::Counters;
use super::delivery::Delivery;
use super::event::Event;
use super::file::{LogFile, Rotation, tidy};
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Work};

const PLUGIN: &str = "log";

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As JSON.
    Json,
    /// As text.
    Legacy,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The standard output.
    Stdout,
    /// A file.
    File(PathBuf, Rotation),
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Where lines go.
    pub output: Output,
    /// How an event is written.
    pub format: Format,
    /// Whether requests wait for it.
    pub delivery: Delivery,
}

impl Log {
    /// Makes the file, where it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn ensure(&self) -> io::Result<()> {
        match &self.output {
            Output::Stdout => Ok(()),
            Output::File(path, rotation) => LogFile::create(path, *rotation).map(drop),
        }
    }

    pub(super) fn open(
        self,
        supervisor: &Supervisor,
        counters: &Arc<Counters>,
    ) -> io::Result<Box<dyn Backend>> {
        let file = match &self.output {
            Output::Stdout => None,
            Output::File(path, rotation) => Some(LogFile::create(path, *rotation)?),
        };
        let lines = Lines {
            format: self.format,
            output: self.output,
            file: Arc::new(Mutex::new(file)),
            tidied: Arc::default(),
            tidying: Work::new(supervisor, "apiserver/audit-log-files"),
            counters: counters.clone(),
        };
        Ok(self.delivery.before(Box::new(lines), supervisor, counters))
    }
}

struct Lines {
    format: Format,
    output: Output,
    /// None: the standard output.
    file: Arc<Mutex<Option<LogFile>>>,
    /// Held by who tidies files that were set aside.
    tidied: Arc<Mutex<()>>,
    tidying: Work,
    counters: Arc<Counters>,
}

/// Events that were not written, and why.
type Failures = Vec<(Arc<Event>, String)>;

/// Writes every event; those that could not be, and whether files may be to be tidied.
fn write(format: Format, file: &mut Option<LogFile>, events: Vec<Arc<Event>>) -> (Failures, bool) {
    let (mut failures, mut changed) = (Vec::new(), false);
    for event in events {
        let line = match format {
            Format::Json => event.json_line().map_err(|e| e.to_string()),
            Format::Legacy => Ok(format!("{}\n", event.legacy()).into_bytes()),
        };
        let written = line.and_then(|line| {
            let written = match file {
                Some(file) => file.write(&line, Timestamp::now()),
                None => io::stdout().lock().write_all(&line).map(|()| false),
            };
            written.map_err(|e| e.to_string())
        });
        match written {
            Ok(others) => changed |= others,
            Err(why) => failures.push((event, why)),
        }
    }
    (failures, changed)
}

impl Lines {
    /// Removes and compresses what was set aside, meanwhile.
    fn tidy(&self) {
        let Output::File(path, rotation) = &self.output else { return };
        let (path, rotation, tidied) = (path.clone(), *rotation, self.tidied.clone());
        self.tidying.spawn(async move {
            let name = path.clone();
            let done = tokio::task::spawn_blocking(move || {
                // One at a time: they would find the same files.
                let _one = tidied.lock();
                tidy(&path, rotation, Timestamp::now())
            });
            if let Ok(Err(error)) = done.await {
                tracing::warn!(%error, path = %name.display(), "old audit logs are not removed or compressed");
            }
        });
    }
}

impl Backend for Lines {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool> {
        let (format, file) = (self.format, self.file.clone());
        Box::pin(async move {
            let all = events.clone();
            let written = tokio::task::spawn_blocking(move || write(format, &mut file.lock(), events)).await;
            let (failures, changed) = match written {
                Ok(written) => written,
                Err(e) => {
                    self.counters.lost(PLUGIN, &e.to_string(), &all);
                    return false;
                }
            };
            if changed {
                self.tidy();
            }
            for (event, why) in &failures {
                self.counters.lost(PLUGIN, why, std::slice::from_ref(event));
            }
            failures.is_empty()
        })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.tidying.finish(patience).await;
        })
    }
}
