//! Which of the kubelet's tasks keep failing: what the node's Ready condition says.
//!
//! A task that ended is back within a second, and a node that is not ready loses its pods' traffic: the condition follows what lasts only.
//! Upstream does the same with what it watches itself: a runtime that is silent for less than [`LASTS`] leaves the node ready, and what
//! is wrong for longer is told as `NAME is not healthy: REASON` (`pkg/kubelet/runtime.go`).

use super::Reported;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Kind, Report, Scope};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the tasks are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// What is wrong for so long makes the node not ready; what was well for so long is forgotten. Longer than any pause between lives.
const LASTS: Duration = Duration::from_secs(30);

/// Keeps the errors in `reported` true, forever.
pub async fn follow(scope: Arc<Scope>, reported: watch::Sender<Reported>) {
    let mut troubles = Troubles::default();
    loop {
        let errors = troubles.see(&scope.reports(), Instant::now());
        reported.send_if_modified(|reported| {
            let changed = reported.errors != errors;
            reported.errors = errors;
            changed
        });
        tokio::time::sleep(PERIOD).await;
    }
}

/// Tasks that failed of late.
#[derive(Default)]
struct Troubles(BTreeMap<Arc<str>, Trouble>);

struct Trouble {
    began: Instant,
    seen: Instant,
    reason: Arc<str>,
    /// Falls and restarts there had been.
    restarts: u64,
}

impl Troubles {
    /// Takes how the tasks are now, and gives what has been wrong for long.
    fn see(&mut self, reports: &[Report], now: Instant) -> Vec<String> {
        for report in reports.iter().filter(|report| report.kind == Kind::Task) {
            let fell = self.0.get(&report.name).is_some_and(|trouble| trouble.restarts < report.restarts);
            let reason = match (&report.down, &report.last) {
                (Some(down), _) => &down.reason,
                (None, Some(last)) if fell => last,
                _ => continue,
            };
            let known = self.0.entry(report.name.clone());
            let began = known.or_insert_with(|| Trouble {
                began: now,
                seen: now,
                reason: reason.clone(),
                restarts: report.restarts,
            });
            *began =
                Trouble { began: began.began, seen: now, reason: reason.clone(), restarts: report.restarts };
        }
        self.0.retain(|_, trouble| now.duration_since(trouble.seen) < LASTS);
        let lasting =
            self.0.iter().filter(|(_, trouble)| trouble.seen.duration_since(trouble.began) >= LASTS);
        lasting.map(|(name, trouble)| format!("{name} is not healthy: {}", trouble.reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use supervise::Down;

    fn report(down: bool, restarts: u64) -> Report {
        let reason: Arc<str> = "no disk".into();
        Report {
            name: "status".into(),
            kind: Kind::Task,
            running: usize::from(!down),
            down: down.then(|| Down { since: SystemTime::UNIX_EPOCH, reason: reason.clone() }),
            restarts,
            panics: 0,
            last: Some(reason),
        }
    }

    #[test]
    fn a_restart_must_not_make_the_node_unready() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        let mut at = |seconds: u64, report| troubles.see(&[report], start + Duration::from_secs(seconds));
        assert!(at(0, report(true, 0)).is_empty());
        for second in 1..120 {
            assert!(at(second, report(false, 1)).is_empty(), "{second}");
        }
        // Another, much later, is a trouble of its own.
        assert!(at(120, report(true, 1)).is_empty());
    }

    #[test]
    fn a_task_that_keeps_failing_is_told_until_it_is_well_for_long() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        let mut at = |seconds: u64, report| troubles.see(&[report], start + Duration::from_secs(seconds));
        // It runs whenever it is looked at, and has fallen in between.
        for second in 0..30 {
            assert!(at(second, report(second == 0, second)).is_empty(), "{second}");
        }
        let told = vec!["status is not healthy: no disk".to_owned()];
        assert_eq!(at(30, report(false, 30)), told);
        assert_eq!(at(45, report(true, 30)), told);
        assert_eq!(at(74, report(false, 30)), told);
        assert!(at(75, report(false, 30)).is_empty());
    }

    #[test]
    fn work_whose_pieces_panic_says_nothing_of_the_node() {
        let (mut troubles, start) = (Troubles::default(), Instant::now());
        for second in 0..100 {
            let piece = Report { kind: Kind::Vital, ..report(true, second) };
            assert!(troubles.see(&[piece], start + Duration::from_secs(second)).is_empty());
        }
    }
}
