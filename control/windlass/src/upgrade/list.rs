//! The list of what a release puts on a machine (`FILES` in it): one fact for the installer, the package and the upgrade.

use anyhow::{Context as _, bail, ensure};
use std::path::{Component, Path, PathBuf};

/// The list's name in a release, and beside what it has put in place.
pub(super) const NAME: &str = "FILES";
/// The list of the release that this program is of.
const OWN: &str = include_str!("../../dist/FILES");

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path in the release.
    pub(super) from: PathBuf,
    /// Its path on the machine.
    pub(super) to: PathBuf,
    pub(super) mode: u32,
}

/// Where a machine has what a release brings.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) bin: PathBuf,
    pub(super) lib: PathBuf,
    pub(super) units: PathBuf,
}

impl Places {
    /// Those of an installation by `install.sh` whose programs are in `bin`.
    pub(super) fn of(bin: &Path) -> Self {
        let lib = bin.parent().unwrap_or(Path::new("/")).join("lib/windlass");
        Self { bin: bin.to_owned(), lib, units: "/etc/systemd/system".into() }
    }

    fn names(&self) -> [(&'static str, &Path); 3] {
        [("@BIN@", &self.bin), ("@LIB@", &self.lib), ("@UNITS@", &self.units)]
    }

    /// A text with the places' names replaced.
    pub(super) fn fill(&self, text: &str) -> String {
        self.names()
            .into_iter()
            .fold(text.to_owned(), |text, (name, path)| text.replace(name, &path.display().to_string()))
    }
}

/// Reads a list.
///
/// # Errors
/// A line is malformed, or has a place that this program does not know.
pub(super) fn parse(text: &str, places: &Places) -> anyhow::Result<Vec<Entry>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let entry = |line: &str| -> anyhow::Result<Entry> {
        let mut words = line.split_whitespace();
        let (Some(from), Some(to), Some(mode)) = (words.next(), words.next(), words.next()) else {
            bail!("{NAME}: {line:?}: a word is missing");
        };
        let (place, rest) = to.split_once('/').unwrap_or((to, ""));
        let known = places.names().into_iter().find(|(name, _)| *name == place);
        let (_, dir) = known.with_context(|| {
            format!("{NAME}: no place is called {place:?} here: run the release's install.sh")
        })?;
        let plain = |path: &str| {
            !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        };
        ensure!(plain(from) && plain(rest), "{NAME}: {line:?}: it leads out of its place");
        let mode = u32::from_str_radix(mode, 8).with_context(|| format!("{NAME}: {line:?}"))?;
        Ok(Entry { from: from.into(), to: dir.join(rest), mode })
    };
    lines.map(entry).collect()
}

/// What a release brings that has no list: one that is older than the list. `is_there` says which files it has.
pub(super) fn without_list(places: &Places, is_there: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<Entry>> {
    let mut entries = parse(OWN, places)?;
    // Its installer was not put in place.
    entries.retain(|entry| entry.from.components().count() > 1 && is_there(&entry.from));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_list_names_what_a_node_runs_by() {
        let places = Places::of(Path::new("/usr/local/bin"));
        let entries = parse(OWN, &places).unwrap();
        let find = |to: &str| entries.iter().find(|entry| entry.to == Path::new(to)).map(|entry| entry.mode);
        assert_eq!(find("/usr/local/bin/windlass"), Some(0o755));
        assert_eq!(find("/usr/local/lib/windlass/FILES"), Some(0o644));
        assert_eq!(find("/etc/systemd/system/windlass-agent.service"), Some(0o644));
        let old = without_list(&places, |_| true).unwrap();
        assert!(old.iter().all(|entry| entry.from != Path::new("install.sh")));
        assert_eq!(old.len() + 2, entries.len());
    }

    #[test]
    fn a_list_must_not_lead_anywhere_else() {
        let places = Places::of(Path::new("/usr/local/bin"));
        for line in [
            "x /etc/passwd 644",
            "x @LIB@/../../x 644",
            "../x @LIB@/x 644",
            "x @LIB@ 644",
            "x @NEW@/x 644",
            "x @LIB@/x",
            "x @LIB@/x 9",
        ] {
            assert!(parse(line, &places).is_err(), "{line}");
        }
        assert_eq!(parse("# nothing\n\n", &places).unwrap(), []);
    }

    #[test]
    fn a_text_has_the_machines_places() {
        let places = Places::of(Path::new("/opt/w/bin"));
        assert_eq!(
            places.fill("ExecStart=@BIN@/windlass\n@LIB@/x"),
            "ExecStart=/opt/w/bin/windlass\n/opt/w/lib/windlass/x"
        );
    }
}
