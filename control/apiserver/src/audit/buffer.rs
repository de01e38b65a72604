//! Events that wait to be written in batches. Upstream: `apiserver/plugin/pkg/audit/buffered`.
//!
//! What does not fit is lost, and counted: no request ever waits for a slow backend. One task takes events out; it writes a batch when that
//! is full, when the first wait is over, and when the server stops, until nothing is left.

use super::backend::Backend;
use super::counters::Counters;
use super::event::Event;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Rate, Supervisor, Work};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

const PLUGIN: &str = "buffered";
/// Batches that are under way at once at most. Upstream has no such bound; beyond it, events wait in the buffer.
const UNDER_WAY: usize = 64;

/// How events are written in batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batches {
    /// Events that wait at most; more are lost.
    pub buffer: usize,
    /// Events in one batch at most.
    pub size: usize,
    /// How long events wait for others.
    pub wait: Duration,
    /// Batches a second, and how many at once after a pause; no bound without.
    pub throttle: Option<(f64, u32)>,
    /// Whether a batch goes out while the one before is under way.
    pub overlapping: bool,
}

/// What stands before a backend.
pub(super) struct Buffer {
    queue: mpsc::Sender<Arc<Event>>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    worker: Arc<Worker>,
    /// The worker, alone.
    working: Work,
}

struct Worker {
    queue: Mutex<mpsc::Receiver<Arc<Event>>>,
    backend: Box<dyn Backend>,
    batches: Batches,
    stop: CancellationToken,
    sends: Work,
    under_way: Arc<Semaphore>,
}

impl Buffer {
    /// Begins to take events out.
    pub(super) fn before(
        backend: Box<dyn Backend>,
        batches: Batches,
        supervisor: &Supervisor,
        counters: &Arc<Counters>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(batches.buffer.clamp(1, Semaphore::MAX_PERMITS));
        let stop = CancellationToken::new();
        let worker = Arc::new(Worker {
            queue: Mutex::new(receiver),
            backend,
            batches,
            stop: stop.clone(),
            sends: Work::new(supervisor, "apiserver/audit-batch"),
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        });
        let working = Work::vital(supervisor, "apiserver/audit-buffer");
        let (insisting, working_on) = (working.clone(), worker.clone());
        working.spawn(async move { insisting.insist(|| working_on.clone().run()).await });
        Self { queue: sender, counters: counters.clone(), stop, worker, working }
    }
}

impl Backend for Buffer {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool> {
        for (at, event) in events.iter().enumerate() {
            let why = match self.queue.try_send(event.clone()) {
                Ok(()) => continue,
                Err(TrySendError::Full(_)) => "audit buffer queue blocked",
                Err(TrySendError::Closed(_)) => "audit backend shut down",
            };
            self.counters.lost(PLUGIN, why, events.get(at..).unwrap_or_default());
            break;
        }
        Box::pin(std::future::ready(true))
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stop.cancel();
            let emptied = self.working.finish(patience).await && self.worker.sends.finish(patience).await;
            if !emptied {
                tracing::warn!("audit events that wait are lost: they could not be written in time");
            }
            self.worker.backend.finish(patience).await;
        })
    }
}

impl Worker {
    /// Until it is stopped and nothing is left.
    async fn run(self: Arc<Self>) {
        let mut queue = self.queue.lock().await;
        let mut rate = self.batches.throttle.map(|(per_second, burst)| Rate::new(per_second, burst));
        loop {
            let (batch, goes_on) = self.collect(&mut queue).await;
            if !batch.is_empty() {
                if let Some(rate) = &mut rate {
                    rate.take().await;
                }
                self.clone().write(batch).await;
            }
            if !goes_on {
                return;
            }
        }
    }

    /// The next batch, and whether others may follow.
    async fn collect(&self, queue: &mut mpsc::Receiver<Arc<Event>>) -> (Vec<Arc<Event>>, bool) {
        let mut batch = Vec::new();
        let over = tokio::time::sleep(self.batches.wait);
        tokio::pin!(over);
        let (several, mut stopping) = (self.batches.size > 1, false);
        // Who does not wait takes what is there, once anything is.
        let patient = !self.batches.wait.is_zero();
        while batch.len() < self.batches.size {
            tokio::select! {
                biased;
                event = queue.recv() => match event {
                    Some(event) => batch.push(event),
                    None => return (batch, false),
                },
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    queue.close();
                }
                () = &mut over, if several && (patient || !batch.is_empty()) => break,
            }
        }
        (batch, true)
    }

    async fn write(self: Arc<Self>, batch: Vec<Arc<Event>>) {
        if !self.batches.overlapping {
            // What is to be said about a panic has been said.
            let _ = self.sends.attempt(self.backend.process(batch)).await;
            return;
        }
        // The semaphore is never closed.
        let Ok(permit) = self.under_way.clone().acquire_owned().await else { return };
        let sends = self.sends.clone();
        sends.spawn(async move {
            self.backend.process(batch).await;
            drop(permit);
        });
    }
}
