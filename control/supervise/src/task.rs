//! A task and its lives.
//!
//! Promises: a task that fails, panics or returns is logged, named in the supervisor and started again, the first time within a
//! fraction of a second, and never takes its neighbours down; once its token is cancelled it has [`STOP_PATIENCE`] to end.

use crate::backoff::Backoff;
use crate::supervisor::{Entry, Kind, Supervisor, said};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First and longest pause before a task is started again.
pub(crate) const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// A task that ran for so long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(120);
/// How long a task may take to stop before it is dropped.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why a task ended.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;
type Start = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send + Sync>;

/// A task by its name; it is to return soon after its token is cancelled.
#[derive(Clone)]
pub struct Task {
    pub(crate) name: Arc<str>,
    pub(crate) start: Start,
}

impl Task {
    /// A task started by `start`, which is called for every life.
    pub fn new<F, Fut>(name: impl Into<Arc<str>>, start: F) -> Self
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self { name: name.into(), start: Arc::new(move |token| Box::pin(start(token))) }
    }

    /// A task that goes on until it is dropped, which happens when its token is cancelled: it has nothing to finish.
    pub fn endless<F, Fut>(name: impl Into<Arc<str>>, start: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let start = Arc::new(start);
        Self::new(name, move |token| {
            let start = start.clone();
            // boxed, since what is waited for by value is kept twice
            let life = Box::pin(start());
            async move {
                token.run_until_cancelled(life).await;
                Ok(())
            }
        })
    }
}

impl Supervisor {
    /// Runs every task until `shutdown`, then stops them one after another, in the order of the list.
    pub async fn run(&self, tasks: Vec<Task>, shutdown: &CancellationToken) {
        let running: Vec<(CancellationToken, JoinHandle<()>)> = tasks
            .into_iter()
            .map(|task| {
                let token = CancellationToken::new();
                (token.clone(), spawn(self.lives(task, token)))
            })
            .collect();
        // Dropped before its end, it takes its tasks along.
        let guards: Vec<_> = running.iter().map(|(token, _)| token.clone().drop_guard()).collect();
        shutdown.cancelled().await;
        for (token, handle) in running {
            token.cancel();
            // It catches every panic, and ends within the patience there is.
            let _ = handle.await;
        }
        drop(guards);
    }

    /// All of a task's lives, until `stop`.
    pub(crate) fn lives(&self, task: Task, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let entry = self.entry(&task.name, Kind::Task);
        let owner = Owner { supervisor: self.clone(), number: entry.number(), entry };
        async move {
            let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
            while !stop.is_cancelled() {
                owner.entry.begins(owner.number);
                let started = Instant::now();
                tracing::debug!(task = &*task.name, "task starts");
                let Some(ended) = life(&owner.entry, &task, &stop).await else {
                    owner.entry.ends();
                    return;
                };
                if started.elapsed() > HEALTHY_AFTER {
                    backoff.reset();
                }
                let (reason, panicked) = match ended {
                    Ok(Ok(())) => ("it returned".to_owned(), false),
                    Ok(Err(error)) => (crate::chain(&*error), false),
                    Err(payload) => (said(&*payload), true),
                };
                owner.entry.falls(owner.number, &reason, panicked);
                let pause = backoff.next_pause();
                tracing::error!(task = &*task.name, reason, ?pause, "task ended; starting it again");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }
}

type Ended = Result<Result<(), TaskError>, Box<dyn std::any::Any + Send>>;

/// One life; `None` when it was asked to end.
async fn life(entry: &Entry, task: &Task, stop: &CancellationToken) -> Option<Ended> {
    // `start` is called in here, so that its own panics are caught.
    let life = entry.or_injected(async { (task.start)(stop.clone()).await });
    let mut life = std::pin::pin!(AssertUnwindSafe(life).catch_unwind());
    tokio::select! {
        ended = &mut life => return (!stop.is_cancelled()).then_some(ended),
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(STOP_PATIENCE, life).await {
        Ok(Err(payload)) => tracing::error!(task = &*task.name, reason = said(&*payload), "task ended badly"),
        Ok(Ok(_)) => {}
        Err(_) => tracing::warn!(task = &*task.name, "task does not stop; dropped"),
    }
    None
}

/// A task's place in the supervisor.
struct Owner {
    supervisor: Supervisor,
    number: u64,
    entry: Arc<Entry>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.entry.leaves(self.number);
        self.supervisor.release(&self.entry);
    }
}

/// The one place where a task is made of a future.
#[allow(clippy::disallowed_methods, reason = "what is spawned here is watched")]
pub(crate) fn spawn(lives: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(lives)
}

#[cfg(test)]
mod tests;
