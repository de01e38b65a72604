//! Directories of a mode: what a process's mask leaves of modes is for files of its own, not for what others are to read.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes a directory and those above it; each that was not there has the mode.
pub(crate) fn make(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.is_dir()).collect();
    for at in missing.into_iter().rev() {
        match std::fs::create_dir(at) {
            Ok(()) => std::fs::set_permissions(at, Permissions::from_mode(mode))?,
            // Somebody else was faster.
            Err(_) if at.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_must_not_hide_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mode =
            |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        let before = mode("");
        // More than any usual mask leaves.
        make(&dir.path().join("a/b"), 0o777).unwrap();
        make(&dir.path().join("a/b"), 0o700).unwrap();
        assert_eq!((mode("a"), mode("a/b"), mode("")), (0o777, 0o777, before));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(make(&dir.path().join("file/c"), 0o755).is_err());
    }
}
