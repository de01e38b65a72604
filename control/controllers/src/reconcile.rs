//! The worker loop every controller runs, and what may go wrong in one.

use crate::options::paced;
use crate::queue::{Key, Queue};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Task, Work};

/// Why one reconciliation did not finish. It is tried again after the key's backoff.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if code(source) == Some(409))
    }
}

/// Names the operation that failed.
pub(crate) trait Doing<T> {
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
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Turns "not found" into `None`.
///
/// # Errors
/// Every other error.
pub(crate) fn found<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Failures as one text, as upstream joins them: each once, several in brackets.
#[must_use]
pub(crate) fn aggregate(failures: &[String]) -> Option<String> {
    let mut each: Vec<&str> = Vec::new();
    for failure in failures {
        if !each.contains(&failure.as_str()) {
            each.push(failure);
        }
    }
    match each[..] {
        [] => None,
        [only] => Some(only.to_owned()),
        _ => Some(format!("[{}]", each.join(", "))),
    }
}

pub(crate) trait Reconcile: Send + Sync + 'static {
    /// Its name in logs and events, as upstream calls it: `deployment-controller`.
    const NAME: &'static str;

    /// Brings the world closer to what the object says. Gives a delay when it should be called again without being woken.
    fn reconcile(&self, key: &Key) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;
}

/// Wakes `keys` again every `period`, whatever happened; never with a period of nothing.
pub(crate) fn resync(
    scope: &Scope,
    name: &'static str,
    queue: &Arc<Queue>,
    period: Duration,
    keys: impl Fn() -> Vec<Key> + Send + Sync + 'static,
) {
    if period.is_zero() {
        return;
    }
    let (queue, keys) = (queue.clone(), Arc::new(keys));
    scope.keep(Task::endless(name, move || {
        let (queue, keys) = (queue.clone(), keys.clone());
        async move {
            loop {
                tokio::time::sleep(paced(period)).await;
                keys().into_iter().for_each(|key| queue.add(key));
            }
        }
    }));
}

/// Keeps `workers` workers on a queue. A reconciliation that panics is counted and tried again after its key's backoff.
pub(crate) fn work<R: Reconcile>(scope: &Scope, queue: &Arc<Queue>, reconciler: &Arc<R>, workers: usize) {
    let attempts = scope.vital(&format!("{}/reconcile", R::NAME));
    for _ in 0..workers {
        let (queue, reconciler, attempts) = (queue.clone(), reconciler.clone(), attempts.clone());
        scope.keep(Task::endless(R::NAME, move || {
            let (queue, reconciler, attempts) = (queue.clone(), reconciler.clone(), attempts.clone());
            async move {
                loop {
                    let taken = queue.take().await;
                    let outcome = attempt(&*reconciler, &attempts, taken.key()).await;
                    taken.done(outcome);
                }
            }
        }));
    }
}

/// One reconciliation, as the queue sees it.
async fn attempt<R: Reconcile>(reconciler: &R, attempts: &Work, key: &Key) -> Result<Option<Duration>, ()> {
    // boxed: a worker that waits for a key needs no room for the work
    match attempts.attempt(Box::pin(reconciler.reconcile(key))).await {
        Ok(Ok(again)) => Ok(again),
        Ok(Err(failure)) => {
            let error = &failure as &dyn std::error::Error;
            if failure.is_conflict() {
                tracing::debug!(controller = R::NAME, %key, error, "tried again with newer state");
            } else {
                tracing::warn!(controller = R::NAME, %key, error, "not reconciled; tried again");
            }
            Err(())
        }
        Err(supervise::Panicked) => {
            tracing::error!(controller = R::NAME, %key, "its reconciliation panicked; tried again");
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::HashMap;
    use supervise::Supervisor;
    use tokio_util::sync::CancellationToken;

    /// Notes how often it was called for each key; panics for one the first time.
    #[derive(Default)]
    struct Fake(Mutex<HashMap<String, u32>>);

    impl Reconcile for Fake {
        const NAME: &'static str = "fake-controller";

        async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
            let calls = {
                let mut all = self.0.lock();
                let calls = all.entry(key.name.to_string()).or_default();
                *calls += 1;
                *calls
            };
            assert!(&*key.name != "poison" || calls > 1, "the first time");
            Ok(None)
        }
    }

    impl Fake {
        async fn called(&self, name: &str, times: u32) {
            let wait = async {
                while self.0.lock().get(name).copied().unwrap_or_default() < times {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(1), wait).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconciliation_that_panics_must_not_stop_its_key_or_any_other() {
        let (supervisor, queue, fake) =
            (Supervisor::default(), Arc::new(Queue::default()), Arc::new(Fake::default()));
        let scope = Scope::new(&supervisor, "controllers/", &CancellationToken::new());
        work(&scope, &queue, &fake, 1);
        queue.add(Key::new("n", "poison"));
        queue.add(Key::new("n", "good"));
        fake.called("poison", 2).await;
        fake.called("good", 1).await;
        let name = "controllers/fake-controller/reconcile";
        assert_eq!(supervisor.report(name).unwrap().panics, 1);
        assert_eq!(supervisor.down().iter().map(|r| &*r.name).collect::<Vec<_>>(), [name]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(supervisor.down().is_empty(), "back within a second");
        queue.add(Key::new("n", "poison"));
        fake.called("poison", 3).await;
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_looked_at_again_every_period() {
        let (supervisor, queue) = (Supervisor::default(), Arc::new(Queue::default()));
        let scope = Scope::new(&supervisor, "", &CancellationToken::new());
        resync(&scope, "never", &queue, Duration::ZERO, || vec![Key::new("", "never")]);
        resync(&scope, "often", &queue, Duration::from_secs(30), || vec![Key::new("", "often")]);
        let start = tokio::time::Instant::now();
        for round in 1..=3 {
            let key = queue.next().await;
            assert_eq!((&*key.name, start.elapsed().as_secs()), ("often", round * 30));
            queue.done(key, Ok(None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_is_back_within_a_second() {
        let (supervisor, queue, fake) =
            (Supervisor::default(), Arc::new(Queue::default()), Arc::new(Fake::default()));
        let scope = Scope::new(&supervisor, "controllers/", &CancellationToken::new());
        work(&scope, &queue, &fake, 1);
        assert!(supervisor.inject_panic("controllers/fake-controller"));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(supervisor.down().len(), 1);
        queue.add(Key::new("n", "good"));
        fake.called("good", 1).await;
        assert!(supervisor.down().is_empty());
    }
}
