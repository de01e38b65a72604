//! Containers' logs are cut: a log that has grown to `containerLogMaxSize` is rotated, and only `containerLogMaxFiles` are
//! kept.
//!
//! Woken every `containerLogMonitorInterval`. Reads the runtime's running containers and their logs' sizes. Writes beside the log: the
//! last one rotated plain, so that readers finish, older ones compressed. Promises: a crash leaves at worst a file that
//! the next rotation removes; a log whose container cannot be given the new file gets its name back.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri_proto::client::Runtime;
use cri_proto::v1::ContainerState;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;

use crate::config::Config;

const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";

/// Why a log was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runtime(#[from] cri_proto::client::Error),
    #[error("{operation} {}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// The blocking task died.
    #[error("log rotation interrupted")]
    Interrupted,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// Rotates until the task is dropped. Without a size or with fewer than two files nothing is rotated.
pub async fn run(runtime: Runtime, config: Arc<Config>) {
    let (Some(size), files) = (config.container_log_max_bytes, config.container_log_max_files) else {
        std::future::pending::<()>().await;
        return;
    };
    if files < 2 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(config.container_log_monitor_interval).await;
        let running = match runtime.list_containers(HashMap::new()).await {
            Ok(all) => all.into_iter().filter(|c| c.state == ContainerState::ContainerRunning as i32),
            Err(error) => {
                tracing::debug!(%error, "list containers whose logs may be too long");
                continue;
            }
        };
        let (runtime, config) = (&runtime, &config);
        let rotated = futures::stream::iter(running).for_each_concurrent(
            config.container_log_workers,
            |container| async move {
                if let Err(error) = one(runtime, config, &container, size, files).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(container = container.id, error, "rotate a container's log");
                }
            },
        );
        rotated.await;
    }
}

/// Where a container's log is, from its labels; `None` for one that is not a pod's.
pub(super) fn path_of(config: &Config, container: &cri_proto::v1::Container) -> Option<PathBuf> {
    use crate::pod::spec::labels;
    let label = |key: &str| container.labels.get(key).map(String::as_str);
    let (namespace, name, uid) =
        (label(labels::POD_NAMESPACE)?, label(labels::POD_NAME)?, label(labels::POD_UID)?);
    let metadata = container.metadata.as_ref()?;
    let dir = config.pod_log_dir(namespace, name, uid).join(&metadata.name);
    Some(dir.join(format!("{}.log", metadata.attempt)))
}

async fn one(
    runtime: &Runtime,
    config: &Config,
    container: &cri_proto::v1::Container,
    size: u64,
    files: u32,
) -> Result<(), Error> {
    let Some(log) = path_of(config, container) else { return Ok(()) };
    let found = match tokio::fs::metadata(&log).await {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Somebody took it away: the container writes to a file without a name.
            return Ok(runtime.reopen_container_log(&container.id).await?);
        }
        Err(error) => return Err(failed("stat log", &log)(error)),
    };
    if found.len() < size {
        return Ok(());
    }
    let path = log.clone();
    let aside = tokio::task::spawn_blocking(move || put_aside(&path, files)).await;
    let aside = aside.unwrap_or(Err(Error::Interrupted))?;
    if let Err(error) = runtime.reopen_container_log(&container.id).await {
        tokio::fs::rename(&aside, &log).await.map_err(failed("give back the name of", &log))?;
        return Err(error.into());
    }
    Ok(())
}

/// Removes and compresses what was rotated before, then renames the log; gives its new name.
fn put_aside(log: &Path, files: u32) -> Result<PathBuf, Error> {
    let kept = clean(log, files)?;
    for plain in kept.iter().filter(|p| !ends(p, COMPRESSED)) {
        compress(plain)?;
    }
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = beside(log, &format!(".{stamp}"));
    fs::rename(log, &aside).map_err(failed("rotate log", log))?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn ends(path: &Path, suffix: &str) -> bool {
    path.as_os_str().to_string_lossy().ends_with(suffix)
}

/// Removes a container's log and its rotated files; fine when it is gone.
pub fn remove(log: &Path) -> Result<(), Error> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let dir = log.parent().unwrap_or(Path::new("/"));
    let entries = match fs::read_dir(dir) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries.map_err(failed("list logs in", dir))?,
    };
    let own = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != own && !name.starts_with(&format!("{own}.")) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if !gone(&error) => return Err(failed("remove log", &entry.path())(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes what earlier rotations left unfinished and the oldest files beyond `files`, and gives the rest, oldest first.
fn clean(log: &Path, files: u32) -> Result<Vec<PathBuf>, Error> {
    let dir = log.parent().unwrap_or(Path::new("/"));
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let entries = fs::read_dir(dir).map_err(failed("list logs in", dir))?;
    let mut all: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect();
    all.sort();
    let in_use = |path: &PathBuf| {
        !ends(path, UNFINISHED) && (ends(path, COMPRESSED) || !all.contains(&beside(path, COMPRESSED)))
    };
    let (mut kept, mut goes): (Vec<PathBuf>, Vec<PathBuf>) = all.clone().into_iter().partition(in_use);
    // The log itself and the one rotated now count, too.
    let most = usize::try_from(files.saturating_sub(2)).unwrap_or(0);
    goes.extend(kept.drain(..kept.len().saturating_sub(most)));
    for path in goes {
        fs::remove_file(&path).map_err(failed("remove old log", &path))?;
    }
    Ok(kept)
}

fn compress(log: &Path) -> Result<(), Error> {
    let unfinished = beside(log, UNFINISHED);
    let mut from = File::open(log).map_err(failed("open log", log))?;
    let mode = from.metadata().map_err(failed("stat log", log))?.permissions().mode() & 0o7777;
    let to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished);
    let mut to = GzEncoder::new(to.map_err(failed("create", &unfinished))?, Compression::default());
    io::copy(&mut from, &mut to).map_err(failed("compress log", log))?;
    to.finish().map_err(failed("compress log", log))?;
    fs::rename(&unfinished, beside(log, COMPRESSED)).map_err(failed("rename", &unfinished))?;
    fs::remove_file(log).map_err(failed("remove log", log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn rotations_keep_the_newest_and_compress_all_but_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(dir.path().join(name), name).unwrap();
        for name in [
            "0.log",
            "0.log.20260101-000001.gz",
            "0.log.20260101-000002.gz",
            "0.log.20260101-000003",
            "1.log",
        ] {
            put(name);
        }
        // Left by a crash: one half compressed, one compressed and not yet removed.
        put("0.log.20260101-000003.tmp");
        put("0.log.20260101-000002");
        let aside = put_aside(&dir.path().join("0.log"), 4).unwrap();
        let new = aside.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            names(dir.path()),
            ["0.log.20260101-000002.gz", "0.log.20260101-000003.gz", new.as_str(), "1.log"]
        );
        let mut text = String::new();
        let packed = File::open(dir.path().join("0.log.20260101-000003.gz")).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "0.log.20260101-000003");
        assert_eq!(fs::read_to_string(aside).unwrap(), "0.log");
        remove(&dir.path().join("0.log")).unwrap();
        assert_eq!(names(dir.path()), ["1.log"]);
    }
}
