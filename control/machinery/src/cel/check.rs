//! Types of an expression's parts, and what it may cost at most, before it is evaluated (upstream: cel-go's checker and its cost
//! estimate, with the sizes that the schema of `self` bounds).

mod call;
mod fold;
mod literals;
mod structs;

use super::ast::{Expr, Fold, Kind};
use super::cost::{self, ANY, Node, Size};
use super::names::dotted;
use super::types::{Type, type_value};
use super::value::Value;
use super::words::escaped;
use super::{Environment, Estimate, Problem};

/// Checks an expression against what it may name.
///
/// # Errors
/// With every place that is wrong.
pub(super) fn check(expr: &Expr, environment: &Environment<'_>) -> Result<Estimate, Vec<Problem>> {
    let Environment { variables, patches } = *environment;
    let local = |(name, kind): &(&str, Type)| Local {
        name: (*name).to_owned(),
        kind: kind.clone(),
        path: vec![(*name).to_owned()],
        size: None,
        entry: None,
    };
    let root = variables.first().map(|(_, kind)| kind.clone());
    let mut checker = Checker {
        root,
        names: variables.iter().map(local).collect(),
        patches,
        problems: Vec::new(),
        mixed: 0,
    };
    let node = checker.visit(expr);
    if checker.problems.is_empty() {
        checker.problems = literals::wrong(expr);
    }
    if checker.problems.is_empty() {
        Ok(Estimate { kind: node.kind, cost: node.cost })
    } else {
        Err(checker.problems)
    }
}

/// Whether an expression uses a variable.
#[must_use]
pub(crate) fn mentions(expr: &Expr, variable: &str) -> bool {
    let inside = |e: &Expr| mentions(e, variable);
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(name) => name == variable,
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => inside(operand),
        Kind::Index { operand, index, .. } => inside(operand) || inside(index),
        Kind::Call { target, args, .. } => target.as_deref().is_some_and(inside) || args.iter().any(inside),
        Kind::List(items) => items.iter().any(|(e, _)| inside(e)),
        Kind::Map(entries) => entries.iter().any(|(k, v, _)| inside(k) || inside(v)),
        Kind::Struct { fields, .. } => fields.iter().any(|field| inside(&field.value)),
        Kind::Fold(fold) => {
            let Fold { range, variable: own, second, filter, body, .. } = &**fold;
            let shadowed = own == variable || second.as_deref() == Some(variable);
            inside(range) || (!shadowed && (inside(body) || filter.as_ref().is_some_and(inside)))
        }
        Kind::Bind { operand, variable: own, body, .. } => {
            inside(operand) || (own != variable && inside(body))
        }
    }
}

struct Local {
    name: String,
    kind: Type,
    path: Vec<String>,
    size: Option<Size>,
    entry: Option<(Size, Size)>,
}

struct Checker {
    /// The type that bounds sizes: `self`'s.
    root: Option<Type>,
    names: Vec<Local>,
    /// Whether there are types of patches.
    patches: bool,
    problems: Vec<Problem>,
    /// How many calls around may be given lists of anything: `format`.
    mixed: usize,
}

/// How large a value of a declared type is.
fn declared(kind: &Type) -> u64 {
    match kind {
        Type::Text(most) | Type::Bytes(most) | Type::List(_, most) | Type::Map(_, _, most) => *most,
        Type::Time | Type::Duration => 32,
        Type::Dyn => super::types::UNBOUNDED - 2,
        _ => 0,
    }
}

impl Checker {
    fn wrong(&mut self, at: usize, text: String) -> Type {
        self.problems.push(Problem { at, text });
        Type::Dyn
    }

    /// How large the value at a place is by its declaration. As upstream, whatever a path begins with is taken for `self`.
    fn size_at(&self, path: &[String]) -> Option<Size> {
        let (_, steps) = path.split_first()?;
        let mut here = self.root.as_ref()?;
        for step in steps {
            here = match (here, step.as_str()) {
                (Type::List(item, _), "@items") => item,
                (Type::Map(_, value, _), "@values") => value,
                (Type::Map(key, ..), "@keys") => key,
                (Type::Object(object), field) => object.fields.get(field)?,
                _ => return None,
            };
        }
        Some(Size { min: 0, max: declared(here) })
    }

    /// A node whose size is known by its place or its type, where it was not computed.
    fn sized(&self, mut node: Node) -> Node {
        let scalar = match &node.kind {
            Type::Optional(inner) => inner.is_scalar(),
            kind => kind.is_scalar(),
        };
        node.size = node.size.or_else(|| self.size_at(&node.path)).or(scalar.then_some(Size::of(1)));
        if !node.path.is_empty() {
            let items: Vec<String> = node.path.iter().cloned().chain(["@items".to_owned()]).collect();
            node.items = self.size_at(&items).unwrap_or(ANY);
        }
        node
    }

    fn visit(&mut self, expr: &Expr) -> Node {
        let node = match &expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => return self.ident(expr.at, name),
            Kind::Select { operand, field, optional } => {
                if let Some(name) = dotted(operand).map(|p| format!("{p}.{field}"))
                    && !self.names.iter().any(|l| name.starts_with(&format!("{}.", l.name)))
                    && type_value(&name).is_some()
                {
                    Node { path: vec![name], ..Node::new(Type::Type, 1) }
                } else {
                    let of = self.visit(operand);
                    let kind = self.field(expr.at, &of.kind, field);
                    if *optional {
                        Node::new(optional_of(kind), of.cost.saturating_add(1))
                    } else {
                        let step = u64::from(matches!(of.kind, Type::Map(..) | Type::Object(_)));
                        let mut path = of.path;
                        path.push(field.clone());
                        Node { path, ..Node::new(kind, of.cost.saturating_add(step)) }
                    }
                }
            }
            Kind::Has { operand, field } => {
                let of = self.visit(operand);
                self.field(expr.at, &of.kind, field);
                Node::new(Type::Bool, of.cost)
            }
            Kind::Index { operand, index, optional } => self.index(expr.at, operand, index, *optional),
            Kind::Call { target, function, args } => self.call(expr.at, target.as_deref(), function, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.literal_of(expr.at, name, fields),
            Kind::Fold(fold) => self.fold(expr.at, fold),
            Kind::Bind { operand, variable, body, flat } => self.bind(operand, variable, body, *flat),
        };
        self.sized(node)
    }

    fn ident(&mut self, at: usize, name: &str) -> Node {
        if let Some(local) = self.names.iter().rev().find(|l| l.name == name) {
            let (size, entry) = (local.size, local.entry);
            let node = Node { path: local.path.clone(), ..Node::new(local.kind.clone(), 1) };
            let node = self.sized(node);
            return Node { size: node.size.or(size), entry, ..node };
        }
        let kind = match type_value(name) {
            Some(_) => Type::Type,
            None => self.wrong(at, format!("undeclared reference to '{name}' (in container '')")),
        };
        self.sized(Node { path: vec![name.to_owned()], ..Node::new(kind, 1) })
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Node {
        let (of, by) = (self.visit(operand), self.visit(index));
        let cost = of.cost.saturating_add(by.cost).saturating_add(1);
        let (inner, wraps) = match &of.kind {
            Type::Optional(inner) => ((**inner).clone(), true),
            kind => (kind.clone(), optional),
        };
        let (kind, step) = match &inner {
            Type::List(item, _) if by.kind.fits(&Type::Int) => ((**item).clone(), "@items"),
            Type::Map(key, value, _) if by.kind.fits(key) => ((**value).clone(), "@values"),
            Type::Dyn => (Type::Dyn, "@values"),
            _ => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                (self.no_overload(at, name, &[&of.kind, &by.kind], false), "@values")
            }
        };
        if wraps {
            return Node::new(optional_of(kind), cost);
        }
        let mut path = of.path;
        path.push(step.to_owned());
        Node { path, size: of.entry.map(|(_, value)| value), ..Node::new(kind, cost) }
    }

    /// The type of items so far and one more.
    fn joined(&mut self, at: usize, so_far: Option<Type>, kind: Type) -> Type {
        match so_far {
            None => kind,
            Some(known) if known.fits(&kind) => known.join(&kind),
            Some(_) if self.mixed > 0 => Type::Dyn,
            Some(known) => {
                self.wrong(at, format!("expected type '{known}' but found '{kind}'"));
                known
            }
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Node {
        let (mut kind, mut cost) = (None, cost::LIST);
        let mut size: Option<Size> = None;
        for (item, optional) in items {
            let node = self.visit(item);
            cost = cost.saturating_add(node.cost);
            size = Some(size.map_or(node.size(), |s| s.union(node.size())));
            let of = if *optional { inner_of(node.kind) } else { node.kind };
            kind = Some(self.joined(item.at, kind, of));
        }
        let list = Type::List(Box::new(kind.unwrap_or(Type::Dyn)), items.len() as u64);
        let entry = Some((Size::of(1), size.unwrap_or(Size::of(0))));
        Node { size: Some(Size::of(items.len() as u64)), entry, ..Node::new(list, cost) }
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Node {
        let (mut keys, mut values, mut cost) = (None, None, cost::MAP);
        let mut sizes: Option<(Size, Size)> = None;
        for (key, value, optional) in entries {
            let (k, v) = (self.visit(key), self.visit(value));
            cost = cost.saturating_add(k.cost).saturating_add(v.cost);
            let (ks, vs) = (k.size(), v.size());
            sizes = Some(sizes.map_or((ks, vs), |(a, b)| (a.union(ks), b.union(vs))));
            keys = Some(self.joined(key.at, keys, k.kind));
            let of = if *optional { inner_of(v.kind) } else { v.kind };
            values = Some(self.joined(value.at, values, of));
        }
        let (key, value) = (keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn));
        let map = Type::Map(Box::new(key), Box::new(value), entries.len() as u64);
        let entry = sizes.or(Some((Size::of(0), Size::of(0))));
        Node { size: Some(Size::of(entries.len() as u64)), entry, ..Node::new(map, cost) }
    }

    fn field(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match of {
            Type::Object(object) => match object.fields.get(field) {
                Some(kind) => kind.clone(),
                None if object.open => Type::Dyn,
                // Words that may not name variables may name fields all the same.
                None => match escaped(field).and_then(|f| object.fields.get(&f)) {
                    Some(kind) => kind.clone(),
                    None => self.wrong(at, format!("undefined field '{field}'")),
                },
            },
            Type::Map(_, value, _) => (**value).clone(),
            Type::Optional(inner) => optional_of(self.field(at, inner, field)),
            Type::Dyn => Type::Dyn,
            // As upstream: they are objects of whose fields nobody knows.
            Type::Named(name) if !name.starts_with("net.") => {
                self.wrong(at, format!("unexpected failed resolution of '{name}'"))
            }
            other => self.wrong(at, format!("type '{other}' does not support field selection")),
        }
    }

    /// `int.(string)`: what a method was called on stands before the dot.
    fn no_overload(&mut self, at: usize, function: &str, args: &[&Type], member: bool) -> Type {
        let (of, rest) = args.split_at(usize::from(member && !args.is_empty()));
        let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
        let of: String = of.iter().map(|kind| format!("{kind}.")).collect();
        let text =
            format!("found no matching overload for '{function}' applied to '{of}({})'", rest.join(", "));
        self.wrong(at, text)
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

fn literal(value: &Value) -> Node {
    let kind = match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::Text(_) => Type::Text(value.size()),
        Value::Bytes(_) => Type::Bytes(value.size()),
        _ => Type::Dyn,
    };
    let number = match value {
        Value::Int(n) => Some(*n),
        _ => None,
    };
    Node { size: Some(Size::of(value.size())), literal: number, ..Node::new(kind, 0) }
}
