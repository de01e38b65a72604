//! How long pods have when the machine shuts down. Upstream: `migrateConfig` of `pkg/kubelet/nodeshutdown`, and its validation.

use super::Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Pods of at least this priority are the system's.
pub(crate) const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Seconds that pods of a priority have (an element of `shutdownGracePeriodByPodPriority`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Period {
    /// The least priority of a pod that has them.
    pub priority: i32,
    /// How many.
    #[serde(rename = "shutdownGracePeriodSeconds")]
    pub seconds: i64,
}

/// As the file has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shutdown {
    /// `shutdownGracePeriod`
    pub(super) whole: Duration,
    /// `shutdownGracePeriodCriticalPods`
    pub(super) critical: Duration,
    /// `shutdownGracePeriodByPodPriority`
    pub(super) by_priority: Vec<Period>,
}

impl Shutdown {
    /// The periods of priorities, the lowest first; none where a shutdown is not waited with.
    pub(super) fn periods(&self) -> Vec<Period> {
        let mut periods = self.by_priority.clone();
        if periods.is_empty() && !self.whole.is_zero() {
            let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
            periods = vec![
                Period { priority: 0, seconds: seconds(self.whole.saturating_sub(self.critical)) },
                Period { priority: SYSTEM_CRITICAL, seconds: seconds(self.critical) },
            ];
        }
        periods.sort_by_key(|period| period.priority);
        periods
    }

    /// What upstream refuses.
    pub(super) fn check(&self) -> Result<(), Error> {
        let told =
            |span: Duration| machinery::duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
        let (whole, critical) = (self.whole, self.critical);
        let refused = |words: String| Err(Error::Bounds(words));
        if critical > whole {
            let (critical, whole) = (told(critical), told(whole));
            return refused(format!(
                "shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {whole}"
            ));
        }
        for (field, span) in [("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)] {
            if !span.is_zero() && span < Duration::from_secs(1) {
                let span = told(span);
                return refused(format!("{field} {span} must be either zero or otherwise >= 1 sec"));
            }
        }
        if !(self.by_priority.is_empty() || whole.is_zero() && critical.is_zero()) {
            return refused(
                "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shutdown(whole: u64, critical: u64) -> Shutdown {
        let seconds = Duration::from_secs;
        Shutdown { whole: seconds(whole), critical: seconds(critical), by_priority: Vec::new() }
    }

    #[test]
    fn critical_pods_have_the_end_of_the_whole() {
        let of = |priority, seconds| Period { priority, seconds };
        assert_eq!(shutdown(30, 10).periods(), [of(0, 20), of(SYSTEM_CRITICAL, 10)]);
        assert!(shutdown(0, 0).periods().is_empty());
        let listed = Shutdown { by_priority: vec![of(1000, 5), of(-1, 3), of(0, 9)], ..shutdown(0, 0) };
        assert_eq!(listed.periods(), [of(-1, 3), of(0, 9), of(1000, 5)]);
    }

    #[test]
    fn periods_that_contradict_each_other_must_not_be_taken() {
        let words = |shutdown: Shutdown| shutdown.check().unwrap_err().to_string();
        assert_eq!(
            words(shutdown(10, 30)),
            "invalid configuration: shutdownGracePeriodCriticalPods 30s must be <= shutdownGracePeriod 10s"
        );
        let short = Shutdown { whole: Duration::from_millis(500), ..shutdown(0, 0) };
        assert!(words(short).contains("shutdownGracePeriod 500ms must be either zero"));
        let both = Shutdown { by_priority: vec![Period::default()], ..shutdown(10, 0) };
        assert!(words(both).contains("Cannot specify both"));
        assert!(shutdown(30, 10).check().is_ok());
    }
}
