//! `windlass upgrade`: the programs of a release in the place of those that are here, older or newer.
//!
//! The release is unpacked beside the programs and verified whole before anything changes; each program is then replaced in one step, and what
//! runs is restarted, which waits until it says that it is ready. Where that fails, the old programs are back and restarted. Pods go on all
//! the time: nothing is drained. What an interrupted run leaves beside the programs, the next one removes.

mod release;

use crate::cli::UpgradeFlags;
use crate::{output, program};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROGRAMS: [&str; 2] = ["windlass-cni", "windlass"];
const UNITS: [&str; 2] = ["windlass-server.service", "windlass-agent.service"];
/// Where a release is unpacked, beside the programs.
const STAGE: &str = ".windlass-release";
/// What programs are called that were replaced, until the new ones are ready.
const OLD: &str = "old";
/// The longest that a program is waited for which only prints.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(flags: &UpgradeFlags) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find our own executable")?;
    let dir = own.parent().context("our own executable is in no directory")?;
    if dir == Path::new("/usr/bin") {
        bail!("these programs are a package's: apt-get install ./windlass_VERSION_ARCHITECTURE.deb");
    }
    let stage = dir.join(STAGE);
    remove(&stage)?;
    let before = version(&own).await?;
    let staged = staged(&flags.dist, &stage).await;
    if staged.is_err() {
        // It may have filled the disk.
        remove(&stage)?;
    }
    let after = staged?;
    let mut units = Vec::new();
    // Without systemd, whoever started them starts them again.
    let by_systemd = Path::new("/run/systemd/system").is_dir();
    for unit in UNITS.into_iter().filter(|_| by_systemd) {
        if is_running(&state(unit).await?) {
            units.push(unit);
        }
    }
    let restart = async || {
        for unit in units.iter().copied() {
            program::run("systemctl", &["restart", unit], flags.timeout).await?;
        }
        anyhow::Ok(())
    };
    let done = replace(dir, &stage, restart).await;
    remove(&stage)?;
    done?;
    let data = json!({"from": before, "to": after, "restarted": units});
    let shown = |version: &Value| {
        let text = |field: &str| version.get(field).and_then(Value::as_str).unwrap_or("unknown").to_owned();
        format!("{} (commit {})", text("version"), text("commit"))
    };
    let text = format!("windlass {} -> {}; restarted: {}\n", shown(&before), shown(&after), units.join(", "));
    output::print(flags.output, &text, &data)
}

/// Unpacks a release, and gives what its program says of itself.
async fn staged(dist: &Path, stage: &Path) -> anyhow::Result<Value> {
    let (from, to) = (dist.to_owned(), stage.to_owned());
    // It reads, hashes and writes files for a while.
    let unpacked = tokio::task::spawn_blocking(move || release::unpack(&from, &to, &PROGRAMS)).await?;
    unpacked.with_context(|| format!("unpack {}", dist.display()))?;
    let after = version(&stage.join("windlass")).await;
    after.context("the release's program does not run on this machine; nothing was changed")
}

/// What a program says of itself.
async fn version(program: &Path) -> anyhow::Result<Value> {
    let said = program::run(program, &["version", "-o", "json"], PATIENCE).await?;
    serde_json::from_str(&said).with_context(|| format!("{} version", program.display()))
}

/// What systemd says of a unit: `active`.
async fn state(unit: &str) -> anyhow::Result<String> {
    let said =
        program::run("systemctl", &["show", "--property=ActiveState", "--value", unit], PATIENCE).await?;
    Ok(said.trim().to_owned())
}

/// A unit that is at work, or on its way there: one that fails again and again is `activating` in between, and the new programs may be what mends it.
fn is_running(state: &str) -> bool {
    ["active", "activating", "reloading", "refreshing", "deactivating"].contains(&state)
}

/// Puts the staged programs in the place of those in `dir` and restarts what runs; where that fails, the old ones are back.
async fn replace(
    dir: &Path,
    stage: &Path,
    restart: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let swapped = swap(dir, stage);
    let failed = match swapped {
        Ok(()) => match restart().await {
            Ok(()) => {
                // Kept no longer: whoever wants them back upgrades to their release.
                for program in PROGRAMS {
                    remove(&old(dir, program))?;
                }
                return Ok(());
            }
            Err(error) => error.context("the new programs are not ready"),
        },
        Err(error) => error,
    };
    tracing::error!(error = format!("{failed:#}"), "going back to the old programs");
    let restored = roll_back(dir);
    let again = restart().await.context("restart the old programs");
    match restored.and(again) {
        Ok(()) => Err(failed.context("the old programs are back")),
        Err(error) => Err(failed.context(format!("and the old programs are not back: {error:#}"))),
    }
}

fn old(dir: &Path, program: &str) -> PathBuf {
    dir.join(format!("{program}.{OLD}"))
}

/// Each program has two names for a moment, and is never absent.
fn swap(dir: &Path, stage: &Path) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let (present, aside) = (dir.join(program), old(dir, program));
        remove(&aside)?;
        let kept = match fs::hard_link(&present, &aside) {
            // A release may bring a program that was not there.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            kept => kept,
        };
        kept.with_context(|| format!("keep {}", present.display()))?;
    }
    for program in PROGRAMS {
        let present = dir.join(program);
        fs::rename(stage.join(program), &present)
            .with_context(|| format!("replace {}", present.display()))?;
    }
    fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}

fn roll_back(dir: &Path) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let (present, aside) = (dir.join(program), old(dir, program));
        if aside.exists() {
            // One file under two names: a rename would do nothing.
            fs::rename(&aside, &present).with_context(|| format!("restore {}", present.display()))?;
            remove(&aside)?;
        }
    }
    Ok(())
}

/// Removes a file or a directory, which need not be there.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Programs that are here, and a release staged beside them.
    fn prepared() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join(STAGE);
        fs::create_dir(&stage).unwrap();
        for program in PROGRAMS {
            fs::write(dir.path().join(program), format!("old {program}")).unwrap();
            fs::write(stage.join(program), format!("new {program}")).unwrap();
        }
        (dir, stage)
    }

    fn content(dir: &Path, program: &str) -> String {
        fs::read_to_string(dir.join(program)).unwrap()
    }

    #[test]
    fn a_unit_that_fails_again_and_again_must_not_be_taken_for_a_stopped_one() {
        for running in ["active", "activating", "reloading"] {
            assert!(is_running(running), "{running}");
        }
        for stopped in ["inactive", "failed", ""] {
            assert!(!is_running(stopped), "{stopped}");
        }
    }

    #[tokio::test]
    async fn new_programs_take_the_place_of_old_ones() {
        let (dir, stage) = prepared();
        replace(dir.path(), &stage, async || anyhow::Ok(())).await.unwrap();
        assert_eq!(content(dir.path(), "windlass"), "new windlass");
        assert_eq!(content(dir.path(), "windlass-cni"), "new windlass-cni");
        assert!(!old(dir.path(), "windlass").exists());
    }

    #[tokio::test]
    async fn programs_that_do_not_get_ready_must_not_stay() {
        let (dir, stage) = prepared();
        let starts = Cell::new(0);
        let restart = async || {
            starts.set(starts.get() + 1);
            if content(dir.path(), "windlass") == "new windlass" {
                bail!("not ready")
            } else {
                anyhow::Ok(())
            }
        };
        let error = format!("{:#}", replace(dir.path(), &stage, restart).await.unwrap_err());
        assert_eq!(error, "the old programs are back: the new programs are not ready: not ready");
        assert_eq!(starts.get(), 2, "what runs is restarted once more");
        for program in PROGRAMS {
            assert_eq!(content(dir.path(), program), format!("old {program}"));
            assert!(!old(dir.path(), program).exists());
        }
    }

    #[tokio::test]
    async fn a_release_without_a_program_must_not_replace_half() {
        let (dir, stage) = prepared();
        fs::remove_file(stage.join("windlass")).unwrap();
        let error = replace(dir.path(), &stage, async || anyhow::Ok(())).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the old programs are back: replace"), "{error:#}");
        assert_eq!(content(dir.path(), "windlass-cni"), "old windlass-cni");
    }
}
