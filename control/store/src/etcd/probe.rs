//! Looks whether etcd answers and the common watch keeps up: a frozen member answers nothing and closes nothing.

use super::Core;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use supervise::Task;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take (upstream: `--etcd-healthcheck-timeout`, 2 s).
const PATIENCE: Duration = Duration::from_secs(2);

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
                let answer = tokio::time::timeout(PATIENCE, core.look(HEDGE)).await;
                let ailing = match answer {
                    Ok(Ok(revision)) => {
                        wanted = revision;
                        None
                    }
                    Ok(Err(error)) => Some(supervise::chain(&error)),
                    Err(_) => Some(format!("no answer within {PATIENCE:?}")),
                };
                *core.ailing.lock() = ailing;
            }
        }
    })
}
