//! What a namespace's `pod-security.kubernetes.io/` labels say. Upstream: `pod-security-admission/api`.

use crate::access::Get as _;
use crate::field::{FieldError, Path};
use serde_json::Value;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// Level of the Pod Security Standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Unrestricted.
    #[default]
    Privileged,
    /// Known ways to more rights are.
    Baseline,
    /// What is not hardened is.
    Restricted,
}

/// A level as of a minor version of Kubernetes; `None` is the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Level of the Pod Security Standards.
    pub level: Level,
    /// The minor version whose checks hold.
    pub version: Option<u32>,
}

impl Rule {
    /// Is the rule at least as new as 1.`minor`?
    #[must_use]
    pub fn since(&self, minor: u32) -> bool {
        self.version.is_none_or(|version| version >= minor)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What is refused, and what is warned of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Rule,
    /// What is warned of.
    pub warn: Rule,
}

impl Policy {
    /// Reads the labels. An unreadable level is the strictest, an unreadable version the latest; both are reported.
    #[must_use]
    pub fn read(namespace: &Value) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut rule = |mode: &str| {
            let level = label(namespace, mode).map(|text| {
                level(text).unwrap_or_else(|| {
                    errors.push(invalid(mode, text, "must be one of privileged, baseline, restricted"));
                    Level::Restricted
                })
            });
            let key = format!("{mode}-version");
            let version = label(namespace, &key).map(|text| {
                version(text).unwrap_or_else(|| {
                    errors.push(invalid(&key, text, "must be \"latest\" or \"v1.x\""));
                    None
                })
            });
            (level, version)
        };
        let ((enforce, version), _audit, (warn, warn_version)) =
            (rule("enforce"), rule("audit"), rule("warn"));
        let enforce = Rule { level: enforce.unwrap_or_default(), version: version.flatten() };
        let warn = match warn {
            Some(level) => Rule { level, version: warn_version.flatten() },
            // Workloads whose pods would be refused are worth a warning without being asked for it.
            None => Rule { level: enforce.level, version: warn_version.unwrap_or(enforce.version) },
        };
        (Policy { enforce, warn }, errors)
    }
}

fn label<'a>(namespace: &'a Value, name: &str) -> Option<&'a str> {
    namespace.fields("metadata.labels")?.get(&format!("{PREFIX}{name}"))?.as_str()
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// `latest` or `v1.N`.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten().map(Some)
}

fn invalid(label: &str, value: &str, why: &str) -> FieldError {
    let path = Path::new("metadata").child("labels").key(&format!("{PREFIX}{label}"));
    FieldError::invalid(&path, value, why)
}
