//! Which requests are audited, and how much of each: `audit.k8s.io/v1` Policy. Upstream: `apiserver/pkg/audit/policy`,
//! `apiserver/pkg/apis/audit/validation`.

use super::level::{Level, Stage};
use crate::facts::{RequestInfo, User};
use machinery::codec::yaml;
use machinery::field::{FieldError, Path};
use machinery::goformat::aggregate;
use machinery::{names, object};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

/// Some of the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stages(u8);

impl Stages {
    fn bit(stage: Stage) -> u8 {
        1 << (stage as u8)
    }

    fn of(names: &[String]) -> Self {
        names.iter().filter_map(|name| Stage::named(name)).fold(Self(0), |all, s| Self(all.0 | Self::bit(s)))
    }

    fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn contains(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }
}

/// How a request is audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) level: Level,
    /// Stages of which nothing is written.
    pub(super) omitted: Stages,
    /// Whether objects are written without their `managedFields`.
    pub(super) without_managed_fields: bool,
}

/// Rules of which the first that means a request holds; none: not audited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(Vec<Rule>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    scope: Scope,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// Resources of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// A policy as it is written.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    rules: Vec<WrittenRule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Policy {
    /// Reads a policy, in YAML or JSON. Unknown fields are warned of, as upstream warns of them.
    ///
    /// # Errors
    /// In words: what is no policy, is not valid, or has no rules.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decoded = yaml::decode(text.as_bytes()).map_err(|e| format!("failed decoding: {e}"))?;
        let (api_version, kind) = (object::api_version(&decoded.value), object::kind(&decoded.value));
        if kind.is_empty() {
            return Err("failed decoding: couldn't get version/kind; Object 'Kind' is missing".to_owned());
        }
        if (api_version, kind) != (API_VERSION, KIND) {
            return Err(format!(
                "failed decoding: no kind {kind:?} is registered for version {api_version:?} in scheme"
            ));
        }
        let mut value = decoded.value;
        without_nulls(&mut value);
        let written: Written = serde_json::from_value(value).map_err(|e| format!("failed decoding: {e}"))?;
        let mut odd = written.unknown();
        odd.extend(decoded.duplicates);
        if !odd.is_empty() {
            let problems = odd.join(", ");
            tracing::warn!(problems, "Audit policy contains errors, falling back to lenient decoding");
        }
        let errors: Vec<String> = written.errors().iter().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(aggregate(&errors));
        }
        if written.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        Ok(written.into())
    }

    /// How a request is audited. Nobody is authenticated without a `user`.
    pub(super) fn scope(&self, user: Option<&User>, info: &RequestInfo) -> Scope {
        self.0.iter().find(|rule| rule.means(user, info)).map(|rule| rule.scope).unwrap_or_default()
    }
}

/// What is null is not given.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl From<Written> for Policy {
    fn from(written: Written) -> Self {
        let (everywhere, bare) = (Stages::of(&written.omit_stages), written.omit_managed_fields);
        let rule = |rule: WrittenRule| Rule {
            scope: Scope {
                level: Level::named(&rule.level).unwrap_or_default(),
                omitted: everywhere.and(Stages::of(&rule.omit_stages)),
                without_managed_fields: rule.omit_managed_fields.unwrap_or(bare),
            },
            users: rule.users,
            groups: rule.user_groups,
            verbs: rule.verbs,
            resources: rule.resources,
            namespaces: rule.namespaces,
            paths: rule.non_resource_urls,
        };
        Policy(written.rules.into_iter().map(rule).collect())
    }
}

impl Written {
    /// Fields nobody knows.
    fn unknown(&self) -> Vec<String> {
        let own =
            self.unknown.keys().filter(|name| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        let mut all: Vec<String> = own.map(|name| format!("unknown field {name:?}")).collect();
        for (i, rule) in self.rules.iter().enumerate() {
            all.extend(rule.unknown.keys().map(|name| format!("unknown field \"rules[{i}].{name}\"")));
            for (j, resources) in rule.resources.iter().enumerate() {
                let path = |name: &String| format!("unknown field \"rules[{i}].resources[{j}].{name}\"");
                all.extend(resources.unknown.keys().map(path));
            }
        }
        all
    }

    fn errors(&self) -> Vec<FieldError> {
        let mut errors = stage_errors(&self.omit_stages, &Path::new("omitStages"));
        let rules = Path::new("rules");
        for (i, rule) in self.rules.iter().enumerate() {
            rule.check(&rules.index(i), &mut errors);
        }
        errors
    }
}

impl WrittenRule {
    fn check(&self, path: &Path, errors: &mut Vec<FieldError>) {
        let level = path.child("level");
        if self.level.is_empty() {
            errors.push(FieldError::required(&level, ""));
        } else if Level::named(&self.level).is_none() {
            let names = Level::ALL.map(|(name, _)| name);
            errors.push(FieldError::not_supported(&level, self.level.as_str(), &names));
        }
        let urls = path.child("nonResourceURLs");
        for (i, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let mut wrong = |why: &str| errors.push(FieldError::invalid(&urls.index(i), url.as_str(), why));
            if !url.starts_with('/') {
                wrong("non-resource URL rules must begin with a '/' character");
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        let resources = path.child("resources");
        for Resources { group, resources: plurals, resource_names, .. } in &self.resources {
            if !group.is_empty() && group != "*" {
                let why = names::dns1123_subdomain(group);
                if !why.is_empty() {
                    let path = resources.child("group");
                    errors.push(FieldError::invalid(&path, group.as_str(), why.join(",")));
                }
            }
            if !resource_names.is_empty() && plurals.is_empty() {
                let (path, why) =
                    (resources.child("resourceNames"), "using resourceNames requires at least one resource");
                errors.push(FieldError::invalid(&path, json!(resource_names), why));
            }
        }
        errors.extend(stage_errors(&self.omit_stages, &path.child("omitStages")));
        let resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if resources && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&urls, json!(self.non_resource_urls), why));
        }
    }
}

fn stage_errors(stages: &[String], path: &Path) -> Vec<FieldError> {
    let allowed = format!("allowed stages are {}", Stage::ALL.map(|(name, _)| name).join(","));
    let unknown = stages.iter().enumerate().filter(|(_, name)| Stage::named(name).is_none());
    unknown.map(|(i, name)| FieldError::invalid(&path.index(i), name.as_str(), allowed.as_str())).collect()
}

fn holds(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

impl Rule {
    fn means(&self, user: Option<&User>, info: &RequestInfo) -> bool {
        let is_user = self.users.is_empty() || user.is_some_and(|u| holds(&self.users, &u.name));
        let in_group = |user: &User| user.groups.iter().any(|group| holds(&self.groups, group));
        if !is_user || !(self.groups.is_empty() || user.is_some_and(in_group)) {
            return false;
        }
        if !self.verbs.is_empty() && !holds(&self.verbs, &info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || holds(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.mean(info)));
        }
        self.paths.is_empty() || (!info.is_resource && self.paths.iter().any(|path| fits(path, &info.path)))
    }
}

/// Whether a path is one of `pattern`'s, which may end with `*`.
fn fits(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

impl Resources {
    fn mean(&self, info: &RequestInfo) -> bool {
        if self.group != "*" && self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let is_named = self.resource_names.is_empty() || holds(&self.resource_names, &info.name);
        is_named && self.resources.iter().any(|pattern| is_of(pattern, info))
    }
}

/// Whether the request is about what `pattern` says: `pods`, `pods/log`, `pods/*`, `*/scale`, `*`.
fn is_of(pattern: &str, info: &RequestInfo) -> bool {
    match (pattern.split_once('/'), info.subresource.as_str()) {
        _ if pattern == "*" => true,
        // Upstream: what ends with `/*` means the resource itself, too.
        (Some((resource, "*")), _) if resource == info.resource => true,
        (Some((resource, subresource)), given) => {
            !given.is_empty() && subresource == given && (resource == "*" || resource == info.resource)
        }
        (None, given) => given.is_empty() && pattern == info.resource,
    }
}

#[cfg(test)]
mod tests;
