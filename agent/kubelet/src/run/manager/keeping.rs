//! Keeps the pods' workers.
//!
//! Promises: a worker that panics is started again, with backoff, from what is desired and observed then, and neither the manager nor
//! another worker notices; the manager is told when a worker is done, however it ended.

use supervise::Work;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) struct Keeping {
    /// One piece a pod.
    pub(super) tasks: Work,
    /// One piece a life of a worker.
    pub(super) work: Work,
    /// Cancelled when all are to stop.
    pub(super) stop: CancellationToken,
    /// Takes the UIDs of pods whose worker is done.
    pub(super) ends: mpsc::UnboundedSender<String>,
}

impl Keeping {
    /// Starts a pod's worker, a life of which is `worker`.
    pub(super) fn start<F>(&self, uid: &str, mut worker: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ended = Ended { uid: uid.to_owned(), tell: self.ends.clone() };
        let (work, stop) = (self.work.clone(), self.stop.clone());
        // Boxed, each, since what is waited for by value is kept once more by each that waits.
        self.tasks.spawn(Box::pin(async move {
            let _ended = ended;
            let lives = Box::pin(work.insist(|| Box::pin(worker())));
            stop.run_until_cancelled(lives).await;
        }));
    }
}

/// Reports a worker's end when it is dropped.
struct Ended {
    uid: String,
    tell: mpsc::UnboundedSender<String>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Without a manager there is nobody to tell.
        self.tell.send(std::mem::take(&mut self.uid)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use supervise::{Scope, Supervisor};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_worker_that_panics_must_not_be_noticed_by_others() {
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let scope = Scope::new(&supervisor, "kubelet/", &stop);
        let (ends, mut ended) = mpsc::unbounded_channel();
        let keeping =
            Keeping { tasks: scope.work("pods"), work: scope.vital("pod-workers"), stop: stop.clone(), ends };
        let (lives, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        for uid in ["a", "b"] {
            let (lives, done) = (lives.clone(), done.clone());
            keeping.start(uid, move || {
                lives.fetch_add(1, Ordering::SeqCst);
                let done = done.clone();
                async move { done.notified().await }
            });
        }
        let began = async |count| {
            while lives.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        began(2).await;
        tokio::task::yield_now().await;
        assert!(supervisor.inject_panic("kubelet/pod-workers"));
        tokio::time::timeout(Duration::from_secs(1), began(3)).await.unwrap();
        let report = supervisor.report("kubelet/pod-workers").unwrap();
        assert_eq!((report.panics, lives.load(Ordering::SeqCst)), (1, 3));
        assert!(ended.try_recv().is_err(), "the manager must not notice");
        done.notify_waiters();
        let mut both = [ended.recv().await.unwrap(), ended.recv().await.unwrap()];
        both.sort();
        assert_eq!(both, ["a", "b"]);
    }
}
