//! Which time of the schedule is due, and which old jobs go. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJobSpec, Job};
use kube::ResourceExt;
use machinery::cron::Schedule;
use std::sync::Arc;
use std::time::Duration;

/// Missed times beyond which a warning is worth it.
const MANY: i64 = 100;
/// How long after its time a wake-up comes, so that it is never early.
const DELTA: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Not,
    /// The schedule has times that no clock shows.
    Never,
    /// The newest time that has come.
    At {
        time: Timestamp,
        /// More than a hundred others were missed before it.
        many_missed: bool,
    },
}

/// The newest time after `since` that is not after `now`. With a deadline nothing older than that is looked for.
#[must_use]
pub(super) fn due(schedule: &Schedule, since: Timestamp, deadline: Option<i64>, now: Timestamp) -> Due {
    let oldest = deadline.and_then(|d| now.checked_sub(SignedDuration::from_secs(d)).ok());
    let since = oldest.map_or(since, |oldest| oldest.max(since));
    let Some(first) = schedule.next(since).filter(|t| *t <= now) else { return Due::Not };
    let Some(second) = schedule.next(first).filter(|t| *t <= now) else {
        return Due::At { time: first, many_missed: false };
    };
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return Due::Never;
    }
    let missed = (now.as_second() - first.as_second()) / between + 1;
    // a guess close to the end, one step back because pauses need not be equal
    let guess = first.checked_add(SignedDuration::from_secs((missed - 2).max(0) * between)).unwrap_or(first);
    let mut newest = None;
    for start in [guess, first] {
        let mut at = schedule.next(start);
        while let Some(time) = at.filter(|t| *t <= now) {
            newest = Some(time);
            at = schedule.next(time);
        }
        if newest.is_some() {
            break;
        }
    }
    Due::At { time: newest.unwrap_or(second), many_missed: missed > MANY }
}

/// Whether it is too late for a time.
#[must_use]
pub(super) fn too_late(time: Timestamp, deadline: Option<i64>, now: Timestamp) -> bool {
    deadline.is_some_and(|d| now.duration_since(time) > SignedDuration::from_secs(d))
}

/// How long until the schedule's next time.
#[must_use]
pub(super) fn until_next(schedule: &Schedule, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let base = match due(schedule, since, None, now) {
        Due::At { time, .. } => time,
        Due::Not => since,
        Due::Never => now,
    };
    let next = schedule.next(base)?;
    Some(next.duration_since(now).max(SignedDuration::ZERO).unsigned_abs() + DELTA)
}

/// The name of the job for one time.
#[must_use]
pub(super) fn job_name(cron: &str, time: Timestamp) -> String {
    format!("{cron}-{}", time.as_second() / 60)
}

/// How a job ended.
#[must_use]
pub(super) fn end_of(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(&end.type_)
}

/// Jobs beyond the history limits, the oldest of each kind.
#[must_use]
pub(super) fn beyond_history<'a>(spec: &CronJobSpec, jobs: &'a [Arc<Job>]) -> Vec<&'a Arc<Job>> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    let mut surplus = Vec::new();
    for (end, limit) in limits {
        let mut ended: Vec<&Arc<Job>> = jobs
            .iter()
            .filter(|j| end_of(j) == Some(end) && j.metadata.deletion_timestamp.is_none())
            .collect();
        let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        // not started comes last
        ended.sort_by_key(|j| (started(j).is_none(), started(j), j.name_any()));
        let more = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        surplus.extend(ended.into_iter().take(more));
    }
    surplus
}

/// As Go prints RFC 1123 with a numeric zone.
#[must_use]
pub(super) fn rfc1123z(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// As Go prints RFC 3339 in a zone.
#[must_use]
pub(super) fn rfc3339(time: Timestamp, zone: TimeZone) -> String {
    let zoned = time.to_zoned(zone);
    if zoned.offset().seconds() == 0 {
        return zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text, TimeZone::UTC).unwrap()
    }

    #[test]
    fn only_the_newest_of_missed_times_is_due() {
        let hourly = schedule("0 * * * *");
        let since = at("2026-01-01T10:00:00Z");
        let due = |now: &str, deadline| due(&hourly, since, deadline, at(now));
        let newest = |time: &str, many_missed| Due::At { time: at(time), many_missed };
        assert_eq!(due("2026-01-01T10:59:59Z", None), Due::Not);
        assert_eq!(due("2026-01-01T11:00:00Z", None), newest("2026-01-01T11:00:00Z", false));
        assert_eq!(due("2026-01-01T15:30:00Z", None), newest("2026-01-01T15:00:00Z", false));
        assert_eq!(due("2026-01-06T15:30:00Z", None), newest("2026-01-06T15:00:00Z", true));
        assert_eq!(due("2026-01-06T15:30:00Z", Some(3600)), newest("2026-01-06T15:00:00Z", false));
        assert_eq!(due("2026-01-06T15:30:00Z", Some(60)), Due::Not);
        let uneven = schedule("30 6-16/4 * * 1-5");
        assert_eq!(
            super::due(&uneven, at("2026-01-02T06:30:00Z"), None, at("2026-01-04T12:00:00Z")),
            newest("2026-01-02T14:30:00Z", false)
        );
    }

    #[test]
    fn late_and_next() {
        let time = at("2026-01-01T10:00:00Z");
        assert!(!too_late(time, Some(10), at("2026-01-01T10:00:10Z")));
        assert!(too_late(time, Some(10), at("2026-01-01T10:00:11Z")));
        assert!(!too_late(time, None, at("2027-01-01T10:00:11Z")));
        let wait = until_next(&schedule("0 * * * *"), time, at("2026-01-01T10:59:00Z"));
        assert_eq!(wait, Some(Duration::from_millis(60_100)));
        assert_eq!(until_next(&schedule("59 23 31 2 *"), time, time), None);
        assert_eq!(job_name("c", at("2026-01-01T10:00:00Z")), "c-29454360");
        assert_eq!(rfc1123z(time), "Thu, 01 Jan 2026 10:00:00 +0000");
        assert_eq!(rfc3339(time, TimeZone::UTC), "2026-01-01T10:00:00Z");
        assert_eq!(rfc3339(time, TimeZone::get("Asia/Kolkata").unwrap()), "2026-01-01T15:30:00+05:30");
    }

    #[test]
    fn the_oldest_jobs_go() {
        let job = |name: &str, end: &str, start: &str| -> Arc<Job> {
            Arc::new(
                serde_json::from_value(json!({ "metadata": { "name": name },
                    "status": { "startTime": start, "conditions": [{ "type": end, "status": "True" }] } }))
                .unwrap(),
            )
        };
        let jobs = [
            job("b", "Complete", "2026-01-02T00:00:00Z"),
            job("a", "Complete", "2026-01-01T00:00:00Z"),
            job("f", "Failed", "2026-01-01T00:00:00Z"),
            job("r", "Suspended", "2026-01-01T00:00:00Z"),
        ];
        let gone = |good, bad| {
            let spec = CronJobSpec {
                successful_jobs_history_limit: Some(good),
                failed_jobs_history_limit: Some(bad),
                ..CronJobSpec::default()
            };
            beyond_history(&spec, &jobs).iter().map(|j| j.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(gone(1, 1), ["a"]);
        assert_eq!(gone(0, 0), ["a", "b", "f"]);
        assert_eq!(gone(3, 1), Vec::<String>::new());
    }
}
