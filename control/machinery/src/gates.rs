//! Feature gates of upstream's components: which there are, what they are by default, which cannot be changed. Features cannot be switched
//! here: a gate that asks for another state than the default is named in a warning, or refused where upstream refuses it.

const TABLE: &str = include_str!("../data/gates.txt");
/// Gates that stand for many.
const GROUPS: [&str; 2] = ["AllAlpha", "AllBeta"];

/// What is to be said of a gate that somebody sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has that state anyway.
    Default,
    /// Nothing here depends on it, or cannot be changed by it: to be warned of.
    WithoutEffect,
    /// There is none of that name in this release: upstream warns, as gates come and go.
    Unknown,
    /// Upstream refuses it; its words.
    Locked(String),
}

/// Judges one gate.
#[must_use]
pub fn judge(name: &str, on: bool) -> Finding {
    if GROUPS.contains(&name) {
        return if on { Finding::WithoutEffect } else { Finding::Default };
    }
    let line = TABLE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let Some(line) = line else { return Finding::Unknown };
    let (default, locked) = line.split_once(' ').map_or((line, false), |(default, _)| (default, true));
    match (default == "true", locked) {
        (default, _) if default == on => Finding::Default,
        (default, true) => {
            Finding::Locked(format!("cannot set feature gate {name} to {on}, feature is locked to {default}"))
        }
        (_, false) => Finding::WithoutEffect,
    }
}

/// Judges all that somebody sets: what to warn of.
///
/// # Errors
/// The first that upstream refuses.
pub fn check<'g>(gates: impl IntoIterator<Item = (&'g str, bool)>) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for (name, on) in gates {
        match judge(name, on) {
            Finding::Default => {}
            Finding::WithoutEffect => warnings.push(format!("feature gate {name}={on} has no effect here")),
            Finding::Unknown => warnings.push(format!("unrecognized feature gate: {name}")),
            Finding::Locked(why) => return Err(why),
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_cannot_be_changed_must_not_be_taken_for_changed() {
        assert_eq!(judge("ContainerCheckpoint", true), Finding::Default);
        assert_eq!(judge("ContainerCheckpoint", false), Finding::WithoutEffect);
        assert_eq!(judge("MemoryQoS", true), Finding::WithoutEffect);
        assert_eq!(judge("AllAlpha", true), Finding::WithoutEffect);
        assert_eq!(judge("AllBeta", false), Finding::Default);
        assert_eq!(judge("Container", true), Finding::Unknown, "half a name");
        let locked = judge("APIServerTracing", false);
        let words = "cannot set feature gate APIServerTracing to false, feature is locked to true";
        assert_eq!(locked, Finding::Locked(words.to_owned()));
        assert_eq!(judge("APIServerTracing", true), Finding::Default);
    }

    #[test]
    fn all_gates_are_judged_and_a_locked_one_is_refused() {
        let warnings = check([("ContainerCheckpoint", true), ("MemoryQoS", true), ("Soon", true)]).unwrap();
        assert_eq!(
            warnings,
            ["feature gate MemoryQoS=true has no effect here", "unrecognized feature gate: Soon"]
        );
        assert!(check([("Soon", true), ("APIServerTracing", false)]).unwrap_err().contains("locked"));
    }

    #[test]
    fn every_line_names_a_gate_and_its_default() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(matches!(words[..], [_, "true" | "false"] | [_, "true" | "false", "locked"]), "{line}");
        }
    }
}
