//! The manager and the cgroups of quality-of-service classes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Manager;
use crate::cgroup::limits::requested;
use crate::pod::qos::{self, Class};
use crate::quantity::milli;

/// How long the class's limits may keep the manager.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Manager {
    /// Gives the class of burstable pods the processor time that its pods ask for together: once something may have changed of
    /// that. Upstream: `setCPUCgroupConfig`.
    pub(super) async fn share(&mut self) {
        if !std::mem::take(&mut self.share_due) {
            return;
        }
        let asked = burstable(&self.active(""));
        // It goes on by itself: whoever waits for systemd must not keep the others.
        match tokio::time::timeout(PATIENCE, self.context.cgroups.share(asked)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "give the burstable pods their share of the processors"),
            Err(_) => tracing::warn!("the burstable pods' share of the processors takes its time"),
        }
    }
}

/// What burstable pods ask for together, in thousandths of a core.
fn burstable(pods: &[Arc<Pod>]) -> i64 {
    let own = pods.iter().filter(|pod| qos::class(pod) == Class::Burstable);
    own.map(|pod| requested(pod, "cpu", milli)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pods_of_other_classes_must_not_count_for_the_burstable_ones() {
        let pod = |resources: Value| -> Arc<Pod> {
            let spec = json!({"containers": [{"name": "c", "resources": resources}]});
            Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap())
        };
        let full = json!({"cpu": "4", "memory": "1Gi"});
        let pods = [
            pod(json!({})),
            pod(json!({"requests": full, "limits": full})),
            pod(json!({"requests": {"cpu": "250m"}})),
            pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})),
        ];
        assert_eq!(burstable(&pods), 1250);
        assert_eq!(burstable(&pods[..2]), 0);
    }
}
