//! `PodSecurityConfiguration`: what holds where labels say nothing, and what is exempt. Upstream:
//! `pod-security-admission/admission/api`.

use super::policy::{Policy, Rule};
use crate::field::{FieldError, Path};
use crate::goformat::aggregate;
use crate::names::{dns1123_label, dns1123_subdomain};
use serde::Deserialize;
use serde_json::Value;

/// What an administrator says of all namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// What holds where labels say nothing.
    pub defaults: Policy,
    /// Users whose requests are not judged.
    pub usernames: Vec<String>,
    /// Namespaces whose pods are not judged.
    pub namespaces: Vec<String>,
    /// Runtime classes whose pods are not judged.
    pub runtime_classes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// In words: unknown fields, levels and versions, names that are none or stand twice.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let written = Written::deserialize(value).map_err(|e| e.to_string())?;
        let mut errors = Vec::new();
        let Defaults { enforce, enforce_version, audit, audit_version, warn, warn_version } =
            &written.defaults;
        let mut rule = |mode: &str, level: &str, version: &str| {
            let or = |text: &str, default: &str| {
                if text.is_empty() { default.to_owned() } else { text.to_owned() }
            };
            let (level, version) = (or(level, "privileged"), or(version, "latest"));
            let at = Path::new("defaults");
            if Rule::named(&level, "latest").is_none() {
                let why = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(&at.child(mode), level.as_str(), why));
            }
            if Rule::named("privileged", &version).is_none() {
                let why = "must be \"latest\" or \"v1.x\"";
                errors.push(FieldError::invalid(
                    &at.child(&format!("{mode}-version")),
                    version.as_str(),
                    why,
                ));
            }
            Rule::named(&level, &version).unwrap_or_default()
        };
        let defaults = Policy {
            enforce: rule("enforce", enforce, enforce_version),
            warn: rule("warn", warn, warn_version),
            audit: rule("audit", audit, audit_version),
        };
        let Exemptions { usernames, namespaces, runtime_classes } = written.exemptions;
        check("namespaces", &namespaces, dns1123_label, &mut errors);
        check("runtimeClasses", &runtime_classes, dns1123_subdomain, &mut errors);
        let named = |name: &str| match name.is_empty() {
            true => vec!["username must not be empty".to_owned()],
            false => Vec::new(),
        };
        check("usernames", &usernames, named, &mut errors);
        if !errors.is_empty() {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(aggregate(&errors));
        }
        Ok(Self { defaults, usernames, namespaces, runtime_classes })
    }

    /// Why a pod of `namespace` that `user` writes is not judged: as the audit log names it.
    #[must_use]
    pub fn exempts(&self, namespace: &str, user: &str) -> Option<&'static str> {
        let holds = |list: &[String], name: &str| list.iter().any(|own| own == name);
        if holds(&self.namespaces, namespace) {
            Some("namespace")
        } else {
            holds(&self.usernames, user).then_some("user")
        }
    }

    /// Whether pods of a runtime class are not judged.
    #[must_use]
    pub fn exempts_class(&self, class: &str) -> bool {
        self.runtime_classes.iter().any(|own| own == class)
    }
}

/// Names that are none, and those that stand twice.
fn check(list: &str, names: &[String], wrong: impl Fn(&str) -> Vec<String>, errors: &mut Vec<FieldError>) {
    let path = Path::new("exemptions").child(list);
    for (i, name) in names.iter().enumerate() {
        let why = wrong(name);
        if !why.is_empty() {
            errors.push(FieldError::invalid(&path.index(i), name.as_str(), why.join(", ")));
        } else if names.iter().take(i).any(|before| before == name) {
            errors.push(FieldError::duplicate(&path.index(i), name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_security::policy::Level;
    use serde_json::json;

    #[test]
    fn defaults_and_exemptions_are_read() {
        let configuration = Configuration::parse(&json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"},
            "exemptions": {"usernames": ["root"], "namespaces": ["kube-system"], "runtimeClasses": ["kata"]},
        }))
        .unwrap();
        assert_eq!(configuration.defaults.enforce, Rule { level: Level::Baseline, version: Some(30) });
        assert_eq!(configuration.defaults.warn, Rule { level: Level::Restricted, version: None });
        assert_eq!(configuration.defaults.audit, Rule::default());
        assert_eq!(configuration.exempts("kube-system", "root"), Some("namespace"));
        assert_eq!(configuration.exempts("default", "root"), Some("user"));
        assert_eq!(configuration.exempts("default", "other"), None);
        assert!(configuration.exempts_class("kata") && !configuration.exempts_class(""));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (written, why) in [
            (json!({"defaults": {"enforce": "strict"}}), "defaults.enforce: Invalid value: \"strict\""),
            (json!({"defaults": {"warn-version": "1.2"}}), "defaults.warn-version: Invalid value: \"1.2\""),
            (
                json!({"exemptions": {"namespaces": ["a", "a"]}}),
                "exemptions.namespaces[1]: Duplicate value: \"a\"",
            ),
            (json!({"exemptions": {"usernames": [""]}}), "exemptions.usernames[0]: Invalid value"),
            (json!({"exemptions": {"runtimeClasses": ["A"]}}), "exemptions.runtimeClasses[0]: Invalid value"),
            (json!({"default": {}}), "unknown field `default`"),
        ] {
            let error = Configuration::parse(&written).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
