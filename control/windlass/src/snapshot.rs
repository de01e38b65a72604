//! `windlass snapshot`: everything a cluster is, in one file: its objects and its keys.
//!
//! - `archive`: what the file looks like, written and read with its digests; `folder`: the files there are, and which go
//! - `keeper`: what a running server does: snapshots on request and by schedule
//! - `request`: how a command reaches it; `restore`: a snapshot becomes a server's state

pub(crate) mod archive;
pub(crate) mod folder;
pub(crate) mod keeper;
mod request;
mod restore;

use crate::cli::DATA_DIR;
use crate::output::{self, Output};
use crate::settings;
use anyhow::{Context as _, bail};
use archive::Snapshot;
use clap::{Args, Subcommand};
use folder::Folder;
use keeper::Contents;
use serde::Serialize;
use std::path::{Path, PathBuf};
use store::embedded::{Options, Store};

/// `snapshot ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write a snapshot of this server's cluster, running or not
    Save(Save),
    /// List the snapshots there are
    List(List),
    /// Put a snapshot in the place of this server's state; the server must be stopped
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Directory of the server's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Directory of snapshots [default: the server's own, else snapshots in the data directory]
    #[arg(long, env = "WINDLASS_SNAPSHOT_DIR", value_name = "DIR")]
    pub(crate) snapshot_dir: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

impl Place {
    fn folder(&self) -> Folder {
        Folder::new(self.snapshot_dir.clone().unwrap_or_else(|| settings::snapshot_dir(&self.data_dir)))
    }
}

/// `snapshot save`
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// What the file's name begins with
    #[arg(long, default_value = "on-demand", value_parser = folder::parse_name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `snapshot list`
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `snapshot restore`
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The snapshot: a file, or the name of one in the directory of snapshots
    pub(crate) snapshot: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

pub(crate) async fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Save(flags) => save(&flags).await,
        SnapshotCommand::List(flags) => list(&flags.place),
        SnapshotCommand::Restore(flags) => restore(&flags),
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

async fn save(flags: &Save) -> anyhow::Result<()> {
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
async fn save_stopped(dir: &Path, flags: &Save) -> anyhow::Result<PathBuf> {
    let file = settings::store_file(dir);
    if !file.exists() {
        bail!(
            "there is no {}: either `windlass server` never ran on this machine, or it keeps its objects in etcd, which has snapshots of its own",
            file.display()
        );
    }
    let _lock = crate::lock::take(dir, "windlass server")?;
    let store = Store::open(&file, Options::default())?;
    let node = node::config::host_name().context("read the host name")?;
    Contents { store: &store, server_dir: dir, node: &node }.save(&flags.place.folder(), &flags.name).await
}

fn list(place: &Place) -> anyhow::Result<()> {
    let files = place.folder().files()?;
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

fn restore(flags: &Restore) -> anyhow::Result<()> {
    let given = &flags.snapshot;
    let within = flags.place.folder().path().join(given);
    let path = if given.exists() { given } else { &within };
    let dir = settings::server_dir(&flags.place.data_dir);
    let restored = restore::restore(path, &dir)?;
    let mut text = format!(
        "{} holds the cluster of {}, revision {}; start `windlass server`\n",
        dir.display(),
        restored.snapshot.created,
        restored.snapshot.revision
    );
    if let Some(aside) = &restored.replaced {
        text.push_str(&format!("what was there before is in {}\n", aside.display()));
    }
    output::print(flags.place.output, &text, &restored)
}
