//! The machine's shutdown: pods end in order before it goes on. Upstream: `pkg/kubelet/nodeshutdown`.
//!
//! Woken by logind, which tells of a shutdown and waits for those who hold a lock, as long as its settings let it: these are amended where pods have more
//! time. Reads the pods there are; writes their ends into [`Evictions`], which their workers carry out, and what the node says of itself into
//! [`Reported`]. Promises: from the moment a shutdown is told no pod is taken, and each that was taken before ends in its group; a group of priorities ends
//! before the next one; a group without pods is not waited for, and none longer than it was promised; the lock is let go however that went; a shutdown that
//! is called off leaves a node that takes pods again, whether or not that was heard.
//!
//! - [`order`]: who ends together (pure); [`logind`]: what it is asked; [`record`]: when the last one was

mod logind;
mod order;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use supervise::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::dbus::{self, SYSTEM_BUS};
use crate::eviction::order::{Cause, Eviction, Evictions};
use crate::meters::{Meters, SHUTDOWN_END, SHUTDOWN_START};
use crate::node::Reported;
use crate::pods::Pods;
use crate::recorder::{Kind, Recorder, Subject};
use logind::{DROP_INS, Lock, Logind};
use order::Group;
use record::Record;

/// Pauses before logind is asked again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often logind is asked, while the machine shuts down, whether it still does.
const ASKS: Duration = Duration::from_secs(5);
/// Pauses while logind reads its settings.
const RELOADS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1600));
/// How often it is asked whether it did.
const RELOAD_LOOKS: usize = 6;
/// How often pods that end are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What pods that end are told.
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Why a shutdown cannot be waited with.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Bus(#[from] dbus::Error),
    #[error("write logind's settings: {0}")]
    Settings(std::io::Error),
    #[error("logind waits for {longest:?} at most, and {wanted:?} are needed")]
    TooShort { longest: Duration, wanted: Duration },
}

/// What the task of a node's shutdown works with.
#[derive(Clone)]
pub struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) pods: Pods,
    pub(crate) evictions: Evictions,
    pub(crate) recorder: Recorder,
    pub(crate) meters: Meters,
    pub(crate) machine: Machine,
}

/// The machine whose shutdowns are waited with.
#[derive(Clone)]
pub(crate) struct Machine {
    /// Where the bus listens.
    bus: PathBuf,
    /// Where logind's settings are amended.
    drop_ins: PathBuf,
    asks: Duration,
    reloads: (Duration, Duration),
}

impl Default for Machine {
    fn default() -> Self {
        Self { bus: SYSTEM_BUS.into(), drop_ins: DROP_INS.into(), asks: ASKS, reloads: RELOADS }
    }
}

/// Waits with the machine's shutdowns, for ever; without periods for pods there is nothing to do.
pub async fn watch(parts: Parts, reported: watch::Sender<Reported>) {
    if parts.config.shutdown.is_empty() {
        return std::future::pending().await;
    }
    parts.show_last().await;
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        let began = Instant::now();
        if let Err(error) = Box::pin(parts.follow(&reported)).await {
            tracing::warn!(%error, "a shutdown of the machine cannot be waited with");
        }
        if began.elapsed() > AGAIN.1 {
            backoff.reset();
        }
        backoff.pause().await;
    }
}

impl Parts {
    /// Takes a lock, and acts on what logind tells until it fails.
    async fn follow(&self, reported: &watch::Sender<Reported>) -> Result<(), Error> {
        let mut logind = Logind::open(&self.machine.bus).await?;
        // Before it is asked, and before the lock is taken: a shutdown that begins in between is told.
        logind.listen().await?;
        // What began or was called off while nobody listened.
        let mut shuts_down = logind.is_preparing().await?;
        let mut lock = None;
        loop {
            let news = self.turn(shuts_down, reported);
            match shuts_down {
                true if news => self.end_pods(lock.take()).await,
                // It gives none while the machine shuts down.
                false if lock.is_none() => {
                    self.make_time(&mut logind).await?;
                    lock = Some(logind.inhibit().await?);
                }
                _ => {}
            }
            shuts_down = self.next(&mut logind, shuts_down).await?;
        }
    }

    /// Has the node be one that shuts down, or no longer; false where it is that already.
    fn turn(&self, shuts_down: bool, reported: &watch::Sender<Reported>) -> bool {
        if self.evictions.is_shutting_down() == shuts_down {
            return false;
        }
        let told = if shuts_down { "event" } else { "cancellation" };
        let text = format!("Shutdown manager detected shutdown {told}");
        self.recorder.record(Subject::node(&self.config.node_name), Kind::Normal, "NodeShutdown", text);
        self.evictions.set_shutting_down(shuts_down);
        reported.send_if_modified(|reported| {
            std::mem::replace(&mut reported.shutting_down, shuts_down) != shuts_down
        });
        true
    }

    /// Whether the machine shuts down: as soon as logind tells, and, while it does, as logind says when it is asked. A node must not stay as it is
    /// then for ever, because of something that was not heard.
    async fn next(&self, logind: &mut Logind, shuts_down: bool) -> Result<bool, dbus::Error> {
        if !shuts_down {
            return logind.event().await;
        }
        match tokio::time::timeout(self.machine.asks, logind.event()).await {
            Ok(told) => told,
            Err(_) => logind.is_preparing().await,
        }
    }

    /// Has logind wait for as long as pods have.
    async fn make_time(&self, logind: &mut Logind) -> Result<(), Error> {
        let wanted = order::whole(&self.config.shutdown);
        if logind.longest_delay().await? >= wanted {
            return Ok(());
        }
        let drop_ins = self.machine.drop_ins.clone();
        blocking(move || logind::allow(&drop_ins, wanted)).await.map_err(Error::Settings)?;
        logind.reload().await?;
        let mut pauses = Backoff::new(self.machine.reloads.0, self.machine.reloads.1);
        let mut longest = Duration::ZERO;
        for _ in 0..RELOAD_LOOKS {
            // It reads them some time after the signal, and tells nobody.
            pauses.pause().await;
            longest = logind.longest_delay().await?;
            if longest >= wanted {
                return Ok(());
            }
        }
        Err(Error::TooShort { longest, wanted })
    }

    /// Ends the pods group by group; the machine goes on shutting down when the lock is dropped.
    async fn end_pods(&self, lock: Option<Lock>) {
        let start = Some(Timestamp::now());
        self.remember(Record { start, end: None }).await;
        for group in order::groups(&self.config.shutdown, self.pods.active()) {
            self.end_group(&group).await;
        }
        self.remember(Record { start, end: Some(Timestamp::now()) }).await;
        drop(lock);
        tracing::info!("pods have ended: the machine may shut down");
    }

    async fn end_group(&self, group: &Group) {
        let (priority, seconds) = (group.period.priority, group.period.seconds);
        tracing::info!(priority, seconds, pods = group.pods.len(), "ending pods: the machine shuts down");
        for pod in &group.pods {
            let eviction = Eviction { message: MESSAGE.to_owned(), grace: seconds, cause: Cause::Shutdown };
            self.evictions.order(crate::pod::uid(pod), eviction);
        }
        let ended = async {
            while !group.pods.iter().all(|pod| self.is_gone(crate::pod::uid(pod))) {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(group.patience(), ended).await.is_err() {
            tracing::warn!(priority, seconds, "pods did not end in time: the machine shuts down");
        }
    }

    /// Nothing of a pod runs, and its volumes are gone: what they are of may be of the next group.
    fn is_gone(&self, uid: &str) -> bool {
        self.pods.is_quiet(uid) && !self.config.pod_dir(uid).exists()
    }

    async fn remember(&self, record: Record) {
        self.show(&record);
        let root = self.config.root_dir.clone();
        if let Err(error) = blocking(move || record.write(&root)).await {
            tracing::warn!(%error, "the record of a shutdown is not written");
        }
    }

    fn show(&self, record: &Record) {
        self.meters.set(&SHUTDOWN_START, record::seconds(record.start));
        self.meters.set(&SHUTDOWN_END, record::seconds(record.end));
    }

    /// Shows when the last shutdown was.
    async fn show_last(&self) {
        let root = self.config.root_dir.clone();
        match blocking(move || Record::read(&root)).await {
            Ok(record) => self.show(&record),
            Err(error) => tracing::warn!(%error, "the record of the last shutdown cannot be read"),
        }
    }
}

/// Work on disk, beside the tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|interrupted| Err(interrupted.into()))
}

#[cfg(test)]
mod tests;
