//! Network sysctls of the calling thread's namespace.

use std::{fs, io, path::PathBuf};

use crate::{Error, error::IoContext};

/// Sets `net/...` to `value` unless it is so already: most nodes' are, and reading is cheaper than writing.
/// A missing file (no IPv6 on this machine) is left alone and reported as `false`.
pub(crate) fn set(name: &str, value: &str) -> Result<bool, Error> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(true),
        Ok(_) => {
            fs::write(&path, value).map(|()| true).during(|| format!("write {value} to {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io { operation: format!("read {}", path.display()), source }),
    }
}
