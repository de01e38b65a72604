//! Whether what is logged gets away: the health check `log` (upstream: `LogHealthz`).

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use supervise::Task;

/// How often it is tried.
const EVERY: Duration = Duration::from_secs(60);
/// How long ago the last success may be.
const LATE: Duration = Duration::from_secs(120);

/// When logging was last seen to work.
#[derive(Clone)]
pub(super) struct Logging(Arc<Mutex<Instant>>);

impl Default for Logging {
    fn default() -> Self {
        Logging(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Logging {
    /// The check.
    ///
    /// # Errors
    /// Where nothing could be logged for two minutes.
    pub(super) fn check(&self, now: Instant) -> Result<(), String> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(last) < LATE { Ok(()) } else { Err("logging blocked".to_owned()) }
    }

    /// Tries again and again: it waits for whoever writes to the standard error, and so for as long as that one is stuck.
    pub(super) fn task(&self) -> Task {
        let logging = self.clone();
        Task::endless("log-flush", move || {
            let logging = logging.clone();
            async move {
                loop {
                    tokio::time::sleep(EVERY).await;
                    if let Ok(Ok(())) = tokio::task::spawn_blocking(|| std::io::stderr().flush()).await {
                        *logging.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_stuck_must_not_go_unnoticed() {
        let logging = Logging::default();
        let now = Instant::now();
        assert_eq!(logging.check(now), Ok(()));
        assert_eq!(logging.check(now + LATE + EVERY), Err("logging blocked".to_owned()));
    }
}
