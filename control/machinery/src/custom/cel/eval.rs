//! Evaluation, at a bounded cost: every step is paid for, and texts and lists by their size (upstream: cel-go's runtime cost).

use super::ast::{Expr, Fold, Kind, Macro};
use super::value::{Key, Value};
use super::{functions, library};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expression's own fault, in cel-go's words: `no such key: a`.
    #[error("{0}")]
    Evaluation(String),
    /// It costs more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

/// The names an expression may use; none for a name that is not known.
pub type Variables<'v> = dyn Fn(&str) -> Option<Value> + 'v;

pub(super) type Evaluated = Result<Value, Error>;

pub(super) fn fail<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Evaluation(text.into()))
}

pub(super) fn no_overload<T>() -> Result<T, Error> {
    fail("no such overload")
}

/// One evaluation.
pub(super) struct Run<'v> {
    pub(super) variables: &'v Variables<'v>,
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

    /// Pays for looking at a text or bytes: a tenth of its length.
    pub(super) fn pay_for(&mut self, value: &Value) -> Result<(), Error> {
        self.pay(value.size().div_ceil(10))
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, optional } => self.select(operand, field, *optional),
            Kind::Has { operand, field } => {
                let value = self.eval(operand)?;
                self.pay(1)?;
                has(&value, field)
            }
            Kind::Index { operand, index, optional } => {
                let (value, index) = (self.eval(operand)?, self.eval(index)?);
                self.pay(1)?;
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
                self.pay(10)?;
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
                self.pay(30)?;
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
            Kind::Struct(_, fields) => {
                self.pay(40)?;
                let mut out = Vec::new();
                for (name, value, optional) in fields {
                    match self.eval(value)? {
                        Value::Optional(None) if *optional => {}
                        Value::Optional(Some(value)) if *optional => {
                            out.push((name.clone(), (*value).clone()))
                        }
                        value => out.push((name.clone(), value)),
                    }
                }
                Ok(Value::map_of(out))
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind { operand, variable, body, flat } => {
                let Value::Optional(inner) = self.eval(operand)? else { return no_overload() };
                let Some(inner) = inner else { return Ok(Value::Optional(None)) };
                self.bound.push((variable.clone(), (*inner).clone()));
                let value = self.eval(body);
                self.bound.pop();
                let value = value?;
                Ok(if *flat { value } else { Value::Optional(Some(Arc::new(value))) })
            }
        }
    }

    fn ident(&mut self, name: &str) -> Evaluated {
        self.pay(1)?;
        if let Some((_, value)) = self.bound.iter().rev().find(|(n, _)| n == name) {
            return Ok(value.clone());
        }
        if let Some(value) = (self.variables)(name) {
            return Ok(value);
        }
        match functions::type_value(name) {
            Some(name) => Ok(Value::Type(name)),
            None => fail(format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, operand: &Expr, field: &str, optional: bool) -> Evaluated {
        // A name with dots may be a type's.
        if let Some(name) = dotted(operand).map(|p| format!("{p}.{field}"))
            && let Some(name) = functions::type_value(&name)
        {
            return Ok(Value::Type(name));
        }
        let value = self.eval(operand)?;
        self.pay(1)?;
        match &value {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => found(member(inner, field), true),
            value => found(member(value, field), optional),
        }
    }

    fn call(&mut self, target: Option<&Expr>, function: &str, args: &[Expr]) -> Evaluated {
        match (function, args) {
            ("_&&_", [a, b]) => return self.both(a, b, false),
            ("_||_", [a, b]) => return self.both(a, b, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => no_overload(),
                };
            }
            ("or" | "orValue", [other]) if target.is_some() => {
                let Some(target) = target else { return no_overload() };
                let value = self.eval(target)?;
                self.pay(1)?;
                return match value {
                    Value::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
                    Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
                    Value::Optional(None) => self.eval(other),
                    _ => no_overload(),
                };
            }
            _ => {}
        }
        // `optional.of(x)`, `ip.isCanonical(x)`: functions with a dot in their name.
        let spaced = target.and_then(dotted).map(|name| format!("{name}.{function}"));
        if let Some(name) = spaced.as_deref().filter(|name| library::is_namespaced(name)) {
            let args = self.all(args)?;
            self.pay(1)?;
            return library::namespaced(self, name, &args);
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            values.push(self.eval(target)?);
        }
        for arg in args {
            values.push(self.eval(arg)?);
        }
        self.pay(1)?;
        match target {
            Some(_) => functions::method(self, function, &values),
            None => functions::global(self, function, &values),
        }
    }

    fn all(&mut self, args: &[Expr]) -> Result<Vec<Value>, Error> {
        args.iter().map(|arg| self.eval(arg)).collect()
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

    fn fold(&mut self, fold: &Fold) -> Evaluated {
        let range = self.eval(&fold.range)?;
        self.pay(1)?;
        let items: Vec<(Value, Value)> = match &range {
            Value::List(items) => {
                items.iter().enumerate().map(|(i, v)| (Value::Int(i as i64), v.clone())).collect()
            }
            Value::Map(entries) => entries.iter().map(|(k, v)| (k.value(), v.clone())).collect(),
            _ => return no_overload(),
        };
        let is_map = matches!(range, Value::Map(_));
        let mut out = Vec::new();
        let mut entries = BTreeMap::new();
        let (mut error, mut held) = (None, 0);
        for (key, value) in items {
            self.pay(1)?;
            let depth = self.bound.len();
            match &fold.second {
                Some(second) => {
                    self.bound.push((fold.variable.clone(), key.clone()));
                    self.bound.push((second.clone(), value.clone()));
                }
                None => {
                    let item = if is_map { key.clone() } else { value.clone() };
                    self.bound.push((fold.variable.clone(), item));
                }
            }
            let item = if is_map && fold.second.is_none() { key.clone() } else { value };
            let step = self.step(fold, &item, &mut out, &mut entries, &key, &mut held);
            self.bound.truncate(depth);
            match step {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(Error::Cost) => return Err(Error::Cost),
                // What decides may still come.
                Err(e) if matches!(fold.kind, Macro::All | Macro::Exists) => error = Some(e),
                Err(e) => return Err(e),
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        Ok(match fold.kind {
            Macro::All => Value::Bool(true),
            Macro::Exists => Value::Bool(false),
            Macro::ExistsOne => Value::Bool(held == 1),
            Macro::TransformMap => Value::Map(Arc::new(entries)),
            Macro::Map | Macro::Filter | Macro::TransformList => Value::list_of(out),
        })
    }

    /// One round of a macro; the answer, where this round decides it.
    fn step(
        &mut self,
        fold: &Fold,
        item: &Value,
        out: &mut Vec<Value>,
        entries: &mut BTreeMap<Key, Value>,
        key: &Value,
        held: &mut usize,
    ) -> Result<Option<Value>, Error> {
        let truth = |value: Value| match value {
            Value::Bool(is) => Ok(is),
            _ => no_overload(),
        };
        if let Some(filter) = &fold.filter
            && !truth(self.eval(filter)?)?
        {
            return Ok(None);
        }
        let value = self.eval(&fold.body)?;
        match fold.kind {
            Macro::All => Ok((!truth(value)?).then_some(Value::Bool(false))),
            Macro::Exists => Ok(truth(value)?.then_some(Value::Bool(true))),
            Macro::ExistsOne => {
                *held += usize::from(truth(value)?);
                Ok(None)
            }
            Macro::Filter => {
                if truth(value)? {
                    self.pay(1)?;
                    out.push(item.clone());
                }
                Ok(None)
            }
            Macro::Map | Macro::TransformList => {
                self.pay(1)?;
                out.push(value);
                Ok(None)
            }
            Macro::TransformMap => {
                self.pay(1)?;
                entries.extend(key.key().map(|k| (k, value)));
                Ok(None)
            }
        }
    }
}

/// `a.b` as a name.
pub(super) fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, optional: false } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
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
        Value::Map(entries) => match entries.get(&Key::Text(field.into())) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!("no such key: {field}")),
        },
        Value::Null => Err(format!("no such key: {field}")),
        _ => Ok(None),
    }
}

fn has(value: &Value, field: &str) -> Evaluated {
    match value {
        Value::Optional(None) => Ok(Value::Bool(false)),
        Value::Optional(Some(inner)) => has(inner, field),
        Value::Map(entries) => Ok(Value::Bool(entries.contains_key(&Key::Text(field.into())))),
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
