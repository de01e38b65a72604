//! SIGTERM and SIGINT ask the program to stop; a second one is taken at its word.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first signal.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the signals.
    pub(crate) fn take() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Runs `work`, cancelling `shutdown` at the first signal and dropping the work at the second.
    pub(crate) async fn until_done<T>(
        mut self,
        shutdown: &CancellationToken,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            name = self.next() => tracing::info!(signal = name, "stopping"),
        }
        shutdown.cancel();
        tokio::select! {
            done = &mut work => done,
            name = self.next() => Err(anyhow::anyhow!("stopped at once by a second signal ({name})")),
        }
    }
}
