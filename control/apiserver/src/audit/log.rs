//! Events as lines of a file, or of the standard output. Upstream: `apiserver/plugin/pkg/audit/log`.
//!
//! Files are written to on a thread that may block, one for all: a disk that hangs holds up the requests that wait for it and nothing else.

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
use tokio::sync::oneshot;

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
            writer: Arc::new(Writer {
                format: self.format,
                output: self.output,
                file: Arc::new(tokio::sync::Mutex::new(file)),
                tidied: Arc::default(),
                tidying: Work::new(supervisor, "apiserver/audit-log-files"),
                counters: counters.clone(),
            }),
            writing: Work::new(supervisor, "apiserver/audit-log"),
        };
        Ok(self.delivery.before(Box::new(lines), supervisor, counters))
    }
}

struct Lines {
    writer: Arc<Writer>,
    /// Writes that began: a client that hangs up must not take its event with it.
    writing: Work,
}

struct Writer {
    format: Format,
    output: Output,
    /// None: the standard output. Its holder is the one that has a thread: those that wait need none.
    file: Arc<tokio::sync::Mutex<Option<LogFile>>>,
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

/// Writes that wait at most for a log that hangs; what is beyond is lost, and counted.
const WAITING: usize = 4096;

impl Writer {
    /// Writes events in their turn; false if some were lost.
    async fn write(&self, events: Vec<Arc<Event>>) -> bool {
        let (format, all) = (self.format, events.clone());
        let mut file = self.file.clone().lock_owned().await;
        let written = tokio::task::spawn_blocking(move || write(format, &mut file, events)).await;
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
    }

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
        if self.writing.len() >= WAITING {
            self.writer.counters.lost(PLUGIN, "too many events wait for the log", &events);
            return Box::pin(std::future::ready(false));
        }
        let (done, heard) = oneshot::channel();
        let writer = self.writer.clone();
        self.writing.spawn(async move {
            // Nobody may wait any more.
            let _ = done.send(writer.write(events).await);
        });
        Box::pin(async move { heard.await.unwrap_or(false) })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !self.writing.finish(patience).await {
                tracing::warn!("audit events are not written: the log takes too long");
            }
            self.writer.tidying.finish(patience).await;
        })
    }
}

#[cfg(test)]
mod tests;
