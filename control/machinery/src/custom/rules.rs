//! `x-kubernetes-validations`: rules in CEL.
//!
//! - [`declared`]: what is wrong with rules whatever they say; [`compile_all`]: what is wrong with what they say, and what they may
//!   cost; `types`: a schema as a type, a value as a value of it
//! - [`check`]: which rules an object breaks, at a bounded cost

mod types;

use super::schema::{Rule, Schema};
use crate::access::Get as _;
use crate::admission::kinds;
use crate::cel::{
    Environment, Error, ObjectType, PER_CALL, PER_OBJECT, Program, Type, Value as Cel, Variables,
};
use crate::field::{ErrorType, FieldError, Path};
use serde_json::Value;
use std::sync::Arc;

/// What one rule may cost at most by its estimate (upstream: `StaticEstimatedCostLimit`).
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost at most by their estimates.
const SCHEMA_LIMIT: u64 = 100_000_000;

/// One step down in a schema, and how many values there may be below.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Field,
    List(Option<i64>),
    Map(Option<i64>),
}

/// How often a node may be in an object, and what all rules so far may cost.
#[derive(Debug, Default)]
pub(super) struct Budget {
    scopes: Vec<Step>,
    total: u64,
    dearest: Vec<(u64, Path)>,
}

impl Budget {
    pub(super) fn enter(&mut self, step: Option<Step>) {
        self.scopes.extend(step);
    }

    pub(super) fn leave(&mut self, entered: bool) {
        if entered {
            self.scopes.pop();
        }
    }

    /// How many values of a schema there may be at this place of an object.
    fn count(&self, schema: &Schema, root: bool) -> u64 {
        let most = |step: &Step| match step {
            Step::Field => Some(1),
            Step::List(most) | Step::Map(most) => most.map(|m| u64::try_from(m).unwrap_or_default()),
        };
        let bounded: Option<Vec<u64>> = self.scopes.iter().map(most).collect();
        // Where a bound is missing, as many as fit into a request.
        bounded.map_or_else(|| types::most(schema, root), |b| b.into_iter().fold(1, u64::saturating_mul))
    }

    fn spend(&mut self, cost: u64, path: &Path) {
        self.total = self.total.saturating_add(cost);
        self.dearest.push((cost, path.clone()));
        self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.dearest.truncate(4);
    }

    pub(super) fn over(&self, path: &Path) -> Vec<FieldError> {
        if self.total <= SCHEMA_LIMIT {
            return Vec::new();
        }
        let blamed = |(_, path): &(u64, Path)| {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            FieldError::forbidden(path, why)
        };
        let mut errors: Vec<FieldError> = self.dearest.iter().map(blamed).collect();
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, too_dear(name, self.total, SCHEMA_LIMIT)));
        errors
    }
}

fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Which rules an object (or a default, at `path`) breaks.
#[must_use]
pub(crate) fn check(schema: &Schema, new: &Value, old: Option<&Value>, path: &Path) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new(), left: PER_OBJECT, ended: false };
    walk.visit(schema, Pair { new, old, kept: None }, path, true);
    walk.errors
}

/// A value and what it was.
#[derive(Clone, Copy)]
struct Pair<'v> {
    new: &'v Value,
    /// What `oldSelf` is.
    old: Option<&'v Value>,
    /// The nearest value around that can be matched with what it was, where this one cannot: now and before.
    kept: Option<(&'v Value, &'v Value)>,
}

impl<'v> Pair<'v> {
    /// Now and before: itself or the nearest around.
    fn matched(self) -> Option<(&'v Value, &'v Value)> {
        self.old.map(|old| (self.new, old)).or(self.kept)
    }

    fn inner(self, new: &'v Value, old: Option<&'v Value>) -> Self {
        Pair { new, old, kept: self.matched() }
    }

    /// Whether what it is about did not change: that is not held against its author.
    fn is_unchanged(self) -> bool {
        self.matched().is_some_and(|(new, old)| new == old)
    }
}

struct Walk {
    errors: Vec<FieldError>,
    left: u64,
    ended: bool,
}

impl Walk {
    fn visit(&mut self, schema: &Schema, pair: Pair<'_>, path: &Path, root: bool) {
        let Pair { new, old, .. } = pair;
        if self.ended || new.is_null() || !schema.ruled {
            return;
        }
        if !schema.rules.is_empty() {
            self.rules(schema, pair, path, root);
            if self.ended {
                return;
            }
        }
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let before = old.and_then(|o| o.get(name));
                    if let Some(property) = schema.properties.get(name) {
                        self.visit(property, pair.inner(value, before), &path.child(name), property.embedded);
                    } else if let Some(inner) = schema.additional_schema() {
                        self.visit(inner, pair.inner(value, before), &path.key(name), inner.embedded);
                    }
                }
            }
            Value::Array(items) => {
                let Some(inner) = schema.items.as_deref() else { return };
                for (i, item) in items.iter().enumerate() {
                    let before = old.and_then(|o| schema.old_item(item, o));
                    self.visit(inner, pair.inner(item, before), &path.index(i), inner.embedded);
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, schema: &Schema, pair: Pair<'_>, path: &Path, root: bool) {
        let new = pair.new;
        let old = pair.old.filter(|o| !o.is_null());
        let now = types::value(schema, new, root);
        let before = old.map(|o| types::value(schema, o, root));
        if self.left == 0 {
            return self.out_of_budget(schema, path);
        }
        for rule in &schema.rules {
            let optional = rule.optional_old_self == Some(true);
            let Some(program) = &rule.program else { continue };
            let transition = program.mentions("oldSelf");
            if transition && before.is_none() && !optional {
                continue;
            }
            let names = |name: &str| match name {
                "self" => Some(now.clone()),
                "oldSelf" if optional => Some(Cel::Optional(before.clone().map(Arc::new))),
                "oldSelf" => before.clone(),
                _ => None,
            };
            let (outcome, spent) = program.eval(&names, PER_CALL);
            match self.left.checked_sub(spent) {
                Some(left) => self.left = left,
                None => return self.out_of_budget(schema, path),
            }
            match outcome {
                Ok(Cel::Bool(true)) => {}
                Ok(_) if !transition && pair.is_unchanged() => {}
                Ok(_) => self.broken(schema, rule, &names, new, path),
                Err(error) => self.failed(schema, rule, &error, path),
            }
            if self.ended {
                return;
            }
        }
    }

    fn out_of_budget(&mut self, schema: &Schema, path: &Path) {
        let why =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        self.errors.push(FieldError::invalid(path, schema.kind.as_str(), why));
        self.ended = true;
    }

    fn failed(&mut self, schema: &Schema, rule: &Rule, error: &Error, path: &Path) {
        let said = rule.said();
        let why = match error {
            Error::Cost => {
                self.ended = true;
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {said}"
                )
            }
            Error::Evaluation(text) if text.starts_with("no such overload") => format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {said}"
            ),
            Error::Evaluation(_) => format!("{error} evaluating rule: {said}"),
        };
        self.errors.push(FieldError::invalid(path, schema.kind.as_str(), why));
    }

    fn broken(&mut self, schema: &Schema, rule: &Rule, names: &dyn Variables, value: &Value, path: &Path) {
        let mut place = path.clone();
        for step in field_steps(&rule.field_path).unwrap_or_default() {
            place = place.child(&step);
        }
        let detail = self.message(rule, names).unwrap_or_else(|| match rule.message.trim() {
            "" => format!("failed rule: {}", rule.rule.trim()),
            message => message.to_owned(),
        });
        // What is as large as an object or a list is not repeated.
        let shown = (!matches!(schema.kind.as_str(), "object" | "array")).then(|| value.clone());
        self.errors.push(match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(&place, detail),
            "FieldValueRequired" => FieldError::required(&place, detail),
            reason => FieldError {
                error_type: match reason {
                    "FieldValueDuplicate" => ErrorType::Duplicate,
                    _ => ErrorType::Invalid,
                },
                field: place.to_string(),
                bad_value: shown,
                detail: if reason == "FieldValueDuplicate" { String::new() } else { detail },
            },
        });
    }

    /// The message its own expression makes: one line, not empty, not too long.
    fn message(&mut self, rule: &Rule, names: &dyn Variables) -> Option<String> {
        const LONGEST: usize = 5 * 1024;
        let program = rule.message_program.as_ref()?;
        let (outcome, spent) = program.eval(names, PER_CALL.min(self.left));
        self.left = self.left.saturating_sub(spent);
        let Ok(Cel::Text(text)) = outcome else { return None };
        let text = text.trim();
        (!text.is_empty() && text.len() <= LONGEST && !text.contains(['\n', '\r'])).then(|| text.to_owned())
    }
}

/// What is wrong with rules whatever they say.
pub(super) fn declared(s: &Value, path: &Path) -> Vec<FieldError> {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let mut errors = Vec::new();
    for (i, of) in s.items("x-kubernetes-validations").iter().enumerate() {
        let path = path.child("x-kubernetes-validations").index(i);
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (rule, message) = (of.text("rule").trim(), of.text("message").trim());
        let message_path = path.child("message");
        if rule.is_empty() {
            errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
        } else if !of.text("message").is_empty() && message.is_empty() {
            let why = "must be non-empty if specified";
            errors.push(FieldError::invalid(&message_path, of.text("message"), why));
        } else if breaks(message) {
            let why = "must not contain line breaks";
            errors.push(FieldError::invalid(&message_path, of.text("message"), why));
        } else if breaks(rule) && message.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(&message_path, why));
        }
        if !of.text("messageExpression").is_empty() && of.text("messageExpression").trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(&path.child("messageExpression"), why));
        }
        if of.has("reason") && !REASONS.contains(&of.text("reason")) {
            errors.push(FieldError::not_supported(&path.child("reason"), of.text("reason"), &REASONS));
        }
        let field = of.text("fieldPath");
        let field_path = path.child("fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            errors.push(FieldError::invalid(&field_path, field, "must be non-empty if specified"));
        }
        if breaks(field) {
            errors.push(FieldError::invalid(&field_path, field, "must not contain line breaks"));
        }
        if !field.is_empty() && !is_field(s, field) {
            errors.push(FieldError::invalid(&field_path, field, "must be a valid path"));
        }
    }
    errors
}

/// Whether `.a.b['c']` leads to a field of the schema.
fn is_field(props: &Value, path: &str) -> bool {
    let Some(steps) = field_steps(path) else { return false };
    let mut here = props;
    for step in &steps {
        let property = here.fields("properties").and_then(|p| p.get(step.as_str()));
        here = match property {
            Some(property) => property,
            None if here.at("additionalProperties").is_object() => here.at("additionalProperties"),
            None => return std::ptr::eq(here, props) && step == "metadata",
        };
    }
    !steps.is_empty()
}

/// The names of a field path: `.a.b`, `.a['b.c']`.
#[must_use]
pub(crate) fn field_steps(path: &str) -> Option<Vec<String>> {
    let mut rest = path.trim();
    let mut out = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            (!name.is_empty()).then(|| out.push(name.to_owned()))?;
            rest = tail;
        } else {
            let after = rest.strip_prefix("['")?;
            let end = after.find("']")?;
            out.push(after[..end].replace("\\'", "'"));
            rest = &after[end + 2..];
        }
    }
    Some(out)
}

/// What is wrong with the expressions of a node's rules. `unchanged` schemas were accepted before: what their rules may cost is
/// not held against them.
pub(super) fn compile_all(
    s: &Value,
    root: bool,
    path: &Path,
    uncorrelated: Option<&Path>,
    unchanged: bool,
    budget: &mut Budget,
) -> Vec<FieldError> {
    if s.items("x-kubernetes-validations").is_empty() {
        // Most nodes: what is below them is looked at by itself.
        return Vec::new();
    }
    let schema = Schema::from_props(s);
    let own = types::of(&schema, root).unwrap_or(Type::Dyn);
    let mut errors = Vec::new();
    for (i, (rule, raw)) in schema.rules.iter().zip(s.items("x-kubernetes-validations")).enumerate() {
        let path = path.child("x-kubernetes-validations").index(i);
        let optional = rule.optional_old_self == Some(true);
        let old = if optional { Type::Optional(Box::new(own.clone())) } else { own.clone() };
        let names = [("self", own.clone()), ("oldSelf", old)];
        let environment = Environment::of(&names);
        let mut invalid =
            |at: &str, why: String| errors.push(FieldError::invalid(&path.child(at), raw.clone(), why));
        let mut costs = Vec::new();
        match Program::compile(rule.rule.trim(), &environment) {
            Err(problems) => invalid("rule", format!("{} failed: {problems}", problems.step())),
            Ok((_, known)) if known.kind != Type::Bool => {
                invalid("rule", "cel expression must evaluate to a bool".to_owned());
            }
            Ok((_, known)) => costs.push(("rule", "estimated rule cost", known.cost)),
        }
        if !rule.message_expression.trim().is_empty() {
            match Program::compile(rule.message_expression.trim(), &environment) {
                Err(problems) => {
                    let step = if problems.step() == "compilation" { "compilation" } else { "instantiation" };
                    invalid("messageExpression", format!("messageExpression {step} failed: {problems}"));
                }
                Ok((_, known)) if !matches!(known.kind, Type::Text(_)) => {
                    invalid("messageExpression", "messageExpression must evaluate to a string".to_owned());
                }
                Ok((_, known)) => {
                    costs.push(("messageExpression", "estimated messageExpression cost", known.cost));
                }
            }
        }
        for (at, name, cost) in costs {
            let cost = if at == "rule" { cost.saturating_mul(budget.count(&schema, root)) } else { cost };
            if cost > RULE_LIMIT && !unchanged {
                let why = too_dear(name, cost, RULE_LIMIT);
                errors.push(FieldError::forbidden(&path.child(at), why));
            }
            if !unchanged {
                budget.spend(cost, &path.child(at));
            }
        }
        let transition = rule.program.as_ref().is_some_and(|p| p.mentions("oldSelf"));
        if let Some(place) = uncorrelated.filter(|_| transition) {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            errors.push(FieldError::invalid(&path.child("rule"), rule.rule.as_str(), why));
        }
        if let Some(is) = rule.optional_old_self.filter(|_| !transition) {
            let why = "may not be set if oldSelf is not used in rule";
            errors.push(FieldError::invalid(&path.child("optionalOldSelf"), is, why));
        }
    }
    errors
}

/// A schema's objects as a type for expressions of others (admission policies): with all of `metadata`.
#[must_use]
pub fn object_type(schema: Option<&Schema>) -> Type {
    let open = || ObjectType { name: "object".into(), open: true, ..ObjectType::default() };
    let mut object = match schema.and_then(|s| types::of(s, true)) {
        Some(Type::Object(object)) => ObjectType::clone(&object),
        Some(other) => return other,
        None => open(),
    };
    object.fields.extend(kinds::metadata().map(|metadata| ("metadata".to_owned(), metadata)));
    Type::Object(Arc::new(object))
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
