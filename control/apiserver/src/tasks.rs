//! Tasks that outlive the request or connection that began them.

use std::future::Future;
use supervise::{Supervisor, Work};
use tokio_util::sync::CancellationToken;

/// Tasks that outlive the request that began them; they end with the server.
#[derive(Clone)]
pub struct Tasks {
    tunnels: Work,
    pub(crate) connections: Work,
    pub(crate) streams: Work,
    stop: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new(&Supervisor::default())
    }
}

impl Tasks {
    /// Tasks that are counted by `supervisor`.
    #[must_use]
    pub fn new(supervisor: &Supervisor) -> Self {
        Self {
            tunnels: Work::new(supervisor, "apiserver/tunnel"),
            connections: Work::new(supervisor, "apiserver/connection"),
            streams: Work::new(supervisor, "apiserver/stream"),
            stop: CancellationToken::new(),
        }
    }

    /// Runs `task` until it is done, or the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tunnels.spawn(async move {
            let _ = stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Stops all tasks and waits for them, for at most `patience`.
    pub(crate) async fn stop(&self, patience: std::time::Duration) {
        self.stop.cancel();
        self.tunnels.finish(patience).await;
    }
}
