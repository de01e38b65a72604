//! A container's mounts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use nix::mount::MsFlags;

use super::{Error, Mounted, Source, blocking, cleanup, files, hosts, io};
use crate::config::Config;
use crate::pod::spec::env::expand;
use crate::pod::spec::{labels, recursive};

/// What a container's mounts are made from.
pub struct Given<'a> {
    pub volumes: &'a Mounted,
    /// The images its volumes are, by the volume's name.
    pub images: &'a BTreeMap<String, v1::ImageSpec>,
    pub env: &'a [(String, String)],
    pub pod_ips: &'a [String],
    /// The runtime can mount read-only with all that is mounted below.
    pub recursive: bool,
}

/// All mounts of one attempt of a container.
pub async fn of_container(
    config: &Config,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    given: &Given<'_>,
) -> Result<Vec<v1::Mount>, Error> {
    let mut mounts = Vec::new();
    let wanted = container.volume_mounts.as_deref().unwrap_or_default();
    for (index, mount) in wanted.iter().enumerate() {
        mounts.push(one(config, pod, container, index, mount, given).await?);
    }
    if !wanted.iter().any(|m| m.mount_path.trim_end_matches('/') == "/etc/hosts") {
        mounts.extend(etc_hosts(config, pod, given.pod_ips).await?);
    }
    let own = config.pod_dir(crate::pod::uid(pod)).join("containers").join(&container.name);
    let file = own.join(format!("{attempt:08x}"));
    let path = labels::message_path(container).to_owned();
    mounts.push(host_mount(&file, &path, false));
    // A crash may have left this attempt's file with the words of a container that was never created.
    blocking(move || {
        std::fs::remove_file(&file).or_else(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(io("remove", &file)(e)),
        })?;
        files::create_file(&file, 0o666)
    })
    .await?;
    Ok(mounts)
}

/// The devices of a container.
pub fn devices(container: &Container, volumes: &Mounted) -> Result<Vec<v1::Device>, Error> {
    let wanted = container.volume_devices.as_deref().unwrap_or_default();
    let device = |wanted: &VolumeDevice| match volumes.get(&wanted.name) {
        Some(Source::Device { path, read_only }) => Ok(v1::Device {
            container_path: wanted.device_path.clone(),
            host_path: path.to_string_lossy().into_owned(),
            permissions: if *read_only { "r" } else { "mrw" }.to_owned(),
        }),
        _ => Err(Error::Device { volume: wanted.name.clone(), container: container.name.clone() }),
    };
    wanted.iter().map(device).collect()
}

fn host_mount(host: &Path, container: &str, readonly: bool) -> v1::Mount {
    v1::Mount {
        container_path: container.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

async fn etc_hosts(config: &Config, pod: &Pod, pod_ips: &[String]) -> Result<Option<v1::Mount>, Error> {
    let path = config.pod_dir(crate::pod::uid(pod)).join("etc-hosts");
    let host_file = match crate::pod::host_network(pod) {
        true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        false => String::new(),
    };
    let text = hosts::text(pod, pod_ips, &config.cluster_domain, &host_file);
    let mount = host_mount(&path, "/etc/hosts", false);
    blocking(move || {
        files::create_file(&path, 0o644)?;
        std::fs::write(&path, text).map_err(io("write", &path))
    })
    .await?;
    Ok(Some(mount))
}

async fn one(
    config: &Config,
    pod: &Pod,
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    given: &Given<'_>,
) -> Result<v1::Mount, Error> {
    let unknown = || {
        let (volume, container) = (&mount.name, &container.name);
        Error::Mount(format!("cannot find volume \"{volume}\" to mount into container \"{container}\""))
    };
    let source = given.volumes.get(&mount.name).ok_or_else(unknown)?;
    let sub_path = sub_path(mount, given.env).map_err(Error::Mount)?;
    let recursive_read_only = recursive::resolve(mount, given.recursive)
        .map_err(|why| Error::Mount(format!("failed to resolve recursive read-only mode: {why}")))?;
    let mut made = v1::Mount {
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only.unwrap_or(false),
        recursive_read_only,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            _ => v1::MountPropagation::PropagationPrivate,
        }
        .into(),
        ..Default::default()
    };
    match source {
        Source::Image => {
            made.image = Some(given.images.get(&mount.name).ok_or_else(unknown)?.clone());
            made.image_sub_path = sub_path;
            made.readonly = true;
        }
        Source::Device { .. } => return Err(unknown()),
        Source::Host { path, read_only } if sub_path.is_empty() => {
            made.host_path = path.to_string_lossy().into_owned();
            made.readonly |= *read_only;
        }
        Source::Host { path, read_only } => {
            made.readonly |= *read_only;
            let target = config
                .pod_dir(crate::pod::uid(pod))
                .join("volume-subpaths")
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string());
            made.host_path = target.to_string_lossy().into_owned();
            let path = path.clone();
            let bound = blocking(move || bind_sub_path(&path, &sub_path, &target)).await;
            bound.map_err(|error| {
                // As upstream: whoever wrote the pod is not told of the host's files.
                let (volume, container) = (&mount.name, &container.name);
                tracing::warn!(%error, volume, container, "prepare a subPath");
                Error::Mount(format!(
                    "failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\""
                ))
            })?;
        }
    }
    Ok(made)
}

/// The path in its volume that a mount shows; empty for all of it. The errors are upstream's texts.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<String, String> {
    let path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        None => mount.sub_path.clone().unwrap_or_default(),
        Some(expression) => {
            let missing = RefCell::new(BTreeSet::new());
            let expanded = expand(expression, |name| {
                let known = env.iter().find(|(known, value)| known == name && !value.is_empty());
                if known.is_none() {
                    missing.borrow_mut().insert(name.to_owned());
                }
                known.map(|(_, value)| value.clone())
            });
            let missing: Vec<String> = missing.into_inner().into_iter().collect();
            if !missing.is_empty() {
                return Err(format!("missing value for {}", missing.join(", ")));
            }
            expanded
        }
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(path)
}

/// Upstream takes relative mount paths as from the root.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Binds a path inside a volume to a place of ours. The pod may write to the volume while we look: the path is opened
/// first, and what was opened is checked and bound, so that a link swapped in later leads nowhere.
fn bind_sub_path(volume: &Path, sub_path: &str, target: &Path) -> Result<(), Error> {
    let escapes = || Error::Escapes { what: "subPath", path: sub_path.to_owned() };
    if !Path::new(sub_path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(escapes());
    }
    let root = volume.canonicalize().map_err(io("resolve", volume))?;
    let wanted = root.join(sub_path);
    if wanted.symlink_metadata().is_err() {
        // Created as a directory, as upstream does; a parent that leads outside is refused.
        let existing = wanted.ancestors().find(|a| a.exists()).unwrap_or(&root);
        if !existing.canonicalize().map_err(io("resolve", existing))?.starts_with(&root) {
            return Err(escapes());
        }
        make_like(&root, existing, &wanted)?;
    }
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&wanted)
        .map_err(io("open", &wanted))?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let real = std::fs::read_link(&link).map_err(io("resolve", &wanted))?;
    if !real.starts_with(&root) {
        return Err(escapes());
    }
    cleanup::unmount_below(target)?;
    let directory = std::fs::metadata(&link).map_err(io("stat", &wanted))?.is_dir();
    if directory {
        std::fs::create_dir_all(target).map_err(io("create", target))?;
    } else {
        files::create_file(target, 0o640)?;
    }
    nix::mount::mount(Some(&link), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(std::io::Error::from)
        .map_err(io("bind subPath to", target))
}

/// Makes a directory below one that exists; whatever is new gets the mode of the volume's root, whatever our umask is.
fn make_like(root: &Path, existing: &Path, wanted: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(root).map_err(io("stat", root))?.permissions().mode() & 0o2777;
    let mut at = existing.to_owned();
    for part in wanted.strip_prefix(existing).unwrap_or(Path::new("")).components() {
        at.push(part);
        std::fs::create_dir(&at).map_err(io("create", &at))?;
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&at, mode).map_err(io("set mode of", &at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_in_a_volume_has_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o2777)).unwrap();
        let wanted = dir.path().join("a/b");
        make_like(dir.path(), dir.path(), &wanted).unwrap();
        assert_eq!((mode(&wanted), mode(&dir.path().join("a"))), (0o2777, 0o2777));
    }

    #[test]
    fn a_sub_path_must_not_be_named_after_a_variable_that_is_not_there() {
        let env = [("A".to_owned(), "a".to_owned()), ("EMPTY".to_owned(), String::new())];
        let path = |field: &str, text: &str| {
            let mount = serde_json::json!({"name": "v", "mountPath": "/v", field: text});
            sub_path(&serde_json::from_value(mount).unwrap(), &env)
        };
        assert_eq!(path("subPathExpr", "x/$(A)"), Ok("x/a".to_owned()));
        assert_eq!(path("subPathExpr", "$(Z)/$(A)/$(EMPTY)").unwrap_err(), "missing value for EMPTY, Z");
        assert_eq!(path("subPath", "$(Z)"), Ok("$(Z)".to_owned()));
        assert_eq!(path("subPath", "/a").unwrap_err(), "error SubPath `/a` must not be an absolute path");
        assert_eq!(
            path("subPath", "a/../b").unwrap_err(),
            "unable to provision SubPath `a/../b`: must not contain '..'"
        );
    }

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        let target = dir.path().join("t");
        for path in ["../x", "/etc", "out", "out/new/dir"] {
            let error = bind_sub_path(&volume, path, &target).unwrap_err();
            assert!(matches!(error, Error::Escapes { .. }), "{path}: {error}");
        }
        assert!(!target.exists());
    }
}
