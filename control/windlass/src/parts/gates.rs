//! Feature gates and emulated versions, as upstream reads them: what cannot be is refused, what has no effect here is named in a warning.
//! Upstream: `component-base/{featuregate,compatibility}`.

use crate::flags::Flags;
use anyhow::{anyhow, bail, ensure};
use machinery::gates::{Finding, judge};
use machinery::release::{MAJOR, MAJOR_MINOR, MINOR};
use std::collections::BTreeMap;

/// The component whose gates and version these are; others are unknown here.
const KUBE: &str = "kube";
/// So many minor versions back can be emulated.
const BACK: u32 = 3;

/// Looks at `--feature-gates`, `--emulated-version` and `--min-compatibility-version`; gives what is to be warned of.
pub(super) fn check(flags: &Flags) -> anyhow::Result<Vec<String>> {
    let mut warnings = gates(flags.list("feature-gates").unwrap_or_default())?;
    for (name, what) in [
        ("emulated-version", "emulation version"),
        ("min-compatibility-version", "minCompatibilityVersion version"),
    ] {
        let Some(minor) = minor(flags.list(name).unwrap_or_default(), what)? else { continue };
        if name == "emulated-version" && minor != MINOR.parse::<u32>().unwrap_or_default() {
            warnings.push(format!("--{name}=1.{minor} has no effect here: all is as in {MAJOR_MINOR}"));
        }
    }
    // Nothing is emulated.
    for (flag, name) in [
        ("emulation-forward-compatible", "EmulationForwardCompatible"),
        ("runtime-config-emulation-forward-compatible", "RuntimeConfigEmulationForwardCompatible"),
    ] {
        if flags.bool(flag) == Some(true) && flags.list("emulated-version").is_none() {
            bail!(
                "ServerRunOptions.{name} cannot be set to true if the emulation version is the same as the binary version"
            );
        }
    }
    Ok(warnings)
}

fn gates(pairs: &[String]) -> anyhow::Result<Vec<String>> {
    let (mut warnings, mut last) = (Vec::new(), BTreeMap::new());
    let prefixed = pairs.iter().filter(|pair| pair.contains(':')).count();
    ensure!(
        prefixed == 0 || prefixed == pairs.len(),
        "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
    );
    for pair in pairs {
        let (component, pair) = pair.split_once(':').unwrap_or((KUBE, pair));
        ensure!(component == KUBE, "component not registered: {component}");
        let Some((name, value)) = pair.split_once('=') else { bail!("missing bool value for {pair}") };
        let (name, value) = (name.trim(), value.trim());
        let on =
            crate::flags::boolean(value).map_err(|e| anyhow!("invalid value of {name}={value}, err: {e}"))?;
        last.insert(name, on);
    }
    for (name, on) in last {
        match judge(name, on) {
            Finding::Default => {}
            Finding::WithoutEffect => warnings.push(format!("feature gate {name}={on} has no effect here")),
            Finding::Unknown => bail!("unrecognized feature gate: {name}"),
            Finding::Locked(why) => bail!(why),
        }
    }
    Ok(warnings)
}

/// The minor version of ours that a flag names, if it does.
fn minor(versions: &[String], what: &str) -> anyhow::Result<Option<u32>> {
    let mut named = None;
    for text in versions {
        let (component, version) = text.split_once('=').unwrap_or((KUBE, text));
        ensure!(component.trim() == KUBE, "component not registered: {}", component.trim());
        let version = version.trim();
        let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        let (major, minor) = match parts.as_deref() {
            Some([major, minor] | [major, minor, 0]) => (*major, *minor),
            Some([_, _, _]) => bail!("patch version not allowed, got: {KUBE}={version}"),
            _ => bail!("could not parse {version:?} as version"),
        };
        if let Some(other) = named {
            bail!("duplicate version flag, {KUBE}={MAJOR}.{other} and {KUBE}={version}");
        }
        let newest: u32 = MINOR.parse()?;
        let floor = newest - BACK;
        ensure!(
            major.to_string() == MAJOR && (floor..=newest).contains(&minor),
            "{what} {major}.{minor} is not between [{MAJOR}.{floor}, {MAJOR_MINOR}]"
        );
        named = Some(minor);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::component::Component;

    fn of_part(part: &str, line: &str) -> anyhow::Result<Vec<String>> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags = Component::named(part).unwrap().table().parse(&arguments)?;
        assert!(flags.unused().is_empty(), "{part} {line}");
        check(&flags)
    }

    fn of(line: &str) -> anyhow::Result<Vec<String>> {
        of_part("kube-apiserver", line)
    }

    #[test]
    fn a_gate_nobody_knows_must_not_be_taken_by_any_part() {
        for part in ["kube-apiserver", "kube-scheduler", "kube-controller-manager"] {
            let refused = |line: &str| of_part(part, line).unwrap_err().to_string();
            assert_eq!(refused("--feature-gates=Soon=true"), "unrecognized feature gate: Soon", "{part}");
            assert_eq!(
                refused("--feature-gates=APIServerTracing=false"),
                "cannot set feature gate APIServerTracing to false, feature is locked to true",
                "{part}"
            );
            let all = "feature gate AllBeta=false has no effect here";
            assert_eq!(of_part(part, "--feature-gates=AllBeta=false").unwrap(), [all], "{part}");
            assert!(of_part(part, "--emulated-version=1.36").unwrap().is_empty(), "{part}");
        }
    }

    #[test]
    fn what_has_no_effect_here_must_not_pass_in_silence() {
        let idle = "feature gate MemoryQoS=true has no effect here";
        let emulated = "--emulated-version=1.35 has no effect here: all is as in 1.36";
        for (line, warnings) in [
            ("", vec![]),
            ("--feature-gates=APIServerTracing=true,MemoryQoS=false", vec![]),
            ("--feature-gates=MemoryQoS=true", vec![idle]),
            ("--feature-gates=kube:MemoryQoS=true", vec![idle]),
            ("--feature-gates=MemoryQoS=true --feature-gates=MemoryQoS=false", vec![]),
            ("--emulated-version=1.36", vec![]),
            ("--emulated-version=kube=1.35", vec![emulated]),
            ("--min-compatibility-version=1.35", vec![]),
        ] {
            assert_eq!(of(line).unwrap(), warnings, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_upstreams_words() {
        for (line, why) in [
            ("--feature-gates=Soon=true", "unrecognized feature gate: Soon"),
            (
                "--feature-gates=APIServerTracing=false",
                "cannot set feature gate APIServerTracing to false, feature is locked to true",
            ),
            (
                "--feature-gates=MemoryQoS=maybe",
                "invalid value of MemoryQoS=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "--emulation-forward-compatible",
                "ServerRunOptions.EmulationForwardCompatible cannot be set to true if the emulation version is the same as the binary version",
            ),
            ("--feature-gates=other:MemoryQoS=true", "component not registered: other"),
            (
                "--feature-gates=kube:MemoryQoS=true,APIServerTracing=true",
                "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use",
            ),
            ("--emulated-version=1.30", "emulation version 1.30 is not between [1.33, 1.36]"),
            ("--emulated-version=1.37", "emulation version 1.37 is not between [1.33, 1.36]"),
            ("--emulated-version=1.36.2", "patch version not allowed, got: kube=1.36.2"),
            ("--emulated-version=new", "could not parse \"new\" as version"),
            (
                "--min-compatibility-version=1.30",
                "minCompatibilityVersion version 1.30 is not between [1.33, 1.36]",
            ),
        ] {
            assert_eq!(of(line).unwrap_err().to_string(), why, "{line}");
        }
    }
}
