//! Other servers' OpenAPI 2, merged into that of this one. Pure. Upstream: `kube-openapi/pkg/aggregator`.
//!
//! Paths that are there already stay as they are. Definitions and parameters that are called alike and say something else get another name
//! (`io.example.Thing_v2`), and so do the references to them.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const DEFINITIONS: &str = "definitions";
const PARAMETERS: &str = "parameters";
const GVKS: &str = "x-kubernetes-group-version-kind";

/// What other servers add to a document.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// By name; those of names the document has itself take the place of its own.
    pub definitions: BTreeMap<String, Value>,
    /// Parameters that several operations refer to.
    pub parameters: Map<String, Value>,
}

/// The document with those paths only that are to be kept, and without definitions and parameters that only others referred to.
pub(crate) fn filter(mut document: Value, keep: impl Fn(&str) -> bool) -> Value {
    let Some(paths) = document.get("paths").and_then(Value::as_object) else { return document };
    if paths.keys().all(|path| keep(path)) {
        return document;
    }
    let before = referred(&document);
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        paths.retain(|path, _| keep(path));
    }
    let after = referred(&document);
    for section in [DEFINITIONS, PARAMETERS] {
        if let Some(entries) = document.get_mut(section).and_then(Value::as_object_mut) {
            entries.retain(|name, _| {
                let reference = reference(section, name);
                after.contains(&reference) || !before.contains(&reference)
            });
        }
    }
    document
}

/// Merges another server's document. `own` gives the definitions of the document it is merged into.
pub(super) fn merge(
    source: Value,
    paths: &mut Map<String, Value>,
    own: &dyn Fn(&str) -> Option<Value>,
    added: &mut Added,
) {
    let mut source = filter(source, |path| !paths.contains_key(path));
    let news = taken(&mut source, "paths");
    if news.is_empty() {
        return;
    }
    let mut rest = Value::Object(news);
    let (mut definitions, mut parameters) = (taken(&mut source, DEFINITIONS), taken(&mut source, PARAMETERS));
    let present = |name: &str| added.definitions.get(name).cloned().or_else(|| own(name));
    let mut renames = renamed(DEFINITIONS, &definitions, &present, same_but_for_kinds);
    let present = |name: &str| added.parameters.get(name).cloned();
    renames.append(&mut renamed(PARAMETERS, &parameters, &present, |a, b| a == b));
    if !renames.is_empty() {
        rename_references(&mut rest, &renames);
        definitions = with_new_names(DEFINITIONS, definitions, &renames);
        parameters = with_new_names(PARAMETERS, parameters, &renames);
    }
    for (name, definition) in definitions {
        match added.definitions.get(&name).cloned().or_else(|| own(&name)) {
            None => drop(added.definitions.insert(name, definition)),
            Some(mut known) => {
                if add_kinds(&mut known, &definition) {
                    added.definitions.insert(name, known);
                }
            }
        }
    }
    for (name, parameter) in parameters {
        added.parameters.entry(name).or_insert(parameter);
    }
    if let Value::Object(news) = rest {
        paths.extend(news);
    }
}

fn taken(document: &mut Value, section: &str) -> Map<String, Value> {
    match document.get_mut(section).map(Value::take) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    }
}

fn reference(section: &str, name: &str) -> String {
    format!("#/{section}/{name}")
}

/// Everything a document refers to.
fn referred(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each_reference(document, &mut |reference| {
        found.insert(reference.to_owned());
    });
    found
}

fn each_reference(value: &Value, see: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "$ref" => see(text),
                    _ => each_reference(field, see),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_reference(item, see)),
        _ => {}
    }
}

/// New names for what is called like something else: references before and after.
fn renamed(
    section: &str,
    source: &Map<String, Value>,
    present: &dyn Fn(&str) -> Option<Value>,
    same: fn(&Value, &Value) -> bool,
) -> BTreeMap<String, String> {
    let mut renames = BTreeMap::new();
    let mut given = BTreeSet::new();
    for (name, entry) in source {
        if present(name).is_none_or(|known| same(&known, entry)) {
            continue;
        }
        let free = (2..).map(|number| format!("{name}_v{number}")).find(|new| match present(new) {
            // The same was given that name before.
            Some(known) => same(&known, entry),
            None => !source.contains_key(new) && !given.contains(new),
        });
        if let Some(new) = free {
            given.insert(new.clone());
            renames.insert(reference(section, name), reference(section, &new));
        }
    }
    renames
}

fn rename_references(value: &mut Value, renames: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "$ref" => {
                        if let Some(new) = renames.get(text) {
                            text.clone_from(new);
                        }
                    }
                    _ => rename_references(field, renames),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, renames)),
        _ => {}
    }
}

fn with_new_names(
    section: &str,
    entries: Map<String, Value>,
    renames: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let prefix = reference(section, "");
    let renamed = |(name, mut entry): (String, Value)| {
        rename_references(&mut entry, renames);
        let new = renames.get(&reference(section, &name)).and_then(|new| new.strip_prefix(&prefix));
        (new.map_or(name, str::to_owned), entry)
    };
    entries.into_iter().map(renamed).collect()
}

/// Whether two definitions differ in nothing but the kinds they are said to describe.
fn same_but_for_kinds(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let count = |of: &Map<String, Value>| of.len() - usize::from(of.contains_key(GVKS));
    count(a) == count(b) && a.iter().all(|(name, value)| name == GVKS || b.get(name) == Some(value))
}

/// Adds the kinds that the other definition is said to describe; true where there were new ones.
fn add_kinds(known: &mut Value, other: &Value) -> bool {
    let Some(others) = other.get(GVKS).and_then(Value::as_array) else { return false };
    let mut kinds = known.get(GVKS).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = kinds.len();
    let mut seen: BTreeSet<String> = kinds.iter().map(Value::to_string).collect();
    for kind in others {
        if seen.insert(kind.to_string()) {
            kinds.push(kind.clone());
        }
    }
    let grew = kinds.len() > before;
    if grew && let Some(fields) = known.as_object_mut() {
        fields.insert(GVKS.to_owned(), kinds.into());
    }
    grew
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(path: &str, thing: Value) -> Value {
        json!({
            "paths": {path: {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Thing"}}},
                "parameters": [{"$ref": "#/parameters/p"}]}}},
            "definitions": {"Thing": thing, "Part": {"type": "string"}, "Alone": {"type": "integer"}},
            "parameters": {"p": {"name": "p", "in": "query"}},
        })
    }

    fn merged(sources: &[Value]) -> (Map<String, Value>, Added) {
        let own = |name: &str| (name == "Part").then(|| json!({"type": "string"}));
        let (mut paths, mut added) = (Map::new(), Added::default());
        paths.insert("/own".to_owned(), json!({"get": "mine"}));
        for source in sources {
            merge(source.clone(), &mut paths, &own, &mut added);
        }
        (paths, added)
    }

    fn refers(paths: &Map<String, Value>, path: &str) -> String {
        let found = &paths[path]["get"]["responses"]["200"]["schema"]["$ref"];
        found.as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_called_alike_must_not_be_taken_for_the_same() {
        let (a, b) =
            (json!({"properties": {"x": {"$ref": "#/definitions/Part"}}}), json!({"type": "object"}));
        let sources =
            [document("/a", a.clone()), document("/b", b.clone()), document("/c", b), document("/d", a)];
        let (paths, added) = merged(&sources);
        for (path, name) in [("/a", "Thing"), ("/b", "Thing_v2"), ("/c", "Thing_v2"), ("/d", "Thing")] {
            assert_eq!(refers(&paths, path), format!("#/definitions/{name}"), "{path}");
        }
        let names: Vec<&String> = added.definitions.keys().collect();
        assert_eq!(names, ["Alone", "Thing", "Thing_v2"], "what the document has itself is not added");
        assert_eq!(added.parameters.len(), 1);
    }

    #[test]
    fn a_definition_that_refers_to_itself_must_not_keep_its_old_name() {
        let of = |format: &str| json!({"properties": {"next": {"$ref": "#/definitions/Thing"}, "x": {"format": format}}});
        let (_, added) = merged(&[document("/a", of("a")), document("/b", of("b"))]);
        assert_eq!(added.definitions["Thing_v2"]["properties"]["next"]["$ref"], "#/definitions/Thing_v2");
        assert_eq!(added.definitions["Thing"]["properties"]["next"]["$ref"], "#/definitions/Thing");
    }

    #[test]
    fn a_path_that_is_there_must_not_be_replaced() {
        let mut source = document("/own", json!({"type": "object"}));
        let (paths, added) = merged(std::slice::from_ref(&source));
        assert_eq!(paths["/own"], json!({"get": "mine"}));
        assert!(added.definitions.is_empty() && added.parameters.is_empty(), "nothing of it is wanted");
        source["paths"]["/new"] = json!({"get": {}});
        let (paths, added) = merged(&[source]);
        assert!(paths.contains_key("/new"));
        let names: Vec<&String> = added.definitions.keys().collect();
        assert_eq!(names, ["Alone"], "only the path that was left out referred to the others");
    }

    #[test]
    fn kinds_of_equal_definitions_are_told_together() {
        let of = |kind: &str| json!({"type": "object", GVKS: [{"group": "", "version": "v1", "kind": kind}]});
        let (paths, added) =
            merged(&[document("/a", of("A")), document("/b", of("B")), document("/c", of("B"))]);
        assert_eq!(refers(&paths, "/b"), "#/definitions/Thing");
        assert_eq!(added.definitions["Thing"][GVKS].as_array().unwrap().len(), 2);
    }

    #[test]
    fn only_what_other_paths_needed_goes_with_them() {
        let mut source = document("/apis/g.io/v1/things", json!({"type": "object"}));
        source["paths"]["/apis/g.io/v2/others"] =
            json!({"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Part"}}}}});
        let kept = filter(source, |path| path.starts_with("/apis/g.io/v1/"));
        let names: Vec<&String> = kept["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["Alone", "Thing"]);
        assert_eq!(kept["paths"].as_object().unwrap().len(), 1);
        assert_eq!(filter(json!({"definitions": {}}), |_| false), json!({"definitions": {}}));
    }
}
