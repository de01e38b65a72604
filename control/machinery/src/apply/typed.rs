//! Field set, comparison, merge and removal of a value by its structure.

use super::order::{self, Take};
use super::set::{Set, show};
use super::structure::{Naming, Rule, Structure, Takes, key_element};
use crate::goformat::{go_quote, go_syntax, go_type, go_value};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Comparison {
    /// In the second only; containers included.
    pub added: Set,
    /// In both, with other values.
    pub modified: Set,
    /// In the first only; containers included.
    pub removed: Set,
}

impl Comparison {
    /// The same, but for what is at or below these fields.
    #[must_use]
    pub(crate) fn outside(&self, fields: &Set) -> Comparison {
        Comparison {
            added: self.added.outside(fields),
            modified: self.modified.outside(fields),
            removed: self.removed.outside(fields),
        }
    }
}

/// A value's parts by path element; `None` for a value that merges as a whole. A stored list may have one element twice.
fn parts<S: Structure>(structure: S, value: &Value) -> Option<Vec<(String, S, &Value)>> {
    match (structure.rule(value), value) {
        (Rule::Struct | Rule::Map, Value::Object(map)) => {
            Some(map.iter().map(|(name, v)| (format!("f:{name}"), structure.field(name), v)).collect())
        }
        (Rule::ListMap(keys), Value::Array(items)) => {
            let item = structure.element();
            items.iter().map(|v| Some((key_element(item, &keys, v)?, item, v))).collect()
        }
        (Rule::ListSet, Value::Array(items)) => {
            let item = structure.element();
            Some(items.iter().map(|v| (format!("v:{v}"), item, v)).collect())
        }
        _ => None,
    }
}

/// What keeps a configuration from being applied: fields its schema does not have, and items of a list that share a key, or have
/// none. Each as `.spec.ports: duplicate entries for key [port=80]`.
pub fn untypable<S: Structure>(structure: S, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    check(structure, value, &mut String::new(), &mut errors);
    errors
}

fn check<S: Structure>(structure: S, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    if let Some(why) = mistyped(structure.takes(), value) {
        return errors.push(format!("{path}: {why}"));
    }
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, part) in fields {
                path.push_str(&show(&format!("f:{name}")));
                let unknown = structure.naming(name) == Naming::Undeclared;
                if unknown {
                    errors.push(format!("{path}: field not declared in schema"));
                } else {
                    check(structure.field(name), part, path, errors);
                }
                path.truncate(length);
                // One of an object is all upstream names.
                if unknown {
                    return;
                }
            }
        }
        Value::Array(items) => {
            let (rule, inner) = (structure.rule(value), structure.element());
            let mut seen = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = match element(inner, &rule, index, item) {
                    Ok(element) => element,
                    Err(why) => return errors.push(format!("{path}: element {index}: {why}")),
                };
                let shown = show(&element);
                if !seen.insert(element) {
                    errors.push(format!("{path}: duplicate entries for key {shown}"));
                }
                path.push_str(&shown);
                check(inner, item, path, errors);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Why a value cannot stand where such values do, as Go prints it.
fn mistyped(takes: Takes, value: &Value) -> Option<String> {
    let fits = match takes {
        Takes::Number => value.is_number(),
        Takes::Text => value.is_string(),
        Takes::Flag => value.is_boolean(),
        Takes::Scalar => !value.is_object() && !value.is_array(),
        Takes::List => value.is_array(),
        Takes::Object => value.is_object(),
        Takes::Anything => true,
    };
    let wanted = match takes {
        _ if fits || value.is_null() => return None,
        Takes::Number => return Some(format!("expected numeric (int or float), got {}", go_type(value))),
        Takes::Text => {
            let found = go_syntax(value);
            return Some(format!("expected string, got &value.valueUnstructured{{Value:{found}}}"));
        }
        Takes::Flag => "boolean",
        Takes::Scalar => "any scalar",
        Takes::List => "list",
        Takes::Object | Takes::Anything => "map",
    };
    Some(format!("expected {wanted}, got &{{{}}}", go_value(value)))
}

/// The path element of a list's item, or why it has none.
fn element<S: Structure>(inner: S, rule: &Rule, index: usize, item: &Value) -> Result<String, String> {
    match (rule, item) {
        (Rule::ListMap(keys), Value::Object(_)) => {
            key_element(inner, keys, item).ok_or_else(|| keyless_text(item, keys))
        }
        (Rule::ListMap(keys), _) => Err(keyless_text(item, keys)),
        (Rule::ListSet, Value::Null) => {
            Err("associative list without keys has an element that's an explicit null".to_owned())
        }
        (Rule::ListSet, Value::Object(_)) => {
            Err("associative list without keys has an element that's a map type".to_owned())
        }
        (Rule::ListSet, Value::Array(_)) => {
            Err("not supported: associative list with lists as elements".to_owned())
        }
        (Rule::ListSet, value) => Ok(format!("v:{value}")),
        (Rule::Atomic | Rule::Struct | Rule::Map, _) => Ok(format!("i:{index}")),
    }
}

fn keyless_text(item: &Value, keys: &[String]) -> String {
    match item {
        Value::Null => "associative list with keys may not have a null element".to_owned(),
        Value::Object(_) => {
            let keys: Vec<String> = keys.iter().map(|key| go_quote(key)).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] \
                 (and doesn't have default values for any key fields)",
                keys.join(" ")
            )
        }
        _ => "associative list with keys may not have non-map elements".to_owned(),
    }
}

/// The fields a configuration has.
pub(crate) fn field_set<S: Structure>(structure: S, value: &Value) -> Set {
    let mut set = Set::default();
    collect(structure, value, &mut Vec::new(), &mut set);
    set
}

fn collect<S: Structure>(structure: S, value: &Value, path: &mut Vec<String>, set: &mut Set) {
    let is_struct = structure.rule(value) == Rule::Struct;
    let Some(parts) = parts(structure, value) else { return set.insert(path) };
    for (element, inner, part) in parts {
        // Entries of maps and items of lists are owned as such, structures' fields only by what is in them.
        let declared = is_struct
            && element.strip_prefix("f:").is_some_and(|name| structure.naming(name) == Naming::Declared);
        let is_empty = part.is_null() || part.as_object().is_some_and(Map::is_empty);
        path.push(element);
        if is_empty || !declared {
            set.insert(path);
        }
        collect(inner, part, path, set);
        path.pop();
    }
}

/// What `new` changes in `live`.
pub(super) fn compare<S: Structure>(structure: S, live: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    both(structure, live, new, &mut Vec::new(), &mut out);
    out
}

fn both<S: Structure>(structure: S, live: &Value, new: &Value, path: &mut Vec<String>, out: &mut Comparison) {
    if live == new {
        return;
    }
    let (old_parts, new_parts) = (parts(structure, live), parts(structure, new));
    // Null and empty containers are distinguished as leaves.
    let (old_parts, new_parts) = match (old_parts, new_parts) {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) if new.is_null() && !old.is_empty() => (old, Vec::new()),
        (None, Some(new)) if live.is_null() && !new.is_empty() => (Vec::new(), new),
        _ => return out.modified.insert(path),
    };
    let (old_parts, new_parts) = (grouped(&old_parts), grouped(&new_parts));
    for (element, (structure, old)) in &old_parts {
        path.push((*element).to_owned());
        match (new_parts.get(element).map(|(_, new)| new.as_slice()), old.as_slice()) {
            (Some([new]), [old]) => both(*structure, old, new, path, out),
            (Some(new), old) if new == old => {}
            (Some(_), _) => out.modified.insert(path),
            (None, old) => old.iter().for_each(|old| everything(*structure, old, path, &mut out.removed)),
        }
        path.pop();
    }
    for (element, (structure, new)) in &new_parts {
        if !old_parts.contains_key(element) {
            path.push((*element).to_owned());
            new.iter().for_each(|new| everything(*structure, new, path, &mut out.added));
            path.pop();
        }
    }
}

/// All parts of each element: one, but in a stored list that repeats itself.
fn grouped<'p, 'v, S: Structure>(
    parts: &'p [(String, S, &'v Value)],
) -> BTreeMap<&'p str, (S, Vec<&'v Value>)> {
    let mut groups: BTreeMap<&str, (S, Vec<&Value>)> = BTreeMap::new();
    for (element, structure, value) in parts {
        groups.entry(element).or_insert_with(|| (*structure, Vec::new())).1.push(value);
    }
    groups
}

/// A value's path and all below it.
fn everything<S: Structure>(structure: S, value: &Value, path: &mut Vec<String>, set: &mut Set) {
    set.insert(path);
    for (element, structure, part) in parts(structure, value).into_iter().flatten() {
        path.push(element);
        everything(structure, part, path, set);
        path.pop();
    }
}

/// `live` with `config` merged in, whoever owns what: values are replaced where both have them.
#[must_use]
pub fn merge<S: Structure>(structure: S, live: &Value, config: &Value) -> Value {
    let old = parts(structure, live);
    // A null says nothing of the parts of what is there; where there are none, it stays.
    if config.is_null() && old.as_ref().is_some_and(|parts| !parts.is_empty()) {
        return live.clone();
    }
    let (Some(old), Some(new)) = (old, parts(structure, config)) else {
        return config.clone();
    };
    if let Value::Object(live) = live {
        let mut out: Map<String, Value> = live.clone();
        for (name, value) in config.as_object().into_iter().flatten() {
            let merged = match live.get(name) {
                Some(old) => merge(structure.field(name), old, value),
                None => value.clone(),
            };
            out.insert(name.clone(), merged);
        }
        return Value::Object(out);
    }
    let names = |parts: &[(String, S, &Value)]| parts.iter().map(|(e, ..)| e.clone()).collect::<Vec<_>>();
    let (old_names, new_names) = (names(&old), names(&new));
    let (old_names, new_names): (Vec<&str>, Vec<&str>) =
        (old_names.iter().map(String::as_str).collect(), new_names.iter().map(String::as_str).collect());
    let take = |take| match take {
        Take::Live(at) => old[at].2.clone(),
        Take::Config(at) => {
            let (element, structure, value) = &new[at];
            let mut same = old.iter().filter(|(e, ..)| e == element);
            match (same.next(), same.next()) {
                (Some((_, _, before)), None) => merge(*structure, before, value),
                // Items that cannot be distinguished give way to the configuration's one.
                _ => (*value).clone(),
            }
        }
    };
    Value::Array(order::merged(&old_names, &new_names).into_iter().map(take).collect())
}

/// Takes out of `value` what `last` has and `kept` has nothing at or below of.
pub(super) fn remove<S: Structure>(structure: S, value: &mut Value, last: &Set, kept: &Set) {
    let rule = structure.rule(value);
    let gone = |element: &str| last.below(element).is_some() && kept.below(element).is_none();
    let nothing = Set::default();
    let below =
        |element: &str| (last.below(element).cloned(), kept.below(element).unwrap_or(&nothing).clone());
    match (rule, value) {
        (Rule::Struct | Rule::Map, Value::Object(map)) => {
            map.retain(|name, _| !gone(&format!("f:{name}")));
            for (name, value) in map {
                if let (Some(last), kept) = below(&format!("f:{name}")) {
                    remove(structure.field(name), value, &last, &kept);
                }
            }
        }
        (Rule::ListMap(keys), Value::Array(items)) => {
            let item = structure.element();
            items.retain(|v| !key_element(item, &keys, v).is_some_and(|e| gone(&e)));
            for value in items {
                if let Some((Some(last), kept)) = key_element(item, &keys, value).map(|e| below(&e)) {
                    remove(item, value, &last, &kept);
                }
            }
        }
        (Rule::ListSet, Value::Array(items)) => items.retain(|v| !gone(&format!("v:{v}"))),
        _ => {}
    }
}
