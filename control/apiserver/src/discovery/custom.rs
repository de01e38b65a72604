//! Custom resources in discovery and OpenAPI.

use super::catalog::{Group, Resource, Source, Version};
use crate::registry::Registry;
use machinery::custom::definition::VERBS_TERMINATING;
use machinery::custom::{Definition, openapi};
use machinery::names::compare_versions;
use machinery::schema::openapi::Dialect;
use serde_json::Value;
use std::sync::Arc;

/// The custom resources of a registry.
#[derive(Clone, Debug)]
pub struct CustomResources(pub Arc<Registry>);

/// The name of a custom kind's schema, `com.acme.v1.Widget`.
#[must_use]
pub fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let turned: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", turned.join("."))
}

fn resource(definition: &Definition, version: &machinery::custom::Version) -> Resource {
    let of = version.resource;
    Resource::of(of, if definition.terminating { &VERBS_TERMINATING } else { &of.verbs })
}

fn groups(definitions: &[Arc<Definition>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for definition in definitions.iter().filter(|d| d.established) {
        let group = match groups.iter_mut().position(|g| g.name == definition.group) {
            Some(at) => at,
            None => {
                groups.push(Group { name: definition.group.to_owned(), versions: Vec::new() });
                groups.len() - 1
            }
        };
        let Some(group) = groups.get_mut(group) else { continue };
        for version in definition.versions.iter().filter(|v| v.served) {
            let at = group.versions.iter().position(|v| v.name == version.name);
            match at.and_then(|at| group.versions.get_mut(at)) {
                Some(known) => known.resources.push(resource(definition, version)),
                None => group.versions.push(Version {
                    name: version.name.to_owned(),
                    resources: vec![resource(definition, version)],
                    stale: false,
                }),
            }
        }
    }
    for group in &mut groups {
        group.versions.sort_by(|a, b| compare_versions(&b.name, &a.name));
        group.versions.iter_mut().for_each(|v| v.resources.sort_by(|a, b| a.plural.cmp(&b.plural)));
    }
    groups.retain(|g| !g.versions.is_empty());
    groups
}

impl Source for CustomResources {
    fn generation(&self) -> u64 {
        self.0.custom.generation()
    }

    fn groups(&self) -> Vec<Group> {
        groups(&self.0.custom.all())
    }

    fn schema(&self, group: &str, version: &str, kind: &str, dialect: Dialect) -> Option<Value> {
        let all = self.0.custom.all();
        let found = all.iter().filter(|d| d.group == group).find_map(|definition| {
            let version = definition.served(version)?;
            let of = version.resource;
            (of.kind == kind || of.list_kind == kind).then_some((definition, version))
        });
        let (definition, of) = found?;
        if of.resource.kind == kind {
            return Some(openapi::object(of, definition.preserve_unknown, dialect));
        }
        let name = schema_name(group, version, of.resource.kind);
        Some(openapi::list(of, &name, dialect))
    }
}
