//! What is on this machine and belongs to no pod: left by pods that were deleted while no kubelet ran.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Handle, Manager};
use crate::pod::spec::labels;
use crate::worker::Desired;

impl Manager {
    /// Ends what is on this machine and belongs to no pod: left by pods deleted while we were away.
    pub(super) async fn end_orphans(
        &mut self,
        wanted: &BTreeMap<String, Arc<Pod>>,
        unreadable: &BTreeSet<String>,
    ) {
        let mut orphans: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let unknown = |uid: &str, workers: &HashMap<String, Handle>| {
            !wanted.contains_key(uid) && !unreadable.contains(uid) && !workers.contains_key(uid)
        };
        let running: Vec<String> = self.index.values().map(|seen| seen.uid.clone()).collect();
        for uid in running {
            if unknown(&uid, &self.workers) && !orphans.contains_key(&uid) {
                let pod = self.remembered(&uid).await;
                orphans.insert(uid, pod);
            }
        }
        let directories = std::fs::read_dir(self.context.config.root_dir.join("pods"));
        let on_disk =
            directories.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
        let in_cgroups = self.context.cgroups.pods().await;
        let unnamed = on_disk.chain(in_cgroups).map(|uid| (uid, None));
        // Logs go last: a kubelet that died before that left nothing else, and only they know the pod's name.
        let named =
            logged(&self.context.config.pod_logs_dir).into_iter().map(|(uid, name)| (uid, Some(name)));
        let left = unnamed.chain(named).filter(|(uid, _)| unknown(uid, &self.workers));
        let mut found: BTreeMap<String, Option<Name>> = BTreeMap::new();
        for (uid, name) in left.filter(|(uid, _)| !orphans.contains_key(uid)) {
            let known = found.entry(uid).or_default();
            *known = name.or(known.take());
        }
        for (uid, name) in found {
            let mut pod = bare(&uid);
            (pod.metadata.namespace, pod.metadata.name) = name.unzip();
            orphans.insert(uid, Arc::new(pod));
        }
        for (uid, pod) in orphans {
            tracing::info!(pod = crate::pod::described(&pod), "ending an orphaned pod");
            let desired = Desired {
                pod: Arc::clone(&pod),
                removed: true,
                rejected: None,
                pending: None,
                evicted: None,
            };
            self.start(&uid, desired, pod);
        }
    }

    /// A pod as far as the runtime's labels remember it.
    async fn remembered(&mut self, uid: &str) -> Arc<Pod> {
        let mut pod = bare(uid);
        let runtime = &self.context.runtime;
        let sandboxes = runtime.list_pod_sandboxes(labels::of_pod(uid)).await.unwrap_or_default();
        let containers = runtime.list_containers(labels::of_pod(uid)).await.unwrap_or_default();
        let own = sandboxes.iter().map(|s| &s.labels).chain(containers.iter().map(|c| &c.labels)).next();
        if let Some(own) = own {
            pod.metadata.name = own.get(labels::POD_NAME).cloned();
            pod.metadata.namespace = own.get(labels::POD_NAMESPACE).cloned();
        }
        let grace = |key: &str| {
            let text = containers.iter().find_map(|c| c.annotations.get(key));
            text.and_then(|text| text.parse::<i64>().ok())
        };
        let grace = grace(labels::DELETION_GRACE).or_else(|| grace(labels::TERMINATION_GRACE));
        if let Some(spec) = pod.spec.as_mut() {
            spec.termination_grace_period_seconds = grace;
        }
        Arc::new(pod)
    }
}

/// A pod's namespace and name.
type Name = (String, String);

/// The pods whose logs are in a directory, by UID; what is not named `NAMESPACE_NAME_UID` is no pod's.
fn logged(dir: &Path) -> Vec<(String, Name)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let of_pod = |name: String| match name.split('_').collect::<Vec<_>>()[..] {
        [namespace, name, uid] if ![namespace, name, uid].contains(&"") => {
            Some((uid.to_owned(), (namespace.to_owned(), name.to_owned())))
        }
        _ => None,
    };
    names.filter_map(of_pod).collect()
}

fn bare(uid: &str) -> Pod {
    Pod {
        metadata: ObjectMeta { uid: Some(uid.to_owned()), ..Default::default() },
        spec: Some(PodSpec::default()),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_no_pods_must_not_be_taken_for_logs() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["n_p_uid", "bench_x", "lost+found", "a_b_c_d", "_p_uid2", "n_p_"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = logged(dir.path());
        assert_eq!(found, [("uid".to_owned(), ("n".to_owned(), "p".to_owned()))]);
        assert!(logged(&dir.path().join("absent")).is_empty());
    }
}
