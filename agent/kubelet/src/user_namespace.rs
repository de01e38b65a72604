//! The users of pods that do not want the host's (`hostUsers: false`): each pod has a range of the host's user and group ids
//! of its own, which its containers see as counted from 0.
//!
//! What a pod has is in the file `userns` of its directory, as upstream writes it: a kubelet that comes after finds it
//! there, and it goes with the directory. No other record is kept: the ranges in use are those of the files there are.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::user_namespaces::UNIT;
use cri_proto::v1;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const FILE: &str = "userns";

/// Why a pod gets no users of its own; the texts are upstream's where it has them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The handler of the runtime, empty for its default, cannot.
    #[error("{}", unsupported(.0))]
    Unsupported(String),
    #[error("create user namespace: could not find an empty slot to allocate a user namespace")]
    Full,
    #[error("user namespace: {0}")]
    Invalid(String),
    #[error("user namespace: {} {}: {source}", .operation, .path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
}

fn unsupported(handler: &str) -> String {
    let who = match handler {
        "" => "runtime".to_owned(),
        handler => format!("RuntimeClass handler \"{handler}\""),
    };
    format!("can't set `spec.hostUsers: false`, {who} does not support user namespaces")
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    #[serde(rename = "uidMappings")]
    uids: Vec<Mapping>,
    #[serde(rename = "gidMappings")]
    gids: Vec<Mapping>,
}

impl Mappings {
    fn of(slot: u32, size: u32) -> Self {
        let all = vec![Mapping { host_id: slot * size, container_id: 0, length: size }];
        Self { uids: all.clone(), gids: all }
    }

    /// The slot this is of a host whose ranges have that size.
    fn slot(&self, size: u32) -> Result<u32, Error> {
        let invalid = |why: &str| Err(Error::Invalid(format!("invalid user namespace configuration: {why}")));
        let [one] = self.uids.as_slice() else {
            return invalid("no more than one mapping allowed.");
        };
        if self.uids != self.gids {
            return invalid("GID and UID mapping should be identical");
        }
        if one.container_id != 0 {
            return invalid("UID 0 must be mapped");
        }
        if one.length != size {
            return Err(Error::Invalid(format!("wrong user namespace length {}", one.length)));
        }
        match (one.host_id / size, one.host_id % size) {
            (slot, 0) if slot > 0 => Ok(slot),
            _ => Err(Error::Invalid(format!("wrong user namespace offset specified {}", one.host_id))),
        }
    }
}

/// The ranges of this host; cheap to clone.
#[derive(Clone, Debug)]
pub struct UserNamespaces {
    /// The directory of all pods' directories.
    pods: PathBuf,
    /// Ids of a range.
    size: u32,
    /// Held while one is chosen.
    choosing: Arc<Mutex<()>>,
}

impl UserNamespaces {
    /// Ranges of `size` ids, from the second on: the first ids are the host's own.
    pub fn new(pods: PathBuf, size: u32) -> Self {
        Self { pods, size: size.max(UNIT), choosing: Arc::default() }
    }

    /// What the runtime is told of a pod's users. `handler` is the one that runs it, `supported`: it can give a pod its own.
    ///
    /// # Errors
    ///
    /// The pod must have users of its own, and cannot.
    pub fn of(&self, pod: &Pod, handler: &str, supported: bool) -> Result<v1::UserNamespace, Error> {
        if pod.spec.as_ref().and_then(|s| s.host_users) != Some(false) {
            return Ok(v1::UserNamespace { mode: v1::NamespaceMode::Node.into(), ..Default::default() });
        }
        if !supported {
            return Err(Error::Unsupported(handler.to_owned()));
        }
        let slot = self.slot(pod.metadata.uid.as_deref().unwrap_or_default())?;
        let ids = vec![v1::IdMapping { host_id: slot * self.size, container_id: 0, length: self.size }];
        Ok(v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids })
    }

    /// The range a pod has, or is given now.
    fn slot(&self, uid: &str) -> Result<u32, Error> {
        let _choosing = self.choosing.lock();
        let dir = self.pods.join(uid);
        if let Some(known) = read(&dir.join(FILE))? {
            return known.slot(self.size);
        }
        let used = self.used();
        let slot = (1..=u32::MAX / self.size).find(|slot| !used.contains(slot)).ok_or(Error::Full)?;
        write(&dir, &Mappings::of(slot, self.size))?;
        Ok(slot)
    }

    /// What other pods have. What cannot be understood gives nobody a range, and so takes none.
    fn used(&self) -> BTreeSet<u32> {
        let entries = std::fs::read_dir(&self.pods).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| read(&entry.path().join(FILE)).ok().flatten());
        known.filter_map(|mappings| mappings.slot(self.size).ok()).collect()
    }
}

fn read(path: &Path) -> Result<Option<Mappings>, Error> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { operation: "read", path: path.to_owned(), source }),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Invalid(format!("invalid user namespace mappings file: {error}"))),
    }
}

/// Writes a pod's file whole or not at all, and so that it outlives a loss of power: its range must not be given twice.
fn write(dir: &Path, mappings: &Mappings) -> Result<(), Error> {
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { operation, path, source }
    };
    let text = serde_json::to_vec(mappings).map_err(|error| Error::Invalid(error.to_string()))?;
    std::fs::write(&new, text).map_err(failed("write", &new))?;
    std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed("sync", &new))?;
    std::fs::rename(&new, &path).map_err(failed("rename", &new))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        let spec = json!({"containers": [], "hostUsers": host_users});
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap()
    }

    fn host(pods: &[&str]) -> (tempfile::TempDir, UserNamespaces) {
        let dir = tempfile::tempdir().unwrap();
        for uid in pods {
            std::fs::create_dir(dir.path().join(uid)).unwrap();
        }
        let all = UserNamespaces::new(dir.path().to_owned(), UNIT);
        (dir, all)
    }

    fn first(of: &v1::UserNamespace) -> u32 {
        assert_eq!((of.mode(), &of.uids), (v1::NamespaceMode::Pod, &of.gids));
        assert_eq!((of.uids.len(), of.uids[0].container_id, of.uids[0].length), (1, 0, UNIT));
        of.uids[0].host_id
    }

    #[test]
    fn a_pod_that_wants_no_host_users_must_not_get_them_in_silence() {
        let (_dir, host) = host(&["a"]);
        let own = pod("a", Some(false));
        assert_eq!(
            host.of(&own, "", false).unwrap_err().to_string(),
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
        );
        assert_eq!(
            host.of(&own, "kata", false).unwrap_err().to_string(),
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"kata\" does not support user namespaces"
        );
        for host_users in [None, Some(true)] {
            assert_eq!(host.of(&pod("a", host_users), "", false).unwrap().mode(), v1::NamespaceMode::Node);
        }
    }

    #[test]
    fn two_pods_must_not_have_the_same_users() {
        let (dir, host) = host(&["a", "b", "c"]);
        let of = |uid: &str| first(&host.of(&pod(uid, Some(false)), "", true).unwrap());
        assert_eq!((of("a"), of("b"), of("a")), (UNIT, 2 * UNIT, UNIT));
        // as a kubelet of upstream's wrote it
        let text = std::fs::read_to_string(dir.path().join("a/userns")).unwrap();
        let ids = json!([{"hostId": UNIT, "containerId": 0, "length": UNIT}]);
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written, json!({"uidMappings": ids, "gidMappings": ids}));
        // its range is free once its directory is gone
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(of("c"), UNIT);
    }

    #[test]
    fn what_a_file_must_not_say_is_refused() {
        let (dir, host) = host(&["a"]);
        for (ids, why) in [
            (json!([]), "no more than one mapping allowed."),
            (json!([{"hostId": UNIT, "containerId": 1, "length": UNIT}]), "UID 0 must be mapped"),
            (json!([{"hostId": UNIT, "containerId": 0, "length": 5}]), "wrong user namespace length 5"),
            (
                json!([{"hostId": 7, "containerId": 0, "length": UNIT}]),
                "wrong user namespace offset specified 7",
            ),
            (
                json!([{"hostId": 0, "containerId": 0, "length": UNIT}]),
                "wrong user namespace offset specified 0",
            ),
        ] {
            let text = json!({"uidMappings": ids, "gidMappings": ids}).to_string();
            std::fs::write(dir.path().join("a/userns"), text).unwrap();
            let error = host.of(&pod("a", Some(false)), "", true).unwrap_err().to_string();
            assert!(error.ends_with(why), "{error}");
        }
    }
}
