//! Removing a lab, however it ended. Safe to call when nothing is there.

use crate::cgroup;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Ends the supervisor (and with it every node), then removes cgroups and files.
///
/// # Errors
/// Something of the lab cannot be removed; the message names it.
pub fn lab(layout: &Layout) -> Result<()> {
    end_supervisor(layout)?;
    let parent = format!("windlass-lab/{}", layout.name());
    retry(|| cgroup::remove(&parent))?;
    // the folder shared by all labs goes with the last of them
    let _ = cgroup::remove_if_empty("windlass-lab");
    let root = layout.root();
    if root.exists() {
        retry(|| fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display())))?;
    }
    if let Some(parent) = root.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Removes a lab after its work is `done`; one whose work failed is left for a look.
///
/// # Errors
/// What the work failed by, or as [`lab`].
pub fn after(layout: &Layout, done: Result<()>) -> Result<()> {
    if done.is_ok() {
        return lab(layout);
    }
    eprintln!("the lab {} is left for a look; take it down with: lab --lab {0} down", layout.name());
    done
}

fn end_supervisor(layout: &Layout) -> Result<()> {
    let Ok(text) = fs::read_to_string(layout.pid_file()) else { return Ok(()) };
    let pid: i32 = text.trim().parse().with_context(|| format!("parse {}", layout.pid_file().display()))?;
    // a stale file may name somebody else's process by now
    if !is_supervisor(pid, layout.name()) {
        return Ok(());
    }
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("stop the supervisor")?;
    let started = Instant::now();
    while is_supervisor(pid, layout.name()) {
        if started.elapsed() > Duration::from_secs(15) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill the supervisor")?;
        }
        if started.elapsed() > Duration::from_secs(20) {
            bail!("the supervisor (process {pid}) does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_supervisor(pid: i32, name: &str) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let line = fs::read_to_string(proc.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split('\0').collect();
    !zombie && words.windows(3).any(|w| w == ["--lab", name, "supervise"])
}

/// Killed processes leave their cgroups and mounts a moment later.
fn retry(mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match step() {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > Duration::from_secs(15) => return Err(error),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}
