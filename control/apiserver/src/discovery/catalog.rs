//! Groups, versions and resources served: the built-in ones, and those of sources that change.

use crate::registry::Served;
use bytes::Bytes;
use machinery::resources as builtin;
use machinery::schema::openapi::Dialect;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha512};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Empty for core.
    pub name: String,
    /// The greater, the further in front among groups that are not built in.
    pub priority: i64,
    /// The preferred one first.
    pub versions: Vec<Version>,
}

/// A version of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `v1`.
    pub name: String,
    /// By name.
    pub resources: Vec<Resource>,
    /// Its server does not answer: the resources are those it had, if it ever said.
    pub stale: bool,
}

/// A resource in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `pods`.
    pub plural: String,
    /// `pod`.
    pub singular: String,
    /// `Pod`.
    pub kind: String,
    /// `PodList`; empty where it is the kind with `List` behind it.
    pub list_kind: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Sorted.
    pub verbs: Vec<String>,
    /// `po`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// Changes with the version objects are stored in; empty where nothing is stored.
    pub storage_version_hash: String,
    /// By name.
    pub subresources: Vec<Subresource>,
}

impl Resource {
    /// A resource as it is declared, with these verbs.
    pub(super) fn of(resource: &builtin::Resource, verbs: &[&str]) -> Self {
        let subresources = resource.subresources.iter().map(|s| Subresource {
            name: s.name.to_owned(),
            kind: s.kind.to_owned(),
            group_version: s.group_version.map(|(g, v)| (g.to_owned(), v.to_owned())),
            verbs: owned(&s.verbs),
        });
        Resource {
            plural: resource.plural.to_owned(),
            singular: resource.singular.clone(),
            kind: resource.kind.to_owned(),
            list_kind: resource.list_kind.clone(),
            namespaced: resource.namespaced,
            verbs: owned(verbs),
            short_names: owned(&resource.short_names),
            categories: owned(&resource.categories),
            storage_version_hash: resource.storage_version_hash(),
            subresources: subresources.collect(),
        }
    }

    /// The kind of its lists.
    #[must_use]
    pub fn lists(&self) -> String {
        if self.list_kind.is_empty() { format!("{}List", self.kind) } else { self.list_kind.clone() }
    }
}

/// A part of a resource with its own verbs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subresource {
    /// `status`.
    pub name: String,
    /// The kind that is read or sent.
    pub kind: String,
    /// Group and version of that kind where they are not the resource's own.
    pub group_version: Option<(String, String)>,
    /// Sorted.
    pub verbs: Vec<String>,
}

/// What another server says of a group version of its own, as JSON.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// In OpenAPI 2: paths, and the definitions they need.
    pub v2: Option<Bytes>,
    /// In OpenAPI 3.
    pub v3: Option<Bytes>,
}

/// Resources that are not built in.
pub trait Source: Send + Sync {
    /// Grows whenever [`Source::groups`] would answer anything else.
    fn generation(&self) -> u64;
    /// The groups, with all versions.
    fn groups(&self) -> Vec<Group>;
    /// Puts into a hash what the description of a group version is made of, beside what [`Source::groups`] says of it: a source whose
    /// schemas change with nothing else.
    fn content(&self, group: &str, version: &str, into: &mut Sha512) {
        let _ = (group, version, into);
    }
    /// How another server describes a group version: it then stands for what would be made of [`Source::groups`].
    fn described(&self, group: &str, version: &str) -> Option<Described> {
        let _ = (group, version);
        None
    }
    /// The OpenAPI schema of a kind, or of its lists, where the source has one.
    fn schema(&self, group: &str, version: &str, kind: &str, dialect: Dialect) -> Option<serde_json::Value> {
        let _ = (group, version, kind, dialect);
        None
    }
}

/// Groups, versions and resources served, built-in and custom.
#[derive(Default)]
pub struct Catalog {
    sources: Vec<Arc<dyn Source>>,
    /// The built-in groups, as far as they are served.
    builtin: Option<Vec<Group>>,
    /// What was put together last, and of which generation.
    known: Mutex<Option<(u64, Arc<Vec<Group>>)>>,
}

static BUILTIN: LazyLock<Vec<Group>> = LazyLock::new(builtin_groups);

impl Catalog {
    /// The built-in resources and those of `sources`.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        Catalog { sources, ..Self::default() }
    }

    /// Of the built-in resources just those that are served.
    #[must_use]
    pub fn serving(self, served: &Served) -> Self {
        let mut groups = BUILTIN.clone();
        for group in &mut groups {
            for version in &mut group.versions {
                version.resources.retain(|r| served.serves(&group.name, &version.name, &r.plural));
            }
            group.versions.retain(|version| !version.resources.is_empty());
        }
        groups.retain(|group| !group.versions.is_empty());
        Catalog { builtin: Some(groups), ..self }
    }

    /// Changes whenever [`Catalog::groups`] would answer anything else.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.sources.iter().map(|s| s.generation()).sum()
    }

    /// The OpenAPI schema of a kind that is not built in.
    #[must_use]
    pub(crate) fn schema(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        dialect: Dialect,
    ) -> Option<serde_json::Value> {
        self.sources.iter().find_map(|s| s.schema(group, version, kind, dialect))
    }

    /// How another server describes a group version, where it is another's.
    #[must_use]
    pub(crate) fn described(&self, group: &str, version: &str) -> Described {
        self.sources.iter().find_map(|s| s.described(group, version)).unwrap_or_default()
    }

    /// All groups: the built-in ones in upstream's order, then others by priority and name. A source may add versions and resources to
    /// a built-in group, never replace any.
    #[must_use]
    pub fn groups(&self) -> Arc<Vec<Group>> {
        let generation = self.generation();
        if let Some((of, groups)) = &*self.known.lock()
            && *of == generation
        {
            return groups.clone();
        }
        let groups = Arc::new(self.collect());
        *self.known.lock() = Some((generation, groups.clone()));
        groups
    }

    fn collect(&self) -> Vec<Group> {
        let mut groups = self.builtin.as_ref().unwrap_or(&BUILTIN).clone();
        let mut added: BTreeMap<String, Group> = BTreeMap::new();
        for group in self.sources.iter().flat_map(|s| s.groups()) {
            if let Some(known) = groups.iter_mut().find(|g| g.name == group.name) {
                merge(known, group);
            } else if let Some(known) = added.get_mut(&group.name) {
                merge(known, group);
            } else {
                added.insert(group.name.clone(), group);
            }
        }
        let mut added: Vec<Group> = added.into_values().collect();
        added.sort_by_key(|group| Reverse(group.priority));
        groups.extend(added);
        groups
    }

    /// A text that changes with the description of a group version, and with that alone: it is the same on every server of the same
    /// program, and nothing is described to find it.
    #[must_use]
    pub(crate) fn hash(&self, group: &str, version: &Version) -> String {
        let mut hash = Sha512::new();
        hash.update(machinery::release::GIT_VERSION);
        // All that is said of its resources.
        hash.update(format!("{group}/{version:?}"));
        self.sources.iter().for_each(|source| source.content(group, &version.name, &mut hash));
        hash.finalize().iter().map(|b| format!("{b:02X}")).collect()
    }
}

fn merge(into: &mut Group, group: Group) {
    into.priority = into.priority.max(group.priority);
    for version in group.versions {
        match into.versions.iter_mut().find(|v| v.name == version.name) {
            None => into.versions.push(version),
            Some(known) => {
                for resource in version.resources {
                    if !known.resources.iter().any(|r| r.plural == resource.plural) {
                        known.resources.push(resource);
                    }
                }
                known.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
    }
}

fn builtin_groups() -> Vec<Group> {
    builtin::groups()
        .iter()
        .map(|group| Group {
            name: group.name.to_owned(),
            priority: 0,
            versions: group.versions.iter().map(|version| builtin_version(group.name, version)).collect(),
        })
        .collect()
}

fn builtin_version(group: &str, version: &str) -> Version {
    let mut resources: Vec<Resource> = builtin::all()
        .iter()
        .filter(|r| r.group == group && r.versions.contains(&version))
        .map(|r| Resource::of(r, &r.verbs))
        .collect();
    resources.sort_by(|a, b| a.plural.cmp(&b.plural));
    Version { name: version.to_owned(), resources, stale: false }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}
