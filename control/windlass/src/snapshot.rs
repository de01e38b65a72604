//! `windlass snapshot`: everything a cluster is, in one file: its objects and its keys.
//!
//! - `archive`: what the file looks like, written and read with its digests; `folder`: the files there are, and which go
//! - `keeper`: what a running server does: snapshots on request and by schedule
//! - `request`: how a command reaches it; `restore`: a snapshot becomes a server's state

pub(crate) mod archive;
pub(crate) mod folder;
pub(crate) mod keeper;
mod request;
pub(crate) mod restore;

use crate::cli::{SnapshotCommand, SnapshotPlace, SnapshotRestore, SnapshotSave};
use crate::member;
use crate::output;
use crate::settings;
use anyhow::{Context as _, anyhow, bail, ensure};
use archive::Snapshot;
use folder::Folder;
use keeper::{Contents, Source};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::embedded::{Options, Store};

fn folder(place: &SnapshotPlace) -> Folder {
    Folder::new(place.snapshot_dir.clone().unwrap_or_else(|| settings::snapshot_dir(&place.data_dir)))
}

pub(crate) async fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Save(flags) => save(&flags).await,
        SnapshotCommand::List(place) => list(&place),
        SnapshotCommand::Restore(flags) => restore(&flags).await,
    }
}

/// A snapshot as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    path: &'a Path,
    bytes: u64,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

async fn save(flags: &SnapshotSave) -> anyhow::Result<()> {
    folder::parse_name(&flags.name).map_err(|error| anyhow!("--name {:?}: {error}", flags.name))?;
    let dir = settings::server_dir(&flags.place.data_dir);
    let asked = request::Request {
        name: flags.name.clone(),
        dir: flags.place.snapshot_dir.as_deref().map(std::path::absolute).transpose()?,
    };
    let path = match request::send(&dir, &asked).await? {
        Some(path) => path,
        None => save_stopped(&dir, flags).await?,
    };
    let (snapshot, bytes) = (archive::inspect(&path)?, std::fs::metadata(&path)?.len());
    let listed = Listed { path: &path, bytes, snapshot: &snapshot };
    output::print(flags.place.output, &format!("{}\n", path.display()), &listed)
}

/// A snapshot of a server that does not run.
async fn save_stopped(dir: &Path, flags: &SnapshotSave) -> anyhow::Result<PathBuf> {
    let file = settings::store_file(dir);
    let lock;
    // As another member has it: our own does not run without its server.
    let source = if member::Place::of(dir).read()?.is_some() {
        lock = None;
        Source::Etcd(member::command::client(&flags.place.data_dir)?)
    } else if file.exists() {
        lock = Some(crate::lock::take(dir, "windlass server")?);
        Source::Embedded(Arc::new(Store::open(&file, Options::default())?))
    } else {
        bail!(
            "there is no {}: either `windlass server` never ran on this machine, or it keeps its objects in an etcd of others and has to run",
            file.display()
        );
    };
    let node = node::config::host_name().context("read the host name")?;
    let contents = Contents { source: &source, server_dir: dir, node: &node };
    let saved = contents.save(&folder(&flags.place), &flags.name).await;
    drop(lock);
    saved
}

fn list(place: &SnapshotPlace) -> anyhow::Result<()> {
    let files = folder(place).files()?;
    let mut rows = vec![["NAME", "CREATED", "REVISION", "BYTES", "NODE"].map(str::to_owned).to_vec()];
    let mut listed = Vec::new();
    for file in &files {
        let name = file.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        match &file.snapshot {
            Ok(snapshot) => {
                rows.push(vec![
                    name,
                    snapshot.created.to_string(),
                    snapshot.revision.to_string(),
                    file.bytes.to_string(),
                    snapshot.node.clone(),
                ]);
                listed.push(Listed { path: &file.path, bytes: file.bytes, snapshot });
            }
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    output::print(place.output, &output::table(&rows), &listed)
}

/// The members of the cluster that is replaced, which must not serve it any more: two clusters under one authority would have agents end the pods
/// of either in turn.
async fn others(flags: &SnapshotRestore) -> anyhow::Result<Vec<String>> {
    let asked = match member::command::others(&flags.place.data_dir).await {
        Err(error) if flags.force => {
            tracing::warn!(error = format!("{error:#}"), "ask the other members of etcd");
            return Ok(Vec::new());
        }
        asked => asked.context("ask the other members of etcd; --force restores without")?,
    };
    ensure!(
        flags.force || asked.running.is_empty(),
        "{} of the cluster that this server is of still run: stop their servers and empty them first (--force restores all the same)",
        asked.running.join(", ")
    );
    Ok(asked.known)
}

async fn restore(flags: &SnapshotRestore) -> anyhow::Result<()> {
    let given = &flags.snapshot;
    let within = folder(&flags.place).path().join(given);
    let path = if given.exists() { given } else { &within };
    let dir = settings::server_dir(&flags.place.data_dir);
    let others = others(flags).await?;
    let restored = restore::restore(path, &dir)?;
    let mut text = format!(
        "{} holds the cluster of {}, revision {}; start `windlass server`\n",
        dir.display(),
        restored.snapshot.created,
        restored.snapshot.revision
    );
    if !others.is_empty() {
        text.push_str(&format!(
            "empty the servers of {} before they start again: they are of the cluster before\n",
            others.join(", ")
        ));
    }
    if let Some(config) = &restored.encryption {
        let config = config.display();
        text.push_str(&format!(
            "objects are read by {config}, unless --encryption-provider-config says otherwise\n"
        ));
    }
    if let Some(aside) = &restored.replaced {
        text.push_str(&format!("what was there before is in {}\n", aside.display()));
    }
    output::print(flags.place.output, &text, &restored)
}
