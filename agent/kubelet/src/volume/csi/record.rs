//! What a driver was asked for, written beside the volume so that it can be undone (`vol_data.json`). Blocking.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::volume::{Error, io};

const FILE: &str = "vol_data.json";

/// Upstream's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    #[serde(rename = "driverName")]
    pub driver: String,
    /// Its name for the volume.
    #[serde(rename = "volumeHandle")]
    pub handle: String,
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "nodeName", skip_serializing_if = "String::is_empty")]
    node: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    attachment: String,
    #[serde(rename = "volumeLifecycleMode", skip_serializing_if = "String::is_empty")]
    lifecycle: String,
}

impl Record {
    /// A volume published to a pod.
    pub fn of_pod(name: &str, handle: &str, driver: &str, node: &str, lifecycle: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: node.to_owned(),
            attachment: super::attachment_name(handle, driver, node),
            lifecycle: lifecycle.to_owned(),
            ..Self::of_node(handle, driver)
        }
    }

    /// A volume staged on the node.
    pub fn of_node(handle: &str, driver: &str) -> Self {
        Self { driver: driver.to_owned(), handle: handle.to_owned(), ..Self::default() }
    }

    /// It was made for one pod.
    pub fn is_inline(&self) -> bool {
        self.lifecycle == "Ephemeral"
    }

    /// Writes it into a directory, which is made.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(directory).map_err(io("create volume directory", directory))?;
        let path = directory.join(FILE);
        let text = serde_json::to_vec(self).map_err(|e| Error::Driver(format!("encode {FILE}: {e}")))?;
        // Half a record would be worse than none.
        let next = directory.join(format!("{FILE}.tmp"));
        std::fs::write(&next, text).map_err(io("write", &next))?;
        std::fs::rename(&next, &path).map_err(io("rename", &next))
    }

    /// Reads that of a directory; `None` where there is none.
    pub fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| Error::Driver(format!("decode {}: {e}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", path)(error)),
        }
    }
}

/// The directories in a directory; none where it is not there.
pub fn directories(root: &Path) -> Result<Vec<PathBuf>, Error> {
    match std::fs::read_dir(root) {
        Ok(entries) => {
            let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            Ok(dirs.map(|e| e.path()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io("list", root)(error)),
    }
}

/// Whether another pod's directory has the volume, too.
pub fn is_used(pods: &Path, data: &Record) -> bool {
    let of_pod = |pod: PathBuf| directories(&pod.join("volumes/kubernetes.io~csi")).unwrap_or_default();
    let volumes = directories(pods).unwrap_or_default().into_iter().flat_map(of_pod);
    volumes
        .filter_map(|directory| Record::read(&directory).ok().flatten())
        .any(|other| other.driver == data.driver && other.handle == data.handle)
}

/// Removes a mount's directory, which is empty when the driver did its part; one that is still mounted is an error.
pub fn remove_mount(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io("remove mount directory", path)),
    }
}

/// Removes a volume's record, the mount's directory, and the volume's own.
pub fn forget(directory: &Path) -> Result<(), Error> {
    remove_mount(&directory.join("mount"))?;
    let path = directory.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path)(error)),
        _ => {}
    }
    remove_mount(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_last_and_tell_who_uses_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let place = |pod: &str| dir.path().join(pod).join("volumes/kubernetes.io~csi/pv");
        let data = Record::of_pod("pv", "h", "d", "n", "Persistent");
        for pod in ["a", "b"] {
            data.write(&place(pod)).unwrap();
            std::fs::create_dir(place(pod).join("mount")).unwrap();
        }
        assert_eq!(Record::read(&place("a")).unwrap(), Some(data.clone()));
        forget(&place("a")).unwrap();
        assert!(!place("a").exists());
        assert_eq!(Record::read(&place("a")).unwrap(), None);
        assert!(is_used(dir.path(), &data), "b has it");
        assert!(!is_used(dir.path(), &Record::of_node("other", "d")));
        forget(&place("b")).unwrap();
        assert!(!is_used(dir.path(), &data));
        forget(&place("b")).unwrap();
    }
}
