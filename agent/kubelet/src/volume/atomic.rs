//! Files that change all at once: readers see the old content or the new, never a mixture.
//!
//! The visible names are links through `..data`, itself a link to a timestamped directory; an update writes a new
//! directory and renames a new link over `..data`. A crash leaves at worst a directory nobody links to, which the next
//! update removes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use super::{Error, io};

/// A file's content and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Whose it is; root's where nobody is named.
    pub owner: Option<u32>,
}

/// Files by their path inside the volume.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes a directory hold exactly `payload`; says whether anything changed.
pub fn write(dir: &Path, payload: &Payload) -> Result<bool, Error> {
    for path in payload.keys() {
        check(path)?;
    }
    let current = std::fs::read_link(dir.join(DATA)).ok().map(|name| dir.join(name));
    if let Some(current) = &current
        && holds(current, payload)
        && payload.keys().all(|path| dir.join(first(path)).symlink_metadata().is_ok())
    {
        return Ok(false);
    }
    let name = format!(
        "..{}.{}",
        jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"),
        uuid::Uuid::new_v4().simple()
    );
    let fresh = dir.join(&name);
    std::fs::create_dir(&fresh).map_err(io("create", &fresh))?;
    set_mode(&fresh, 0o755)?;
    for (path, file) in payload {
        put(&fresh, path, file)?;
    }
    let next = dir.join(NEXT);
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove", &next)(error));
        }
        _ => {}
    }
    symlink(&name, &next).map_err(io("link", &next))?;
    std::fs::rename(&next, dir.join(DATA)).map_err(io("rename", &next))?;
    let names: BTreeSet<&str> = payload.keys().map(|path| first(path)).collect();
    for visible in &names {
        let link = dir.join(visible);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(visible), &link).map_err(io("link", &link))?;
        }
    }
    sweep(dir, &names, &name)?;
    Ok(true)
}

/// Removes names that are not asked for any more and directories nobody links to.
fn sweep(dir: &Path, names: &BTreeSet<&str>, current: &str) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(io("list", dir))?.flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let kind = entry.file_type().map_err(io("stat", &path))?;
        if name == DATA || name == current || names.contains(name) {
            continue;
        }
        if kind.is_symlink() {
            std::fs::remove_file(&path).map_err(io("remove", &path))?;
        } else if kind.is_dir() && name.starts_with("..") {
            std::fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

/// A payload's path must stay inside, and its first part must not look like ours.
fn check(path: &str) -> Result<(), Error> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || first(path).starts_with("..") {
        return Err(Error::Escapes { what: "path", path: path.to_owned() });
    }
    Ok(())
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn put(root: &Path, path: &str, file: &File) -> Result<(), Error> {
    let full = root.join(path);
    let mut at = PathBuf::from(root);
    for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
        at.push(part);
        if !at.is_dir() {
            std::fs::create_dir(&at).map_err(io("create", &at))?;
            set_mode(&at, 0o755)?;
        }
    }
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full);
    let mut out = open.map_err(io("create", &full))?;
    out.write_all(&file.data).map_err(io("write", &full))?;
    // The process's umask must not take from the mode asked for.
    set_mode(&full, file.mode)?;
    match file.owner {
        Some(owner) => lchown(&full, Some(owner), None).map_err(io("change owner of", &full)),
        None => Ok(()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("set mode of", path))
}

/// The directory holds these files and no others. Modes are compared by the owner's bits: ownership may have widened
/// the group's.
fn holds(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                open.push(path);
                continue;
            }
            let Some(wanted) =
                path.strip_prefix(dir).ok().and_then(Path::to_str).and_then(|name| payload.get(name))
            else {
                return false;
            };
            let mode = entry.metadata().map_or(0, |m| m.permissions().mode());
            if mode & 0o700 != wanted.mode & 0o700 || std::fs::read(&path).ok().as_ref() != Some(&wanted.data)
            {
                return false;
            }
            found += 1;
        }
    }
    found == payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.into(), mode: 0o644, owner: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn updates_are_seen_at_once_and_equal_content_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("b/c", "2")])).unwrap());
        assert_eq!(read("b/c").as_deref(), Some("2"));
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("b/c", "2")])).unwrap());
        let held = std::fs::File::open(dir.path().join("a")).unwrap();
        assert!(write(dir.path(), &payload(&[("a", "3")])).unwrap());
        assert_eq!(std::io::read_to_string(held).unwrap(), "1", "an open file keeps its content");
        assert_eq!(read("a").as_deref(), Some("3"));
        assert!(dir.path().join("b").symlink_metadata().is_err(), "stale names are gone");
        let directories = std::fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_dir() && !e.path().is_symlink());
        assert_eq!(directories.count(), 1);
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "..data", "..x/y", "", "a/../../b"] {
            assert!(write(dir.path(), &payload(&[(path, "1")])).is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_crash_between_the_steps_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1")])).unwrap();
        std::fs::create_dir(dir.path().join("..2020_orphan")).unwrap();
        symlink("..2020_orphan", dir.path().join(NEXT)).unwrap();
        std::fs::remove_file(dir.path().join("a")).unwrap();
        assert!(write(dir.path(), &payload(&[("a", "1")])).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert!(!dir.path().join("..2020_orphan").exists());
    }
}
