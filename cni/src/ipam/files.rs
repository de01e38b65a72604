//! The file operations that leases are made of. Tests put a crash between any two of them.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

/// Each operation is atomic as far as a killed process goes, except `write`, which is only used on files
/// that mean nothing until they are renamed.
pub(crate) trait Files {
    /// The file's content; `None` if there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Creates or overwrites.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Replaces `to`, if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the file, if there is one.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory; none if there is no such directory.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        fs::write(path, content)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        match fs::read_dir(directory) {
            Ok(entries) => {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
