//! What is read: a variable (or what a call gives), then fields and indices of it. cel-go takes such a chain as one attribute; reading
//! it costs 1, and each step that is there 1 (upstream: `interpreter/attributes.go`, `planner.go`). Of a condition the branches
//! are attributes, and the condition itself costs nothing.

use super::super::ast::{Expr, Kind};
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::names::dotted;
use super::super::types::{begins_type, type_value};
use super::super::value::{Key, Value};
use super::super::words::escaped;
use super::Run;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One step of a chain.
struct Step<'e> {
    kind: StepKind<'e>,
    /// Absent is an empty optional.
    optional: bool,
}

enum StepKind<'e> {
    Field(&'e str),
    Index(&'e Expr),
}

/// The names and steps of a chain, outermost last.
fn chain(expr: &Expr) -> (&Expr, Vec<Step<'_>>) {
    let (mut root, mut steps) = (expr, Vec::new());
    loop {
        match &root.kind {
            Kind::Select { operand, field, optional } if named_type(root).is_none() => {
                steps.push(Step { kind: StepKind::Field(field), optional: *optional });
                root = operand;
            }
            Kind::Index { operand, index, optional } => {
                steps.push(Step { kind: StepKind::Index(index), optional: *optional });
                root = operand;
            }
            _ => break,
        }
    }
    steps.reverse();
    (root, steps)
}

/// A name with dots may be a type's.
fn named_type(expr: &Expr) -> Option<&'static str> {
    let mut first = expr;
    while let Kind::Select { operand, optional: false, .. } = &first.kind {
        first = operand;
    }
    match (&expr.kind, &first.kind) {
        (Kind::Select { .. }, Kind::Ident(name)) if begins_type(name) => {
            dotted(expr).and_then(|name| type_value(&name))
        }
        _ => None,
    }
}

fn is_condition(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Call { target: None, function, .. } => function == "_?_:_",
        // They are conditions on an optional.
        Kind::Bind { .. } => true,
        _ => false,
    }
}

impl Run<'_> {
    /// The value of an attribute that is no part of another.
    pub(super) fn attribute(&mut self, expr: &Expr) -> Evaluated {
        let (root, steps) = chain(expr);
        let free = match &root.kind {
            Kind::Ident(name) => {
                steps.is_empty() && type_value(name).is_some() && self.variable(name).is_none()
            }
            _ => is_condition(root) || (steps.is_empty() && named_type(root).is_some()),
        };
        self.pay(u64::from(!free))?;
        let (value, steps) = self.root(root, &steps)?;
        self.follow(value, steps)
    }

    /// The same where it is an index, a branch, or where another attribute goes on: that it is read is not paid for there.
    fn resolve(&mut self, expr: &Expr) -> Evaluated {
        let (root, steps) = chain(expr);
        let (value, steps) = self.root(root, &steps)?;
        self.follow(value, steps)
    }

    fn variable(&self, name: &str) -> Option<Value> {
        let bound = self.bound.iter().rev().find(|bound| bound.name == name);
        bound.map(|bound| bound.value.clone()).or_else(|| self.variables.get(name))
    }

    /// What a chain begins with, and the steps left.
    fn root<'s, 'e>(
        &mut self,
        root: &Expr,
        steps: &'s [Step<'e>],
    ) -> Result<(Value, &'s [Step<'e>]), super::super::fault::Error> {
        match &root.kind {
            Kind::Ident(name) => {
                if let Some((Step { kind: StepKind::Field(field), .. }, rest)) = steps.split_first()
                    && let Some(value) = self.lazy(name, field)
                {
                    self.pay(1)?;
                    return Ok((value?, rest));
                }
                // What a macro bound is made when it is first read.
                let unpaid = self.bound.iter_mut().rev().find(|bound| bound.name == *name);
                let unpaid = unpaid.map_or(0, |bound| std::mem::take(&mut bound.unpaid));
                self.pay(unpaid)?;
                match (self.variable(name), type_value(name)) {
                    (Some(value), _) => Ok((value, steps)),
                    (None, Some(name)) => Ok((Value::Type(name.into()), steps)),
                    (None, None) => fail(format!("no such attribute(s): {name}")),
                }
            }
            Kind::Select { .. } => match named_type(root) {
                Some(name) => Ok((Value::Type(name.into()), steps)),
                None => no_overload(),
            },
            Kind::Call { target: None, function, args } if function == "_?_:_" => {
                let [condition, yes, no] = &args[..] else { return no_overload() };
                let branch = match self.eval(condition)? {
                    Value::Bool(true) => yes,
                    Value::Bool(false) => no,
                    _ => return no_overload(),
                };
                Ok((self.part(branch)?, steps))
            }
            _ => Ok((self.eval(root)?, steps)),
        }
    }

    /// A part of an attribute: another attribute, or any expression.
    fn part(&mut self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            Kind::Ident(_) | Kind::Select { .. } | Kind::Index { .. } => self.resolve(expr),
            _ => self.eval(expr),
        }
    }

    /// A field that is evaluated when it is read.
    fn lazy(&self, variable: &str, field: &str) -> Option<Evaluated> {
        let shadowed = self.bound.iter().any(|bound| bound.name == variable);
        if shadowed { None } else { self.variables.lazy(variable, field) }
    }

    /// Behind an optional, what is absent is an empty optional, whose steps cost nothing.
    fn follow(&mut self, value: Value, steps: &[Step<'_>]) -> Evaluated {
        if steps.is_empty() {
            return Ok(value);
        }
        let (mut here, mut optional) = match value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            value => (value, false),
        };
        for step in steps {
            optional |= step.optional;
            let found = match &step.kind {
                StepKind::Field(field) => member(&here, field, optional),
                StepKind::Index(index) => {
                    let index = self.part(index)?;
                    entry(&here, &index)
                }
            };
            match found {
                Err(_) if optional => return Ok(Value::Optional(None)),
                found => {
                    self.pay(1)?;
                    here = found.or_else(fail)?;
                }
            }
        }
        Ok(if optional { Value::Optional(Some(Arc::new(here))) } else { here })
    }

    /// `has(operand.field)`: the step is paid for, and not that anything is read.
    pub(super) fn has(&mut self, operand: &Expr, field: &str) -> Evaluated {
        if let Kind::Ident(variable) = &operand.kind
            && let Some(value) = self.lazy(variable, field)
        {
            self.pay(1)?;
            return value.map(|_| Value::Bool(true));
        }
        let (value, optional) = match self.part(operand)? {
            Value::Optional(None) => return Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            value => (value, false),
        };
        let is = is_there(&value, field);
        self.pay(u64::from(is || !optional))?;
        Ok(Value::Bool(is))
    }
}

/// A field; the error is that there is none.
fn member(value: &Value, field: &str, optional: bool) -> Result<Value, String> {
    match value {
        Value::Map(entries) => field_of(entries, field).cloned(),
        Value::Struct(of) if optional && !of.has(field) => None,
        Value::Struct(of) => Some(of.get(field)),
        _ => None,
    }
    .ok_or_else(|| format!("no such key: {field}"))
}

fn field_of<'v>(entries: &'v BTreeMap<Key, Value>, field: &str) -> Option<&'v Value> {
    let get = |name: &str| entries.get(&Key::Text(name.into()));
    get(field).or_else(|| get(&escaped(field)?))
}

fn is_there(value: &Value, field: &str) -> bool {
    match value {
        Value::Map(entries) => field_of(entries, field).is_some(),
        Value::Struct(of) => of.has(field),
        _ => false,
    }
}

fn entry(value: &Value, index: &Value) -> Result<Value, String> {
    match (value, index) {
        (Value::List(items), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            let at = match index.key() {
                Some(Key::Number(n)) => usize::try_from(n).ok(),
                _ => None,
            };
            let item = at.and_then(|at| items.get(at)).cloned();
            item.ok_or_else(|| format!("index out of bounds: {}", index.text()))
        }
        (Value::Map(entries), index) => {
            let value = index.key().and_then(|k| entries.get(&k)).cloned();
            value.ok_or_else(|| format!("no such key: {}", index.text()))
        }
        _ => Err(format!("no such key: {}", index.text())),
    }
}
