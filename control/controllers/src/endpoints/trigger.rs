//! Since when a change waits to be shown in a service's endpoints: `endpoints.kubernetes.io/last-change-trigger-time`, by which the
//! delay of the network is measured (upstream's `TriggerTimeTracker`).

use crate::queue::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The annotation.
pub(super) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The times seen of every service and its pods.
#[derive(Default)]
pub(super) struct Triggers(Mutex<HashMap<Key, Seen>>);

#[derive(Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Triggers {
    /// The earliest change since the last call; a service's creation at the first.
    pub(super) fn next(&self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let created = service.creation_timestamp().map(|t| t.0);
        let pods = pods.iter().filter_map(|pod| Some((pod.name_any(), turned(pod)?)));
        let now = Seen { service: created, pods: pods.collect() };
        let mut all = self.0.lock();
        let Some(before) = all.get(key) else {
            all.insert(key.clone(), now);
            return created;
        };
        let changed =
            now.pods.iter().filter(|(name, at)| before.pods.get(*name).is_none_or(|seen| *at > seen));
        let changed = changed.map(|(_, at)| *at).chain(created.filter(|at| Some(*at) > before.service));
        let earliest = changed.min();
        all.insert(key.clone(), now);
        earliest
    }

    /// The service is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

/// When the pod became ready, or ceased to be.
fn turned(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, turned: &str) -> Arc<Pod> {
        let conditions = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": turned }]);
        Arc::new(
            serde_json::from_value(
                json!({ "metadata": { "name": name }, "status": { "conditions": conditions } }),
            )
            .unwrap(),
        )
    }

    #[test]
    fn a_change_must_not_be_told_twice() {
        let (triggers, key) = (Triggers::default(), Key::new("n", "s"));
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" } }))
                .unwrap();
        let next = |pods: &[Arc<Pod>]| triggers.next(&key, &service, pods).map(|at| at.to_string());
        let at = |text: &str| Some(text.to_owned());
        let a = pod("a", "2026-01-01T00:00:05Z");
        assert_eq!(next(std::slice::from_ref(&a)), at("2026-01-01T00:00:00Z"), "the first time its creation");
        assert_eq!(next(std::slice::from_ref(&a)), None);
        let (b, later) = (pod("b", "2026-01-01T00:00:07Z"), pod("a", "2026-01-01T00:00:09Z"));
        assert_eq!(next(&[later, b]), at("2026-01-01T00:00:07Z"), "the earliest of what changed");
        triggers.forget(&key);
        assert_eq!(next(&[]), at("2026-01-01T00:00:00Z"));
    }
}
