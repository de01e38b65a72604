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

/// What is refused, what is warned of, and what is audited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Rule,
    /// What is warned of.
    pub warn: Rule,
    /// What the audit log tells of.
    pub audit: Rule,
}

impl Policy {
    /// Reads the labels; what they leave open is `defaults`'. An unreadable level is the strictest to enforce and none to tell of, an
    /// unreadable version the latest; both are reported.
    #[must_use]
    pub fn read(namespace: &Value, defaults: &Policy) -> (Self, Vec<FieldError>) {
        let (mut policy, mut errors) = (defaults.clone(), Vec::new());
        let enforce = set(namespace, "enforce", Level::Restricted, &mut policy.enforce, &mut errors);
        set(namespace, "audit", Level::Privileged, &mut policy.audit, &mut errors);
        let warn = set(namespace, "warn", Level::Privileged, &mut policy.warn, &mut errors);
        // Workloads whose pods would be refused are worth a warning without being asked for it.
        if warn.level == Given::Not
            && enforce.level == Given::Readable
            && policy.enforce.level > policy.warn.level
        {
            policy.warn.level = policy.enforce.level;
            if warn.version == Given::Not {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Not,
    Readable,
    Unreadable,
}

/// What the labels of a mode say.
struct Labels {
    level: Given,
    version: Given,
}

/// Sets what the labels of `mode` say; an unreadable level is `otherwise`.
fn set(
    namespace: &Value,
    mode: &str,
    otherwise: Level,
    rule: &mut Rule,
    errors: &mut Vec<FieldError>,
) -> Labels {
    let mut labels = Labels { level: Given::Not, version: Given::Not };
    if let Some(text) = label(namespace, mode) {
        let read = level(text);
        labels.level = if read.is_some() { Given::Readable } else { Given::Unreadable };
        rule.level = read.unwrap_or_else(|| {
            errors.push(invalid(mode, text, "must be one of privileged, baseline, restricted"));
            otherwise
        });
    }
    let key = format!("{mode}-version");
    if let Some(text) = label(namespace, &key) {
        let read = version(text);
        labels.version = if read.is_some() { Given::Readable } else { Given::Unreadable };
        rule.version = read.unwrap_or_else(|| {
            errors.push(invalid(&key, text, "must be \"latest\" or \"v1.x\""));
            None
        });
    }
    labels
}

impl Rule {
    /// A rule by the names of its level and version; none where either is no such name.
    #[must_use]
    pub fn named(level_name: &str, version_name: &str) -> Option<Self> {
        Some(Rule { level: level(level_name)?, version: version(version_name)? })
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
