//! Evaluation, at a bounded cost: every step is paid for, and texts and lists by their size (upstream: cel-go's runtime cost).

mod fold;

use super::ast::{Expr, Kind};
use super::cost;
use super::fault::{Error, Evaluated, fail, no_overload};
use super::names::dotted;
use super::table;
use super::types::type_value;
use super::value::{Key, Struct, Value};
use super::words::escaped;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the names in an expression stand for.
pub trait Variables {
    /// A variable's value; none for a name that is not known.
    fn get(&self, name: &str) -> Option<Value>;
    /// A field that is evaluated when it is first read; none where the variable has no such.
    fn lazy(&self, _variable: &str, _field: &str) -> Option<Evaluated> {
        None
    }
}

impl<F: Fn(&str) -> Option<Value>> Variables for F {
    fn get(&self, name: &str) -> Option<Value> {
        self(name)
    }
}

pub(super) struct Run<'v> {
    pub(super) variables: &'v dyn Variables,
    /// Bound by macros, innermost last.
    pub(super) bound: Vec<(String, Value)>,
    pub(super) spent: u64,
    pub(super) limit: u64,
}

impl Run<'_> {
    /// Pays for a step.
    pub(super) fn pay(&mut self, cost: u64) -> Result<(), Error> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Error::Cost) } else { Ok(()) }
    }

    /// Evaluates what stands in an index or behind `?`: that a name is read is not paid for there.
    fn plain(&mut self, expr: &Expr) -> Evaluated {
        let value = self.eval(expr)?;
        if is_attribute(expr) {
            self.spent = self.spent.saturating_sub(1);
        }
        Ok(value)
    }

    /// Pays for a step down: one more where it begins at what is no variable's field.
    fn step(&mut self, operand: &Expr) -> Result<(), Error> {
        self.pay(if is_attribute(operand) { 1 } else { 2 })
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, optional } => self.select(operand, field, *optional),
            Kind::Has { operand, field } => {
                if let Some(value) = self.lazy(operand, field) {
                    self.pay(1)?;
                    return value.map(|_| Value::Bool(true));
                }
                let value = self.eval(operand)?;
                has(&value, field)
            }
            Kind::Index { operand, index, optional } => {
                let (value, index) = (self.eval(operand)?, self.plain(index)?);
                self.step(operand)?;
                let inner = match &value {
                    Value::Optional(Some(inner)) => Some((**inner).clone()),
                    Value::Optional(None) => return Ok(Value::Optional(None)),
                    _ => None,
                };
                let wraps = *optional || inner.is_some();
                found(entry(inner.as_ref().unwrap_or(&value), &index), wraps)
            }
            Kind::Call { target, function, args } => self.call(target.as_deref(), function, args),
            Kind::List(items) => {
                self.pay(cost::LIST)?;
                let mut out = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match self.eval(item)? {
                        Value::Optional(None) if *optional => {}
                        Value::Optional(Some(value)) if *optional => out.push((*value).clone()),
                        value => out.push(value),
                    }
                }
                Ok(Value::list_of(out))
            }
            Kind::Map(entries) => {
                self.pay(cost::MAP)?;
                let mut out = BTreeMap::new();
                for (key, value, optional) in entries {
                    let Some(key) = self.eval(key)?.key() else { return fail("unsupported key type") };
                    match self.eval(value)? {
                        Value::Optional(None) if *optional => {}
                        Value::Optional(Some(value)) if *optional => {
                            out.insert(key, (*value).clone());
                        }
                        value => {
                            out.insert(key, value);
                        }
                    }
                }
                Ok(Value::Map(Arc::new(out)))
            }
            Kind::Struct { name, fields } => {
                self.pay(cost::OBJECT)?;
                let mut out = BTreeMap::new();
                for field in fields {
                    let value = match self.eval(&field.value)? {
                        Value::Optional(value) if field.optional => value.map(|value| (*value).clone()),
                        value => Some(value),
                    };
                    out.extend(value.map(|value| (field.name.clone(), value)));
                }
                Ok(Value::Struct(Arc::new(Struct { name: name.clone(), fields: out })))
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { operand, variable, body, flat } => {
                let before = self.spent;
                let Value::Optional(inner) = self.eval(operand)? else { return no_overload() };
                let asked = self.spent - before;
                self.pay(1)?;
                let Some(inner) = inner else {
                    self.pay(1)?;
                    return Ok(Value::Optional(None));
                };
                // Upstream evaluates it for its value again.
                self.pay(asked.saturating_add(1 + u64::from(!*flat)))?;
                self.bound.push((variable.clone(), (*inner).clone()));
                let value = self.eval(body);
                self.bound.pop();
                let value = value?;
                Ok(if *flat { value } else { Value::Optional(Some(Arc::new(value))) })
            }
        }
    }

    fn ident(&mut self, name: &str) -> Evaluated {
        let found = match self.bound.iter().rev().find(|(n, _)| n == name) {
            Some((_, value)) => Some(value.clone()),
            None => self.variables.get(name),
        };
        match (found, type_value(name)) {
            (Some(value), _) => {
                self.pay(1)?;
                Ok(value)
            }
            (None, Some(name)) => Ok(Value::Type(name.into())),
            (None, None) => fail(format!("no such attribute(s): {name}")),
        }
    }

    /// A field that is evaluated when it is read.
    fn lazy(&self, operand: &Expr, field: &str) -> Option<Evaluated> {
        let Kind::Ident(variable) = &operand.kind else { return None };
        let shadowed = self.bound.iter().any(|(bound, _)| bound == variable);
        if shadowed { None } else { self.variables.lazy(variable, field) }
    }

    fn select(&mut self, operand: &Expr, field: &str, optional: bool) -> Evaluated {
        // A name with dots may be a type's.
        if let Some(name) = dotted(operand).map(|p| format!("{p}.{field}"))
            && let Some(name) = type_value(&name)
        {
            return Ok(Value::Type(name.into()));
        }
        if let Some(value) = self.lazy(operand, field) {
            self.pay(2)?;
            return value;
        }
        let value = self.eval(operand)?;
        self.step(operand)?;
        match &value {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Struct(of) if optional && !of.has(field) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => found(member(inner, field), true),
            value => found(member(value, field), optional),
        }
    }

    fn call(&mut self, target: Option<&Expr>, function: &str, args: &[Expr]) -> Evaluated {
        match (target, function, args) {
            (None, "_&&_", [a, b]) => return self.both(a, b, false),
            (None, "_||_", [a, b]) => return self.both(a, b, true),
            (None, "_?_:_", [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.plain(yes),
                    Value::Bool(false) => self.plain(no),
                    _ => no_overload(),
                };
            }
            (Some(of), "or" | "orValue", [other]) => {
                return match self.eval(of)? {
                    Value::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
                    Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
                    Value::Optional(None) => self.eval(other),
                    _ => no_overload(),
                };
            }
            // A list that is written out is a set.
            (None, "@in", [item, Expr { kind: Kind::Literal(Value::List(items)), .. }]) => {
                let item = self.eval(item)?;
                return Ok(Value::Bool(items.contains(&item)));
            }
            _ => {}
        }
        // `optional.of(x)`, `ip.isCanonical(x)`: functions with a dot in their name.
        let spaced = target.and_then(dotted).map(|name| format!("{name}.{function}"));
        let (target, function) = match spaced.as_deref().filter(|name| table::is_global(name)) {
            Some(name) => (None, name),
            None => (target, function),
        };
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            values.push(self.eval(arg)?);
        }
        self.invoke(function, target.is_some(), &values)
    }

    pub(super) fn invoke(&mut self, function: &str, member: bool, args: &[Value]) -> Evaluated {
        let Some(overload) = table::named(function, member).find(|o| o.accepts(args)) else {
            return no_overload();
        };
        // What may grow by a number alone is paid for before it is made.
        if let ("lists.range", [Value::Int(n)]) = (function, args) {
            let left = self.limit.saturating_sub(self.spent);
            if u64::try_from(*n).is_ok_and(|n| n > left) {
                return Err(Error::Cost);
            }
        }
        let value = (overload.body)(args)?;
        self.pay(overload.cost.spent(args, &value))?;
        Ok(value)
    }

    /// `&&` and `||`: one side decides, whatever is wrong with the other.
    fn both(&mut self, a: &Expr, b: &Expr, decides: bool) -> Evaluated {
        let left = self.eval(a);
        if matches!(left, Err(Error::Cost)) || matches!(left, Ok(Value::Bool(is)) if is == decides) {
            return left;
        }
        let right = self.eval(b);
        match (left, right) {
            (_, Err(Error::Cost)) => Err(Error::Cost),
            (_, Ok(Value::Bool(is))) if is == decides => Ok(Value::Bool(decides)),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => no_overload(),
        }
    }
}

/// A variable, or what is reached from one by fields and indices.
fn is_attribute(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Ident(_) => true,
        Kind::Select { operand, .. } | Kind::Index { operand, .. } => is_attribute(operand),
        _ => false,
    }
}

fn found(value: Result<Option<Value>, String>, optional: bool) -> Evaluated {
    match value {
        Ok(Some(value)) if optional => Ok(Value::Optional(Some(Arc::new(value)))),
        Ok(Some(value)) => Ok(value),
        Ok(None) if optional => Ok(Value::Optional(None)),
        Ok(None) => no_overload(),
        Err(_) if optional => Ok(Value::Optional(None)),
        Err(text) => fail(text),
    }
}

/// A field; the error is that there is none.
fn member(value: &Value, field: &str) -> Result<Option<Value>, String> {
    match value {
        Value::Map(entries) => match field_of(entries, field) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!("no such key: {field}")),
        },
        Value::Struct(of) => Ok(Some(of.get(field))),
        Value::Null => Err(format!("no such key: {field}")),
        _ => Ok(None),
    }
}

fn field_of<'v>(entries: &'v BTreeMap<Key, Value>, field: &str) -> Option<&'v Value> {
    let get = |name: &str| entries.get(&Key::Text(name.into()));
    get(field).or_else(|| get(&escaped(field)?))
}

fn has(value: &Value, field: &str) -> Evaluated {
    match value {
        Value::Optional(None) => Ok(Value::Bool(false)),
        Value::Optional(Some(inner)) => has(inner, field),
        Value::Map(entries) => Ok(Value::Bool(field_of(entries, field).is_some())),
        Value::Struct(of) => Ok(Value::Bool(of.has(field))),
        Value::Null => Ok(Value::Bool(false)),
        _ => no_overload(),
    }
}

fn entry(value: &Value, index: &Value) -> Result<Option<Value>, String> {
    match (value, index) {
        (Value::List(items), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            let at = match index.key() {
                Some(Key::Number(n)) => usize::try_from(n).ok(),
                _ => None,
            };
            match at.and_then(|at| items.get(at)) {
                Some(value) => Ok(Some(value.clone())),
                None => Err(format!("index out of bounds: {}", index.text())),
            }
        }
        (Value::Map(entries), index) => match index.key().and_then(|k| entries.get(&k)) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!("no such key: {}", index.text())),
        },
        _ => Ok(None),
    }
}
