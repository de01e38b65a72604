//! Which of the built-in resources are served: all, but for what `--runtime-config` switches off.
//! Upstream: `apiserver/pkg/server/{resourceconfig,storage}`, `options/api_enablement.go`.

use machinery::resources;
use std::collections::BTreeMap;

/// What is switched; the rest is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// By group and version.
    versions: BTreeMap<(String, String), bool>,
    /// By group, version and plural; these go before versions.
    resources: BTreeMap<(String, String, String), bool>,
}

/// A word for versions, and whether one is among them.
type Versions = (&'static str, fn(&str) -> bool);

/// Classes of versions, in the order in which they are switched.
const CLASSES: [Versions; 4] = [
    ("api/all", |_| true),
    ("api/ga", |version| class(version) == Class::Stable),
    ("api/beta", |version| class(version) == Class::Beta),
    ("api/alpha", |version| class(version) == Class::Alpha),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Stable,
    Beta,
    Alpha,
    /// No version of Kubernetes'.
    Other,
}

fn class(version: &str) -> Class {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(rest) = version.strip_prefix('v') else { return Class::Other };
    let of = |word: &str| rest.split_once(word).is_some_and(|(a, b)| is_number(a) && is_number(b));
    match rest {
        _ if is_number(rest) => Class::Stable,
        _ if of("beta") => Class::Beta,
        _ if of("alpha") => Class::Alpha,
        _ => Class::Other,
    }
}

/// How a key is said by upstream: the core group has several names.
fn normalized(key: &str) -> Option<String> {
    let core = |rest: &str| (rest.is_empty() || rest.starts_with('/')).then(|| format!("/v1{rest}"));
    match key {
        "api/legacy" => None,
        _ => Some(
            ["api/v1", "v1"]
                .into_iter()
                .find_map(|name| key.strip_prefix(name).and_then(core))
                .unwrap_or_else(|| key.to_owned()),
        ),
    }
}

impl Served {
    /// Of the `key=value` pairs of `--runtime-config`.
    ///
    /// # Errors
    /// In upstream's words, for what names no version there is, and for what cannot be switched on.
    pub fn of(pairs: &[(String, String)]) -> Result<Self, String> {
        if matches!(pairs, [(key, value)] if key == "api/all" && value == "false") {
            return Err("invalid runtime-config with only api/all=false".to_owned());
        }
        let given: BTreeMap<String, &str> =
            pairs.iter().filter_map(|(key, value)| Some((normalized(key)?, value.as_str()))).collect();
        let mut served = Self::default();
        for (name, is_of) in CLASSES {
            let on = match given.get(name).copied() {
                None => continue,
                Some("true") => true,
                Some("false") => false,
                Some(other) => return Err(format!("invalid value {name}={other}")),
            };
            for (group, version) in known().filter(|(_, version)| is_of(version)) {
                served.versions.insert((group.to_owned(), version.to_owned()), on);
            }
        }
        let mut unknown = Vec::new();
        for (key, value) in given.iter().filter(|(key, _)| CLASSES.iter().all(|(name, _)| name != key)) {
            let parts: Vec<&str> = key.split('/').collect();
            let (group, version, plural) = match parts.as_slice() {
                [group, version] => (*group, *version, None),
                [group, version, plural] => (*group, *version, Some(*plural)),
                _ => continue,
            };
            let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            if resources::groups().iter().all(|known| known.name != group) {
                unknown.push(name);
                continue;
            }
            let on = boolean(value).ok_or_else(|| {
                format!("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
            })?;
            if !known().any(|known| known == (group, version)) {
                // A version that others serve before it is stable, and that is not served here, is off as it is.
                if on || !matches!(class(version), Class::Beta | Class::Alpha) {
                    return Err(format!("group version {name} that has not been registered"));
                }
                continue;
            }
            match plural {
                None => drop(served.versions.insert((group.to_owned(), version.to_owned()), on)),
                Some(plural) if plural.to_lowercase() != plural => {
                    return Err(format!(
                        "invalid key {key}: group/version/resource and resource is always lowercase plural, not {plural:?}"
                    ));
                }
                Some(plural) => {
                    served.resources.insert((group.to_owned(), version.to_owned(), plural.to_owned()), on);
                }
            }
        }
        if unknown.is_empty() { Ok(served) } else { Err(format!("unknown api groups {}", unknown.join(","))) }
    }

    /// Whether a version of a built-in resource is served.
    #[must_use]
    pub fn serves(&self, group: &str, version: &str, plural: &str) -> bool {
        let own = |(g, v, p): &(String, String, String)| {
            (g.as_str(), v.as_str(), p.as_str()) == (group, version, plural)
        };
        match self.resources.iter().find(|(key, _)| own(key)) {
            Some((_, on)) => *on,
            None => self.serves_version(group, version),
        }
    }

    fn serves_version(&self, group: &str, version: &str) -> bool {
        let found = self.versions.iter().find(|((g, v), _)| (g.as_str(), v.as_str()) == (group, version));
        found.is_none_or(|(_, on)| *on)
    }

    /// Whether anything of a version is served.
    #[must_use]
    pub fn has(&self, group: &str, version: &str) -> bool {
        self.serves_version(group, version)
            || self
                .resources
                .iter()
                .any(|((g, v, _), on)| *on && (g.as_str(), v.as_str()) == (group, version))
    }
}

/// Group and version of all that is built in.
fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    resources::groups().iter().flat_map(|group| group.versions.iter().map(|version| (group.name, *version)))
}

/// A value of a key; one that is only named is on.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Served, String> {
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (key.to_owned(), value.to_owned())
        };
        Served::of(&text.split(',').filter(|t| !t.is_empty()).map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_switched_off_is_not_served_and_the_rest_is() {
        let (pods, deployments, jobs) =
            (("", "v1", "pods"), ("apps", "v1", "deployments"), ("batch", "v1", "jobs"));
        for (text, expected) in [
            ("", [true, true, true]),
            ("apps/v1=false", [true, false, true]),
            ("apps/v1/deployments=false", [true, false, true]),
            ("apps/v1=false,apps/v1/deployments=true", [true, true, true]),
            ("api/all=false,v1=true", [true, false, false]),
            ("api/all=false,api/v1=true,batch/v1", [true, false, true]),
            ("api/ga=false,/v1/pods=true", [true, false, false]),
            ("api/beta=false,api/alpha=true", [true, true, true]),
            ("v1/pods=false,api/legacy=true", [false, true, true]),
            ("resource.k8s.io/v1alpha9=false", [true, true, true]),
        ] {
            let served = of(text).unwrap();
            let got = [pods, deployments, jobs].map(|(g, v, p)| served.serves(g, v, p));
            assert_eq!(got, expected, "{text}");
        }
        assert!(!of("apps/v1=false").unwrap().has("apps", "v1"));
        assert!(of("apps/v1=false,apps/v1/deployments=true").unwrap().has("apps", "v1"));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        for (text, why) in [
            ("api/all=false", "invalid runtime-config with only api/all=false"),
            ("api/ga=maybe", "invalid value api/ga=maybe"),
            ("apps/v9=true", "group version apps/v9 that has not been registered"),
            (
                "resource.k8s.io/v1alpha9=true",
                "group version resource.k8s.io/v1alpha9 that has not been registered",
            ),
            ("x.example/v1=true,a/v1=false", "unknown api groups a/v1,x.example/v1"),
            (
                "apps/v1/Deployments=true",
                "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \"Deployments\"",
            ),
            (
                "apps/v1=x",
                "invalid value of apps/v1: x, err: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(of(text), Err(why.to_owned()), "{text}");
        }
    }
}
