//! How a child fares, for those who ask how the server is: one that ends again and again is told, one that was started again once is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a child may be down before it is told.
const GRACE: Duration = Duration::from_secs(15);
/// A child that has run for so long since it ended is well.
const STEADY: Duration = Duration::from_secs(10);
/// One that has ended so often in turn is well only after [`super::HEALTHY_AFTER`].
const OFTEN: u32 = 3;

/// A child's life, told by whoever keeps it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Since when it runs.
    up: Option<Instant>,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    ends: u32,
    why: String,
}

impl Life {
    pub(super) fn started(&self, now: Instant) {
        self.lock().up = Some(now);
    }

    /// It ended, or could not be started.
    pub(super) fn ended(&self, now: Instant, why: String) {
        let mut state = self.lock();
        if state.up.take().is_some_and(|up| now.duration_since(up) >= super::HEALTHY_AFTER) {
            state.down = None;
        }
        let ends = state.down.as_ref().map_or(0, |down| down.ends) + 1;
        let since = state.down.as_ref().map_or(now, |down| down.since);
        state.down = Some(Down { since, ends, why });
    }

    /// # Errors
    /// It does not run, or not for long.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        let state = self.lock();
        let Some(down) = &state.down else { return Ok(()) };
        let needed = if down.ends < OFTEN { STEADY } else { super::HEALTHY_AFTER };
        let is_well = state.up.is_some_and(|up| now.duration_since(up) >= needed);
        if is_well || now.duration_since(down.since) < GRACE {
            return Ok(());
        }
        Err(format!("it has ended {} times in turn, the last time with: {}", down.ends, down.why))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_cannot_run_must_not_go_unseen() {
        let (life, start) = (Life::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(life.check(at(0)).is_ok(), "it has not been started yet");
        // As the pauses between starts grow.
        for began in [0, 1, 4, 10, 24] {
            life.started(at(began));
            life.ended(at(began) + Duration::from_millis(300), "exit status: 1".into());
        }
        let why = life.check(at(25)).unwrap_err();
        assert_eq!(why, "it has ended 5 times in turn, the last time with: exit status: 1");
        life.started(at(54));
        assert!(life.check(at(54 + 20)).is_err(), "it has done so before");
        assert!(life.check(at(54 + 60)).is_ok());
    }

    #[test]
    fn one_start_must_not_make_a_server_unready() {
        let (life, start) = (Life::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        life.started(at(0));
        for crash in [1000, 3000, 5000] {
            life.ended(at(crash), "signal: 9".into());
            life.started(at(crash + 1));
            assert!([2, 8, 12, 16, 100].iter().all(|later| life.check(at(crash + later)).is_ok()));
        }
        life.ended(at(9000), "signal: 9".into());
        assert!(life.check(at(9014)).is_ok() && life.check(at(9016)).is_err(), "it does not come back");
    }
}
