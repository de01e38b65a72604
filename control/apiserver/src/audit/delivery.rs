//! How events get to a backend: at once or in batches, whole or cut. Upstream: `AuditBatchOptions` and `AuditTruncateOptions` in
//! `apiserver/pkg/server/options/audit.go`.

use super::backend::Backend;
use super::buffer::{Batches, Buffer};
use super::counters::Counters;
use super::event::Event;
use super::truncate::{Truncate, Truncated};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;

/// Whether a request waits for its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does not: they are written in batches.
    Batch,
    /// It does, and goes on when they are lost.
    Blocking,
    /// It does, and is refused when the first of them is lost.
    BlockingStrict,
}

/// How events get to their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    /// Whether requests wait.
    pub mode: Mode,
    /// Unused where they do.
    pub batches: Batches,
    /// What becomes of large events; they are written whatever their size without.
    pub truncate: Option<Truncate>,
}

impl Delivery {
    /// `backend`, with what stands before it.
    pub(super) fn before(
        &self,
        backend: Box<dyn Backend>,
        supervisor: &Supervisor,
        counters: &Arc<Counters>,
    ) -> Box<dyn Backend> {
        let delivered: Box<dyn Backend> = match self.mode {
            Mode::BlockingStrict => backend,
            Mode::Blocking => Box::new(Forgiving(backend)),
            Mode::Batch => Box::new(Buffer::before(backend, self.batches, supervisor, counters)),
        };
        match self.truncate {
            Some(bounds) => Box::new(Truncated::new(delivered, bounds, counters)),
            None => delivered,
        }
    }
}

/// Refuses no request.
struct Forgiving(Box<dyn Backend>);

impl Backend for Forgiving {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            self.0.process(events).await;
            true
        })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        self.0.finish(patience)
    }
}
