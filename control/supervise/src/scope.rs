//! Tasks that come and go while their owner lives, and end with it.

use crate::supervisor::{Report, Supervisor};
use crate::task::{Task, spawn};
use crate::work::Work;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Tasks of one owner. Dropping it ends them all.
pub struct Scope {
    supervisor: Supervisor,
    prefix: String,
    stop: CancellationToken,
    tasks: TaskTracker,
    _guard: DropGuard,
}

impl Scope {
    /// Tasks that end with `stop`; their names begin with `prefix`.
    #[must_use]
    pub fn new(supervisor: &Supervisor, prefix: &str, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        Self {
            supervisor: supervisor.clone(),
            prefix: prefix.to_owned(),
            tasks: TaskTracker::new(),
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Where the tasks are listed.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// How everything of this scope is, by its name without the prefix.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        let own = |report: Report| {
            let name = report.name.strip_prefix(&self.prefix)?.into();
            Some(Report { name, ..report })
        };
        self.supervisor.reports().into_iter().filter_map(own).collect()
    }

    /// Cancelled when the tasks are to end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Work of this scope whose panics are counted.
    #[must_use]
    pub fn work(&self, name: &str) -> Work {
        Work::new(&self.supervisor, format!("{}{name}", self.prefix))
    }

    /// Work of this scope whose panics make its owner unhealthy for a second.
    #[must_use]
    pub fn vital(&self, name: &str) -> Work {
        Work::vital(&self.supervisor, format!("{}{name}", self.prefix))
    }

    /// Keeps a task running until the scope ends.
    pub fn keep(&self, task: Task) {
        self.keep_until(task, self.stop.clone());
    }

    /// Keeps a task running until the returned token, which the task is given, is cancelled, or the scope ends.
    #[must_use = "cancelling it ends the task"]
    pub fn keep_alone(&self, task: Task) -> CancellationToken {
        let stop = self.stop.child_token();
        self.keep_until(task, stop.clone());
        stop
    }

    fn keep_until(&self, task: Task, stop: CancellationToken) {
        let name: Arc<str> = format!("{}{}", self.prefix, task.name).into();
        let lives = self.supervisor.lives(Task { name, ..task }, stop);
        spawn(self.tasks.track_future(lives));
    }

    /// Waits until the scope has ended, and every task with it.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Alive(Arc<AtomicUsize>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn task(name: &'static str, alive: &Arc<AtomicUsize>) -> Task {
        let alive = alive.clone();
        Task::endless(name, move || {
            alive.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(alive.clone());
            async move {
                let _alive = alive;
                std::future::pending().await
            }
        })
    }

    #[tokio::test]
    async fn tasks_must_not_outlive_their_owner() {
        let (supervisor, alive) = (Supervisor::default(), Arc::new(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let scope = Scope::new(&supervisor, "part/", &stop);
        scope.keep(task("a", &alive));
        let alone = scope.keep_alone(task("b", &alive));
        // Two lives of one name are one entry.
        scope.keep(task("a", &alive));
        while alive.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        let names: Vec<_> =
            supervisor.reports().iter().map(|r| format!("{}={}", r.name, r.running)).collect();
        assert_eq!(names, ["part/a=2", "part/b=1"]);
        alone.cancel();
        while alive.load(Ordering::SeqCst) > 2 {
            tokio::task::yield_now().await;
        }
        assert!(supervisor.report("part/b").is_none());
        drop(scope);
        while alive.load(Ordering::SeqCst) > 0 || !supervisor.reports().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
