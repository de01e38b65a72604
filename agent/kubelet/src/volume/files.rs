//! Plain files and directories of the host: `hostPath`, and termination message files.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::{Error, io};

/// Checks, and where asked creates, a host path.
pub fn host_path(path: &Path, kind: &str) -> Result<(), Error> {
    let found = std::fs::metadata(path).ok();
    let is = |ok: bool, want| match ok {
        true => Ok(()),
        false => Err(Error::HostPath { path: path.display().to_string(), want }),
    };
    let kind_of = found.as_ref().map(std::fs::Metadata::file_type);
    match (kind, kind_of) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            std::fs::create_dir_all(path).map_err(io("create", path))?;
            set_mode(path, 0o755)
        }
        ("FileOrCreate", None) => create_file(path, 0o644),
        ("DirectoryOrCreate" | "Directory", found) => is(found.is_some_and(|t| t.is_dir()), "a directory"),
        ("FileOrCreate" | "File", found) => is(found.is_some_and(|t| t.is_file()), "a file"),
        ("Socket", found) => is(found.is_some_and(|t| t.is_socket()), "a socket"),
        ("CharDevice", found) => is(found.is_some_and(|t| t.is_char_device()), "a character device"),
        ("BlockDevice", found) => is(found.is_some_and(|t| t.is_block_device()), "a block device"),
        (other, _) => Err(Error::HostPath {
            path: path.display().to_string(),
            want: if other.len() > 64 { "of a known type" } else { "of a known hostPath type" },
        }),
    }
}

/// Makes an empty file with that mode; an existing one is kept.
pub fn create_file(path: &Path, mode: u32) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io("create", parent))?;
    }
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(false).open(path).map_err(io("create", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("set mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(host_path(&at("none"), "").is_ok());
        assert!(host_path(&at("none"), "Directory").is_err());
        assert!(host_path(&at("d/e"), "DirectoryOrCreate").is_ok());
        assert!(host_path(&at("d/e"), "File").is_err());
        assert!(host_path(&at("f"), "FileOrCreate").is_ok());
        assert!(host_path(&at("f"), "File").is_ok());
        assert!(host_path(&at("f"), "Socket").is_err());
        assert!(host_path(&at("f"), "Nonsense").is_err());
    }
}
