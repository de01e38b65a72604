//! How long a job waits before it makes another pod after failures: 10 s, doubling up to 10 min. Pure.

use crate::pods::{finished, phase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub failures: i32,
    /// When the last one was.
    pub last: Option<Timestamp>,
}

impl Record {
    /// With pods that ended since.
    #[must_use]
    pub(super) fn with(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let success = succeeded.iter().filter_map(|p| ended_at(p)).max();
        let mut times: Vec<Timestamp> = failed.iter().filter_map(|p| ended_at(p)).collect();
        times.sort();
        let base = if succeeded.is_empty() { self } else { Self::default() };
        let after = times.iter().filter(|t| success.is_none_or(|s| **t > s));
        Self {
            failures: base.failures.saturating_add(i32::try_from(after.clone().count()).unwrap_or(i32::MAX)),
            last: after.max().copied().or(base.last),
        }
    }

    /// What is left of the pause.
    #[must_use]
    pub(super) fn wait(self, now: Timestamp) -> Option<Duration> {
        remaining(self.failures, self.last, now)
    }
}

/// What is left of the pause after so many failures.
#[must_use]
pub(super) fn remaining(failures: i32, last: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    if failures <= 0 {
        return None;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(16);
    let pause = PAUSES.0.saturating_mul(1 << doublings).min(PAUSES.1);
    let passed = now.duration_since(last?).max(SignedDuration::ZERO).unsigned_abs();
    pause.checked_sub(passed).filter(|left| !left.is_zero())
}

/// When a pod ended: its last container, else when it stopped being ready, else when its deletion began, else when it was made.
#[must_use]
pub(super) fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let ends: Vec<Option<Timestamp>> = containers
        .iter()
        .map(|c| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .collect();
    if !ends.is_empty() && ends.iter().all(Option::is_some) {
        return ends.into_iter().flatten().max();
    }
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let unready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "False");
    if finished(pod)
        && phase(pod) == "Failed"
        && let Some(at) = unready.and_then(|c| c.last_transition_time.as_ref())
    {
        return Some(at.0);
    }
    if let Some(deletion) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        return Some(deletion.0 - SignedDuration::from_secs(grace));
    }
    pod.creation_timestamp().map(|t| t.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(at: i64) -> Arc<Pod> {
        let at = Timestamp::from_second(at).unwrap().to_string();
        Arc::new(
            serde_json::from_value(
                json!({ "metadata": {}, "status": { "phase": "Failed", "containerStatuses": [
                { "name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                  "state": { "terminated": { "exitCode": 1, "finishedAt": at } } }] } }),
            )
            .unwrap(),
        )
    }

    #[test]
    fn pauses_double_from_ten_seconds_to_ten_minutes() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let wait = |failures| remaining(failures, Some(at(1000)), at(1000)).map(|d| d.as_secs());
        assert_eq!(wait(0), None);
        assert_eq!([wait(1), wait(2), wait(3), wait(6)], [Some(10), Some(20), Some(40), Some(320)]);
        assert_eq!([wait(7), wait(40), wait(i32::MAX)], [Some(600), Some(600), Some(600)]);
        assert_eq!(remaining(1, Some(at(1000)), at(1004)), Some(Duration::from_secs(6)));
        assert_eq!(remaining(1, Some(at(1000)), at(1010)), None);
    }

    #[test]
    fn a_success_forgets_the_failures_before_it() {
        let record = Record::default().with(&[], &[ended(100), ended(130)]);
        assert_eq!(record, Record { failures: 2, last: Some(Timestamp::from_second(130).unwrap()) });
        let record = record.with(&[ended(150)], &[ended(140), ended(160)]);
        assert_eq!(record, Record { failures: 1, last: Some(Timestamp::from_second(160).unwrap()) });
        assert_eq!(record.with(&[ended(170)], &[]), Record::default());
    }
}
