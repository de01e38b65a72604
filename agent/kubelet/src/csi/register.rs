//! Drivers make themselves known: each serves `Registration` on a socket in the registry directory.
//!
//! Woken by inotify, and every [`PERIOD`] as the retry of what failed. Reads the directory's sockets, two levels deep. Writes the
//! [`Drivers`], and through [`super::node_object`] what the API knows of them. Promises: each socket is asked once and told the outcome;
//! a driver whose socket goes is forgotten here and in the API; a failing driver keeps no other from being registered.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri_proto::csi::{Driver, Registration};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};

use super::Drivers;
use super::node_object::NodeObject;

/// What failed is tried again this often.
const PERIOD: Duration = Duration::from_secs(10);
/// Sockets that are looked at; what is beyond is ignored.
const MOST: usize = 1024;

/// Registers drivers until the task is dropped. `api` is `None` without an API server.
pub async fn follow(directory: PathBuf, drivers: Drivers, api: Option<NodeObject>) {
    if let Err(error) = std::fs::create_dir_all(&directory) {
        tracing::error!(directory = %directory.display(), %error, "storage drivers cannot register");
        return std::future::pending().await;
    }
    let mut events = watch(&directory).ok();
    let mut known: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut announced = api.is_none();
    loop {
        if let Some(api) = &api
            && !announced
        {
            announced =
                api.announce().await.inspect_err(|e| tracing::debug!(%e, "create the CSINode")).is_ok();
        }
        let found = sockets(&directory);
        let gone: Vec<PathBuf> = known.keys().filter(|socket| !found.contains(*socket)).cloned().collect();
        for socket in gone {
            if let Some(name) = known.remove(&socket)
                && drivers.remove(&name, &socket)
            {
                tracing::info!(driver = name, "a storage driver is gone");
                if let Some(api) = &api
                    && let Err(error) = api.remove(&name).await
                {
                    tracing::warn!(driver = name, %error, "take a driver out of the CSINode");
                }
            }
        }
        for socket in found {
            if known.contains_key(&socket) {
                continue;
            }
            match register(&socket, &drivers, api.as_ref()).await {
                Ok(Some(name)) => {
                    tracing::info!(driver = name, "a storage driver is registered");
                    known.insert(socket, name);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(socket = %socket.display(), error, "register a plugin"),
            }
        }
        let changed = async {
            match &mut events {
                Some(events) => drop(events.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
        // The directories themselves are watched again; where that fails, the period sees what is new. An ended stream is never kept.
        events = watch(&directory).ok();
    }
}

fn watch(directory: &Path) -> std::io::Result<inotify::EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM;
    inotify.watches().add(directory, mask)?;
    for entry in std::fs::read_dir(directory)?.flatten().take(MOST) {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            inotify.watches().add(entry.path(), mask)?;
        }
    }
    inotify.into_event_stream(vec![0; 4096])
}

/// The sockets in a directory and those right below it; names that begin with a dot are not meant for us.
fn sockets(directory: &Path) -> BTreeSet<PathBuf> {
    let list = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|e| !e.file_name().to_string_lossy().starts_with('.')).collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    for entry in list(directory) {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => drop(found.insert(entry.path())),
            Ok(kind) if kind.is_dir() => {
                let inner = list(&entry.path()).into_iter();
                found.extend(inner.filter(|e| e.file_type().is_ok_and(|t| t.is_socket())).map(|e| e.path()));
            }
            _ => {}
        }
    }
    found.into_iter().take(MOST).collect()
}

/// Asks a plugin what it is, and takes it on when it is a storage driver; gives its name.
async fn register(
    socket: &Path,
    drivers: &Drivers,
    api: Option<&NodeObject>,
) -> Result<Option<String>, String> {
    let plugin = Registration::at(socket).map_err(|e| e.to_string())?;
    let info = plugin.info().await.map_err(|e| e.to_string())?;
    if info.r#type != "CSIPlugin" {
        tracing::debug!(kind = info.r#type, name = info.name, "a plugin of a kind that is not served");
        return Ok(None);
    }
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let outcome = accept(&info.name, &info.supported_versions, &endpoint, socket, drivers, api).await;
    plugin.notify(outcome.clone()).await.map_err(|e| e.to_string())?;
    outcome.map(|()| Some(info.name))
}

async fn accept(
    name: &str,
    versions: &[String],
    endpoint: &Path,
    socket: &Path,
    drivers: &Drivers,
    api: Option<&NodeObject>,
) -> Result<(), String> {
    supported(name, versions)?;
    let driver = Driver::at(endpoint).map_err(|e| e.to_string())?;
    let info = driver.info().await.map_err(|e| e.to_string())?;
    if info.node_id.is_empty() {
        return Err("error adding CSI driver node info: driverNodeID must not be empty".to_owned());
    }
    if let Some(api) = api {
        let topology = info.accessible_topology.unwrap_or_default().segments.into_iter().collect();
        api.install(name, &info.node_id, info.max_volumes_per_node, topology).await?;
    }
    drivers.add(name, socket, driver);
    Ok(())
}

/// Whether one of the versions is of the one major version that is spoken; the texts are upstream's.
fn supported(name: &str, versions: &[String]) -> Result<(), String> {
    if versions.is_empty() {
        return Err(format!(
            "kubernetes.io/csi: RegisterPlugin for CSI driver \"{name}\" failed. Plugin returned an empty list for \
             supported versions"
        ));
    }
    let major = |version: &String| version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    if versions.iter().filter_map(major).any(|major| major <= 1) {
        return Ok(());
    }
    let shown: Vec<String> = versions.iter().map(|v| format!("{v:?}")).collect();
    Err(format!(
        "kubernetes.io/csi: RegisterPlugin for CSI driver \"{name}\" failed. None of the versions specified [{}] are \
         supported. err=None of the versions are supported",
        shown.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_major_version_is_spoken() {
        let of = |all: &[&str]| supported("d", &all.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["1.0.0"]), Ok(()));
        assert_eq!(of(&["v2.0", "v1.11.0"]), Ok(()));
        assert!(of(&["2.0.0"]).unwrap_err().contains("None of the versions specified [\"2.0.0\"]"));
        assert!(of(&[]).unwrap_err().contains("empty list"));
    }

    #[test]
    fn sockets_are_found_and_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("driver")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let sockets_at = ["a.sock", "driver/b.sock", ".hidden.sock"].map(|name| dir.path().join(name));
        let _held: Vec<_> =
            sockets_at.iter().map(|path| std::os::unix::net::UnixListener::bind(path).unwrap()).collect();
        assert_eq!(sockets(dir.path()), sockets_at[..2].iter().cloned().collect());
    }
}
