//! The worker loop every controller runs, and what may go wrong in one.

use crate::queue::{Key, Queue};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why one reconciliation did not finish. It is tried again after the key's backoff.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the API server failed.
    #[error("{what}")]
    Api {
        /// The operation and its subject.
        what: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object cannot be worked on as it is.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Whether somebody else wrote the object first: the newest state is on its way, no need for a word about it.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if code(source) == Some(409))
    }
}

/// Names the operation that failed.
pub trait Doing<T> {
    /// Wraps the error.
    ///
    /// # Errors
    /// The error itself, with `what` it was about.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { what: what(), source: Box::new(source) })
    }
}

/// The HTTP status of an API error.
#[must_use]
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Turns "not found" into `None`.
///
/// # Errors
/// Every other error.
pub fn found<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A controller.
pub trait Reconcile: Send + Sync + 'static {
    /// Its name in logs and events, as upstream calls it: `deployment-controller`.
    const NAME: &'static str;

    /// Brings the world closer to what the object says. Gives a delay when it shall be called again without being woken.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;
}

/// Runs `workers` workers on a queue until cancelled.
pub fn spawn<R: Reconcile>(
    tasks: &mut JoinSet<()>,
    queue: &Arc<Queue>,
    reconciler: Arc<R>,
    workers: usize,
    shutdown: &CancellationToken,
) {
    for _ in 0..workers {
        let (queue, reconciler, shutdown) = (queue.clone(), reconciler.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = queue.next() => key,
                };
                let outcome = reconciler.reconcile(&key).await;
                if let Err(error) = &outcome {
                    let error = error as &dyn std::error::Error;
                    if outcome.as_ref().is_err_and(Error::is_conflict) {
                        tracing::debug!(controller = R::NAME, %key, error, "tried again with newer state");
                    } else {
                        tracing::warn!(controller = R::NAME, %key, error, "not reconciled; tried again");
                    }
                }
                queue.done(key, outcome.map_err(drop));
            }
        });
    }
}
