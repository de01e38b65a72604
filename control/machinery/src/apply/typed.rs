//! Field set, comparison, merge and removal of a value by its structure.

use super::set::Set;
use super::structure::{Rule, Structure, key_element};
use serde_json::{Map, Value};

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// In the second only; containers included.
    pub added: Set,
    /// In both, with other values.
    pub modified: Set,
    /// In the first only; containers included.
    pub removed: Set,
}

impl Comparison {
    /// True where nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// A value's parts by path element; `None` for a value that merges as a whole.
fn parts<S: Structure>(structure: S, value: &Value) -> Option<Vec<(String, S, &Value)>> {
    match (structure.rule(value), value) {
        (Rule::Struct | Rule::Map, Value::Object(map)) => {
            Some(map.iter().map(|(name, v)| (format!("f:{name}"), structure.field(name), v)).collect())
        }
        (Rule::ListMap(keys), Value::Array(items)) => {
            let item = structure.item();
            let keyed: Option<Vec<_>> =
                items.iter().map(|v| Some((key_element(item, &keys, v)?, item, v))).collect();
            keyed.filter(|parts| distinct(parts))
        }
        (Rule::ListSet, Value::Array(items)) => {
            let item = structure.item();
            let parts: Vec<_> = items.iter().map(|v| (format!("v:{v}"), item, v)).collect();
            Some(parts).filter(|parts| distinct(parts))
        }
        _ => None,
    }
}

/// Items that cannot be told apart make a list merge as a whole.
fn distinct<S>(parts: &[(String, S, &Value)]) -> bool {
    let mut names: Vec<&str> = parts.iter().map(|(e, ..)| e.as_str()).collect();
    names.sort_unstable();
    names.windows(2).all(|w| w[0] != w[1])
}

/// The fields a configuration speaks of.
pub fn field_set<S: Structure>(structure: S, value: &Value) -> Set {
    let mut set = Set::default();
    collect(structure, value, &mut Vec::new(), &mut set);
    set
}

fn collect<S: Structure>(structure: S, value: &Value, path: &mut Vec<String>, set: &mut Set) {
    let named = structure.rule(value) == Rule::Struct;
    match parts(structure, value) {
        Some(parts) if !parts.is_empty() => {
            for (element, structure, part) in parts {
                let is_field_of_struct = named;
                path.push(element);
                // Entries of maps and items of lists are owned as such, structures' fields only by what is in them.
                if !is_field_of_struct {
                    set.insert(path);
                }
                collect(structure, part, path, set);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}

/// What `new` changes in `live`.
pub fn compare<S: Structure>(structure: S, live: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    both(structure, live, new, &mut Vec::new(), &mut out);
    out
}

fn both<S: Structure>(structure: S, live: &Value, new: &Value, path: &mut Vec<String>, out: &mut Comparison) {
    if live == new {
        return;
    }
    let (old_parts, new_parts) = (parts(structure, live), parts(structure, new));
    // Null and empty containers are told apart as leaves.
    let (old_parts, new_parts) = match (old_parts, new_parts) {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) if new.is_null() && !old.is_empty() => (old, Vec::new()),
        (None, Some(new)) if live.is_null() && !new.is_empty() => (Vec::new(), new),
        _ => return out.modified.insert(path),
    };
    for (element, structure, old) in &old_parts {
        path.push(element.clone());
        match new_parts.iter().find(|(e, ..)| e == element) {
            Some((_, _, new)) => both(*structure, old, new, path, out),
            None => everything(*structure, old, path, &mut out.removed),
        }
        path.pop();
    }
    for (element, structure, new) in &new_parts {
        if !old_parts.iter().any(|(e, ..)| e == element) {
            path.push(element.clone());
            everything(*structure, new, path, &mut out.added);
            path.pop();
        }
    }
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

/// `live` with `config` merged in.
/// Whoever owns what: values are replaced where both have them.
#[must_use]
pub fn merge<S: Structure>(structure: S, live: &Value, config: &Value) -> Value {
    let (Some(old), Some(new)) = (parts(structure, live), parts(structure, config)) else {
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
    // The configuration's items in its order; the others stay in front of what they stood in front of.
    let mut out = Vec::with_capacity(old.len() + new.len());
    let in_config = |element: &str| new.iter().any(|(e, ..)| e == element);
    let mut others = old.iter().enumerate().filter(|(_, (e, ..))| !in_config(e)).peekable();
    for (element, structure, value) in &new {
        let place = old.iter().position(|(e, ..)| e == element);
        while let Some((_, (_, _, other))) = others.next_if(|(i, _)| place.is_some_and(|p| *i < p)) {
            out.push((*other).clone());
        }
        out.push(match place.and_then(|p| old.get(p)) {
            Some((_, _, before)) => merge(*structure, before, value),
            None => (*value).clone(),
        });
    }
    out.extend(others.map(|(_, (_, _, other))| (*other).clone()));
    Value::Array(out)
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
            let item = structure.item();
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
