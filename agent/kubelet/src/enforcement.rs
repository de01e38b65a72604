//! The limits of all pods together, and what is told of them. Upstream: `enforceNodeAllocatableCgroups`.
//!
//! Woken once at start, and every minute until they are set: pods that use more than they may have from now on keep the kernel from it until they
//! are evicted. Reads what could not be set at start; writes it, and whether it is into [`Reported`]. Promises: each failure is told; success is told
//! by the node, once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::node::Reported;
use crate::recorder::{Kind, Recorder, Subject};

/// The pause before it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// What the task works with.
#[derive(Clone)]
pub struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) cgroups: Cgroups,
    pub(crate) recorder: Recorder,
}

/// Tries until the limits are set, then rests for ever.
pub async fn keep(parts: Parts, reported: watch::Sender<Reported>) {
    loop {
        match parts.cgroups.enforce().await {
            Ok(limited) => {
                reported.send_if_modified(|reported| {
                    std::mem::replace(&mut reported.allocatable_enforced, limited) != limited
                });
                return std::future::pending().await;
            }
            Err(error) => {
                let node = Subject::node(&parts.config.node_name);
                let text =
                    format!("Failed to update Node Allocatable Limits {}: {error}", parts.cgroups.shown());
                parts.recorder.record(node, Kind::Warning, "FailedNodeAllocatableEnforcement", text);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::cgroups;
    use crate::node::resources::Resources;
    use crate::recorder::fake::{AGAIN, recorded};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[tokio::test(start_paused = true)]
    async fn limits_that_were_refused_must_not_be_forgotten_nor_told_as_set() {
        let dir = tempfile::tempdir().unwrap();
        let limit = dir.path().join("kubepods/memory.max");
        // Writing to it fails, as the kernel has it where more is in use.
        std::fs::create_dir_all(&limit).unwrap();
        let cgroups = cgroups(dir.path());
        let allocatable = Resources::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
        cgroups.prepare(&allocatable).await.unwrap();
        let (recorder, mut told, _scope) = recorded();
        let config = Arc::new(Config::new("n1", Vec::new()));
        let parts = Parts { config, cgroups, recorder };
        let reported = watch::Sender::new(Reported::default());
        let mut seen = reported.subscribe();
        let story = async {
            let of =
                r#"FailedNodeAllocatableEnforcement: Failed to update Node Allocatable Limits ["kubepods"]"#;
            let text = format!("{of}: write \"1073741824\" to {}", limit.display());
            let event = told.recv().await.unwrap();
            assert!(event.starts_with(&text), "{event}");
            assert_eq!(told.recv().await.as_deref(), Some(AGAIN));
            assert!(!seen.borrow_and_update().allocatable_enforced);
            std::fs::remove_dir(&limit).unwrap();
            std::fs::write(&limit, "max").unwrap();
            assert!(seen.wait_for(|reported| reported.allocatable_enforced).await.is_ok());
            assert_eq!(std::fs::read_to_string(&limit).unwrap(), "1073741824");
        };
        tokio::select! {
            () = keep(parts, reported) => panic!("it rests for ever"),
            () = story => {}
        }
    }
}
