//! Work that ends by itself, in pieces: a connection, a tunnel, one reconciliation. A panic in one piece is caught, counted and
//! logged, and the others do not notice.

use crate::backoff::Backoff;
use crate::supervisor::{Entry, Kind, Supervisor, said};
use crate::task::{PAUSES, spawn};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// A piece of work panicked. It has been logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// One kind of work, by name. A cheap handle; its owner bounds how many pieces there are.
#[derive(Clone)]
pub struct Work(Arc<Inner>);

struct Inner {
    supervisor: Supervisor,
    entry: Arc<Entry>,
    pieces: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.supervisor.release(&self.entry);
    }
}

impl Work {
    /// Work whose panics are counted.
    #[must_use]
    pub fn new(supervisor: &Supervisor, name: impl Into<Arc<str>>) -> Self {
        Self::of(supervisor, &name.into(), Kind::Work)
    }

    /// Work whose panics make its owner unhealthy for a second.
    #[must_use]
    pub fn vital(supervisor: &Supervisor, name: impl Into<Arc<str>>) -> Self {
        Self::of(supervisor, &name.into(), Kind::Vital)
    }

    fn of(supervisor: &Supervisor, name: &Arc<str>, kind: Kind) -> Self {
        let entry = supervisor.entry(name, kind);
        Self(Arc::new(Inner { supervisor: supervisor.clone(), entry, pieces: TaskTracker::new() }))
    }

    /// Does one piece here.
    ///
    /// # Errors
    /// It panicked.
    pub async fn attempt<T>(&self, piece: impl Future<Output = T>) -> Result<T, Panicked> {
        let entry = &self.0.entry;
        entry.begins(0);
        let mut running = Running(Some(entry));
        let done = AssertUnwindSafe(entry.or_injected(piece)).catch_unwind().await;
        done.map_err(|payload| {
            let reason = said(&*payload);
            tracing::error!(work = &*entry.name, reason, "a piece of work panicked");
            running.0 = None;
            entry.faults(&reason);
            Panicked
        })
    }

    /// Does a piece here, and again, with backoff, whenever it panics.
    pub async fn insist<T, F: Future<Output = T>>(&self, mut piece: impl FnMut() -> F) -> T {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            match self.attempt(piece()).await {
                Ok(done) => return done,
                Err(Panicked) => backoff.pause().await,
            }
        }
    }

    /// Does one piece in a task of its own.
    pub fn spawn(&self, piece: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        let pieces = self.0.pieces.clone();
        spawn(pieces.track_future(async move {
            // What is to be said about a panic has been said.
            let _ = this.attempt(piece).await;
        }));
    }

    /// How many pieces have a task of their own now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.pieces.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.pieces.is_empty()
    }

    /// Waits until there is none; true when that took no longer than `patience`. Begin no other meanwhile.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.0.pieces.close();
        tokio::time::timeout(patience, self.0.pieces.wait()).await.is_ok()
    }
}

/// Counts a piece until it ends, or is dropped.
struct Running<'a>(Option<&'a Entry>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0 {
            entry.ends();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_panics_must_not_harm_the_others() {
        let supervisor = Supervisor::default();
        let (counted, vital) = (Work::new(&supervisor, "connections"), Work::vital(&supervisor, "reconcile"));
        counted.spawn(async { panic!("one") });
        counted.spawn(async {});
        assert!(counted.finish(Duration::from_secs(1)).await);
        let report = supervisor.report("connections").unwrap();
        assert_eq!((report.running, report.panics, report.down.is_some()), (0, 1, false));

        assert!(supervisor.inject_panic("reconcile"));
        assert_eq!(vital.attempt(async { 7 }).await, Err(Panicked));
        assert_eq!(vital.attempt(async { 7 }).await, Ok(7));
        assert_eq!(supervisor.down().iter().map(|r| &*r.name).collect::<Vec<_>>(), ["reconcile"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(supervisor.down().is_empty());
        drop((counted, vital));
        assert!(supervisor.reports().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_panics_is_done_again_within_a_second() {
        let supervisor = Supervisor::default();
        let work = Work::vital(&supervisor, "w");
        let (mut tries, began) = (0, tokio::time::Instant::now());
        let done = work.insist(|| {
            tries += 1;
            let tried = tries;
            async move { if tried == 1 { panic!("once") } else { tried } }
        });
        assert_eq!(done.await, 2);
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(supervisor.report("w").unwrap().panics, 1);
    }

    #[tokio::test]
    async fn a_piece_that_is_dropped_is_not_counted_as_running() {
        let supervisor = Supervisor::default();
        let work = Work::new(&supervisor, "w");
        {
            let mut piece = Box::pin(work.attempt(std::future::pending::<()>()));
            assert!(futures::poll!(&mut piece).is_pending());
            assert_eq!(supervisor.report("w").unwrap().running, 1);
        }
        assert_eq!(supervisor.report("w").unwrap().running, 0);
    }
}
