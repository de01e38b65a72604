//! Links to containers' logs, by which collectors of logs find them: `<pod>_<namespace>_<container>-<id>.log` in one
//! directory, as upstream's `legacyLogSymlink` names them.
//!
//! A container's link is made once it was started, and goes with it. Every [`PERIOD`], and when the kubelet begins, what
//! runs without a link gets one, and links to logs that are gone are removed: so a crash between the two leaves nothing
//! wrong.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::Runtime;
use cri_proto::v1;

use super::rotate;
use crate::config::Config;
use crate::pod::spec::labels;

/// How often links are looked over.
const PERIOD: Duration = Duration::from_secs(60);
const SUFFIX: &str = ".log";
/// What a file may be called, in bytes.
const NAME_BYTES: usize = 255;
/// A shorter id is none.
const ID_BYTES: usize = 6;

/// What a container's link is named after.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
    pub id: &'a str,
}

impl Named<'_> {
    /// The link in its directory; a long name is cut at its end.
    pub fn link(&self, dir: &Path) -> PathBuf {
        let Self { namespace, pod, container, id } = self;
        let mut name = format!("{pod}_{namespace}_{container}-{id}");
        let mut most = NAME_BYTES - SUFFIX.len();
        while !name.is_char_boundary(most.min(name.len())) {
            most -= 1;
        }
        name.truncate(most);
        dir.join(name + SUFFIX)
    }
}

/// Links to a log that is there; fine where it is linked already.
pub fn make(link: &Path, log: &Path) -> io::Result<()> {
    if log.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    match std::os::unix::fs::symlink(log, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes a link; fine when it is gone.
pub fn remove(link: &Path) -> io::Result<()> {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Looks over all links until the task is dropped.
pub async fn run(runtime: Runtime, config: Arc<Config>) {
    loop {
        match runtime.list_containers(HashMap::new()).await {
            Ok(all) => {
                let config = Arc::clone(&config);
                // What fails is told inside; a panic there is seen again in a minute.
                tokio::task::spawn_blocking(move || mend(&config, &all)).await.ok();
            }
            Err(error) => tracing::debug!(%error, "list containers whose logs are linked"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Makes the links of what runs, and removes those that lead nowhere.
fn mend(config: &Config, containers: &[v1::Container]) {
    let dir = &config.container_logs_dir;
    let runs = |c: &&v1::Container| c.state == v1::ContainerState::ContainerRunning as i32;
    for container in containers.iter().filter(runs) {
        let Some((log, link)) = rotate::path_of(config, container).zip(link_of(dir, container)) else {
            continue;
        };
        if let Err(error) = make(&link, &log) {
            tracing::warn!(%error, link = %link.display(), "link a container's log");
        }
    }
    let alive = containers.iter().filter(|c| c.state != v1::ContainerState::ContainerExited as i32);
    for link in dangling(dir, &alive.map(|c| c.id.as_str()).collect()) {
        if let Err(error) = remove(&link) {
            tracing::warn!(%error, link = %link.display(), "remove the link to a log that is gone");
        }
    }
}

fn link_of(dir: &Path, container: &v1::Container) -> Option<PathBuf> {
    let label = |key: &str| container.labels.get(key).map(String::as_str);
    let named = Named {
        namespace: label(labels::POD_NAMESPACE)?,
        pod: label(labels::POD_NAME)?,
        container: label(labels::CONTAINER_NAME)?,
        id: &container.id,
    };
    Some(named.link(dir))
}

/// The links that lead nowhere, but for those of containers that are alive: while a log is rotated, it has no file for a
/// moment.
fn dangling(dir: &Path, alive: &HashSet<&str>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let gone = |path: &PathBuf| path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let is_alive = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let id = name.trim_end_matches(SUFFIX).rsplit('-').next().unwrap_or_default();
        // A cut name has the beginning of an id only.
        id.len() >= ID_BYTES && alive.iter().any(|known| known.starts_with(id))
    };
    let links = entries.map(|e| e.path()).filter(|path| path.as_os_str().to_string_lossy().ends_with(SUFFIX));
    links.filter(|path| gone(path) && !is_alive(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(container: &'a str, id: &'a str) -> Named<'a> {
        Named { namespace: "n", pod: "p", container, id }
    }

    #[test]
    fn the_name_of_a_link_must_not_be_longer_than_a_files() {
        let dir = Path::new("/l");
        assert_eq!(named("c", "0123456").link(dir), Path::new("/l/p_n_c-0123456.log"));
        let long = "x".repeat(300);
        let link = named(&long, "0123456").link(dir);
        assert_eq!(link.file_name().unwrap().len(), 255);
        assert!(link.to_string_lossy().ends_with("x.log"));
    }

    #[test]
    fn a_link_must_not_be_made_to_a_log_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (log, link) = (dir.path().join("0.log"), dir.path().join("p_n_c-0123456.log"));
        make(&link, &log).unwrap();
        assert!(link.symlink_metadata().is_err());
        std::fs::write(&log, "").unwrap();
        make(&link, &log).unwrap();
        make(&link, &log).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), log);
        remove(&link).unwrap();
        remove(&link).unwrap();
        assert!(log.exists());
    }

    #[test]
    fn the_link_of_a_container_that_runs_must_not_be_removed_while_its_log_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let to = |name: &str, target: &str| {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(dir.path().join(target), &link).unwrap();
            link
        };
        std::fs::write(dir.path().join("there"), "").unwrap();
        let _kept =
            [to("p_n_c-aaaaaaaa.log", "there"), to("p_n_c-bbbbbbbb.log", "rotated"), to("other", "gone")];
        let gone = to("p_n_c-cccccccc.log", "gone");
        assert_eq!(dangling(dir.path(), &HashSet::from(["bbbbbbbb"])), [gone]);
        assert!(dangling(&dir.path().join("absent"), &HashSet::new()).is_empty());
    }

    #[test]
    fn what_runs_must_not_stay_without_a_link_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("node", Vec::new());
        config.pod_logs_dir = dir.path().join("pods");
        config.container_logs_dir = dir.path().join("links");
        std::fs::create_dir(&config.container_logs_dir).unwrap();
        let log = config.pod_log_dir("n", "p", "u").join("c/2.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "").unwrap();
        let own = [
            (labels::POD_NAMESPACE, "n"),
            (labels::POD_NAME, "p"),
            (labels::POD_UID, "u"),
            (labels::CONTAINER_NAME, "c"),
        ];
        let container = v1::Container {
            id: "0123456".to_owned(),
            metadata: Some(v1::ContainerMetadata { name: "c".to_owned(), attempt: 2 }),
            state: v1::ContainerState::ContainerRunning.into(),
            labels: own.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..v1::Container::default()
        };
        mend(&config, std::slice::from_ref(&container));
        let link = config.container_logs_dir.join("p_n_c-0123456.log");
        assert_eq!(std::fs::read_link(&link).unwrap(), log);
        std::fs::remove_dir_all(&config.pod_logs_dir).unwrap();
        mend(&config, &[]);
        assert!(link.symlink_metadata().is_err());
    }
}
