//! Images: whether one must be pulled, how many at once, and when to try again. [`keyring`] says with which credentials.

pub mod garbage;
mod node_logins;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri_proto::client::Runtime;
use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod, Secret};
use parking_lot::Mutex;
use supervise::Rate;
use tokio::sync::Semaphore;

use crate::config::{Config, MAX_PARALLEL_PULLS, PullParallelism};
use crate::login::keyring;
use crate::pod::spec::security::ImageUser;
use crate::recorder::Recorder;
use node_logins::NodeLogins;

const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_LAST: Duration = Duration::from_secs(300);
/// How many failing images are remembered.
const REMEMBERED: usize = 1024;

/// An image a pod asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// As the pod names it.
    pub image: &'a str,
    /// When it is pulled.
    pub policy: Option<&'a str>,
    /// The container that runs it; none for a volume.
    pub container: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// A container's.
    pub fn of(container: &'a Container) -> Self {
        Self {
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref(),
            container: Some(&container.name),
        }
    }

    /// A volume's.
    pub fn of_volume(source: &'a ImageVolumeSource) -> Self {
        let image = source.reference.as_deref().unwrap_or_default();
        Self { image, policy: source.pull_policy.as_deref(), container: None }
    }
}

/// An image on this machine.
#[derive(Clone, Debug)]
pub struct Present {
    /// What the runtime calls it.
    pub reference: String,
    /// Who it runs as.
    pub user: ImageUser,
}

/// Why a container has no image: the waiting reason, the text, and when to try again.
#[derive(Debug)]
pub struct Failure {
    /// `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    pub message: String,
    /// How long to wait.
    pub retry: Duration,
}

#[derive(Debug)]
struct Backoff {
    delay: Duration,
    until: Instant,
    last: Instant,
    error: String,
}

/// The puller, shared by all workers.
#[derive(Clone)]
pub struct Images {
    runtime: Runtime,
    slots: Arc<Semaphore>,
    rate: Arc<tokio::sync::Mutex<Rate>>,
    failing: Arc<Mutex<HashMap<(String, String), Backoff>>>,
    node_logins: NodeLogins,
}

impl Images {
    /// A puller bounded as configured.
    pub fn new(runtime: Runtime, config: &Config) -> Self {
        let slots = match config.pulls {
            PullParallelism::Serial => 1,
            PullParallelism::Parallel(most) => most.unwrap_or(MAX_PARALLEL_PULLS).max(1),
        };
        let rate = Rate::new(f64::from(config.registry_pull_qps), config.registry_burst);
        Self {
            runtime,
            slots: Arc::new(Semaphore::new(usize::try_from(slots).unwrap_or(1))),
            rate: Arc::new(tokio::sync::Mutex::new(rate)),
            failing: Arc::default(),
            node_logins: NodeLogins::new(config),
        }
    }

    /// Makes an image present, by its pull policy.
    pub async fn ensure(
        &self,
        pod: &Pod,
        wanted: Wanted<'_>,
        secrets: &[Arc<Secret>],
        sandbox: v1::PodSandboxConfig,
        recorder: &Recorder,
    ) -> Result<Present, Failure> {
        let (named, at) = (wanted.image, wanted.container);
        let fail = |reason, message: String, retry| Failure { reason, message, retry };
        let Some(image) = with_default_tag(named) else {
            let message = format!(
                "Failed to apply default image tag \"{named}\": couldn't parse image name \"{named}\": invalid reference format"
            );
            recorder.warning(pod, at, "InspectFailed", message.clone());
            return Err(fail("InvalidImageName", message, BACKOFF_FIRST));
        };
        let (always, never) = (wanted.policy == Some("Always"), wanted.policy == Some("Never"));
        let found = match always {
            true => Ok(None),
            false => self.runtime.image_status(&image).await,
        };
        let found = found.map_err(|error| {
            // Upstream names the reference it did not get, which is empty.
            let message = format!("Failed to inspect image \"\": {}", error.runtime_message());
            recorder.warning(pod, at, "InspectFailed", message.clone());
            fail("ImageInspectError", message, BACKOFF_FIRST)
        })?;
        match found {
            Some(found) => {
                let message = format!(
                    "Container image \"{named}\" already present on machine and can be accessed by the pod"
                );
                recorder.normal(pod, at, "Pulled", message);
                return Ok(present(found));
            }
            None if never => {
                let message = format!("Container image \"{named}\" is not present with pull policy of Never");
                recorder.warning(pod, at, "ErrImageNeverPull", message.clone());
                return Err(fail("ErrImageNeverPull", message, BACKOFF_FIRST));
            }
            _ => {}
        }
        let key = (crate::pod::uid(pod).to_owned(), named.to_owned());
        if let Some(failure) = self.in_backoff(&key, named) {
            recorder.normal(pod, at, "BackOff", format!("Back-off pulling image \"{named}\""));
            return Err(failure);
        }
        self.pull(pod, wanted, &image, secrets, sandbox, recorder, key).await
    }

    #[allow(clippy::too_many_arguments, reason = "one pull, with all that decides it")]
    async fn pull(
        &self,
        pod: &Pod,
        wanted: Wanted<'_>,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: v1::PodSandboxConfig,
        recorder: &Recorder,
        key: (String, String),
    ) -> Result<Present, Failure> {
        let (named, at) = (wanted.image, wanted.container);
        recorder.normal(pod, at, "Pulling", format!("Pulling image \"{named}\""));
        let queued = Instant::now();
        let _slot = self.slots.acquire().await;
        self.rate.lock().await.take().await;
        let began = Instant::now();
        let pulled = match Box::pin(self.pull_with(image, secrets, sandbox)).await {
            Ok(reference) => self.runtime.image_status(&reference).await.map_err(|e| e.runtime_message()),
            Err(error) => Err(error),
        };
        match pulled {
            Ok(found) => {
                self.failing.lock().remove(&key);
                let found = found.unwrap_or_else(|| v1::Image { id: image.to_owned(), ..Default::default() });
                let message = format!(
                    "Successfully pulled image \"{named}\" in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(began.elapsed()),
                    go_duration(queued.elapsed()),
                    found.size
                );
                recorder.normal(pod, at, "Pulled", message);
                Ok(present(found))
            }
            Err(error) => {
                recorder.warning(pod, at, "Failed", format!("Failed to pull image \"{named}\": {error}"));
                let (reason, message) = judged(named, error);
                self.note_failure(key, &format!("{reason}: {message}"));
                // The next try finds the backoff, and says so; the error itself is shown at once.
                Err(Failure { reason, message, retry: Duration::from_secs(2) })
            }
        }
    }

    /// Pulls with each login there is for the image until one is right, or with none where there is none.
    async fn pull_with(
        &self,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, String> {
        let repository = keyring::repository(image);
        let mut logins = keyring::of_secrets(secrets)?.lookup(&repository);
        logins.extend(self.node_logins.lookup(&repository).await);
        let mut tries: Vec<_> = logins.into_iter().map(|login| Some(login.into())).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut errors = Vec::new();
        for auth in tries {
            match Box::pin(self.runtime.pull_image(image, auth, Some(sandbox.clone()))).await {
                Ok(reference) => return Ok(reference),
                Err(error) => errors.push(pull_error(&error)),
            }
        }
        Err(together(errors))
    }

    fn in_backoff(&self, key: &(String, String), named: &str) -> Option<Failure> {
        let failing = self.failing.lock();
        let backoff = failing.get(key)?;
        let left = backoff.until.checked_duration_since(Instant::now())?;
        let message = format!("Back-off pulling image \"{named}\": {}", backoff.error);
        Some(Failure { reason: "ImagePullBackOff", message, retry: left })
    }

    fn note_failure(&self, key: (String, String), error: &str) {
        let now = Instant::now();
        let mut failing = self.failing.lock();
        if failing.len() >= REMEMBERED {
            failing.retain(|_, b| now.duration_since(b.last) < 2 * BACKOFF_LAST);
        }
        let delay = match failing.get(&key) {
            Some(known) if now.duration_since(known.last) < 2 * BACKOFF_LAST => {
                (known.delay * 2).min(BACKOFF_LAST)
            }
            _ => BACKOFF_FIRST,
        };
        failing.insert(key, Backoff { delay, until: now + delay, last: now, error: error.to_owned() });
    }
}

/// Several errors as one text, each once, as upstream's aggregates read.
fn together(errors: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// What the runtime said: an unknown code adds nothing to it.
fn pull_error(error: &cri_proto::client::Error) -> String {
    if error.code() == tonic::Code::Unknown { error.plain_message() } else { error.runtime_message() }
}

/// The waiting reason and message of a failed pull, by the errors CRI names.
fn judged(image: &str, error: String) -> (&'static str, String) {
    let named = [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ];
    let found = named.into_iter().find_map(|(name, why)| Some((name, why, error.strip_prefix(name)?)));
    match found {
        Some((name, why, rest)) => (name, format!("image pull failed for {image} because {why}{rest}")),
        None => ("ErrImagePull", error),
    }
}

fn present(image: v1::Image) -> Present {
    let user = ImageUser { uid: image.uid.map(|uid| uid.value), name: image.username };
    Present { reference: image.id, user }
}

/// A duration as Go prints it, to the millisecond.
fn go_duration(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{}s", trim(span.as_secs_f64())),
        _ => format!("{}m{}s", span.as_secs() / 60, trim(span.as_secs_f64() % 60.0)),
    }
}

fn trim(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The image with `:latest` where it names neither tag nor digest; `None` for what is no reference.
fn with_default_tag(image: &str) -> Option<String> {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    // The first part may be a registry: upper case and a port are allowed there only.
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
        _ => (None, name),
    };
    let part = |p: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        p.starts_with(inner)
            && p.ends_with(inner)
            && p.chars().all(|c| inner(c) || matches!(c, '.' | '_' | '-'))
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = path.split('/').all(part)
        && registry.is_none_or(|r| r.chars().all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c)))
        && tag.is_none_or(|t| {
            t.starts_with(word) && t.len() <= 128 && t.chars().all(|c| word(c) || matches!(c, '.' | '-'))
        })
        && digest.is_none_or(|d| {
            d.split_once(':').is_some_and(|(kind, hex)| {
                !kind.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
            })
        });
    valid.then(|| match (tag, digest) {
        (None, None) => format!("{image}:latest"),
        _ => image.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_tags() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (image, want) in [
            ("busybox", Some("busybox:latest")),
            ("localhost:5000/a", Some("localhost:5000/a:latest")),
            ("localhost:5000/a:1", Some("localhost:5000/a:1")),
            ("REG.example/a/b-c:V1", Some("REG.example/a/b-c:V1")),
            (digest.as_str(), Some(digest.as_str())),
            ("Bad", None),
            ("a:b:c", None),
            ("", None),
            ("a b", None),
            ("/a", None),
        ] {
            assert_eq!(with_default_tag(image).as_deref(), want, "{image}");
        }
    }

    #[test]
    fn errors_of_several_logins_are_told_together() {
        assert_eq!(together(vec!["a".to_owned()]), "a");
        assert_eq!(together(vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]), "[a, b]");
    }

    #[test]
    fn errors_that_have_a_name_are_called_by_it() {
        let (reason, message) = judged("reg/a", "RegistryUnavailable: no route".to_owned());
        assert_eq!(reason, "RegistryUnavailable");
        assert_eq!(message, "image pull failed for reg/a because the registry is unavailable: no route");
        assert_eq!(judged("reg/a", "gone".to_owned()), ("ErrImagePull", "gone".to_owned()));
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (millis, want) in [(5, "5ms"), (1200, "1.2s"), (61_000, "1m1s")] {
            assert_eq!(go_duration(Duration::from_millis(millis)), want);
        }
    }
}
