//! Reads `data/resources.txt`. The file is part of the program, so a line it cannot read is skipped here and caught
//! by the tests, which compare the outcome with a complete server's discovery.

use super::{Group, Resource, Subresource, Table};

pub(super) fn table(text: &'static str, standard_verbs: &[&'static str]) -> Table {
    let mut table = Table { groups: Vec::new(), resources: Vec::new() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        match words.next() {
            Some("group") => {
                let name = words.next().map_or("", |name| if name == "core" { "" } else { name });
                table.groups.push(Group { name, versions: words.collect() });
            }
            Some("resource") => {
                if let Some(resource) = table.groups.last().and_then(|g| resource(g, words, standard_verbs)) {
                    table.resources.push(resource);
                }
            }
            Some(word) => {
                if let Some(resource) = table.resources.last_mut() {
                    detail(resource, word, words);
                }
            }
            None => {}
        }
    }
    table
}

fn resource(
    group: &Group,
    mut words: impl Iterator<Item = &'static str>,
    standard_verbs: &[&'static str],
) -> Option<Resource> {
    let (plural, kind, scope) = (words.next()?, words.next()?, words.next()?);
    let mut resource = Resource {
        group: group.name,
        versions: group.versions.clone(),
        storage_group: group.name,
        storage_version: "",
        kind,
        list_kind: format!("{kind}List"),
        plural,
        singular: kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: scope == "namespaced",
        verbs: standard_verbs.to_vec(),
        subresources: Vec::new(),
        key_prefix: format!("/registry/{plural}/"),
        fields: Vec::new(),
        hash_version: "",
    };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let list = || value.split(',').collect::<Vec<_>>();
        match name {
            "singular" => resource.singular = value.to_owned(),
            "versions" => resource.versions = list(),
            "storage" => match value.split_once('/') {
                Some((group, version)) => {
                    resource.storage_group = if group == "core" { "" } else { group };
                    resource.storage_version = version;
                }
                None => resource.storage_version = value,
            },
            "hash" => resource.hash_version = value,
            "verbs" => resource.verbs = list(),
            "short" => resource.short_names = list(),
            "categories" => resource.categories = list(),
            "key" => resource.key_prefix = format!("/registry/{value}/"),
            _ => {}
        }
    }
    if resource.storage_version.is_empty() {
        resource.storage_version = resource.versions.first()?;
    }
    if resource.hash_version.is_empty() {
        resource.hash_version = resource.storage_version;
    }
    Some(resource)
}

fn detail(resource: &mut Resource, word: &str, mut words: impl Iterator<Item = &'static str>) {
    match word {
        "fields" => resource.fields = words.collect(),
        "status" => resource.subresources.push(Subresource {
            name: "status",
            kind: resource.kind,
            group_version: None,
            verbs: vec!["get", "patch", "update"],
        }),
        "sub" => {
            let (Some(name), Some(kind), Some(verbs)) = (words.next(), words.next(), words.next()) else {
                return;
            };
            let (group_version, kind) = match kind.rsplit_once('/') {
                Some((group_version, kind)) => (group_version.split_once('/'), kind),
                None => (None, kind),
            };
            let verbs = verbs.split(',').collect();
            resource.subresources.push(Subresource { name, kind, group_version, verbs });
        }
        _ => {}
    }
}
