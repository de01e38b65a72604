//! A value against its schema, in the words clients know (upstream: `kube-openapi/pkg/validation`).
//!
//! An update does not hold what did not change against its author: where an old value is given, a node that is wrong but
//! equal to its old self is accepted (upstream calls it ratcheting). Items are matched with their old selves in lists
//! of kind map only.

mod scalar;

use super::schema::{Additional, ListKind, Schema};
use crate::field::{FieldError, Path};
use crate::goformat::go_quote;
use serde_json::{Map, Value};

/// What is wrong with a value; `path` leads to it.
#[must_use]
pub(crate) fn check(schema: &Schema, value: &Value, old: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let outcome = match old {
        Some(old) => ratcheted(schema, value, Some(old), "", 0),
        None => node(schema, value, None, "", 0),
    };
    outcome.problems.into_iter().map(|p| p.field_error(path)).collect()
}

/// Schemas nested deeper than this are not looked into: no definition of that depth fits into a request.
const DEEPEST: usize = 512;

/// What kind of wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wrong {
    Required,
    Choices(Vec<String>),
    TooLong(usize),
    TooMany(usize, usize),
    Type,
    Other,
    /// About several schemas at once: no field is named.
    Composite,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    wrong: Wrong,
    name: String,
    value: Value,
    text: String,
}

impl Problem {
    pub(super) fn new(wrong: Wrong, name: &str, value: Value, text: String) -> Self {
        Problem { wrong, name: name.to_owned(), value, text: format!("{name} in body {text}") }
    }

    fn composite(text: String) -> Self {
        Problem { wrong: Wrong::Composite, name: String::new(), value: "".into(), text }
    }

    pub(super) fn wrong_type(name: &str, wanted: &str, found: &str) -> Self {
        let text = format!("must be of type {wanted}: {}", go_quote(found));
        Problem::new(Wrong::Type, name, found.into(), text)
    }

    fn field_error(self, base: &Path) -> FieldError {
        let name = self.name.trim_start_matches('.');
        let path = if name.is_empty() || self.wrong == Wrong::Composite {
            base.clone()
        } else if base.is_root() {
            Path::from(name)
        } else {
            base.child(name)
        };
        match self.wrong {
            Wrong::Required => FieldError::required(&path, ""),
            Wrong::Choices(choices) => FieldError::not_supported_as_listed(&path, self.value, &choices),
            Wrong::TooLong(most) => FieldError::too_long(&path, most),
            Wrong::TooMany(actual, most) => FieldError::too_many(&path, actual, most),
            Wrong::Type => FieldError::type_invalid(&path, self.value, self.text),
            Wrong::Other | Wrong::Composite => FieldError::invalid(&path, self.value, self.text),
        }
    }
}

/// What was found, and how much was looked at: of several schemas that do not hold the one that came furthest is reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    problems: Vec<Problem>,
    matches: usize,
}

impl Outcome {
    pub(super) fn one(problem: Problem) -> Self {
        Outcome { problems: vec![problem], matches: 0 }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if !self.problems.iter().any(|p| p.text == problem.text) {
            self.problems.push(problem);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        other.problems.into_iter().for_each(|p| self.push(p));
    }

    fn holds(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A node that is forgiven if it is what it was.
fn ratcheted(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, depth: usize) -> Outcome {
    let outcome = node(schema, value, old, path, depth);
    match old {
        Some(old) if !outcome.holds() && same(schema, value, old) => {
            Outcome { problems: Vec::new(), ..outcome }
        }
        _ => outcome,
    }
}

/// Equal, but for the order of a list of kind map.
fn same(schema: &Schema, new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(name, value)| match (old.get(name), schema.field(name)) {
                    (Some(old), Some(field)) => same(field, value, old),
                    (Some(old), None) => value == old,
                    (None, _) => false,
                })
        }
        (Value::Array(new), Value::Array(items)) if schema.list == ListKind::Map => {
            let Some(inner) = schema.items.as_deref() else { return new == items };
            new.len() == items.len()
                && new.iter().all(|item| schema.old_item(item, old).is_some_and(|old| same(inner, item, old)))
        }
        _ => new == old,
    }
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, depth: usize) -> Outcome {
    let mut all = Outcome::default();
    if depth > DEEPEST {
        return all;
    }
    if value.is_null() {
        all.merge(scalar::null(schema, path));
        all.merge(scalar::choices(schema, value, path));
        return all;
    }
    let mut add = |outcome: Outcome| {
        all.merge(outcome);
        all.matches += 1;
    };
    if !scalar::types(schema).is_empty() || !schema.format.is_empty() {
        add(scalar::kind(schema, value, path));
    }
    add(combined(schema, value, old, path, depth));
    match value {
        Value::String(text) => {
            add(scalar::text(schema, text, path));
            if scalar::text_format(schema) {
                add(scalar::format(schema, text, path));
            }
        }
        Value::Number(number) => add(scalar::number(schema, number, path)),
        Value::Array(items) => add(list(schema, items, old, path, depth)),
        _ => {}
    }
    add(scalar::choices(schema, value, path));
    if let Value::Object(fields) = value {
        add(object(schema, fields, old, path, depth));
    }
    all.matches += 1;
    all
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, depth: usize) -> Outcome {
    let mut out = Outcome::default();
    let quoted = go_quote(path);
    let try_one = |s: &Schema| node(s, value, old, path, depth + 1);
    if !schema.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut held = None;
        for one in &schema.any_of {
            let outcome = try_one(one);
            if outcome.holds() {
                held = Some(outcome);
                break;
            }
            if best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
                best = Some(outcome);
            }
        }
        match held {
            Some(held) => out.merge(held),
            None => {
                let text = format!("{quoted} must validate at least one schema (anyOf)");
                out.push(Problem::composite(text));
                out.merge(best.unwrap_or_default());
            }
        }
    }
    if !schema.one_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut first = None;
        let mut held = 0;
        for one in &schema.one_of {
            let outcome = try_one(one);
            if outcome.holds() {
                held += 1;
                best = None;
                first.get_or_insert(outcome);
            } else if held == 0 && best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
                best = Some(outcome);
            }
        }
        if held == 1 {
            out.merge(first.unwrap_or_default());
        } else {
            let found = match held {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            let text = format!("{quoted} must validate one and only one schema (oneOf). {found}");
            out.push(Problem::composite(text));
            out.merge(best.unwrap_or_default());
        }
    }
    if !schema.all_of.is_empty() {
        let mut held = 0;
        for one in &schema.all_of {
            let outcome = try_one(one);
            held += usize::from(outcome.holds());
            out.merge(outcome);
        }
        if held != schema.all_of.len() {
            let none = if held == 0 { ". None validated" } else { "" };
            let text = format!("{quoted} must validate all the schemas (allOf){none}");
            out.push(Problem::composite(text));
        }
    }
    if schema.not.as_deref().is_some_and(|not| try_one(not).holds()) {
        out.push(Problem::composite(format!("{quoted} must not validate the schema (not)")));
    }
    out.matches += 1;
    out
}

fn list(schema: &Schema, items: &[Value], old: Option<&Value>, path: &str, depth: usize) -> Outcome {
    let mut out = Outcome::default();
    if let Some(inner) = schema.items.as_deref() {
        for (i, item) in items.iter().enumerate() {
            let before = old.and_then(|old| schema.old_item(item, old));
            out.merge(ratcheted(inner, item, before, &format!("{path}[{i}]"), depth + 1));
        }
    }
    let count = items.len() as i64;
    if let Some(least) = schema.min_items.filter(|least| count < *least) {
        let text = format!("should have at least {least} items");
        out.push(Problem::new(Wrong::Other, path, count.into(), text));
    }
    if let Some(most) = schema.max_items.filter(|most| count > *most) {
        let wrong = Wrong::TooMany(items.len(), usize::try_from(most).unwrap_or_default());
        out.push(Problem::new(wrong, path, count.into(), format!("should have at most {most} items")));
    }
    out.matches += 1;
    out
}

fn object(
    schema: &Schema,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    depth: usize,
) -> Outcome {
    let mut out = Outcome::default();
    let count = fields.len() as i64;
    if let Some(least) = schema.min_properties.filter(|least| count < *least) {
        let text = format!("should have at least {least} properties");
        out.push(Problem::new(Wrong::Other, path, count.into(), text));
    }
    if let Some(most) = schema.max_properties.filter(|most| count > *most) {
        let wrong = Wrong::TooMany(fields.len(), usize::try_from(most).unwrap_or_default());
        out.push(Problem::new(wrong, path, count.into(), format!("should have at most {most} properties")));
    }
    // The old value of a field, where the parent has one; what names the object is never forgiven.
    let before = |name: &str| {
        let own = path.is_empty() && matches!(name, "apiVersion" | "kind");
        old.and_then(|o| o.get(name)).filter(|_| !own)
    };
    match &schema.additional {
        Some(Additional::Any(false)) => {
            for name in fields.keys().filter(|n| !schema.properties.contains_key(*n)) {
                let text = format!("{path}.{name} in body is a forbidden property");
                out.push(Problem {
                    wrong: Wrong::Other,
                    name: path.to_owned(),
                    value: name.as_str().into(),
                    text,
                });
            }
        }
        Some(Additional::Schema(inner)) => {
            for (name, value) in fields.iter().filter(|(n, _)| !schema.properties.contains_key(*n)) {
                out.merge(ratcheted(inner, value, before(name), &format!("{path}.{name}"), depth + 1));
            }
        }
        _ => {}
    }
    for (name, property) in &schema.properties {
        if let Some(value) = fields.get(name) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            out.merge(ratcheted(property, value, before(name), &path, depth + 1));
        }
    }
    for name in schema.required.iter().filter(|n| !fields.contains_key(*n)) {
        out.push(Problem::new(
            Wrong::Required,
            &format!("{path}.{name}"),
            Value::Null,
            "is required".to_owned(),
        ));
    }
    out
}

#[cfg(test)]
mod tests;
