//! What becomes of a volume whose claim is gone.

use super::migration;
use super::plan::Word;
use crate::recorder::Severity;
use k8s_openapi::api::core::v1::PersistentVolume;
use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It stays as it is, or somebody else deletes it.
    Nothing,
    /// It is scrubbed and becomes free.
    Recycle,
    /// The directory behind it goes, then the volume.
    DeleteHostPath(PathBuf),
    /// Nobody can do what its policy says.
    Fail(Word),
}

fn fail(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Fail(Word { severity: Severity::Warning, reason, message: message.into() })
}

/// What the volume's policy asks for.
pub(super) fn decide(volume: &PersistentVolume) -> Step {
    let annotations = volume.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|a| a.get(key)).map_or("", String::as_str);
    if !annotation(migration::MIGRATED_TO).is_empty() {
        return Step::Nothing;
    }
    let spec = volume.spec.clone().unwrap_or_default();
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Retain") => Step::Nothing,
        Some("Recycle") => Step::Recycle,
        Some("Delete") => {
            let provisioner = annotation(migration::PROVISIONED_BY);
            if provisioner.is_empty() && spec.csi.is_some() {
                return Step::Nothing;
            }
            match provisioner {
                "" | "kubernetes.io/host-path" => match &spec.host_path {
                    Some(path) => Step::DeleteHostPath(path.path.clone().into()),
                    None => {
                        let name = volume.metadata.name.as_deref().unwrap_or_default();
                        let name = machinery::goformat::go_quote(name);
                        // Of what is left in the tree, the plugins the controllers know are hostPath, NFS and CSI.
                        let why = if spec.nfs.is_some() {
                            "no deletable volume plugin matched"
                        } else {
                            "no volume plugin matched"
                        };
                        let text = format!("error getting deleter volume plugin for volume {name}: {why}");
                        fail("VolumeFailedDelete", text)
                    }
                },
                plugin if plugin.starts_with("kubernetes.io/") => {
                    fail("VolumeFailedDelete", format!("no volume plugin matched name: {plugin}"))
                }
                _ => Step::Nothing,
            }
        }
        _ => fail("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"),
    }
}

/// Deletes what is behind a hostPath volume; only below /tmp, as upstream.
pub(super) async fn delete_host_path(path: PathBuf) -> Result<(), String> {
    let shown = path.display().to_string();
    let below = shown.find("/tmp/").is_some_and(|at| shown.len() > at + "/tmp/".len());
    if !below || path.components().any(|c| c == std::path::Component::ParentDir) {
        return Err(format!("host_path deleter only supports /tmp/.+ but received provided {shown}"));
    }
    let removed = tokio::task::spawn_blocking(move || match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
        Ok(_) => std::fs::remove_file(&path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    });
    match removed.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("delete {shown}: {error}")),
        Err(error) => Err(format!("delete {shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(spec: Value, annotations: Value) -> PersistentVolume {
        let object = json!({"metadata": {"name": "v", "annotations": annotations}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn policies() {
        let of = |spec| decide(&volume(spec, json!({})));
        assert_eq!(of(json!({"persistentVolumeReclaimPolicy": "Retain"})), Step::Nothing);
        assert_eq!(of(json!({"persistentVolumeReclaimPolicy": "Recycle"})), Step::Recycle);
        let delete = |source: Value| {
            let mut spec = json!({"persistentVolumeReclaimPolicy": "Delete"});
            spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            spec
        };
        let csi = delete(json!({"csi": {"driver": "d", "volumeHandle": "h"}}));
        assert_eq!(of(csi), Step::Nothing);
        let path = delete(json!({"hostPath": {"path": "/tmp/x"}}));
        assert_eq!(of(path.clone()), Step::DeleteHostPath("/tmp/x".into()));
        let outside = volume(path, json!({"pv.kubernetes.io/provisioned-by": "example.com/p"}));
        assert_eq!(decide(&outside), Step::Nothing);
        let Step::Fail(word) = of(delete(json!({"local": {"path": "/x"}}))) else { panic!("local") };
        assert_eq!(
            word.message,
            "error getting deleter volume plugin for volume \"v\": no volume plugin matched"
        );
        assert!(matches!(of(json!({"persistentVolumeReclaimPolicy": "Burn"})), Step::Fail(_)));
    }

    #[tokio::test]
    async fn only_paths_below_tmp_are_deleted() {
        for path in ["/var/lib/x", "/tmp/", "/tmp", "/tmp/../etc"] {
            assert!(delete_host_path(path.into()).await.is_err(), "{path}");
        }
        assert!(delete_host_path("/tmp/windlass-no-such-directory".into()).await.is_ok());
    }
}
