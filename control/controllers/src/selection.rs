//! Which controllers run: upstream's `--controllers`.

use std::collections::BTreeSet;

/// A line a controller: its name, other names it goes by, `off` where it runs only when it is asked for.
const CONTROLLERS: &str = include_str!("../data/controllers.txt");

/// A name that is no controller's, in upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not in the list of known controllers")]
pub struct UnknownController(pub String);

/// Which controllers run (`--controllers`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    on: BTreeSet<&'static str>,
    /// And all that are not in the list.
    others: bool,
}

struct Listed {
    name: &'static str,
    aliases: Vec<&'static str>,
    off: bool,
}

fn known() -> impl Iterator<Item = Listed> {
    CONTROLLERS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (name, mut aliases) = (words.next()?, words.collect::<Vec<_>>());
        let off = aliases.last() == Some(&"off");
        aliases.retain(|alias| *alias != "off");
        Some(Listed { name, aliases, off })
    })
}

impl Selection {
    /// Every controller there is.
    #[must_use]
    pub fn all() -> Self {
        Self { on: known().map(|known| known.name).collect(), others: true }
    }

    /// As upstream reads the list: `*` for all that are on by default, `name`, `-name`; the first word about a controller counts.
    ///
    /// # Errors
    /// A name that is no controller's.
    pub fn parse(words: &[String]) -> Result<Self, UnknownController> {
        let star = words.iter().any(|word| word == "*");
        let mut on: BTreeSet<&str> =
            known().filter(|known| star && !known.off).map(|known| known.name).collect();
        let all: Vec<Listed> = known().collect();
        // The first one counts: later ones are undone by it.
        for word in words.iter().rev().filter(|word| *word != "*") {
            let name = word.strip_prefix('-').unwrap_or(word);
            let found = all.iter().find(|known| known.name == name || known.aliases.contains(&name));
            let found = found.ok_or_else(|| UnknownController(name.to_owned()))?.name;
            match word.starts_with('-') {
                true => on.remove(found),
                false => on.insert(found),
            };
        }
        Ok(Self { on, others: star })
    }

    /// Whether a controller of upstream's name runs; what upstream has no controller for runs with `*`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.on.contains(name) || (self.others && known().all(|known| known.name != name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Selection, UnknownController> {
        Selection::parse(&list.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_list_says_which_controllers_run() {
        let default = parse("*").unwrap();
        assert!(default.has("job-controller") && !default.has("bootstrap-signer-controller"));
        let kubeadms = parse("*,bootstrapsigner,tokencleaner").unwrap();
        assert!(kubeadms.has("bootstrap-signer-controller") && kubeadms.has("token-cleaner-controller"));
        let some = parse("-job-controller,*").unwrap();
        assert!(!some.has("job-controller") && some.has("deployment-controller"));
        let one = parse("deployment-controller").unwrap();
        assert!(one.has("deployment-controller") && !one.has("job-controller"));
        assert!(!one.has("ours-alone") && default.has("ours-alone"));
        let first = parse("job-controller,-job-controller").unwrap();
        assert!(first.has("job-controller"));
        assert!(Selection::all().has("bootstrap-signer-controller"));
    }

    #[test]
    fn a_controller_nobody_knows_is_refused_by_name() {
        let error = parse("*,foo").unwrap_err();
        assert_eq!(error.to_string(), "\"foo\" is not in the list of known controllers");
        assert!(parse("-foo").is_err());
    }
}
