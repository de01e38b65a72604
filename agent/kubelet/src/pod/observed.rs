//! What the runtime shows of one pod, asked for afresh before every decision: there is no cache whose age could matter.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use cri_proto::client::{Error, Runtime};
use cri_proto::v1;
use jiff::Timestamp;

use super::spec::labels;

/// A container's last words are cut to this many bytes.
const MESSAGE_BYTES: u64 = 4096;
/// What of its log stands in for them.
const FALLBACK_BYTES: u64 = 2048;
const FALLBACK_LINES: usize = 80;

/// A sandbox of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    /// Which try it is.
    pub attempt: u32,
    /// Whether it is usable.
    pub ready: bool,
    /// When it was made, in nanoseconds since the epoch.
    pub created_at: i64,
    /// Its addresses, primary first; known for the newest ready sandbox only.
    pub ips: Vec<String>,
}

/// Whom a container's first process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub groups: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet; left by being started or removed.
    Created,
    /// Left by exiting.
    Running,
    /// Final.
    Exited,
    /// The runtime lost track; left by being removed.
    Unknown,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// Its name in the pod.
    pub name: String,
    /// Which try it is: its restart count.
    pub attempt: u32,
    pub state: State,
    /// The image as the pod names it.
    pub image: String,
    /// The image as the runtime identifies it.
    pub image_id: String,
    /// When it was made, started and ended.
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Its exit code, once it exited.
    pub exit_code: i32,
    /// Why it exited, in the runtime's word.
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// The hash of what it was made from; empty when a foreign agent made it.
    pub hash: String,
    pub log_path: String,
    pub annotations: HashMap<String, String>,
    /// As far as the runtime tells.
    pub user: Option<User>,
}

impl Container {
    /// It exited with code 0.
    pub fn succeeded(&self) -> bool {
        self.state == State::Exited && self.exit_code == 0
    }

    /// Its process may run: it must be stopped before it is removed.
    pub fn may_run(&self) -> bool {
        matches!(self.state, State::Running | State::Unknown)
    }
}

/// Everything of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl Observed {
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest try of a container, in any sandbox.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest try of a container in that sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == sandbox)
    }

    /// Nothing of the pod runs any more.
    pub fn is_quiet(&self) -> bool {
        !self.containers.iter().any(Container::may_run) && !self.sandboxes.iter().any(|s| s.ready)
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }
}

/// Looks at one pod; remembers what cannot change any more (exited containers, addresses of a living sandbox).
#[derive(Debug, Default)]
pub struct Observer {
    exited: HashMap<String, Container>,
    addresses: HashMap<String, Vec<String>>,
}

impl Observer {
    /// Everything the runtime has of the pod with that UID.
    pub async fn look(&mut self, runtime: &Runtime, uid: &str) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        // Together: nobody but the asking worker makes any between the two.
        let (sandboxes, containers) = tokio::try_join!(
            runtime.list_pod_sandboxes(labels::of_pod(uid)),
            runtime.list_containers(labels::of_pod(uid))
        )?;
        for sandbox in sandboxes {
            observed.sandboxes.push(Sandbox {
                attempt: sandbox.metadata.as_ref().map_or(0, |m| m.attempt),
                ready: sandbox.state() == v1::PodSandboxState::SandboxReady,
                created_at: sandbox.created_at,
                ips: Vec::new(),
                id: sandbox.id,
            });
        }
        let mut known = HashMap::new();
        for container in containers {
            let seen = match self.exited.remove(&container.id) {
                Some(seen) => seen,
                None => match runtime.container_status(&container.id).await {
                    Ok(status) => read(container.pod_sandbox_id, container.labels, status).await,
                    // Removed since the list: it is not there.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error),
                },
            };
            if seen.state == State::Exited {
                known.insert(seen.id.clone(), seen.clone());
            }
            observed.containers.push(seen);
        }
        self.exited = known;
        observed.sort();
        self.find_addresses(runtime, &mut observed).await?;
        Ok(observed)
    }

    async fn find_addresses(&mut self, runtime: &Runtime, observed: &mut Observed) -> Result<(), Error> {
        self.addresses.retain(|id, _| observed.sandboxes.iter().any(|s| s.id == *id));
        let Some(newest) = observed.sandboxes.first_mut().filter(|s| s.ready) else { return Ok(()) };
        if let Some(ips) = self.addresses.get(&newest.id) {
            newest.ips.clone_from(ips);
            return Ok(());
        }
        let status = match runtime.pod_sandbox_status(&newest.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => {
                newest.ready = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        newest.ips = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
        if !newest.ips.is_empty() {
            self.addresses.insert(newest.id.clone(), newest.ips.clone());
        }
        Ok(())
    }
}

/// CRI times are nanoseconds since the epoch, zero (or Go's zero time) for never.
fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()).flatten()
}

async fn read(
    sandbox_id: String,
    own_labels: HashMap<String, String>,
    status: v1::ContainerStatus,
) -> Container {
    let state = match status.state() {
        v1::ContainerState::ContainerCreated => State::Created,
        v1::ContainerState::ContainerRunning => State::Running,
        v1::ContainerState::ContainerExited => State::Exited,
        v1::ContainerState::ContainerUnknown => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let get = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let mut message = status.message;
    if state == State::Exited {
        let path = get(labels::MESSAGE_PATH);
        let file = status.mounts.iter().find(|m| m.container_path == path).map(|m| m.host_path.clone());
        let fallback = (get(labels::MESSAGE_POLICY) == "FallbackToLogsOnError" && status.exit_code != 0)
            .then(|| status.log_path.clone());
        let words = tokio::task::spawn_blocking(move || last_words(file.as_deref(), fallback.as_deref()));
        let words = words.await.unwrap_or_default();
        if !message.is_empty() && !words.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&words);
    }
    // The image the pod names is kept in an annotation-free field by newer runtimes; the list's is good enough.
    let image = status.image.unwrap_or_default();
    Container {
        id: status.id,
        sandbox_id,
        name: own_labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: metadata.attempt,
        state,
        image: image.image,
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        created_at: time(status.created_at),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        hash: status.annotations.get(labels::CONTAINER_HASH).cloned().unwrap_or_default(),
        log_path: status.log_path,
        annotations: status.annotations,
        user: status.user.and_then(|user| user.linux).map(|user| User {
            uid: user.uid,
            gid: user.gid,
            groups: user.supplemental_groups,
        }),
    }
}

/// The termination message file's text, or the end of the log where that is asked for and the file is empty.
fn last_words(file: Option<&str>, log: Option<&str>) -> String {
    let words = file.map(|file| end_of(Path::new(file), MESSAGE_BYTES)).unwrap_or_default();
    match log {
        Some(log) if words.is_empty() => {
            let text = end_of(Path::new(log), FALLBACK_BYTES * 4);
            let lines: Vec<&str> = text.lines().filter_map(crate::logline::content).collect();
            let tail = lines[lines.len().saturating_sub(FALLBACK_LINES)..].join("\n");
            let mut cut = tail.len().saturating_sub(usize::try_from(FALLBACK_BYTES).unwrap_or(0));
            while !tail.is_char_boundary(cut) {
                cut += 1;
            }
            tail[cut..].to_owned()
        }
        _ => words,
    }
}

fn end_of(path: &Path, bytes: u64) -> String {
    // The container wrote this file: it may be anything but must be a plain one, or reading could block.
    let plain = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    let Some(mut file) = plain.then(|| std::fs::File::open(path).ok()).flatten() else {
        return String::new();
    };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    if length > bytes && file.seek(SeekFrom::Start(length - bytes)).is_err() {
        return String::new();
    }
    let mut text = Vec::new();
    if file.take(bytes).read_to_end(&mut text).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_come_from_the_file_then_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::write(
            path("log"),
            "2026-01-01T00:00:00.0Z stdout F one\n2026-01-01T00:00:00.0Z stderr F two\n",
        )
        .unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("words"), "x".repeat(5000)).unwrap();
        assert_eq!(last_words(Some(&path("words")), None).len(), 4096);
        assert_eq!(last_words(Some(&path("empty")), Some(&path("log"))), "one\ntwo");
        assert_eq!(last_words(Some(&path("empty")), None), "");
        assert_eq!(last_words(Some(&path("absent")), None), "");
    }
}
