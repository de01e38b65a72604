//! Types of an expression's parts, and what it may cost at most, before it is evaluated (upstream: cel-go's checker and its cost
//! estimate).

use super::ast::{Expr, Fold, Kind, Macro};
use super::eval::dotted;
use super::types::{Type, UNBOUNDED};
use super::value::Value;
use super::{Known, Problem, functions, library};

/// Checks an expression against its variables.
///
/// # Errors
/// With every place that is wrong.
pub fn check(expr: &Expr, variables: &[(&str, Type)]) -> Result<Known, Vec<Problem>> {
    let names = variables.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    let mut checker = Checker { names, problems: Vec::new() };
    let known = checker.visit(expr);
    if checker.problems.is_empty() { Ok(known) } else { Err(checker.problems) }
}

/// Whether an expression speaks of a variable.
#[must_use]
pub fn mentions(expr: &Expr, variable: &str) -> bool {
    let inside = |e: &Expr| mentions(e, variable);
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(name) => name == variable,
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => inside(operand),
        Kind::Index { operand, index, .. } => inside(operand) || inside(index),
        Kind::Call { target, args, .. } => target.as_deref().is_some_and(inside) || args.iter().any(inside),
        Kind::List(items) => items.iter().any(|(e, _)| inside(e)),
        Kind::Map(entries) => entries.iter().any(|(k, v, _)| inside(k) || inside(v)),
        Kind::Struct(_, fields) => fields.iter().any(|(_, v, _)| inside(v)),
        Kind::Fold(fold) => {
            let own = fold.variable == variable || fold.second.as_deref() == Some(variable);
            inside(&fold.range) || (!own && (inside(&fold.body) || fold.filter.as_ref().is_some_and(inside)))
        }
        Kind::Bind { operand, variable: own, body, .. } => {
            inside(operand) || (own != variable && inside(body))
        }
    }
}

struct Checker {
    names: Vec<(String, Type)>,
    problems: Vec<Problem>,
}

fn known(kind: Type, cost: u64) -> Known {
    Known { kind, cost }
}

impl Checker {
    fn wrong(&mut self, at: usize, text: String) -> Type {
        self.problems.push(Problem { at, text });
        Type::Dyn
    }

    fn visit(&mut self, expr: &Expr) -> Known {
        match &expr.kind {
            Kind::Literal(value) => known(literal(value), 0),
            Kind::Ident(name) => {
                let found = self.names.iter().rev().find(|(n, _)| n == name).map(|(_, k)| k.clone());
                let kind = match found {
                    Some(kind) => kind,
                    None if functions::type_value(name).is_some() => Type::Type,
                    None => {
                        self.wrong(expr.at, format!("undeclared reference to '{name}' (in container '')"))
                    }
                };
                known(kind, 1)
            }
            Kind::Select { operand, field, optional } => {
                if let Some(name) = dotted(operand).map(|p| format!("{p}.{field}"))
                    && functions::type_value(&name).is_some()
                {
                    return known(Type::Type, 1);
                }
                let of = self.visit(operand);
                let kind = self.field(expr.at, &of.kind, field);
                known(if *optional { optional_of(kind) } else { kind }, of.cost.saturating_add(1))
            }
            Kind::Has { operand, field } => {
                let of = self.visit(operand);
                self.field(expr.at, &of.kind, field);
                known(Type::Bool, of.cost.saturating_add(1))
            }
            Kind::Index { operand, index, optional } => {
                let (of, by) = (self.visit(operand), self.visit(index));
                let cost = of.cost.saturating_add(by.cost).saturating_add(1);
                let (inner, wraps) = match &of.kind {
                    Type::Optional(inner) => ((**inner).clone(), true),
                    kind => (kind.clone(), *optional),
                };
                let kind = match &inner {
                    Type::List(item, _) if by.kind.fits(&Type::Int) => (**item).clone(),
                    Type::Map(key, value, _) if by.kind.fits(key) => (**value).clone(),
                    Type::Object(_) if by.kind.fits(&Type::text()) => Type::Dyn,
                    Type::Dyn => Type::Dyn,
                    other => self.no_overload(expr.at, "_[_]", &[other.clone(), by.kind]),
                };
                known(if wraps { optional_of(kind) } else { kind }, cost)
            }
            Kind::Call { target, function, args } => self.call(expr.at, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut kind: Option<Type> = None;
                let mut cost = 10_u64;
                for (item, optional) in items {
                    let of = self.visit(item);
                    cost = cost.saturating_add(of.cost);
                    let of = if *optional { inner_of(of.kind) } else { of.kind };
                    kind = Some(kind.map_or_else(|| of.clone(), |k| k.join(&of)));
                }
                known(Type::List(Box::new(kind.unwrap_or(Type::Dyn)), items.len() as u64), cost)
            }
            Kind::Map(entries) => {
                let (mut key, mut value): (Option<Type>, Option<Type>) = (None, None);
                let mut cost = 30_u64;
                for (k, v, optional) in entries {
                    let (k, v) = (self.visit(k), self.visit(v));
                    cost = cost.saturating_add(k.cost).saturating_add(v.cost);
                    let v = if *optional { inner_of(v.kind) } else { v.kind };
                    key = Some(key.map_or_else(|| k.kind.clone(), |o| o.join(&k.kind)));
                    value = Some(value.map_or_else(|| v.clone(), |o| o.join(&v)));
                }
                let (key, value) = (key.unwrap_or(Type::Dyn), value.unwrap_or(Type::Dyn));
                known(Type::Map(Box::new(key), Box::new(value), entries.len() as u64), cost)
            }
            Kind::Struct(_, fields) => {
                let cost =
                    fields.iter().fold(40_u64, |sum, (_, v, _)| sum.saturating_add(self.visit(v).cost));
                known(Type::Dyn, cost)
            }
            Kind::Fold(fold) => self.fold(expr.at, fold),
            Kind::Bind { operand, variable, body, flat } => {
                let of = self.visit(operand);
                self.names.push((variable.clone(), inner_of(of.kind)));
                let out = self.visit(body);
                self.names.pop();
                let kind = if *flat { out.kind } else { optional_of(out.kind) };
                known(kind, of.cost.saturating_add(out.cost).saturating_add(1))
            }
        }
    }

    fn field(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match of {
            Type::Object(object) => match object.fields.get(field) {
                Some(kind) => kind.clone(),
                None if object.open => Type::Dyn,
                None => self.wrong(at, format!("undefined field '{field}'")),
            },
            Type::Map(_, value, _) => (**value).clone(),
            Type::Optional(inner) => optional_of(self.field(at, inner, field)),
            Type::Dyn => Type::Dyn,
            other => self.wrong(at, format!("type '{other}' does not support field selection")),
        }
    }

    fn no_overload(&mut self, at: usize, function: &str, args: &[Type]) -> Type {
        let shown: Vec<String> = args.iter().map(ToString::to_string).collect();
        let text = format!("found no matching overload for '{function}' applied to '({})'", shown.join(", "));
        self.wrong(at, text)
    }

    fn fold(&mut self, at: usize, fold: &Fold) -> Known {
        let range = self.visit(&fold.range);
        let (key, item) = match &range.kind {
            Type::List(item, _) => (Type::Int, (**item).clone()),
            Type::Map(key, value, _) => ((**key).clone(), (**value).clone()),
            Type::Object(_) => (Type::text(), Type::Dyn),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(at, text);
                (Type::Dyn, Type::Dyn)
            }
        };
        let by_key = matches!(range.kind, Type::Map(..) | Type::Object(_));
        let depth = self.names.len();
        let single = if by_key { key.clone() } else { item.clone() };
        match &fold.second {
            Some(second) => {
                self.names.push((fold.variable.clone(), key.clone()));
                self.names.push((second.clone(), item));
            }
            None => self.names.push((fold.variable.clone(), single.clone())),
        }
        let filter = fold.filter.as_ref().map(|f| {
            let known = self.visit(f);
            self.wants_bool(f.at, &known.kind);
            known.cost
        });
        let body = self.visit(&fold.body);
        self.names.truncate(depth);
        if matches!(fold.kind, Macro::All | Macro::Exists | Macro::ExistsOne | Macro::Filter) {
            self.wants_bool(fold.body.at, &body.kind);
        }
        let size = range.kind.size();
        let round = body.cost.saturating_add(filter.unwrap_or(0)).saturating_add(2);
        let cost = range.cost.saturating_add(1).saturating_add(size.saturating_mul(round));
        let kind = match fold.kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => Type::Bool,
            Macro::Filter => Type::List(Box::new(single), size),
            Macro::Map | Macro::TransformList => Type::List(Box::new(body.kind), size),
            Macro::TransformMap => Type::Map(Box::new(key), Box::new(body.kind), size),
        };
        known(kind, cost)
    }

    fn wants_bool(&mut self, at: usize, kind: &Type) {
        if !kind.fits(&Type::Bool) {
            self.wrong(at, format!("expected type 'bool' but found '{kind}'"));
        }
    }

    fn call(&mut self, at: usize, target: Option<&Expr>, function: &str, args: &[Expr]) -> Known {
        let spaced = target.and_then(dotted).map(|name| format!("{name}.{function}"));
        if let Some(name) = spaced.as_deref().filter(|name| library::is_namespaced(name)) {
            let args: Vec<Known> = args.iter().map(|a| self.visit(a)).collect();
            let cost = args.iter().fold(1_u64, |sum, a| sum.saturating_add(a.cost));
            let first = args.first().map_or(Type::Dyn, |a| a.kind.clone());
            let pairs = args.iter().fold(1_u64, |all, a| all.saturating_mul(a.kind.size().max(1)));
            return match name {
                "optional.of" | "optional.ofNonZeroValue" => known(optional_of(first), cost),
                "optional.none" => known(optional_of(Type::Dyn), cost),
                "format.named" => known(optional_of(Type::Named("kubernetes.NamedFormat")), cost),
                "strings.quote" => {
                    known(Type::Text(first.size().saturating_mul(2)), cost.saturating_add(first.size() / 10))
                }
                "ip.isCanonical" => known(Type::Bool, cost),
                name if name.starts_with("sets.") => known(Type::Bool, cost.saturating_add(pairs)),
                _ => known(Type::Dyn, cost),
            };
        }
        let mut known_args: Vec<Known> = Vec::new();
        if let Some(target) = target {
            known_args.push(self.visit(target));
        }
        known_args.extend(args.iter().map(|a| self.visit(a)));
        let own = known_args.iter().fold(1_u64, |sum, a| sum.saturating_add(a.cost));
        let kinds: Vec<Type> = known_args.iter().map(|a| a.kind.clone()).collect();
        if !library::knows(function, target.is_some()) {
            let text = format!("undeclared reference to '{function}' (in container '')");
            return known(self.wrong(at, text), own);
        }
        let constant = match args.last().map(|a| &a.kind) {
            Some(Kind::Literal(value)) => Some(value.size()),
            _ => None,
        };
        let (kind, more) = match result(function, target.is_some(), &kinds, constant) {
            Some(found) => found,
            None => (self.no_overload(at, function, &kinds), 0),
        };
        known(kind, own.saturating_add(more))
    }
}

fn optional_of(kind: Type) -> Type {
    match kind {
        Type::Optional(_) => kind,
        kind => Type::Optional(Box::new(kind)),
    }
}

fn inner_of(kind: Type) -> Type {
    match kind {
        Type::Optional(inner) => *inner,
        kind => kind,
    }
}

fn literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::Text(_) => Type::Text(value.size()),
        Value::Bytes(_) => Type::Bytes(value.size()),
        _ => Type::Dyn,
    }
}

/// The type of a call's value and what it costs beside its arguments; none where no overload takes them.
fn result(function: &str, method: bool, args: &[Type], constant: Option<u64>) -> Option<(Type, u64)> {
    let text = |kind: &Type| matches!(kind, Type::Text(_) | Type::Dyn);
    let all = |kind: &Type| args.iter().all(|a| a.fits(kind));
    let size = |i: usize| args.get(i).map_or(0, Type::size);
    let plain = |kind: Type| Some((kind, 0));
    match (function, args) {
        ("_&&_" | "_||_", _) => all(&Type::Bool).then_some((Type::Bool, 0)),
        ("!_", _) => all(&Type::Bool).then_some((Type::Bool, 0)),
        ("-_", [kind]) if kind.is_number() || matches!(kind, Type::Dyn | Type::Duration) => {
            plain(kind.clone())
        }
        ("_?_:_", [condition, yes, no]) => {
            (condition.fits(&Type::Bool) && yes.fits(no)).then(|| (yes.join(no), 0))
        }
        ("_==_" | "_!=_", [a, b]) => a.fits(b).then(|| (Type::Bool, size(0).min(size(1)) / 10)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            let orders = |k: &Type| {
                k.is_number()
                    || matches!(
                        k,
                        Type::Bool | Type::Text(_) | Type::Bytes(_) | Type::Time | Type::Duration | Type::Dyn
                    )
            };
            let fit = a.fits(b) || (a.is_number() && b.is_number());
            (fit && orders(a) && orders(b)).then(|| (Type::Bool, size(0).min(size(1)) / 10))
        }
        ("@in", [item, of]) => match of {
            Type::List(inner, most) => item.fits(inner).then_some((Type::Bool, *most)),
            Type::Map(key, ..) => item.fits(key).then_some((Type::Bool, 0)),
            Type::Object(_) | Type::Dyn => Some((Type::Bool, 0)),
            _ => None,
        },
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(function, a, b),
        ("size", [kind]) => matches!(
            kind,
            Type::Text(_) | Type::Bytes(_) | Type::List(..) | Type::Map(..) | Type::Object(_) | Type::Dyn
        )
        .then_some((Type::Int, 0)),
        ("dyn", [_]) => plain(Type::Dyn),
        ("type", [_]) => plain(Type::Type),
        ("int", [_]) => plain(Type::Int),
        ("uint", [_]) => plain(Type::Uint),
        ("double", [_]) => plain(Type::Double),
        ("bool", [_]) => plain(Type::Bool),
        ("string", [kind]) => Some((Type::Text(kind.size().max(64)), kind.size() / 10)),
        ("bytes", [kind]) => Some((Type::Bytes(kind.size()), kind.size() / 10)),
        ("timestamp", [_]) => plain(Type::Time),
        ("duration", [_]) => plain(Type::Duration),
        ("contains", [a, b]) => (text(a) && text(b))
            .then(|| (Type::Bool, (size(0) / 10).max(1).saturating_mul((size(1) / 10).max(1)))),
        ("startsWith" | "endsWith", [a, b]) => (text(a) && text(b)).then(|| (Type::Bool, size(1) / 10)),
        ("matches", [a, b]) => {
            let pattern = constant.unwrap_or(size(1));
            (text(a) && text(b))
                .then(|| (Type::Bool, (1 + size(0) / 10).saturating_mul((pattern / 4).max(1))))
        }
        ("find", [a, b]) if text(a) && text(b) => Some((
            Type::Text(size(0)),
            (1 + size(0) / 10).saturating_mul((constant.unwrap_or(size(1)) / 4).max(1)),
        )),
        ("findAll", [a, b, ..]) if text(a) && text(b) => Some((
            Type::List(Box::new(Type::Text(size(0))), size(0)),
            (1 + size(0) / 10).saturating_mul((constant.unwrap_or(size(1)) / 4).max(1)),
        )),
        ("lowerAscii" | "upperAscii" | "trim" | "substring" | "charAt", [a, ..]) if text(a) => {
            Some((Type::Text(size(0)), size(0) / 10))
        }
        ("replace", [a, ..]) if text(a) => {
            Some((Type::Text(UNBOUNDED), size(0).saturating_mul(1 + size(2)) / 10))
        }
        ("split", [a, ..]) if text(a) => Some((Type::List(Box::new(Type::Text(size(0))), size(0)), size(0))),
        ("join", [Type::List(_, most), ..]) => Some((Type::text(), *most)),
        ("format", [a, _]) if text(a) => Some((Type::text(), size(0) / 10)),
        ("indexOf" | "lastIndexOf", [_, ..]) => {
            Some((Type::Int, size(0).saturating_mul((size(1) / 10).max(1)) / 10))
        }
        ("isSorted", [Type::List(..) | Type::Dyn]) => Some((Type::Bool, size(0))),
        ("sum" | "min" | "max", [Type::List(item, most)]) => Some(((**item).clone(), *most)),
        ("hasValue", [_]) | ("isQuantity" | "isURL" | "isIP" | "isCIDR" | "isSemver", [_, ..]) => {
            plain(Type::Bool)
        }
        ("value", [Type::Optional(inner)]) => plain((**inner).clone()),
        ("orValue", [Type::Optional(inner), other]) => inner.fits(other).then(|| (inner.join(other), 0)),
        ("or", [a, _]) => plain(a.clone()),
        ("quantity", [a]) if text(a) => plain(Type::Named("kubernetes.Quantity")),
        ("url", [a]) if text(a) => plain(Type::Named("kubernetes.URL")),
        ("ip", [a]) if text(a) && !method => plain(Type::Named("net.IP")),
        ("cidr", [a]) if text(a) => plain(Type::Named("net.CIDR")),
        ("semver", [a, ..]) if text(a) => plain(Type::Named("kubernetes.Semver")),
        (name, [Type::Time | Type::Duration | Type::Dyn, ..]) if name.starts_with("get") => plain(Type::Dyn),
        // Functions of libraries: their arguments are told apart when they are called.
        (_, [Type::Named(_) | Type::Dyn | Type::Optional(_), ..]) => plain(Type::Dyn),
        ("reverse", [kind]) => Some((kind.clone(), kind.size())),
        _ => None,
    }
}

fn arithmetic(operator: &str, a: &Type, b: &Type) -> Option<(Type, u64)> {
    let plain = |kind: Type| Some((kind, 0));
    match (operator, a, b) {
        (_, Type::Dyn, Type::Dyn) => plain(Type::Dyn),
        (_, Type::Dyn, other) | (_, other, Type::Dyn) => plain(other.clone()),
        ("_%_", Type::Double, _) => None,
        (_, a, b) if a.is_number() && a == b => plain(a.clone()),
        ("_+_", Type::Text(a), Type::Text(b)) => {
            let size = a.saturating_add(*b);
            Some((Type::Text(size), size / 10))
        }
        ("_+_", Type::Bytes(a), Type::Bytes(b)) => {
            let size = a.saturating_add(*b);
            Some((Type::Bytes(size), size / 10))
        }
        ("_+_", Type::List(x, a), Type::List(y, b)) if x.fits(y) => {
            Some((Type::List(Box::new(x.join(y)), a.saturating_add(*b)), a.saturating_add(*b)))
        }
        ("_+_" | "_-_", Type::Duration, Type::Duration) => plain(Type::Duration),
        ("_+_" | "_-_", Type::Time, Type::Duration) | ("_+_", Type::Duration, Type::Time) => {
            plain(Type::Time)
        }
        ("_-_", Type::Time, Type::Time) => plain(Type::Duration),
        _ => None,
    }
}
