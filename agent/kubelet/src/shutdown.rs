//! The machine's shutdown: pods end in order before it goes on. Upstream: `pkg/kubelet/nodeshutdown`.
//!
//! Woken by logind, which tells of a shutdown and waits for those who hold a lock, as long as its settings let it: these are amended where pods have more
//! time. Reads the pods there are; writes their ends into [`Evictions`], which their workers carry out, and what the node says of itself into
//! [`Reported`]. Promises: from the moment a shutdown is told no pod is taken; a group of priorities ends before the next one; a group without pods is not
//! waited for, and none longer than it was promised; the lock is let go however that went; a shutdown that is called off leaves a node that takes pods again.
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
    /// Where the bus listens, and where logind's settings are amended.
    pub(crate) places: Places,
}

/// Paths of the machine's.
#[derive(Clone)]
pub(crate) struct Places {
    bus: PathBuf,
    drop_ins: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { bus: SYSTEM_BUS.into(), drop_ins: DROP_INS.into() }
    }
}

/// Waits with the machine's shutdowns, for ever; without periods for pods there is nothing to do.
pub async fn watch(parts: Parts, reported: watch::Sender<Reported>) {
    if parts.config.shutdown.is_empty() {
        return std::future::pending().await;
    }
    parts.show_last();
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
        let mut logind = Logind::open(&self.places.bus).await?;
        self.make_time(&mut logind).await?;
        // Before the lock is taken: a shutdown that begins in between is told.
        logind.listen().await?;
        let mut lock = Some(logind.inhibit().await?);
        loop {
            let shuts_down = logind.event().await?;
            let told = if shuts_down { "event" } else { "cancellation" };
            let text = format!("Shutdown manager detected shutdown {told}");
            let node = Subject::node(&self.config.node_name);
            self.recorder.record(node, Kind::Normal, "NodeShutdown", text);
            self.evictions.set_shutting_down(shuts_down);
            reported.send_if_modified(|reported| {
                std::mem::replace(&mut reported.shutting_down, shuts_down) != shuts_down
            });
            match shuts_down {
                true => self.end_pods(lock.take()).await,
                false => lock = Some(logind.inhibit().await?),
            }
        }
    }

    /// Has logind wait for as long as pods have.
    async fn make_time(&self, logind: &mut Logind) -> Result<(), Error> {
        let wanted = order::whole(&self.config.shutdown);
        if logind.longest_delay().await? >= wanted {
            return Ok(());
        }
        logind::allow(&self.places.drop_ins, wanted).map_err(Error::Settings)?;
        logind.reload().await?;
        let mut pauses = Backoff::new(RELOADS.0, RELOADS.1);
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
        self.remember(&Record { start, end: None });
        let active = self.pods.all().into_iter().filter(|view| {
            !crate::pod::status::is_terminal(view.status.phase.as_deref()) || !view.observed.is_quiet()
        });
        for group in order::groups(&self.config.shutdown, active.map(|view| view.pod)) {
            self.end_group(&group).await;
        }
        self.remember(&Record { start, end: Some(Timestamp::now()) });
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
        let quiet = self.pods.by_uid(uid).is_none_or(|view| view.observed.is_quiet());
        quiet && !self.config.pod_dir(uid).exists()
    }

    fn remember(&self, record: &Record) {
        if let Err(error) = record.write(&self.config.root_dir) {
            tracing::warn!(%error, "the record of a shutdown is not written");
        }
        self.show(record);
    }

    fn show(&self, record: &Record) {
        self.meters.set(&SHUTDOWN_START, record::seconds(record.start));
        self.meters.set(&SHUTDOWN_END, record::seconds(record.end));
    }

    /// Shows when the last shutdown was.
    fn show_last(&self) {
        match Record::read(&self.config.root_dir) {
            Ok(record) => self.show(&record),
            Err(error) => tracing::warn!(%error, "the record of the last shutdown cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests;
