//! Upgrades that end, fail, and are cut short at every step there is.

use super::*;
use std::cell::Cell;
use std::path::PathBuf;

/// A machine in a directory: programs, a unit, a file that only the old release has; and a new release, staged.
struct Machine {
    dir: tempfile::TempDir,
    record: PathBuf,
}

const FILES: [(&str, Option<&str>, Option<&str>); 6] = [
    ("units/a.service", Some("unit"), Some("another unit")),
    ("units/same.service", Some("same"), Some("same")),
    ("lib/gone", Some("only before"), None),
    ("lib/sub/added", None, Some("only now")),
    ("bin/windlass-cni", Some("old cni"), Some("new cni")),
    ("bin/windlass", Some("old"), Some("new")),
];

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["bin", "lib", "units", "etc"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        for (name, old, _) in FILES {
            old.iter().for_each(|old| fs::write(dir.path().join(name), old).unwrap());
        }
        let record = dir.path().join("etc/record");
        fs::write(&record, "made something\n").unwrap();
        Self { dir, record }
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// Unpacks the new release: what its being cut short leaves is swept away.
    fn staged(&self) -> Vec<Change> {
        let stage = self.bin().join(FILLED).join("release");
        fs::create_dir_all(&stage).unwrap();
        let change = |(number, (name, _, new)): (usize, (&str, Option<&str>, Option<&str>))| {
            let file = stage.join(number.to_string());
            new.iter().for_each(|new| fs::write(&file, new).unwrap());
            Change { target: self.dir.path().join(name), file: new.map(|_| file) }
        };
        FILES.into_iter().enumerate().map(change).collect()
    }

    async fn upgrade(
        &self,
        start: impl AsyncFn() -> anyhow::Result<()>,
        step: Step<'_>,
    ) -> anyhow::Result<()> {
        let journal = Journal::begin(&self.bin(), self.staged(), step)?;
        replace(&self.bin(), journal, Some(&self.record), start, step).await
    }

    fn content(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(name)).ok()
    }

    fn is(&self, new: bool) -> bool {
        FILES.iter().all(|(name, old, next)| self.content(name).as_deref() == if new { *next } else { *old })
    }

    /// Nothing is lost and nothing is half, whatever else is true.
    fn check(&self, when: &str) {
        for (name, old, new) in FILES {
            let now = self.content(name);
            let now = now.as_deref();
            assert!(now == old || now == new, "{when}: {name} is {now:?}");
        }
        assert!(self.content("bin/windlass").is_some(), "{when}: there is no program");
    }

    fn left(&self) -> Vec<String> {
        let names = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let all = ["bin", "lib", "units"].into_iter().flat_map(|sub| names(self.dir.path().join(sub)));
        let names = all.map(|name| name.into_string().unwrap());
        names.filter(|name| name.contains(".windlass-")).collect()
    }
}

/// Dies after so many steps, for good.
struct Mortal {
    left: Cell<usize>,
}

impl Mortal {
    fn after(steps: usize) -> Self {
        Self { left: Cell::new(steps) }
    }

    fn step(&self) -> anyhow::Result<()> {
        let left = self.left.get();
        if left == 0 {
            bail!("killed");
        }
        self.left.set(left - 1);
        Ok(())
    }

    fn is_dead(&self) -> bool {
        self.left.get() == 0
    }
}

async fn good() -> anyhow::Result<()> {
    Ok(())
}

#[test]
fn a_unit_that_fails_again_and_again_must_not_be_taken_for_a_stopped_one() {
    for running in ["active", "activating", "reloading"] {
        assert!(is_running(running), "{running}");
    }
    for stopped in ["inactive", "failed", ""] {
        assert!(!is_running(stopped), "{stopped}");
    }
}

#[tokio::test]
async fn a_release_takes_the_place_of_the_one_before_it() {
    let machine = Machine::new();
    machine.upgrade(good, &alive).await.unwrap();
    assert!(machine.is(true));
    assert_eq!(machine.left(), Vec::<String>::new());
    let (sub, added) = (machine.dir.path().join("lib/sub"), machine.dir.path().join("lib/sub/added"));
    let wanted = format!("made something\ndir {}\nmade {}\n", sub.display(), added.display());
    assert_eq!(
        fs::read_to_string(&machine.record).unwrap(),
        wanted,
        "the undoing of an installation finds it"
    );
}

#[tokio::test]
async fn programs_that_do_not_get_ready_must_not_stay() {
    let (machine, starts) = (Machine::new(), Cell::new(0));
    let start = async || {
        starts.set(starts.get() + 1);
        if machine.content("bin/windlass").as_deref() == Some("new") {
            bail!("not ready")
        } else {
            anyhow::Ok(())
        }
    };
    let error = format!("{:#}", machine.upgrade(start, &alive).await.unwrap_err());
    assert_eq!(error, "the old programs are back: the new programs are not ready: not ready");
    assert_eq!(starts.get(), 2, "what runs is restarted once more");
    assert!(machine.is(false));
    assert_eq!(machine.left(), Vec::<String>::new());
}

/// Every way to be cut short, each followed by every way to have the undoing of it cut short.
#[tokio::test]
async fn a_kill_at_any_step_must_not_cost_both_releases() {
    for ready in [true, false] {
        let mut steps = 0;
        loop {
            let machine = Machine::new();
            let mortal = Mortal::after(steps);
            let start = async || {
                let new = machine.content("bin/windlass").as_deref() == Some("new");
                if new && !ready { bail!("not ready") } else { anyhow::Ok(()) }
            };
            let done = machine.upgrade(start, &|| mortal.step()).await;
            let when = format!("ready {ready}, killed at step {steps}");
            machine.check(&when);
            if !mortal.is_dead() {
                assert!(machine.is(ready) && done.is_ok() == ready, "{when}: {done:?}");
                break;
            }
            let mut undone = 0;
            loop {
                let mortal = Mortal::after(undone);
                let settled = settle(&machine.bin(), &|| mortal.step());
                machine.check(&format!("{when}, and its undoing at step {undone}"));
                if settled.is_ok() {
                    break;
                }
                undone += 1;
            }
            assert!(machine.is(false) || machine.is(true), "{when}: half of each");
            assert_eq!(machine.left(), Vec::<String>::new(), "{when}");
            // It is as good as before: the next one goes through.
            machine.upgrade(good, &alive).await.unwrap();
            assert!(machine.is(true), "{when}");
            steps += 1;
        }
        assert!(steps > 20, "{steps} steps");
    }
}

#[tokio::test]
async fn what_an_installer_put_in_place_meanwhile_must_not_be_undone() {
    let machine = Machine::new();
    let journal = Journal::begin(&machine.bin(), machine.staged(), &alive).unwrap();
    journal.forward(&alive).unwrap();
    drop(journal);
    fs::remove_file(machine.bin().join("windlass")).unwrap();
    fs::write(machine.bin().join("windlass"), "a third").unwrap();
    assert!(!settle(&machine.bin(), &alive).unwrap());
    assert_eq!(machine.content("bin/windlass").as_deref(), Some("a third"));
    assert_eq!(machine.left(), Vec::<String>::new());
}

#[test]
fn one_that_is_under_way_must_not_be_undone_by_the_units_it_restarts() {
    let machine = Machine::new();
    let journal = Journal::begin(&machine.bin(), machine.staged(), &alive).unwrap();
    let held = lock(&machine.bin()).unwrap();
    assert!(held.is_some());
    journal.forward(&alive).unwrap();
    settle_alone(&machine.bin()).unwrap();
    assert!(machine.is(true));
    drop(held);
    settle_alone(&machine.bin()).unwrap();
    assert!(machine.is(false));
}

#[test]
fn a_machine_that_was_set_up_by_hand_must_not_get_units() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::of(&dir.path().join("bin"));
    let entries = list::without_list(&places, |_| true).unwrap();
    let targets = |installed| {
        let changes = changes(&places.bin, &places, entries.clone(), installed).unwrap();
        changes.into_iter().map(|change| change.target).collect::<Vec<_>>()
    };
    assert_eq!(targets(false), [places.bin.join("windlass-cni"), places.bin.join("windlass")]);
    assert!(targets(true).contains(&"/etc/systemd/system/windlass-agent.service".into()));
}
