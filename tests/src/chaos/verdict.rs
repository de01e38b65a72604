//! Whether what was promised is what was seen. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

/// How long nobody may lead, and half a second by which whoever looks may be late.
pub(super) const LEADERLESS: Duration = Duration::from_millis(15_500);

/// What clients saw.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Names of objects whose creation was acknowledged.
    pub(super) acknowledged: Vec<String>,
    /// Answers that a client would not try again after.
    pub(super) refused: Vec<String>,
    pub(super) watched: Vec<Watched>,
    /// What each server showed at the end.
    pub(super) held: Vec<Vec<String>>,
    /// The longest time between two renewals of the leader's lease.
    pub(super) leaderless: Duration,
    pub(super) longest_write: Duration,
    pub(super) work: Work,
}

/// Roll-outs and Jobs that ended.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) rollouts: usize,
    pub(super) slowest_rollout: Duration,
    pub(super) jobs: usize,
    pub(super) slowest_job: Duration,
    /// Counts that are not what they must be, or never came to be.
    pub(super) wrong: Vec<String>,
}

/// What one watcher saw: revisions and names of objects that came.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) events: Vec<(u64, String)>,
}

impl Facts {
    /// Whether each of `watchers` has seen at least all that was acknowledged.
    pub(super) fn is_settled(&self, watchers: usize) -> bool {
        let seen = |watched: &Watched| {
            let names: BTreeSet<&String> = watched.events.iter().map(|(_, name)| name).collect();
            self.acknowledged.iter().all(|name| names.contains(name))
        };
        self.watched.len() == watchers && self.watched.iter().all(seen)
    }
}

/// What came of it.
pub(super) struct Verdict {
    pub(super) text: String,
    pub(super) faults: Vec<String>,
}

/// Judges.
pub(super) fn judge(facts: &Facts) -> Verdict {
    let mut faults: Vec<String> = facts.refused.iter().map(|said| format!("refused: {said}")).collect();
    if facts.acknowledged.is_empty() {
        faults.push("nothing was written".to_owned());
    }
    for (n, held) in facts.held.iter().enumerate() {
        let held: BTreeSet<&String> = held.iter().collect();
        for lost in facts.acknowledged.iter().filter(|name| !held.contains(name)) {
            faults.push(format!("{lost} was acknowledged, and server {} does not have it", n + 1));
        }
    }
    for (n, watched) in facts.watched.iter().enumerate() {
        let mut names = BTreeSet::new();
        for (_, name) in &watched.events {
            if !names.insert(name) {
                faults.push(format!("watcher {} saw {name} twice", n + 1));
            }
        }
        for pair in watched.events.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            faults.push(format!("watcher {} saw revision {} before {}", n + 1, pair[0].0, pair[1].0));
        }
        for missed in facts.acknowledged.iter().filter(|name| !names.contains(name)) {
            faults.push(format!("watcher {} never saw {missed}", n + 1));
        }
    }
    if facts.work.rollouts == 0 || facts.work.jobs == 0 {
        faults.push("no roll-out or no Job ended".to_owned());
    }
    faults.extend(facts.work.wrong.iter().cloned());
    if facts.leaderless > LEADERLESS {
        faults.push(format!("nobody led for {:.1} s", facts.leaderless.as_secs_f32()));
    }
    let text = format!(
        "{} writes acknowledged, the slowest after {:.1} s; {} events at each of {} watchers; \
         {} roll-outs, the slowest {:.1} s; {} Jobs, the slowest {:.1} s; nobody led for at most {:.1} s",
        facts.acknowledged.len(),
        facts.longest_write.as_secs_f32(),
        facts.watched.iter().map(|watched| watched.events.len()).min().unwrap_or(0),
        facts.watched.len(),
        facts.work.rollouts,
        facts.work.slowest_rollout.as_secs_f32(),
        facts.work.jobs,
        facts.work.slowest_job.as_secs_f32(),
        facts.leaderless.as_secs_f32()
    );
    Verdict { text, faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let events = vec![(1, "a".to_owned()), (2, "b".to_owned())];
        Facts {
            acknowledged: names(),
            watched: vec![Watched { events }],
            held: vec![names(), names()],
            leaderless: Duration::from_secs(15),
            work: Work { rollouts: 1, jobs: 1, ..Work::default() },
            ..Facts::default()
        }
    }

    #[test]
    fn what_is_as_promised_has_no_faults() {
        assert!(judge(&facts()).faults.is_empty() && facts().is_settled(1));
    }

    #[test]
    fn no_fault_must_pass() {
        let faulty = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            judge(&facts).faults.len()
        };
        assert_eq!(faulty(|f| drop(f.held[1].pop())), 1, "a lost write");
        assert_eq!(faulty(|f| drop(f.watched[0].events.pop())), 1, "a missed event");
        assert_eq!(faulty(|f| f.watched[0].events.push((3, "a".into()))), 1, "one seen twice");
        assert_eq!(faulty(|f| f.watched[0].events.swap(0, 1)), 1, "out of order");
        assert_eq!(faulty(|f| f.refused.push("403".into())), 1);
        assert_eq!(faulty(|f| f.work.jobs = 0), 1, "nothing was run to its end");
        assert_eq!(faulty(|f| f.work.wrong.push("5 of 4".into())), 1, "a Job that ran too much");
        assert_eq!(faulty(|f| f.leaderless = Duration::from_secs(30)), 1);
        assert!(faulty(|f| *f = Facts::default()) > 0, "silence is no success");
    }
}
