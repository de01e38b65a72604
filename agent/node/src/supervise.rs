//! Keeps tasks running, one by one: a task that fails, panics or ends is logged and started again with backoff, and never
//! takes its neighbours down. At shutdown tasks are stopped one after another, in the order of the list.

use futures::future::BoxFuture;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First and longest pause before a task is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A task that ran for so long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(120);
/// How long a task may take to stop before it is dropped.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why a task ended.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;
type Start = Box<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send + Sync>;

/// A task by its name; it is to return soon after its token is cancelled.
pub struct Task {
    name: &'static str,
    start: Start,
}

impl Task {
    /// A task started by `start`, which is called anew for every life.
    pub fn new<F, Fut>(name: &'static str, start: F) -> Self
    where
        F: Fn(CancellationToken) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self { name, start: Box::new(move |token| Box::pin(start(token))) }
    }
}

/// Runs every task until `shutdown`, then stops them in order.
pub async fn run(tasks: Vec<Task>, shutdown: &CancellationToken) {
    let running: Vec<(&str, CancellationToken, JoinHandle<()>)> = tasks
        .into_iter()
        .map(|task| {
            let token = CancellationToken::new();
            (task.name, token.clone(), tokio::spawn(keep(task, token)))
        })
        .collect();
    shutdown.cancelled().await;
    for (name, token, mut handle) in running {
        token.cancel();
        if tokio::time::timeout(STOP_PATIENCE, &mut handle).await.is_err() {
            tracing::warn!(task = name, "task does not stop; dropped");
            handle.abort();
        }
    }
}

/// One task's lives.
async fn keep(task: Task, token: CancellationToken) {
    let name = task.name;
    let mut pause = BACKOFF.0;
    while !token.is_cancelled() {
        let started = Instant::now();
        tracing::debug!(task = name, "task starts");
        // In a task of its own, so that a panic ends that one only.
        let ended = tokio::spawn((task.start)(token.clone())).await;
        if token.is_cancelled() {
            return;
        }
        let reason = match ended {
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(error)) => crate::bootstrap::chain(&*error),
            Err(error) => error.to_string(),
        };
        if started.elapsed() > HEALTHY_AFTER {
            pause = BACKOFF.0;
        }
        tracing::error!(task = name, reason, pause_ms = pause.as_millis(), "task ended; starting it again");
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    #[tokio::test(start_paused = true)]
    async fn a_failing_task_must_not_take_its_neighbours_down() {
        let shutdown = CancellationToken::new();
        let lives = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let fails = |how: usize| {
            let lives = lives.clone();
            Task::new("failing", move |token| {
                let life = lives.fetch_add(1, Ordering::SeqCst);
                async move {
                    match how {
                        0 => panic!("life {life}"),
                        1 => Err("no luck".into()),
                        _ => {
                            token.cancelled().await;
                            Ok(())
                        }
                    }
                }
            })
        };
        let waits = |name: &'static str| {
            let stopped = stopped.clone();
            Task::new(name, move |token| {
                let stopped = stopped.clone();
                async move {
                    token.cancelled().await;
                    stopped.lock().unwrap().push(name);
                    Ok(())
                }
            })
        };
        let tasks = vec![waits("first"), fails(0), fails(1), waits("second")];
        let stop = async {
            while lives.load(Ordering::SeqCst) < 8 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            shutdown.cancel();
        };
        tokio::join!(run(tasks, &shutdown), stop);
        assert_eq!(*stopped.lock().unwrap(), ["first", "second"]);
    }
}
