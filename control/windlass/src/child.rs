//! The server's children: `windlass agent`, so that privileges, cgroups and crashes stay apart, and the etcd member beside it.
//!
//! A child dies with the server (by the kernel's parent-death signal) and is started again with backoff when it ends by itself. At shutdown the
//! agent is stopped first, while the API server still answers it, and etcd last. A program that is not ours cannot ask the kernel for that
//! signal: [`exec`] does before it becomes the program.

mod life;

pub(crate) use life::Life;

use crate::agent::{PARENT, follow_parent};
use crate::cli::ExecFlags;
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use supervise::Backoff;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What etcd takes from its environment to run where it is not supported; everything else it is told in its arguments.
const ETCD_ARCHITECTURE: &str = "ETCD_UNSUPPORTED_ARCH";

/// First and longest pause before it is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// An agent that ran for so long starts with the first pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How often a child ended by itself, or could not be started.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// How often children of this process ended by themselves, or could not be started.
pub(crate) fn ends() -> u64 {
    ENDS.load(Ordering::Relaxed)
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// What it is, for messages.
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// Ourselves as an agent.
    pub(super) fn agent(arguments: Vec<String>) -> anyhow::Result<Self> {
        let path = std::env::current_exe().context("find our own executable")?;
        Ok(Self { name: "the agent", path, arguments })
    }

    /// Another program, which dies with us at once.
    pub(crate) fn other(name: &'static str, program: &Path, arguments: Vec<String>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("find our own executable")?;
        let mut all = vec!["--config=".to_owned(), "exec".to_owned()];
        // What follows is not ours to read.
        all.extend([program.display().to_string(), "--".to_owned()]);
        all.extend(arguments);
        Ok(Self { name, path: own, arguments: all })
    }

    /// Starts it; dropped, it is killed. On the main thread only: see [`keep`].
    pub(crate) fn start(&self) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(PARENT, std::process::id().to_string()).kill_on_drop(true);
        // What is meant for the server must not reach the agent; it gets all it needs as arguments.
        let told = |name: &OsStr| is_ours(name) && name != "WINDLASS_LOG_FORMAT" && name != PARENT;
        std::env::vars_os().filter(|(name, _)| told(name)).for_each(|(name, _)| _ = command.env_remove(name));
        crate::notify::VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        command.spawn().with_context(|| format!("start {}", self.path.display()))
    }
}

/// How a child came to its end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By itself; how.
    Itself(String),
    /// It is to start again.
    Again,
    Shutdown,
}

/// Keeps a program called `name` running until `shutdown`, each time as `make` has it, and ends it to start it again when `again` says so; `life` tells how that goes. Must be awaited on the main thread: the kernel ties the
/// child's life to the thread that started it.
pub(crate) async fn keep(
    name: &str,
    make: impl AsyncFn() -> anyhow::Result<Program>,
    life: &Life,
    again: &Notify,
    shutdown: &CancellationToken,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let Some(made) = shutdown.run_until_cancelled(make()).await else { return };
        match made.and_then(|program| Ok((program.start()?, program))) {
            Ok((child, program)) => {
                life.started(Instant::now());
                match follow(&program, child, again, shutdown).await {
                    End::Shutdown => return,
                    End::Again => {
                        backoff.reset();
                        continue;
                    }
                    End::Itself(ended) => {
                        tracing::error!(program = name, %ended, "a child ended; starting it again");
                        life.ended(Instant::now(), ended);
                    }
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(program = name, error, "start; will try again");
                life.ended(Instant::now(), error);
            }
        }
        ENDS.fetch_add(1, Ordering::Relaxed);
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = backoff.pause() => {}
        }
    }
}

/// Waits for the child's end, or ends it.
async fn follow(program: &Program, mut child: Child, again: &Notify, shutdown: &CancellationToken) -> End {
    let end = tokio::select! {
        ended = child.wait() => return End::Itself(describe(ended)),
        () = shutdown.cancelled() => End::Shutdown,
        () = again.notified() => End::Again,
    };
    if stop(&mut child).await.is_none() {
        tracing::warn!(program = program.name, "it does not stop; killing it");
        let _ = child.kill().await;
    }
    end
}

/// Asks a child to end, and waits for that; `None` where it does not.
pub(crate) async fn stop(child: &mut Child) -> Option<std::io::Result<ExitStatus>> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // A child that ended meanwhile is not reaped yet, so the id is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    tokio::time::timeout(STOP_PATIENCE, child.wait()).await.ok()
}

/// Whether a variable of the environment is a setting of ours.
fn is_ours(name: &OsStr) -> bool {
    begins(name, "WINDLASS_")
}

fn begins(name: &OsStr, with: &str) -> bool {
    name.as_encoded_bytes().starts_with(with.as_bytes())
}

/// Becomes the program, after the kernel was asked to kill it when the server dies.
pub(crate) fn exec(flags: &ExecFlags) -> anyhow::Result<()> {
    follow_parent(Signal::SIGKILL)?;
    let mut command = std::process::Command::new(&flags.program);
    command.args(&flags.arguments);
    let told = |name: &OsStr| is_ours(name) || (begins(name, "ETCD_") && name != ETCD_ARCHITECTURE);
    std::env::vars_os().filter(|(name, _)| told(name)).for_each(|(name, _)| _ = command.env_remove(name));
    Err(command.exec()).with_context(|| format!("run {}", flags.program.display()))
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| error.to_string(), |status| status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program { name: "a shell", path: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
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
        let (life, shutdown) = (Life::default(), CancellationToken::new());
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let watch = async {
            while read().lines().count() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shutdown.cancel();
        };
        let again = Notify::new();
        let kept = keep("a shell", async || Ok(program.clone()), &life, &again, &shutdown);
        let both = async { tokio::join!(kept, watch) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        let started = format!("started by {}", std::process::id());
        assert_eq!(read().lines().collect::<Vec<_>>(), [&started, &started, "stopped"]);
        assert!(life.check(Instant::now() + HEALTHY_AFTER / 2).is_ok(), "it ran again");
        assert!(ends() > 0);
    }

    #[tokio::test]
    async fn a_child_that_is_to_start_again_must_not_be_waited_for_as_one_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let program = shell(&format!(
            "trap 'echo stopped >> {0}; exit 0' TERM; echo started >> {0}; while :; do sleep 0.05; done",
            log.display()
        ));
        let (shutdown, again) = (CancellationToken::new(), Notify::new());
        let lines = async |count: usize| {
            while std::fs::read_to_string(&log).unwrap_or_default().lines().count() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let watch = async {
            lines(1).await;
            again.notify_one();
            let asked = Instant::now();
            lines(3).await;
            assert!(asked.elapsed() < BACKOFF.0 * 4, "{:?}", asked.elapsed());
            shutdown.cancel();
        };
        let life = Life::default();
        let kept = keep("a shell", async || Ok(program.clone()), &life, &again, &shutdown);
        let both = async { tokio::join!(kept, watch) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        let read = std::fs::read_to_string(&log).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), ["started", "stopped", "started", "stopped"]);
    }
}
