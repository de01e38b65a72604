//! Snapshots of a server that runs: on request and by schedule, one at a time, while it serves.

use super::archive;
use super::folder::{self, Folder};
use super::request::{self, Listener, Request};
use crate::member::objects::Objects;
use crate::member::shared;
use crate::settings;
use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use machinery::cron::Schedule;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::embedded::Store;
use supervise::{Supervisor, Task, Work, accept};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// What files of scheduled snapshots are called.
const SCHEDULED: &str = "scheduled";
/// The clock on the wall may be set: it is looked at again after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// First and longest pause before one that failed is tried again; never longer than until the next is due.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Requests at once; each waits for the one before it.
const REQUESTS: usize = 8;

/// When snapshots are made unasked, where they go, and how many stay.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) schedule: Option<Schedule>,
    pub(crate) keep: usize,
    pub(crate) folder: Folder,
}

impl Plan {
    /// Upstream has no counterpart; schedule and number are what users of k3s know.
    pub(crate) const SCHEDULE: &str = "0 */12 * * *";
    pub(crate) const KEEP: usize = 5;

    /// `schedule` as cron writes it, in the machine's time zone; empty for none.
    pub(crate) fn new(schedule: &str, keep: usize, dir: PathBuf) -> anyhow::Result<Self> {
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        let schedule = match schedule {
            "" => None,
            text => {
                Some(Schedule::parse(text, zone).with_context(|| format!("--snapshot-schedule {text:?}"))?)
            }
        };
        Ok(Self { schedule, keep, folder: Folder::new(dir) })
    }
}

/// What objects are in.
#[derive(Clone)]
pub(crate) enum Source {
    Embedded(Arc<Store>),
    Etcd(etcd::Client),
}

impl Source {
    /// Writes the newest state to `copy`, with everything acknowledged before the call; gives what the file is called in a snapshot, and its
    /// revision.
    async fn copy(&self, copy: &Path) -> anyhow::Result<(&'static str, u64)> {
        match self {
            Self::Embedded(store) => Ok((settings::STORE_FILE, store.snapshot(copy).await?)),
            Self::Etcd(client) => {
                client.snapshot(copy).await?;
                let copy = copy.to_owned();
                let newest = tokio::task::spawn_blocking(move || etcd::database::newest(&copy)).await??;
                Ok((settings::ETCD_FILE, u64::try_from(newest)?))
            }
        }
    }
}

/// What goes into a snapshot.
pub(crate) struct Contents<'a> {
    pub(crate) source: &'a Source,
    pub(crate) server_dir: &'a Path,
    pub(crate) node: &'a str,
}

impl Contents<'_> {
    /// Writes a snapshot into `folder` and gives its path.
    pub(crate) async fn save(&self, folder: &Folder, name: &str) -> anyhow::Result<PathBuf> {
        let work = {
            let (folder, node) = (folder.clone(), self.node.to_owned());
            tokio::task::spawn_blocking(move || folder.begin(&node)).await??
        };
        let copy = work.join("store");
        let (store, revision) = self.source.copy(&copy).await?;
        let (server_dir, node) = (self.server_dir.to_owned(), self.node.to_owned());
        let (folder, name) = (folder.clone(), name.to_owned());
        let written = move || {
            let mut files = archive::files_below(&server_dir, &server_dir.join("pki"))?;
            // Without it, nobody can read what was encrypted.
            files.extend(shared::encryption(&server_dir)?);
            // What may be renewed meanwhile is copied first: its digest is of what goes in.
            for (name, path) in &mut files {
                let copied = work.join(&*name);
                pki::files::create_private_dir(copied.parent().unwrap_or(&work))?;
                std::fs::copy(&*path, &copied).with_context(|| format!("copy {}", path.display()))?;
                *path = copied;
            }
            files.push((store.to_owned(), copy));
            let prefix = Objects::read(&server_dir)?.prefix;
            let file = work.join("snapshot");
            archive::write(&file, &node, revision, prefix, &files).context("write the snapshot")?;
            folder.finish(&file, &name, &node)
        };
        tokio::task::spawn_blocking(written).await?
    }
}

/// Makes the snapshots of a running server.
pub(crate) struct Keeper {
    plan: Plan,
    source: Source,
    server_dir: PathBuf,
    node: String,
    /// Held while one is written.
    busy: Mutex<()>,
}

impl Keeper {
    pub(crate) fn new(plan: Plan, source: Source, server_dir: PathBuf, node: String) -> Arc<Self> {
        Arc::new(Self { plan, source, server_dir, node, busy: Mutex::default() })
    }

    async fn save(&self, folder: &Folder, name: &str) -> anyhow::Result<PathBuf> {
        let _busy = self.busy.lock().await;
        let contents = Contents { source: &self.source, server_dir: &self.server_dir, node: &self.node };
        let path = contents.save(folder, name).await?;
        tracing::info!(path = %path.display(), "wrote a snapshot");
        Ok(path)
    }

    /// What it does unasked and on request.
    pub(crate) fn tasks(self: &Arc<Self>, supervisor: &Supervisor) -> Vec<Task> {
        let (keeper, supervisor) = (self.clone(), supervisor.clone());
        let requests = Task::new("snapshot requests", move |stop| {
            let (keeper, supervisor) = (keeper.clone(), supervisor.clone());
            async move { Ok(keeper.serve(&supervisor, &stop).await?) }
        });
        let keeper = self.clone();
        let scheduled = self.plan.schedule.clone().map(|schedule| {
            Task::new("snapshots", move |stop: CancellationToken| {
                let (keeper, schedule) = (keeper.clone(), schedule.clone());
                async move {
                    stop.run_until_cancelled(Box::pin(keeper.follow(&schedule))).await;
                    Ok(())
                }
            })
        });
        [requests].into_iter().chain(scheduled).collect()
    }

    async fn follow(&self, schedule: &Schedule) {
        let mut turns = Turns { last: Timestamp::now(), failed: 0 };
        while let Some(next) = turns.next(schedule) {
            loop {
                let left = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
                if left.is_zero() {
                    break;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
            let done = Box::pin(self.take_scheduled()).await;
            // of times missed while the machine slept, none is made up for
            turns = turns.after(Timestamp::now(), done.is_ok());
            if let Err(error) = done {
                let again = turns.next(schedule).map(|at| at.to_string());
                tracing::error!(error = format!("{error:#}"), again, "no snapshot was made");
            }
        }
        tracing::warn!("the schedule of snapshots has no time left");
        std::future::pending().await
    }

    async fn take_scheduled(&self) -> anyhow::Result<()> {
        self.save(&self.plan.folder, SCHEDULED).await?;
        let (folder, node, keep) = (self.plan.folder.clone(), self.node.clone(), self.plan.keep);
        let removed = tokio::task::spawn_blocking(move || folder.prune(SCHEDULED, &node, keep)).await??;
        for path in removed {
            tracing::info!(path = %path.display(), "removed an old snapshot");
        }
        Ok(())
    }

    async fn serve(
        self: Arc<Self>,
        supervisor: &Supervisor,
        stop: &CancellationToken,
    ) -> std::io::Result<()> {
        let listener = Listener::bind(&self.server_dir)?;
        let work = Work::new(supervisor, "snapshot requests");
        accept(&listener, REQUESTS, &work, stop, |stream, _| {
            let keeper = self.clone();
            async move { request::answer(stream, async |request| keeper.requested(request).await).await }
        })
        .await;
        Ok(())
    }

    async fn requested(&self, request: Request) -> anyhow::Result<PathBuf> {
        let name = folder::parse_name(&request.name).map_err(|e| anyhow!(e))?;
        let folder = request.dir.map_or_else(|| self.plan.folder.clone(), Folder::new);
        self.save(&folder, name).await
    }
}

/// When a snapshot is due, by how the last ones went. Pure.
#[derive(Clone, Copy, Debug)]
struct Turns {
    last: Timestamp,
    /// How many failed since one was made.
    failed: u32,
}

impl Turns {
    fn next(&self, schedule: &Schedule) -> Option<Timestamp> {
        let regular = schedule.next(self.last);
        if self.failed == 0 {
            return regular;
        }
        let pause = AGAIN.0.saturating_mul(2_u32.saturating_pow(self.failed - 1)).min(AGAIN.1);
        let again = self.last.checked_add(pause).ok();
        regular.into_iter().chain(again).min()
    }

    fn after(self, now: Timestamp, succeeded: bool) -> Self {
        Self { last: now, failed: if succeeded { 0 } else { self.failed.saturating_add(1) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_failed_must_not_wait_for_the_next_period() {
        let at = |text: &str| format!("2026-11-29T{text}Z").parse::<Timestamp>().unwrap();
        let schedule = Schedule::parse(Plan::SCHEDULE, TimeZone::UTC).unwrap();
        let mut turns = Turns { last: at("00:00:00"), failed: 0 };
        assert_eq!(turns.next(&schedule), Some(at("12:00:00")));
        for (now, next) in [
            ("12:00:05", "12:01:05"),
            ("12:01:10", "12:03:10"),
            ("12:03:10", "12:07:10"),
            ("12:30:00", "12:38:00"),
        ] {
            turns = turns.after(at(now), false);
            assert_eq!(turns.next(&schedule), Some(at(next)));
        }
        for _ in 0..40 {
            turns = turns.after(at("13:00:00"), false);
        }
        assert_eq!(turns.next(&schedule), Some(at("14:00:00")), "an hour is the longest pause");
        turns = turns.after(at("23:50:00"), false);
        assert_eq!(
            turns.next(&schedule).unwrap(),
            "2026-11-30T00:00:00Z".parse().unwrap(),
            "the regular one"
        );
        turns = turns.after(at("13:00:00"), true);
        assert_eq!(turns.next(&schedule), Some("2026-11-30T00:00:00Z".parse().unwrap()));
    }
}
