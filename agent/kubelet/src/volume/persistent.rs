//! Volumes of this machine behind a claim: `hostPath` and `local`; those of storage drivers are [`super::csi`]'s.

use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use nix::mount::MsFlags;

use super::claim::Claimed;
use super::ownership::{self, Change};
use super::{Error, Handles, Source, blocking, files, io, mount_table};

/// Sets up the volume behind a claim.
pub async fn set_up(handles: &Handles, pod: &Pod, claimed: &Claimed) -> Result<Source, Error> {
    let spec = claimed.volume.spec.clone().unwrap_or_default();
    let read_only = claimed.read_only;
    if let Some(source) = spec.host_path {
        if claimed.block {
            return Err(unsupported(claimed, "block hostPath"));
        }
        let path = PathBuf::from(source.path);
        let kind = source.type_.unwrap_or_default();
        return blocking(move || files::host_path(&path, &kind).map(|()| Source::Host { path, read_only }))
            .await;
    }
    if spec.csi.is_some() {
        return Box::pin(super::csi::set_up_claimed(handles, pod, claimed)).await;
    }
    let Some(source) = spec.local else {
        return Err(unsupported(claimed, kind_of(claimed)));
    };
    let real = PathBuf::from("/").join(source.path);
    if real.components().any(|c| c == Component::ParentDir) {
        return Err(Error::Escapes { what: "invalid path: local", path: real.display().to_string() });
    }
    if claimed.block {
        return blocking(move || {
            let kind = std::fs::metadata(&real).map_err(io("stat", &real))?.file_type();
            if !kind.is_block_device() {
                let source = std::io::Error::other("not a block device");
                return Err(Error::Io { operation: "map device", path: real, source });
            }
            Ok(Source::Device { path: real, read_only })
        })
        .await;
    }
    let target = super::directory(handles, pod, "local-volume", claimed.name());
    let pods = handles.config.root_dir.join("pods");
    let options = spec.mount_options.unwrap_or_default();
    let change = Change::of(pod);
    blocking(move || {
        let shown = Source::Host { path: target.clone(), read_only };
        if mount_table::is_mount_point(&target) {
            return Ok(shown);
        }
        let kind = std::fs::metadata(&real).map_err(io("stat", &real))?.file_type();
        if !kind.is_dir() {
            let source = std::io::Error::other("only directory and block device are supported");
            return Err(Error::Io { operation: "mount local volume", path: real, source });
        }
        let shared = mount_table::shared_with(&real, &pods);
        std::fs::create_dir_all(&target).map_err(io("create volume directory", &target))?;
        bind(&real, &target, read_only, &options)?;
        // The first pod of a volume gives it its group; later ones find it as it is.
        if !read_only && !shared {
            ownership::apply(&target, &change)?;
        }
        Ok(shown)
    })
    .await
}

fn unsupported(claimed: &Claimed, kind: &'static str) -> Error {
    Error::Unsupported { name: claimed.name().to_owned(), kind }
}

fn kind_of(claimed: &Claimed) -> &'static str {
    let Some(spec) = &claimed.volume.spec else { return "this kind of" };
    match spec {
        _ if spec.nfs.is_some() => "nfs",
        _ if spec.iscsi.is_some() => "iscsi",
        _ if spec.fc.is_some() => "fc",
        _ if spec.flex_volume.is_some() => "flexVolume",
        _ => "this kind of",
    }
}

/// Binds a directory to another, with the options a mount of it may have.
fn bind(from: &Path, to: &Path, read_only: bool, options: &[String]) -> Result<(), Error> {
    let flags = flags(options, read_only)
        .map_err(|bad| Error::Escapes { what: "unknown mount option", path: bad.to_owned() })?;
    let mount = |flags: MsFlags| nix::mount::mount(Some(from), to, None::<&str>, flags, None::<&str>);
    mount(MsFlags::MS_BIND).map_err(std::io::Error::from).map_err(io("bind volume to", to))?;
    if flags.is_empty() {
        return Ok(());
    }
    let again = mount(flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT).map_err(std::io::Error::from);
    again.map_err(|error| {
        // Nothing must be left that looks as if it had the options.
        nix::mount::umount(to).ok();
        io("set mount options of", to)(error)
    })
}

fn flags(options: &[String], read_only: bool) -> Result<MsFlags, &str> {
    const KNOWN: [(&str, MsFlags); 9] = [
        ("ro", MsFlags::MS_RDONLY),
        ("nosuid", MsFlags::MS_NOSUID),
        ("nodev", MsFlags::MS_NODEV),
        ("noexec", MsFlags::MS_NOEXEC),
        ("noatime", MsFlags::MS_NOATIME),
        ("nodiratime", MsFlags::MS_NODIRATIME),
        ("relatime", MsFlags::MS_RELATIME),
        ("strictatime", MsFlags::MS_STRICTATIME),
        ("sync", MsFlags::MS_SYNCHRONOUS),
    ];
    let mut all = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    for option in options.iter().filter(|o| !matches!(o.as_str(), "" | "rw" | "bind" | "rbind" | "defaults"))
    {
        let found = KNOWN.iter().find(|(name, _)| name == option);
        all |= found.map(|(_, flag)| *flag).ok_or(option.as_str())?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_options_are_known_or_refused() {
        let of = |options: &[&str], ro| {
            flags(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>(), ro).map_err(str::to_owned)
        };
        assert_eq!(of(&[], false), Ok(MsFlags::empty()));
        assert_eq!(of(&["noexec", "rw"], true), Ok(MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC));
        assert_eq!(of(&["speed=9"], false), Err("speed=9".to_owned()));
    }
}
