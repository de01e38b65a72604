//! Evaluation, at a bounded cost: every step is paid for, and texts and lists by their size (upstream: cel-go's runtime cost).

mod attribute;
mod fold;

use super::ast::{Expr, Kind};
use super::check::mentions;
use super::cost;
use super::fault::{Error, Evaluated, fail, no_overload};
use super::names::dotted;
use super::table;
use super::value::{Struct, Value};
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

/// A variable of a macro.
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) value: Value,
    /// What making it costs once it is read.
    pub(super) unpaid: u64,
}

impl Bound {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Bound { name: name.to_owned(), value, unpaid: 0 }
    }
}

pub(super) struct Run<'v> {
    pub(super) variables: &'v dyn Variables,
    /// Bound by macros, innermost last.
    pub(super) bound: Vec<Bound>,
    pub(super) spent: u64,
    pub(super) limit: u64,
}

impl Run<'_> {
    /// Pays for a step.
    pub(super) fn pay(&mut self, cost: u64) -> Result<(), Error> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Error::Cost) } else { Ok(()) }
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(_) | Kind::Select { .. } | Kind::Index { .. } => self.attribute(expr),
            Kind::Has { operand, field } => self.has(operand, field),
            Kind::Call { target: None, function, .. } if function == "_?_:_" => self.attribute(expr),
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
            Kind::Bind { operand, variable, body, flat } => self.bind(operand, variable, body, *flat),
            Kind::Let { variable, value, body } => self.named(variable, value, body),
        }
    }

    /// `optMap` and `optFlatMap`.
    fn bind(&mut self, operand: &Expr, variable: &str, body: &Expr, flat: bool) -> Evaluated {
        let before = self.spent;
        let Value::Optional(inner) = self.eval(operand)? else { return no_overload() };
        let asked = self.spent - before;
        self.pay(1)?;
        let Some(inner) = inner else {
            self.pay(1)?;
            return Ok(Value::Optional(None));
        };
        // Upstream evaluates it for its value again, once the variable is read.
        self.bound.push(Bound { unpaid: asked + 1, ..Bound::new(variable, (*inner).clone()) });
        let value = self.eval(body);
        self.bound.pop();
        if flat {
            return value;
        }
        let value = value?;
        self.pay(1)?;
        Ok(Value::Optional(Some(Arc::new(value))))
    }

    /// `cel.bind`; a value that nobody reads is not made.
    fn named(&mut self, variable: &str, value: &Expr, body: &Expr) -> Evaluated {
        if !mentions(body, variable) {
            return self.eval(body);
        }
        let value = self.eval(value)?;
        self.bound.push(Bound::new(variable, value));
        let out = self.eval(body);
        self.bound.pop();
        out
    }

    fn call(&mut self, target: Option<&Expr>, function: &str, args: &[Expr]) -> Evaluated {
        match (target, function, args) {
            (None, "_&&_", [a, b]) => return self.both(a, b, false),
            (None, "_||_", [a, b]) => return self.both(a, b, true),
            (Some(of), "or" | "orValue", [other]) => {
                return match self.eval(of)? {
                    Value::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
                    Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
                    Value::Optional(None) => self.eval(other),
                    _ => no_overload(),
                };
            }
            // A list that is written out is a set.
            (None, "@in", [item, Expr { kind: Kind::Literal(Value::List(items)), .. }])
                if items.iter().all(is_primitive) =>
            {
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
        let count = args.len() + usize::from(target.is_some());
        let both = matches!(function, "_==_" | "_!=_");
        let mut failed = None;
        for arg in target.into_iter().chain(args) {
            match self.eval(arg) {
                Ok(value) => values.push(value),
                Err(Error::Cost) => return Err(Error::Cost),
                // A call whose arguments were all evaluated is paid for, though one has failed.
                Err(error) => {
                    failed = failed.or(Some(error));
                    values.push(Value::Null);
                    if !both {
                        break;
                    }
                }
            }
        }
        match failed {
            None => self.invoke(function, target.is_some(), &values),
            Some(error) => {
                if values.len() == count
                    && let Some(overload) =
                        table::named(function, target.is_some()).find(|o| o.args.len() == count)
                {
                    self.pay(overload.cost.spent(&values, &Value::Null))?;
                }
                Err(error)
            }
        }
    }

    pub(super) fn invoke(&mut self, function: &str, member: bool, args: &[Value]) -> Evaluated {
        let Some(overload) = table::named(function, member).find(|o| o.accepts(args)) else {
            self.pay(1)?;
            return no_overload();
        };
        // What may grow by a number alone is paid for before it is made.
        if let ("lists.range", [Value::Int(n)]) = (function, args) {
            let left = self.limit.saturating_sub(self.spent);
            if u64::try_from(*n).is_ok_and(|n| n > left) {
                return Err(Error::Cost);
            }
        }
        let value = (overload.body)(args);
        self.pay(overload.cost.spent(args, value.as_ref().unwrap_or(&Value::Null)))?;
        value
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

/// What cel-go keeps in a set where it is in a list that is written out.
fn is_primitive(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Text(_))
}
