//! What cuts a worker's waiting short.

use tokio::sync::watch;

use super::Desired;

/// A pod is to be ended that was not, or sooner than it was.
fn is_hastened(before: &Desired, now: &Desired) -> bool {
    let grace =
        |d: &Desired| d.pod.metadata.deletion_timestamp.as_ref().map(|_| crate::pod::grace_seconds(&d.pod));
    let sooner = match (grace(before), grace(now)) {
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
    let ends = |d: &Desired| d.removed || d.pod.metadata.deletion_timestamp.is_some();
    if desired.wait_for(ends).await.is_err() {
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
pub(super) async fn less_grace(desired: &mut watch::Receiver<Desired>, grace: i64) {
    let shorter = |d: &Desired| crate::pod::grace_seconds(&d.pod) < grace;
    if desired.wait_for(shorter).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        }
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
        ];
        for (before, now, expected) in cases {
            assert_eq!(is_hastened(before, now), expected, "{before:?} {now:?}");
        }
    }
}
