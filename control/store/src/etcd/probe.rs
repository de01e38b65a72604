//! Looks whether etcd answers and the common watch keeps up: a frozen member answers nothing and closes nothing.

use super::{Ailing, Core};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use supervise::Task;
use tokio::time::Instant;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// What one who waits for so long makes of an answer: why there was none, and after how long it was there.
fn judge(failure: Option<&str>, took: Duration, patience: Duration) -> Option<String> {
    match failure {
        Some(why) => Some(why.to_owned()),
        None => (took > patience).then(|| format!("no answer within {patience:?}")),
    }
}

/// How long the member in use may say nothing before another one is asked beside it.
const HEDGE: Duration = Duration::from_millis(700);

pub(super) fn task(core: &Arc<Core>) -> Task {
    let core = core.clone();
    Task::endless("etcd/probe", move || {
        let core = core.clone();
        async move {
            let (mut wanted, mut had) = (0, 0);
            loop {
                tokio::time::sleep(EVERY).await;
                // What etcd had come to a look ago must have passed by now, or at least something: a watch that catches up is slow, not still.
                let responses = core.responses.load(Ordering::Relaxed);
                if core.hub.published() < wanted && responses == had {
                    core.stalled.notify_one();
                }
                had = responses;
                let (health, ready) = (core.tuning.health, core.tuning.ready);
                let begun = Instant::now();
                let answer = tokio::time::timeout(health.max(ready), core.look(HEDGE)).await;
                let (failure, took) = match answer {
                    Ok(Ok(revision)) => {
                        wanted = revision;
                        (None, begun.elapsed())
                    }
                    Ok(Err(error)) => (Some(supervise::chain(&error)), Duration::ZERO),
                    Err(_) => (None, Duration::MAX),
                };
                let judge = |patience| judge(failure.as_deref(), took, patience);
                *core.ailing.lock() = Ailing { health: judge(health), ready: judge(ready) };
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_be_in_time_for_one_and_late_for_another() {
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(5));
        let took = Duration::from_secs(3);
        assert_eq!(judge(None, took, short).as_deref(), Some("no answer within 2s"));
        assert_eq!(judge(None, took, long), None);
        assert_eq!(judge(Some("refused"), Duration::ZERO, long).as_deref(), Some("refused"));
        assert!(judge(None, Duration::MAX, long).is_some());
    }
}
