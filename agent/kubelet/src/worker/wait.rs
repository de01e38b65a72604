//! What cuts a worker's waiting short.

use std::time::Duration;

use tokio::sync::watch;

use super::Desired;

/// The seconds a pod's containers have that is to be ended.
fn end_grace(desired: &Desired) -> Option<i64> {
    let own = crate::pod::grace_seconds(&desired.pod);
    let goes = desired.removed || desired.pod.metadata.deletion_timestamp.is_some();
    let evicted = desired.evicted.as_ref().map(|eviction| eviction.grace.min(own));
    evicted.or(goes.then_some(own))
}

/// A pod is to be ended that was not, or sooner than it was.
fn is_hastened(before: &Desired, now: &Desired) -> bool {
    let sooner = match (end_grace(before), end_grace(now)) {
        (None, now) => now.is_some(),
        (Some(before), Some(now)) => now < before,
        (Some(_), None) => false,
    };
    sooner || (now.removed && !before.removed)
}

/// Resolves once the pod is to be ended, or sooner than `before`.
pub(super) async fn hastened(desired: &mut watch::Receiver<Desired>, before: &Desired) {
    if desired.wait_for(|now| is_hastened(before, now)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves once the pod is to be ended.
pub(super) async fn must_end(desired: &mut watch::Receiver<Desired>) {
    if desired.wait_for(|desired| end_grace(desired).is_some()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves once the node's network is ready.
pub(super) async fn network(health: &mut watch::Receiver<crate::node::runtime::Health>) {
    if health.wait_for(|health| health.network_error.is_none()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves once a grace shorter than `grace` is asked for.
pub(super) async fn less_grace(desired: &mut watch::Receiver<Desired>, grace: Duration) {
    let less = |seconds: i64| u64::try_from(seconds).unwrap_or(0) < grace.as_secs();
    let shorter = |desired: &Desired| end_grace(desired).is_some_and(less);
    if desired.wait_for(shorter).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::order::{Cause, Eviction};
    use std::sync::Arc;

    /// A pod by its grace in seconds once it is deleted.
    fn desired(deleted: Option<i64>, removed: bool) -> Desired {
        let mut metadata = serde_json::json!({"name": "p"});
        if let Some(grace) = deleted {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            metadata["deletionGracePeriodSeconds"] = grace.into();
        }
        let pod = serde_json::json!({"metadata": metadata, "spec": {"containers": [], "terminationGracePeriodSeconds": 5}});
        Desired {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            removed,
            rejected: None,
            pending: None,
            evicted: None,
        }
    }

    fn evicted(mut desired: Desired, grace: i64) -> Desired {
        desired.evicted = Some(Eviction { message: String::new(), grace, cause: Cause::Node });
        desired
    }

    #[test]
    fn a_pod_that_ends_already_must_not_wait_when_it_is_given_less_time() {
        let (alive, ending, at_once) =
            (desired(None, false), desired(Some(300), false), desired(Some(0), false));
        let gone = desired(Some(300), true);
        let cases = [
            (&alive, &ending, true),
            (&ending, &at_once, true),
            (&ending, &gone, true),
            (&alive, &desired(None, true), true),
            (&alive, &alive, false),
            (&ending, &ending, false),
            (&at_once, &ending, false),
            (&gone, &gone, false),
            (&alive, &evicted(alive.clone(), 1), true),
            (&ending, &evicted(ending.clone(), 1), true),
            (&at_once, &evicted(at_once.clone(), 1), false),
            (&evicted(alive.clone(), 1), &evicted(ending.clone(), 1), false),
        ];
        for (before, now, expected) in cases {
            assert_eq!(is_hastened(before, now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn an_eviction_must_not_give_a_pod_more_time_than_it_has() {
        let alive = desired(None, false);
        assert_eq!(end_grace(&alive), None);
        assert_eq!(end_grace(&evicted(alive.clone(), 600)), Some(5));
        assert_eq!(end_grace(&evicted(alive, 1)), Some(1));
        assert_eq!(end_grace(&evicted(desired(Some(300), true), 600)), Some(300));
        assert_eq!(end_grace(&desired(None, true)), Some(5));
    }
}
