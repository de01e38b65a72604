//! How many keys each controller works on at once.

use std::collections::BTreeMap;

/// A line a controller whose workers may be set: its name, upstream's flag, upstream's default, what is refused.
const WORKERS: &str = include_str!("../data/workers.txt");
/// What upstream lets nobody set.
const FIXED: [(&str, usize); 5] = [
    ("certificatesigningrequest-signing-controller", 5),
    ("certificatesigningrequest-approving-controller", 5),
    ("node-lifecycle-controller", 2),
    ("taint-eviction-controller", 2),
    ("pod-garbage-collector-controller", 2),
];

/// A number of workers upstream refuses, in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// How many keys each controller works on at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers(BTreeMap<&'static str, usize>);

struct Line {
    controller: &'static str,
    flag: &'static str,
    default: usize,
    /// `any`, `some` (at least one) or `few` (1 to 50).
    bound: &'static str,
}

fn lines() -> impl Iterator<Item = Line> {
    WORKERS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (controller, flag) = (words.next()?, words.next()?);
        Some(Line { controller, flag, default: words.next()?.parse().ok()?, bound: words.next()? })
    })
}

impl Default for Workers {
    fn default() -> Self {
        Self(lines().map(|line| (line.controller, line.default)).chain(FIXED).collect())
    }
}

impl Workers {
    /// Upstream's flags about it, without `--`.
    pub fn flags() -> impl Iterator<Item = &'static str> {
        lines().map(|line| line.flag)
    }

    /// How many workers a controller has; one where upstream says nothing.
    #[must_use]
    pub fn of(&self, controller: &str) -> usize {
        self.0.get(controller).copied().unwrap_or(1)
    }

    /// Takes a flag's number; none or fewer workers never do anything, where upstream lets that be.
    ///
    /// # Errors
    /// Upstream refuses it.
    pub fn set(&mut self, flag: &str, number: i64) -> Result<(), Refused> {
        for line in lines().filter(|line| line.flag == flag) {
            let refused = match line.bound {
                "some" if number < 1 => Some(format!("{flag} must be greater than 0, but got {number}")),
                "few" if number < 1 => Some(format!("{flag} must not be less than 1, but got {number}")),
                "few" if number > 50 => Some(format!("{flag} must not be more than 50, but got {number}")),
                _ => None,
            };
            if let Some(words) = refused {
                return Err(Refused(words));
            }
            self.0.insert(line.controller, usize::try_from(number).unwrap_or(0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selection;

    #[test]
    fn every_flag_sets_the_workers_of_its_controller_and_of_no_other() {
        let default = Workers::default();
        for line in lines() {
            assert_eq!(default.of(line.controller), line.default, "{}", line.controller);
            let mut workers = Workers::default();
            workers.set(line.flag, 33).unwrap();
            let others = lines().filter(|other| other.controller != line.controller);
            assert_eq!(workers.of(line.controller), 33, "{}", line.flag);
            assert!(others.into_iter().all(|other| workers.of(other.controller) == other.default));
        }
        assert_eq!(Workers::flags().count(), 17, "a line that cannot be read");
    }

    #[test]
    fn a_number_of_workers_must_not_be_set_for_a_controller_nobody_knows() {
        let every = Selection::parse(&["*".to_owned()]).unwrap();
        let none = Selection::parse(&["job-controller".to_owned()]).unwrap();
        for name in Workers::default().0.into_keys().filter(|name| *name != "job-controller") {
            assert!(every.has(name) && !none.has(name), "{name}");
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_its_words() {
        let mut workers = Workers::default();
        for (flag, number, words) in [
            ("concurrent-job-syncs", 0, "concurrent-job-syncs must be greater than 0, but got 0"),
            (
                "concurrent-statefulset-syncs",
                -1,
                "concurrent-statefulset-syncs must be greater than 0, but got -1",
            ),
            (
                "concurrent-service-endpoint-syncs",
                51,
                "concurrent-service-endpoint-syncs must not be more than 50, but got 51",
            ),
            (
                "mirroring-concurrent-service-endpoint-syncs",
                0,
                "mirroring-concurrent-service-endpoint-syncs must not be less than 1, but got 0",
            ),
        ] {
            assert_eq!(workers.set(flag, number).unwrap_err().to_string(), words);
        }
        assert_eq!(workers, Workers::default(), "what is refused changes nothing");
        workers.set("concurrent-deployment-syncs", -3).unwrap();
        assert_eq!(workers.of("deployment-controller"), 0);
    }
}
