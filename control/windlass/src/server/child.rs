//! The server's own agent: `windlass agent` as a child process, so that privileges, cgroups and crashes stay apart.
//!
//! It dies with the server (by the kernel's parent-death signal), is started again with backoff when it ends by itself, and is stopped
//! first at shutdown, while the API server still answers it.

use crate::agent::PARENT;
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use supervise::Backoff;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First and longest pause before it is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// An agent that ran for so long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Program {
    /// Ourselves with other arguments.
    pub(super) fn ourselves(arguments: Vec<String>) -> anyhow::Result<Self> {
        Ok(Self { path: std::env::current_exe().context("find our own executable")?, arguments })
    }

    fn start(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(PARENT, std::process::id().to_string()).kill_on_drop(true);
        // What is meant for the server must not reach the agent; it gets all it needs as arguments.
        for (name, _) in
            std::env::vars().filter(|(n, _)| n.starts_with("WINDLASS_") && n != "WINDLASS_LOG_FORMAT")
        {
            if name != PARENT {
                command.env_remove(name);
            }
        }
        command.spawn().with_context(|| format!("start {}", self.path.display()))
    }
}

/// Keeps the program running until `shutdown`. Must be awaited on the main thread: the kernel ties the child's life to the
/// thread that started it.
pub(super) async fn keep(program: &Program, shutdown: &CancellationToken) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        match program.start() {
            Ok(child) => match follow(child, shutdown).await {
                None => return,
                Some(ended) => tracing::error!(%ended, "the agent ended; starting it again"),
            },
            Err(error) => tracing::error!(error = format!("{error:#}"), "start the agent; will try again"),
        }
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = backoff.pause() => {}
        }
    }
}

/// Waits for the child's end, or ends it; `None` when it was asked to.
async fn follow(mut child: Child, shutdown: &CancellationToken) -> Option<String> {
    tokio::select! {
        ended = child.wait() => return Some(describe(ended)),
        () = shutdown.cancelled() => {}
    }
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // A child that ended meanwhile is not reaped yet, so the id is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_PATIENCE, child.wait()).await.is_err() {
        tracing::warn!("the agent does not stop; killing it");
        let _ = child.kill().await;
    }
    None
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program { path: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
    }

    #[tokio::test]
    async fn an_agent_that_ends_is_started_again_and_stops_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let program = shell(&format!(
            "trap 'echo stopped >> {0}; exit 0' TERM; echo \"started by ${PARENT}\" >> {0}; \
             test $(wc -l < {0}) -ge 2 || exit 3; while :; do sleep 0.05; done",
            log.display()
        ));
        let shutdown = CancellationToken::new();
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let watch = async {
            while read().lines().count() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shutdown.cancel();
        };
        let both = async { tokio::join!(keep(&program, &shutdown), watch) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        let started = format!("started by {}", std::process::id());
        assert_eq!(read().lines().collect::<Vec<_>>(), [&started, &started, "stopped"]);
    }
}
