//! An autoscaler's status: as it is, changed by a round, and the patch that makes it so. Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler as Autoscaler, HorizontalPodAutoscalerCondition as Condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// What a round leaves behind.
pub(super) struct Status {
    /// Replicas the target is told to have.
    pub current: i32,
    /// Replicas it should have.
    pub desired: i32,
    /// What each metric said.
    pub metrics: Vec<Value>,
    scaled: Option<Time>,
    conditions: Vec<Condition>,
    now: Timestamp,
}

impl Status {
    /// The status as it stands.
    pub(super) fn of(autoscaler: &Autoscaler) -> Self {
        let status = autoscaler.status.as_ref();
        let metrics = status.and_then(|s| s.current_metrics.as_ref()).into_iter().flatten();
        Self {
            current: status.and_then(|s| s.current_replicas).unwrap_or(0),
            desired: status.map_or(0, |s| s.desired_replicas),
            metrics: metrics.filter_map(|m| serde_json::to_value(m).ok()).collect(),
            scaled: status.and_then(|s| s.last_scale_time.clone()),
            conditions: status.and_then(|s| s.conditions.clone()).unwrap_or_default(),
            now: Timestamp::now(),
        }
    }

    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let place = self.conditions.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
            self.conditions.push(Condition { type_: kind.to_owned(), ..Condition::default() });
            self.conditions.len() - 1
        });
        if let Some(condition) = self.conditions.get_mut(place) {
            if condition.status != status {
                condition.last_transition_time = Some(Time(self.now));
            }
            condition.status = status.to_owned();
            condition.reason = Some(reason.to_owned());
            condition.message = Some(message.to_owned());
        }
    }

    /// `AbleToScale`: the target's scale can be read and written.
    pub(super) fn able(&mut self, holds: bool, reason: &str, message: &str) {
        self.condition("AbleToScale", holds, reason, message);
    }

    /// `ScalingActive`: metrics can be had.
    pub(super) fn active(&mut self, holds: bool, reason: &str, message: &str) {
        self.condition("ScalingActive", holds, reason, message);
    }

    /// `ScalingLimited`: more or fewer replicas were asked for than there may be.
    pub(super) fn limited(&mut self, holds: bool, reason: &str, message: &str) {
        self.condition("ScalingLimited", holds, reason, message);
    }

    /// The target was told.
    pub(super) fn scaled_at(&mut self, now: Timestamp) {
        self.scaled = Some(Time(now));
    }

    /// What to write, if anything.
    pub(super) fn patch(&self, autoscaler: &Autoscaler) -> Option<Value> {
        let told = |status: &Self| {
            json!({
                "currentReplicas": status.current,
                "desiredReplicas": status.desired,
                "currentMetrics": if status.metrics.is_empty() { Value::Null } else { status.metrics.clone().into() },
                "lastScaleTime": status.scaled,
                "conditions": status.conditions,
            })
        };
        let new = told(self);
        let first = autoscaler.status.as_ref().is_none_or(|s| s.conditions.is_none());
        (first || told(&Self::of(autoscaler)) != new).then(|| json!({ "status": new }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let mut autoscaler = Autoscaler::default();
        let mut status = Status::of(&autoscaler);
        status.able(true, "SucceededGetScale", "m");
        let patch = status.patch(&autoscaler).unwrap();
        autoscaler.status = serde_json::from_value(patch["status"].clone()).unwrap();
        let mut later = Status::of(&autoscaler);
        later.now = Timestamp::from_second(4_000_000_000).unwrap();
        later.able(true, "SucceededGetScale", "m");
        assert_eq!(later.patch(&autoscaler), None);
        later.able(true, "ReadyForNewScale", "m");
        let patch = later.patch(&autoscaler).unwrap();
        let before = autoscaler.status.unwrap().conditions.unwrap()[0].last_transition_time.clone();
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], json!(before));
        later.able(false, "FailedGetScale", "m");
        assert_eq!(later.conditions[0].last_transition_time, Some(Time(later.now)));
    }
}
