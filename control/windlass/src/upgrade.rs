//! `windlass upgrade`: a release in the place of the one that is here, older or newer.
//!
//! The release is unpacked beside the programs and verified whole before anything changes; what it puts on a machine is what its list says, as for
//! `install.sh` ([`list`]), and what only the one before had goes. Each file is then replaced in one step, the machine's settings are made what the
//! release needs by its own installer, and what runs is restarted, which waits until it says that it is ready. Where that fails, the old release is
//! back and restarted. Pods go on all the time: nothing is drained. The operator's settings stay as they are.
//!
//! Cut short anywhere, by `kill -9` or a power cut, it is undone ([`journal`]): by the units before they start again, or by the next upgrade. Where the
//! machine was set up by hand, programs are all that is replaced.

mod journal;
mod list;
mod release;

use crate::cli::UpgradeFlags;
use crate::{output, program};
use anyhow::{Context as _, bail};
use journal::{Change, FILLED, Journal, Step};
use list::{Entry, Places};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

const PROGRAMS: [&str; 2] = ["windlass-cni", "windlass"];
const UNITS: [&str; 2] = ["windlass-server.service", "windlass-agent.service"];
/// What `install.sh` writes down of what it has made; there is none where a machine was set up by hand.
const RECORD: &str = "/etc/windlass/install/record";
/// The longest that a program is waited for which only prints.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that the machine's settings are waited for, a restart of containerd among them.
const SETTINGS: Duration = Duration::from_secs(180);

pub(crate) async fn run(flags: &UpgradeFlags) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find our own executable")?;
    let dir = own.parent().context("our own executable is in no directory")?;
    let Some(dist) = flags.dist.as_ref().filter(|_| !flags.settle) else { return settle_alone(dir) };
    if dir == Path::new("/usr/bin") {
        bail!("these programs are a package's: apt-get install ./windlass_VERSION_ARCHITECTURE.deb");
    }
    let Some(_lock) = lock(dir)? else { bail!("another upgrade of {} is under way", dir.display()) };
    let undone = settle(dir, &alive)?;
    let before = version(&own).await?;
    let places = Places::of(dir);
    let staged = staged(dist, &dir.join(FILLED), &places).await;
    if staged.is_err() {
        // It may have filled the disk.
        journal::sweep(dir)?;
    }
    let (after, entries) = staged?;
    let record = Some(Path::new(RECORD)).filter(|record| record.is_file());
    let changes = changes(dir, &places, entries, record.is_some())?;
    let begun = Journal::begin(dir, changes, &alive);
    if begun.is_err() {
        journal::sweep(dir)?;
    }
    let journal = begun?;
    let mut units = Vec::new();
    // Without systemd, whoever started them starts them again.
    let by_systemd = Path::new("/run/systemd/system").is_dir();
    let something = undone || !journal.is_empty();
    for unit in UNITS.into_iter().filter(|_| by_systemd && something) {
        if is_running(&state(unit).await?) {
            units.push(unit);
        }
    }
    let installer = places.lib.join("install.sh");
    let start = async || {
        if by_systemd {
            program::run("systemctl", &["daemon-reload"], PATIENCE).await?;
        }
        if by_systemd && record.is_some() && installer.is_file() {
            program::run(&installer, &["--refresh"], SETTINGS).await.context("the machine's settings")?;
        }
        for unit in units.iter().copied() {
            program::run("systemctl", &["restart", unit], flags.timeout).await?;
        }
        anyhow::Ok(())
    };
    replace(dir, journal, record, start, &alive).await?;
    let data = json!({"from": before, "to": after, "restarted": units});
    let shown = |version: &Value| {
        let text = |field: &str| version.get(field).and_then(Value::as_str).unwrap_or("unknown").to_owned();
        format!("{} (commit {})", text("version"), text("commit"))
    };
    let text = format!("windlass {} -> {}; restarted: {}\n", shown(&before), shown(&after), units.join(", "));
    output::print(flags.output, &text, &data)
}

/// Nothing ends a program that runs.
fn alive() -> anyhow::Result<()> {
    Ok(())
}

/// Held by who upgrades the programs in a directory; the kernel drops it however that ends. None where another has it.
fn lock(dir: &Path) -> anyhow::Result<Option<File>> {
    let file = File::open(dir).with_context(|| format!("open {}", dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", dir.display())),
    }
}

/// What units do before they start: an upgrade that was cut short is undone; one that is under way restarts them itself, and is left alone.
fn settle_alone(dir: &Path) -> anyhow::Result<()> {
    let Some(_lock) = lock(dir)? else { return Ok(()) };
    settle(dir, &alive).map(drop)
}

/// Undoes an upgrade that was cut short; whether there was one. Units that changed are systemd's when it reads them next, and settings of the
/// kernel stay until the next upgrade: old programs run on new ones.
fn settle(dir: &Path, step: Step<'_>) -> anyhow::Result<bool> {
    journal::sweep(dir)?;
    let Some(journal) = Journal::open(dir)? else { return Ok(false) };
    let overtaken = journal.is_overtaken();
    if overtaken {
        tracing::warn!("an upgrade was cut short, and another release put in place since: that stays");
    } else {
        tracing::warn!("an upgrade was cut short: the release that was here before is put back");
        journal.back(step)?;
    }
    journal.close(dir, step)?;
    Ok(!overtaken)
}

/// Unpacks a release, and gives what its program says of itself, and what it puts on a machine.
async fn staged(dist: &Path, stage: &Path, places: &Places) -> anyhow::Result<(Value, Vec<Entry>)> {
    let (from, to, places) = (dist.to_owned(), stage.join("release"), places.clone());
    // It reads, hashes and writes files for a while.
    let unpacked = tokio::task::spawn_blocking(move || {
        fs::create_dir(to.parent().unwrap_or(&to))?;
        release::unpack(&from, &to, &places)
    });
    let entries = unpacked.await?.with_context(|| format!("unpack {}", dist.display()))?;
    let after = version(&stage.join("release/bin/windlass")).await;
    Ok((after.context("the release's program does not run on this machine; nothing was changed")?, entries))
}

/// What is to change: what the release brings is put in its place, and what only the one before it had goes.
fn changes(bin: &Path, places: &Places, entries: Vec<Entry>, installed: bool) -> anyhow::Result<Vec<Change>> {
    let release = bin.join(FILLED).join("release");
    let before = match fs::read_to_string(places.lib.join(list::NAME)) {
        Ok(text) => list::parse(&text, places)?,
        Err(_) => list::without_list(places, |_| true)?,
    };
    let gone = before.into_iter().map(|entry| entry.to).filter(|to| entries.iter().all(|new| new.to != *to));
    let mut changes: Vec<Change> = gone.map(|target| Change { target, file: None }).collect();
    let new = entries
        .iter()
        .map(|entry| Change { target: entry.to.clone(), file: Some(release.join(&entry.from)) });
    changes.extend(new);
    // Units and the rest of a machine that was set up by hand are the operator's.
    changes.retain(|change| installed || change.file.is_some() && change.target.starts_with(&places.bin));
    Ok(changes)
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

/// Puts what is new in place and starts it; where that fails, the old is back.
async fn replace(
    bin: &Path,
    journal: Journal,
    record: Option<&Path>,
    start: impl AsyncFn() -> anyhow::Result<()>,
    step: Step<'_>,
) -> anyhow::Result<()> {
    let noted = record.map_or(Ok(()), |record| note(record, &journal.added(), step));
    let failed = match noted.and_then(|()| journal.forward(step)) {
        Ok(()) => match start().await {
            // Kept no longer: whoever wants the old one back upgrades to its release.
            Ok(()) => return journal.close(bin, step),
            Err(error) => error.context("the new programs are not ready"),
        },
        Err(error) => error,
    };
    tracing::error!(error = format!("{failed:#}"), "going back to the old programs");
    let restored = match journal.back(step) {
        Ok(()) => {
            let started = start().await.context("restart the old programs");
            started.and(journal.close(bin, step))
        }
        Err(error) => Err(error),
    };
    match restored {
        Ok(()) => Err(failed.context("the old programs are back")),
        Err(error) => Err(failed.context(format!("and the old programs are not back: {error:#}"))),
    }
}

/// Writes down for the installer what is made, before it is: its undoing takes that away again.
fn note(record: &Path, added: &[&Path], step: Step<'_>) -> anyhow::Result<()> {
    let known = fs::read_to_string(record).with_context(|| format!("read {}", record.display()))?;
    let mut lines = String::new();
    for target in added {
        let mut missing: Vec<&Path> = target.ancestors().skip(1).take_while(|dir| !dir.is_dir()).collect();
        missing.reverse();
        let made = missing.iter().map(|dir| format!("dir {}", dir.display()));
        for line in made.chain([format!("made {}", target.display())]) {
            let changed = line.replacen("made ", "changed ", 1);
            if !known.lines().chain(lines.lines()).any(|known| known == line || known == changed) {
                lines += &format!("{line}\n");
            }
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    step()?;
    let written = OpenOptions::new().append(true).open(record).and_then(|mut file| {
        file.write_all(lines.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("write {}", record.display()))
}

#[cfg(test)]
mod tests;
