//! A pod's volumes: made before its containers, renewed while it runs, removed after them.
//!
//! What a volume holds lives in `pods/<uid>/volumes/kubernetes.io~<kind>/<name>` below the root directory. Setting up is
//! idempotent and is done on every sync: that is how updates of ConfigMaps, Secrets, tokens and labels reach the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::time::Instant;

use crate::config::Config;
use crate::csi::Drivers;
use crate::objects::Objects;
use crate::pod::spec::downward::{self, Facts};
use crate::recorder::Recorder;

pub(crate) mod atomic;
pub mod claim;
pub(crate) mod cleanup;
pub(crate) mod csi;
pub(crate) mod files;
mod growth;
pub(crate) mod hosts;
pub(crate) mod medium;
pub(crate) mod mount_table;
pub(crate) mod mounts;
pub(crate) mod ownership;
pub(crate) mod payload;
pub(crate) mod persistent;
pub(crate) mod token;

use claim::Claims;
use medium::Medium;
use token::Tokens;

/// A volume that cannot be set up; the texts are upstream's where it has them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object it needs does not exist.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        name: String,
    },
    /// An object lacks a key it needs.
    #[error("references non-existent {kind} key: {key}")]
    Key {
        /// `config` or `secret`.
        kind: &'static str,
        key: String,
    },
    /// An object cannot be had.
    #[error(transparent)]
    Object(#[from] crate::objects::Error),
    /// A field cannot be read.
    #[error(transparent)]
    Downward(#[from] downward::Error),
    /// A token cannot be had.
    #[error("failed to fetch token: {0}")]
    Token(#[from] token::Error),
    /// A host path is not what it is said to be.
    #[error("hostPath type check failed: {path} is not {want}")]
    HostPath {
        path: String,
        /// What it should be.
        want: &'static str,
    },
    /// A path leads out of its volume.
    #[error("{what} \"{path}\" escapes the volume")]
    Escapes { what: &'static str, path: String },
    /// The kind is not supported here.
    #[error("volume \"{name}\": {kind} volumes are not supported by this kubelet")]
    Unsupported {
        /// The volume.
        name: String,
        /// Its kind.
        kind: &'static str,
    },
    /// What a volume is to be kept on cannot be had; the text is whole.
    #[error("{0}")]
    Medium(String),
    /// A mount cannot be made; the text is whole.
    #[error("{0}")]
    Mount(String),
    /// A claim cannot be used.
    #[error("error processing PVC {claim}: {reason}")]
    Claim { claim: String, reason: String },
    /// A claim that should be an ephemeral volume's is somebody else's.
    #[error("PVC {claim} was not created for pod {pod} (pod is not owner)")]
    NotOwned { claim: String, pod: String },
    /// A device is mounted, or a filesystem used as a device.
    #[error("volume {volume} has volumeMode {mode}, but is specified in {field}")]
    Mode {
        volume: String,
        mode: &'static str,
        /// Where it is used.
        field: &'static str,
    },
    /// The volume is not for this node.
    #[error("MountVolume.NodeAffinity check failed for volume \"{volume}\" : {reason}")]
    NodeAffinity { volume: String, reason: String },
    /// A storage driver failed, or what it needs is not there; the text is whole.
    #[error("{0}")]
    Driver(String),
    /// A container uses a device the pod does not have.
    #[error("cannot find volume \"{volume}\" to pass into container \"{container}\"")]
    Device {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
    },
    /// The file system refused.
    #[error("{operation} {}: {source}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    /// The pod is to end: what was waited for is not needed any more.
    #[error("the pod is being ended")]
    GivenUp,
    /// The blocking task died.
    #[error("volume operation interrupted")]
    Interrupted,
}

pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { operation, path, source }
}

/// Where a volume's content is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory or file of the host.
    Host {
        path: PathBuf,
        /// Containers only read it, whatever their mounts say.
        read_only: bool,
    },
    /// A block device of the host.
    Device {
        path: PathBuf,
        /// Containers only read it.
        read_only: bool,
    },
    /// An image, which the runtime mounts.
    Image,
}

/// A volume's name and where it is.
pub type Mounted = BTreeMap<String, Source>;

/// Why a pod's volumes are not there.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A volume could not be set up.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        /// The volume; for a claim, the one behind it.
        volume: String,
        source: Error,
    },
    /// What a volume is could not be found out.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], \
         failed to process volumes=[{volume}]: {source}", .unmounted.join(" ")
    )]
    Unprocessed {
        /// Every volume of the pod that is not mounted.
        unmounted: Vec<String>,
        volume: String,
        source: Error,
    },
    /// A volume must not be mounted here.
    #[error(transparent)]
    Refused(Error),
}

impl Failure {
    /// Nothing failed: the pod is to end.
    pub fn is_given_up(&self) -> bool {
        let (Self::SetUp { source, .. } | Self::Unprocessed { source, .. } | Self::Refused(source)) = self;
        matches!(source, Error::GivenUp)
    }
}

/// What volumes are made of.
#[derive(Clone)]
pub struct Handles {
    pub config: Arc<Config>,
    pub objects: Objects,
    /// What pods' claims were found to be.
    pub claims: Claims,
    /// Storage drivers of this node.
    pub drivers: Drivers,
    pub tokens: Tokens,
    /// Where it is said that a volume has grown.
    pub recorder: Recorder,
}

impl Handles {
    /// Forgets what is remembered of a pod.
    pub fn forget(&self, uid: &str) {
        self.objects.forget(uid);
        self.tokens.forget(uid);
        self.claims.forget(uid);
    }
}

/// The end of the pod, which ends the waiting for what its volumes are made from.
type Ending<'a> = std::pin::Pin<&'a mut (dyn Future<Output = ()> + Send)>;

/// Asks the API server for something, unless the pod is to end.
async fn ask<T>(ending: Ending<'_>, asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        answer = asking => answer,
        () = ending => Err(Error::GivenUp),
    }
}

/// Sets up all volumes of a pod. What is being mounted when the pod is to end is mounted first: what is dropped half-way
/// leaves behind what nobody tracks.
pub async fn set_up(
    handles: &Handles,
    pod: &Arc<Pod>,
    facts: &Facts,
    mut ending: Ending<'_>,
) -> Result<Mounted, Failure> {
    let mut mounted = Mounted::new();
    let used = used(pod);
    // What no container uses is not even looked at.
    let volumes =
        || pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| used.contains(&v.name));
    for volume in volumes() {
        let asking = claim::resolve(handles, pod, volume);
        let claimed = Box::pin(ask(ending.as_mut(), asking)).await.map_err(|source| match source {
            Error::NodeAffinity { .. } => Failure::Refused(source),
            source => {
                let left = volumes().map(|v| v.name.clone()).filter(|name| !mounted.contains_key(name));
                Failure::Unprocessed { unmounted: left.collect(), volume: volume.name.clone(), source }
            }
        })?;
        let (name, source) = match &claimed {
            Some(claimed) => (claimed.name(), Box::pin(persistent::set_up(handles, pod, claimed)).await),
            None => {
                let making = set_up_unclaimed(handles, pod, facts, volume, ending.as_mut());
                (volume.name.as_str(), Box::pin(making).await)
            }
        };
        let source = source.map_err(|source| Failure::SetUp { volume: name.to_owned(), source })?;
        mounted.insert(volume.name.clone(), source);
        if let (Some(claimed), Some(client)) = (&claimed, handles.objects.client())
            && claimed.take_turn(Instant::now())
        {
            Box::pin(growth::follow(client, &handles.recorder, pod, claimed)).await;
        }
    }
    Ok(mounted)
}

/// The volumes that some container mounts or uses as a device.
fn used(pod: &Pod) -> BTreeSet<String> {
    let ephemeral = crate::pod::ephemeral_containers(pod).iter().map(crate::pod::of_ephemeral);
    let all = crate::pod::containers(pod).map(|(_, c)| c.clone()).chain(ephemeral);
    let names = |c: k8s_openapi::api::core::v1::Container| {
        let mounts = c.volume_mounts.into_iter().flatten().map(|m| m.name);
        mounts.chain(c.volume_devices.into_iter().flatten().map(|d| d.name)).collect::<Vec<_>>()
    };
    all.flat_map(names).collect()
}

fn directory(handles: &Handles, pod: &Pod, kind: &str, name: &str) -> PathBuf {
    let pod_dir = handles.config.pod_dir(crate::pod::uid(pod));
    pod_dir.join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
}

/// Sets up a volume that needs no claim.
async fn set_up_unclaimed(
    handles: &Handles,
    pod: &Arc<Pod>,
    facts: &Facts,
    volume: &Volume,
    ending: Ending<'_>,
) -> Result<Source, Error> {
    let change = ownership::Change::of(pod);
    if let Some(host_path) = &volume.host_path {
        let (path, kind) = (PathBuf::from(&host_path.path), host_path.type_.clone().unwrap_or_default());
        return blocking(move || {
            files::host_path(&path, &kind).map(|()| Source::Host { path, read_only: false })
        })
        .await;
    }
    if let Some(empty) = &volume.empty_dir {
        let path = directory(handles, pod, "empty-dir", &volume.name);
        let medium = Medium::of(empty, pod, &facts.allocatable)?;
        return blocking(move || {
            medium.prepare(&path)?;
            // Only the first time: the directory itself is changed last, and tells.
            ownership::apply(&path, &ownership::Change { only_when_different: true, ..change })?;
            Ok(Source::Host { path, read_only: false })
        })
        .await;
    }
    if volume.image.is_some() {
        return Ok(Source::Image);
    }
    if let Some(source) = &volume.csi {
        return Box::pin(csi::set_up_inline(handles, pod, &volume.name, source)).await;
    }
    let (kind, in_memory) = match volume {
        Volume { config_map: Some(_), .. } => ("configmap", false),
        Volume { secret: Some(_), .. } => ("secret", true),
        Volume { downward_api: Some(_), .. } => ("downward-api", true),
        Volume { projected: Some(_), .. } => ("projected", true),
        _ => {
            return Err(Error::Unsupported { name: volume.name.clone(), kind: kind_of(volume) });
        }
    };
    let payload = ask(ending, payload::of(handles, pod, facts, volume)).await?;
    let path = directory(handles, pod, kind, &volume.name);
    let medium = if in_memory { Medium::memory(None, pod, &facts.allocatable) } else { Medium::Disk };
    blocking(move || {
        medium.prepare(&path)?;
        let only_when_different = !atomic::write(&path, &payload)?;
        ownership::apply(&path, &ownership::Change { read_only: true, only_when_different, ..change })?;
        Ok(Source::Host { path, read_only: true })
    })
    .await
}

/// The kind of a volume this kubelet does not set up, for the error.
fn kind_of(volume: &Volume) -> &'static str {
    match volume {
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { iscsi: Some(_), .. } => "iscsi",
        _ => "this kind of",
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}
