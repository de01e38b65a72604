//! Static pods: manifests in a directory, run without any API server.
//!
//! What wakes it: inotify, and a slow period for file systems that do not tell. What it reads: every file of the
//! directory. What it writes: the map of static pods. What it promises: a file that is no pod is named in the log and in
//! an event of the node, once for each content, and disturbs nothing: not the other files, and not the pod this file
//! held before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration, Volume};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Pods;
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE};
use crate::recorder::{Kind, Recorder, Subject};

/// The largest manifest read.
const MAX_BYTES: u64 = 10 << 20;
/// Writers make several changes: the last of a burst is waited for.
const SETTLE: Duration = Duration::from_millis(100);

/// A manifest that is no pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read manifest {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// It is too large.
    #[error("read manifest {}: larger than {MAX_BYTES} bytes", .path.display())]
    TooLarge { path: PathBuf },
    /// It is no pod.
    #[error("couldn't parse manifest {}: {reason}", .path.display())]
    Parse { path: PathBuf, reason: String },
}

/// Follows a directory until cancelled from outside; it is read every `period` even when no change was announced (`fileCheckFrequency`).
pub async fn follow(
    dir: PathBuf,
    period: Duration,
    node: String,
    recorder: Recorder,
    tell: watch::Sender<Option<Arc<Pods>>>,
) {
    let mut directory = Directory { dir, node, recorder, known: BTreeMap::new() };
    loop {
        let mut changes = match watch_directory(&directory.dir) {
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::debug!(dir = %directory.dir.display(), %error, "no inotify: reading periodically");
                None
            }
        };
        loop {
            let pods = Arc::new(directory.read());
            tell.send_if_modified(|known| {
                let same = known.as_ref().is_some_and(|k| same_pods(k, &pods));
                if !same {
                    *known = Some(Arc::clone(&pods));
                }
                !same
            });
            match &mut changes {
                Some(changes) => {
                    tokio::select! {
                        change = changes.next() => {
                            if !matches!(change, Some(Ok(_))) {
                                break;
                            }
                            while let Ok(Some(Ok(_))) = tokio::time::timeout(SETTLE, changes.next()).await {}
                            // The directory itself may have been replaced: watch it again.
                            if !directory.dir.is_dir() {
                                break;
                            }
                        }
                        () = tokio::time::sleep(period) => {}
                    }
                }
                None => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    break;
                }
            }
        }
    }
}

fn watch_directory(dir: &Path) -> std::io::Result<inotify::EventStream<Vec<u8>>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(dir, mask)?;
    inotify.into_event_stream(vec![0; 4096])
}

fn same_pods(a: &Pods, b: &Pods) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((x, p), (y, q))| x == y && Arc::ptr_eq(p, q))
}

struct Directory {
    dir: PathBuf,
    node: String,
    recorder: Recorder,
    /// By file: the hash of its bytes, and its last good pod.
    known: BTreeMap<PathBuf, (Vec<u8>, Option<Arc<Pod>>)>,
}

impl Directory {
    fn read(&mut self) -> Pods {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                // What was there a moment ago is still wanted.
                tracing::warn!(dir = %self.dir.display(), %error, "reading static pods");
                return self.pods();
            }
        };
        files.retain(|path| {
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            !hidden && path.is_file()
        });
        files.sort();
        self.known.retain(|path, _| files.contains(path));
        for path in files {
            self.read_file(path);
        }
        self.pods()
    }

    fn pods(&self) -> Pods {
        let mut pods = Pods::new();
        for (path, (_, pod)) in &self.known {
            let Some(pod) = pod else { continue };
            let same_name = |p: &&Arc<Pod>| {
                crate::pod::name(p) == crate::pod::name(pod)
                    && crate::pod::namespace(p) == crate::pod::namespace(pod)
            };
            if pods.values().any(|p| same_name(&p)) {
                tracing::warn!(path = %path.display(), "another manifest has a pod of this name: ignored");
                continue;
            }
            pods.insert(crate::pod::uid(pod).to_owned(), Arc::clone(pod));
        }
        pods
    }

    fn read_file(&mut self, path: PathBuf) {
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) => return self.complain(&path, Vec::new(), &error),
        };
        let digest = Sha256::digest(&bytes).to_vec();
        if self.known.get(&path).is_some_and(|(known, _)| *known == digest) {
            return;
        }
        match parse(&path, &bytes, &self.node) {
            Ok(pod) => {
                self.known.insert(path, (digest, Some(Arc::new(pod))));
            }
            Err(error) => self.complain(&path, digest, &error),
        }
    }

    fn complain(&mut self, path: &Path, digest: Vec<u8>, error: &Error) {
        let entry = self.known.entry(path.to_owned()).or_default();
        if entry.0 == digest && !digest.is_empty() {
            return;
        }
        entry.0 = digest;
        tracing::error!(%error, "static pod manifest ignored");
        self.recorder.record(
            Subject::node(&self.node),
            Kind::Warning,
            "InvalidStaticPodManifest",
            error.to_string(),
        );
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(failed)
}

/// A manifest's pod, as this node runs it.
pub fn parse(path: &Path, bytes: &[u8], node: &str) -> Result<Pod, Error> {
    let wrong = |reason: String| Error::Parse { path: path.to_owned(), reason };
    let text = std::str::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let is = |field: &str, want: &str| value.get(field).and_then(|v| v.as_str()) == Some(want);
    if !is("kind", "Pod") || !is("apiVersion", "v1") {
        return Err(wrong("want kind Pod of apiVersion v1".to_owned()));
    }
    adopt(value, bytes, Origin::File(path), node)
}

/// Where a manifest is from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    File(&'a Path),
    Url(&'a str),
}

impl Origin<'_> {
    /// The word pods are annotated with.
    fn word(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Url(_) => "http",
        }
    }

    fn place(self) -> PathBuf {
        match self {
            Self::File(path) => path.to_owned(),
            Self::Url(url) => PathBuf::from(url),
        }
    }
}

/// A decoded pod as this node runs it; `bytes` are what it was decoded from.
pub(super) fn adopt(
    value: serde_json::Value,
    bytes: &[u8],
    origin: Origin<'_>,
    node: &str,
) -> Result<Pod, Error> {
    let wrong = |reason: String| Error::Parse { path: origin.place(), reason };
    let pod: Pod = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
    let mut pod = defaulted(&pod).map_err(|e| wrong(e.to_string()))?;
    let metadata = &mut pod.metadata;
    let uid = match metadata.uid.take().filter(|uid| is_uid(uid)) {
        Some(uid) => uid,
        None => uid_of(origin, bytes, node),
    };
    metadata.uid = Some(uid.clone());
    metadata.name = metadata.name.take().map(|name| format!("{name}-{}", node.to_lowercase()));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.resource_version = None;
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    metadata.generation.get_or_insert(1);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(CONFIG_MIRROR);
    annotations.insert(CONFIG_HASH.to_owned(), uid);
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.word().to_owned());
    annotations.insert(CONFIG_SEEN.to_owned(), Timestamp::now().to_string());
    pod.status = None;
    check(&pod).map_err(wrong)?;
    if let Some(spec) = pod.spec.as_mut() {
        spec.node_name = Some(node.to_owned());
        // A static pod stays on its node whatever the node's taints.
        let tolerate_all = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Default::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&tolerate_all) {
            tolerations.push(tolerate_all);
        }
    }
    Ok(pod)
}

/// The pod with the defaults an API server would have given it.
fn defaulted(pod: &Pod) -> Result<Pod, serde_json::Error> {
    let mut value = serde_json::to_value(pod)?;
    machinery::resources::defaults::pod(&mut value);
    serde_json::from_value(value)
}

fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The same place with the same content on the same node is the same pod, also after a restart.
fn uid_of(origin: Origin<'_>, bytes: &[u8], node: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.update(match origin {
        Origin::File(path) => format!("host:{node}file:{}", path.display()),
        Origin::Url(url) => format!("host:{node}url:{url}"),
    });
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What a static pod must be: what an API server would take, with nothing that only an API server has.
fn check(pod: &Pod) -> Result<(), String> {
    let object = serde_json::to_value(pod).map_err(|error| error.to_string())?;
    let errors = match machinery::resources::by_gvk("", "v1", "Pod") {
        Some(kind) => machinery::validation::create(kind, &object),
        None => Vec::new(),
    };
    if !errors.is_empty() {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(format!("invalid pod: [{}]", all.join(" ")));
    }
    match api_reference(pod) {
        Some(resource) => Err(format!("static pods may not reference {resource}")),
        None => Ok(()),
    }
}

/// What of the API a pod refers to, in upstream's words (`HasAPIObjectReference`).
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let volumes = || spec.volumes.iter().flatten();
    let sources = || volumes().filter_map(|v| v.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let containers = || crate::pod::containers(pod).map(|(_, container)| container);
    let variables = || {
        containers().flat_map(|c| c.env.iter().flatten()).filter_map(|variable| variable.value_from.as_ref())
    };
    let lists = || containers().flat_map(|c| c.env_from.iter().flatten());
    let secret_volume = |v: &Volume| {
        let csi = v.csi.as_ref().is_some_and(|csi| csi.node_publish_secret_ref.is_some());
        let iscsi = v.iscsi.as_ref().is_some_and(|iscsi| iscsi.secret_ref.is_some());
        let rbd = v.rbd.as_ref().is_some_and(|rbd| rbd.secret_ref.is_some());
        let cephfs = v.cephfs.as_ref().is_some_and(|cephfs| cephfs.secret_ref.is_some());
        let flex = v.flex_volume.as_ref().is_some_and(|flex| flex.secret_ref.is_some());
        v.secret.is_some() || v.azure_file.is_some() || csi || iscsi || rbd || cephfs || flex
    };
    let secrets = spec.image_pull_secrets.iter().flatten().next().is_some()
        || variables().any(|from| from.secret_key_ref.is_some())
        || lists().any(|from| from.secret_ref.is_some())
        || sources().any(|source| source.secret.is_some())
        || volumes().any(secret_volume);
    let config_maps = variables().any(|from| from.config_map_key_ref.is_some())
        || lists().any(|from| from.config_map_ref.is_some())
        || sources().any(|source| source.config_map.is_some())
        || volumes().any(|v| v.config_map.is_some());
    let found = [
        (spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()), "serviceaccounts"),
        (secrets, "secrets"),
        (config_maps, "configmaps"),
        (spec.resource_claims.iter().flatten().next().is_some(), "resourceclaims"),
        (volumes().any(|v| v.csi.is_some()), "csidrivers (via CSI volumes)"),
        (volumes().any(|v| v.glusterfs.is_some()), "endpoints (via glusterFS volumes)"),
        (volumes().any(|v| v.persistent_volume_claim.is_some()), "persistentvolumeclaims"),
        (volumes().any(|v| v.ephemeral.is_some()), "persistentvolumeclaims (via ephemeral volumes)"),
        (sources().any(|s| s.service_account_token.is_some()), "serviceaccounts (via projected volumes)"),
        (sources().any(|s| s.cluster_trust_bundle.is_some()), "clustertrustbundles"),
        (sources().any(|s| s.pod_certificate.is_some()), "podcertificates"),
    ];
    found.into_iter().find_map(|(refers, resource)| refers.then_some(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'a:1'}]}\n";

    fn directory(dir: &Path) -> Directory {
        let (recorder, _writer) = Recorder::new(None, "n");
        Directory { dir: dir.to_owned(), node: "Node1".to_owned(), recorder, known: BTreeMap::new() }
    }

    #[test]
    fn a_manifest_becomes_this_nodes_pod() {
        let pod = parse(Path::new("/m/web.yaml"), GOOD.as_bytes(), "Node1").unwrap();
        assert_eq!(crate::pod::name(&pod), "web-node1");
        assert_eq!(crate::pod::namespace(&pod), "default");
        assert_eq!(crate::pod::uid(&pod).len(), 32);
        assert!(crate::pod::is_static(&pod));
        assert_eq!(crate::pod::annotation(&pod, CONFIG_HASH), Some(crate::pod::uid(&pod)));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    }

    #[test]
    fn a_corrupt_file_disturbs_neither_the_others_nor_its_own_last_pod() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = directory(dir.path());
        std::fs::write(dir.path().join("good.yaml"), GOOD).unwrap();
        std::fs::write(dir.path().join("bad.yaml"), "kind: [").unwrap();
        std::fs::write(dir.path().join(".hidden"), "x").unwrap();
        let first = directory.read();
        assert_eq!(first.len(), 1);
        std::fs::write(dir.path().join("good.yaml"), "\u{0}\u{1}: {{{").unwrap();
        assert!(same_pods(&first, &directory.read()));
        std::fs::write(dir.path().join("good.yaml"), GOOD.replace("a:1", "a:2")).unwrap();
        let second = directory.read();
        assert_ne!(first.keys().next(), second.keys().next(), "other content, other UID");
        std::fs::remove_file(dir.path().join("good.yaml")).unwrap();
        assert!(directory.read().is_empty());
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for text in [
            "kind: Deployment\napiVersion: apps/v1\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: c, image: a}]}\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}\n",
            "[]",
            "",
        ] {
            assert!(parse(Path::new("/x"), text.as_bytes(), "n").is_err(), "{text}");
        }
    }

    #[test]
    fn a_static_pod_must_not_refer_to_what_only_the_api_has() {
        let refused = |more: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: a}}], {more}}}\n"
            );
            parse(Path::new("/x"), text.as_bytes(), "n").err().map(|error| error.to_string())
        };
        for (more, resource) in [
            ("serviceAccountName: s", "serviceaccounts"),
            ("imagePullSecrets: [{name: s}]", "secrets"),
            ("volumes: [{name: v, secret: {secretName: s}}]", "secrets"),
            ("volumes: [{name: v, projected: {sources: [{configMap: {name: m}}]}}]", "configmaps"),
            ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
            ("volumes: [{name: v, csi: {driver: d.example.org}}]", "csidrivers (via CSI volumes)"),
        ] {
            let error = refused(more).unwrap();
            assert!(error.ends_with(&format!("static pods may not reference {resource}")), "{more}: {error}");
        }
        for more in [
            "volumes: [{name: v, emptyDir: {}}]",
            "volumes: [{name: v, hostPath: {path: /}}]",
            "hostNetwork: true",
        ] {
            assert_eq!(refused(more), None, "{more}");
        }
        let invalid = refused("restartPolicy: Sometimes").unwrap();
        assert!(invalid.contains("invalid pod: [spec.restartPolicy: Unsupported value"), "{invalid}");
    }
}
