//! Whether the manager's loop makes progress.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A loop that did not go round for so long hangs, as upstream has it.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// When the loop last went round; never before its first time.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    pub(super) fn beat(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether it does, in upstream's words (`pkg/kubelet/kubelet.go`, `SyncLoopHealthCheck`).
    ///
    /// # Errors
    /// It hangs.
    pub fn check(&self) -> Result<(), String> {
        match *self.0.lock() {
            Some(last) if last.elapsed() > LONGEST => Err("sync Loop took longer than expected".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_must_not_pass() {
        let pulse = Pulse::default();
        tokio::time::advance(2 * LONGEST).await;
        assert_eq!(pulse.check(), Ok(()), "before the first time");
        pulse.beat();
        tokio::time::advance(LONGEST).await;
        assert_eq!(pulse.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pulse.check(), Err("sync Loop took longer than expected".to_owned()));
        pulse.beat();
        assert_eq!(pulse.check(), Ok(()));
    }
}
