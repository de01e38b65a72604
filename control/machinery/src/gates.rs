//! Feature gates of upstream's components: which there are, what they are by default, which cannot be changed. A part says which of them
//! it acts on; any other gate that asks for another state than the default is named in a warning, or refused where upstream refuses it.

use std::collections::BTreeMap;

const TABLE: &str = include_str!("../data/gates.txt");
/// Gates that stand for those of a stage which nobody sets by name.
const GROUPS: [(&str, &str); 2] = [("AllAlpha", "alpha"), ("AllBeta", "beta")];

/// A gate as this release has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Whether the feature is on where nobody says anything else.
    pub default: bool,
    /// `alpha`, `beta`, `ga` or `deprecated`.
    stage: &'static str,
    /// It cannot be changed.
    locked: bool,
}

impl Gate {
    /// The stage as upstream's metric names it; empty for what is stable.
    #[must_use]
    pub fn stage(&self) -> String {
        if self.stage == "ga" { String::new() } else { self.stage.to_uppercase() }
    }
}

/// Every gate.
pub fn all() -> impl Iterator<Item = Gate> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (name, default, stage) = (words.next()?, words.next()? == "true", words.next()?);
        Some(Gate { name, default, stage, locked: words.next().is_some() })
    })
}

/// Metric of which features are on, under upstream's name (`component-base/metrics/prometheus/feature`).
pub const METRIC: (&str, &str) = (
    "kubernetes_feature_enabled",
    "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
);

/// Whether a feature is on where these gates are set: by its own name, else by its stage's, else by default.
#[must_use]
pub fn enabled(name: &str, set: &BTreeMap<String, bool>) -> bool {
    let Some(gate) = all().find(|gate| gate.name == name) else { return false };
    if gate.locked {
        return gate.default;
    }
    let group = GROUPS.iter().find(|(_, stage)| *stage == gate.stage).map(|(group, _)| *group);
    set.get(name).or_else(|| set.get(group?)).copied().unwrap_or(gate.default)
}

/// The metric as text, for parts that write theirs by hand and act on no gate.
#[must_use]
pub fn metrics() -> String {
    metrics_where(|gate| gate.default)
}

/// The same for a part in which features are on as `on` says.
pub fn metrics_where(on: impl Fn(&Gate) -> bool) -> String {
    let (name, help) = METRIC;
    let mut out = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
    for gate in all() {
        let on = u8::from(on(&gate));
        out.push_str(&format!("{name}{{name={:?},stage={:?}}} {on}\n", gate.name, gate.stage()));
    }
    out
}

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
    if let Some((_, stage)) = GROUPS.iter().find(|(group, _)| *group == name) {
        let same = all().filter(|gate| gate.stage == *stage && !gate.locked).all(|gate| gate.default == on);
        return if same { Finding::Default } else { Finding::WithoutEffect };
    }
    let Some(gate) = all().find(|gate| gate.name == name) else { return Finding::Unknown };
    match (gate.default == on, gate.locked) {
        (true, _) => Finding::Default,
        (false, true) => Finding::Locked(format!(
            "cannot set feature gate {name} to {on}, feature is locked to {}",
            gate.default
        )),
        (false, false) => Finding::WithoutEffect,
    }
}

/// Judges all that somebody sets for a part that acts on some: what to warn of.
///
/// # Errors
/// The first that upstream refuses.
pub fn check<'g>(
    gates: impl IntoIterator<Item = (&'g str, bool)>,
    acted_on: &[&str],
) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for (name, on) in gates {
        match judge(name, on) {
            Finding::Default => {}
            Finding::WithoutEffect if acted_on.contains(&name) => {}
            Finding::WithoutEffect
                if !acted_on.is_empty() && GROUPS.iter().any(|(group, _)| *group == name) =>
            {
                warnings.push(format!(
                    "feature gate {name}={on} has an effect here on {} only",
                    acted_on.join(", ")
                ));
            }
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
        assert_eq!(judge("AllAlpha", false), Finding::Default);
        // Most features of that stage are on by default.
        assert_eq!(judge("AllBeta", false), Finding::WithoutEffect);
        assert_eq!(judge("Container", true), Finding::Unknown, "half a name");
        let locked = judge("APIServerTracing", false);
        let words = "cannot set feature gate APIServerTracing to false, feature is locked to true";
        assert_eq!(locked, Finding::Locked(words.to_owned()));
        assert_eq!(judge("APIServerTracing", true), Finding::Default);
    }

    #[test]
    fn a_gates_own_word_must_not_give_way_to_its_stages() {
        let set = |pairs: &[(&str, bool)]| -> BTreeMap<String, bool> {
            pairs.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect()
        };
        let of = |name: &str, pairs: &[(&str, bool)]| enabled(name, &set(pairs));
        assert!(of("ContainerCheckpoint", &[]) && !of("MemoryQoS", &[]));
        assert!(!of("ContainerCheckpoint", &[("AllBeta", false)]));
        assert!(of("ContainerCheckpoint", &[("AllBeta", false), ("ContainerCheckpoint", true)]));
        assert!(of("MemoryQoS", &[("AllAlpha", true)]) && !of("MemoryQoS", &[("AllBeta", true)]));
        assert!(of("APIServerTracing", &[("APIServerTracing", false)]), "it is locked");
        assert!(!of("NoSuchGate", &[("NoSuchGate", true)]));
        let off = metrics_where(|gate| enabled(gate.name, &set(&[("ContainerCheckpoint", false)])));
        assert!(off.contains("kubernetes_feature_enabled{name=\"ContainerCheckpoint\",stage=\"BETA\"} 0"));
    }

    #[test]
    fn all_gates_are_judged_and_a_locked_one_is_refused() {
        let gates = [("ContainerCheckpoint", true), ("MemoryQoS", true), ("Soon", true)];
        let warnings = check(gates, &[]).unwrap();
        assert_eq!(
            warnings,
            ["feature gate MemoryQoS=true has no effect here", "unrecognized feature gate: Soon"]
        );
        assert!(check([("Soon", true), ("APIServerTracing", false)], &[]).unwrap_err().contains("locked"));
        // a part that acts on one
        let gates = [("ContainerCheckpoint", false), ("EnvFiles", false), ("AllBeta", false)];
        assert_eq!(
            check(gates, &["ContainerCheckpoint"]).unwrap(),
            [
                "feature gate EnvFiles=false has no effect here",
                "feature gate AllBeta=false has an effect here on ContainerCheckpoint only"
            ]
        );
    }

    #[test]
    fn every_line_names_a_gate_its_default_and_its_stage() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(
                matches!(
                    words[..],
                    [_, "true" | "false", "alpha" | "beta" | "ga" | "deprecated"]
                        | [_, "true" | "false", "alpha" | "beta" | "ga" | "deprecated", "locked"]
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn a_feature_must_not_be_shown_in_another_state_than_it_has() {
        let text = metrics();
        for line in [
            "kubernetes_feature_enabled{name=\"APIServerTracing\",stage=\"\"} 1",
            "kubernetes_feature_enabled{name=\"MemoryQoS\",stage=\"ALPHA\"} 0",
            "kubernetes_feature_enabled{name=\"AllBeta\",stage=\"BETA\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}");
        }
        assert_eq!(text.lines().count(), all().count() + 2);
    }
}
