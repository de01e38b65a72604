//! Custom resources in discovery and OpenAPI.

use super::catalog::{Group, Resource, Source, Version};
use crate::registry::Registry;
use crate::registry::serving::Serving;
use machinery::custom::definition::VERBS_TERMINATING;
use machinery::custom::outline::Listed;
use machinery::custom::{Outline, openapi};
use machinery::names::compare_versions;
use machinery::schema::openapi::Dialect;
use serde_json::Value;
use sha2::{Digest as _, Sha512};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of every group of custom resources (upstream: `autoregister`'s APIServices of definitions).
const PRIORITY: i64 = 1000;

/// The custom resources of a registry.
#[derive(Clone, Debug)]
pub struct CustomResources(pub Arc<Registry>);

/// The name of a custom kind's schema, `com.acme.v1.Widget`.
#[must_use]
pub fn schema_name(group: &str, version: &str, kind: &str) -> String {
    let turned: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", turned.join("."))
}

fn resource(outline: &Outline, version: &Listed) -> Resource {
    let of = version.resource;
    Resource::of(of, if outline.terminating { &VERBS_TERMINATING } else { &of.verbs })
}

fn groups(all: &[Arc<Serving>]) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for outline in all.iter().map(|serving| &serving.outline).filter(|outline| outline.established) {
        let new = || Group { name: outline.group.to_owned(), priority: PRIORITY, versions: Vec::new() };
        let group = groups.entry(outline.group).or_insert_with(new);
        for version in outline.versions.iter().filter(|v| v.served) {
            match group.versions.iter_mut().find(|v| v.name == version.name) {
                Some(known) => known.resources.push(resource(outline, version)),
                None => group.versions.push(Version {
                    name: version.name.to_owned(),
                    resources: vec![resource(outline, version)],
                    stale: false,
                }),
            }
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for group in &mut groups {
        group.versions.sort_by(|a, b| compare_versions(&b.name, &a.name));
        group.versions.iter_mut().for_each(|v| v.resources.sort_by(|a, b| a.plural.cmp(&b.plural)));
    }
    groups.retain(|g| !g.versions.is_empty());
    groups
}

impl CustomResources {
    fn of(&self, group: &str) -> impl Iterator<Item = Arc<Serving>> {
        self.0.custom.all().into_iter().filter(move |serving| serving.outline.group == group)
    }
}

impl Source for CustomResources {
    fn generation(&self) -> u64 {
        self.0.custom.generation()
    }

    fn groups(&self) -> Vec<Group> {
        groups(&self.0.custom.all())
    }

    fn content(&self, group: &str, version: &str, into: &mut Sha512) {
        for serving in self.of(group).filter(|s| s.outline.established) {
            if serving.outline.served(version).is_some() {
                into.update(serving.outline.digest);
                into.update([u8::from(serving.outline.terminating)]);
            }
        }
    }

    fn schema(&self, group: &str, version: &str, kind: &str, dialect: Dialect) -> Option<Value> {
        let found = self.of(group).find_map(|serving| {
            let of = serving.outline.served(version)?;
            let resource = of.resource;
            (resource.kind == kind || resource.list_kind == kind).then(|| (serving.clone(), of.clone()))
        });
        let (serving, of) = found?;
        if of.resource.kind == kind {
            let free = serving.outline.preserve_unknown;
            return Some(openapi::object(&of, serving.schema(version), free, dialect));
        }
        let name = schema_name(group, version, of.resource.kind);
        Some(openapi::list(&of, &name, dialect))
    }
}
