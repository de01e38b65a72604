//! Types of an expression's parts, and what it may cost at most, before it is evaluated (upstream: cel-go's checker and its cost
//! estimate, with the sizes that the schema of `self` bounds).

mod call;
mod fold;
mod formats;
mod literals;
mod structs;

use super::ast::{Expr, Fold, Kind};
use super::cost::{self, ANY, Node, Size};
use super::names::dotted;
use super::place::Place;
use super::types::{Type, type_value};
use super::value::Value;
use super::words::escaped;
use super::{Environment, Estimate, Problem};

/// Checks an expression against what it may name.
///
/// # Errors
/// With every place that is wrong.
pub(super) fn check(expr: &Expr, environment: &Environment<'_>) -> Result<Estimate, Vec<Problem>> {
    let Environment { variables, patches, devices } = *environment;
    let local = |(name, kind): &(&str, Type)| Local {
        name: (*name).to_owned(),
        kind: kind.clone(),
        place: None,
        size: None,
        entry: None,
    };
    let root = variables.first().map(|(_, kind)| kind.clone());
    let mut checker = Checker {
        root,
        names: variables.iter().map(local).collect(),
        patches,
        devices,
        problems: Vec::new(),
        literals: Vec::new(),
        mixed: 0,
        listed: Vec::new(),
    };
    let node = checker.visit(expr);
    if checker.problems.is_empty() {
        checker.problems = literals::wrong(expr);
        checker.problems.append(&mut checker.literals);
    }
    if checker.problems.is_empty() {
        Ok(Estimate { kind: node.kind.settled(), cost: node.cost })
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
        Kind::Bind { operand: value, variable: own, body, .. } | Kind::Let { value, variable: own, body } => {
            inside(value) || (own != variable && inside(body))
        }
    }
}

struct Local {
    name: String,
    kind: Type,
    /// Where what a macro bound to it stands; a variable's own is its name.
    place: Option<Place>,
    size: Option<Size>,
    entry: Option<(Size, Size)>,
}

struct Checker {
    /// The type that bounds sizes: `self`'s.
    root: Option<Type>,
    names: Vec<Local>,
    /// Whether there are types of patches.
    patches: bool,
    /// Whether the first variable is a device.
    devices: bool,
    problems: Vec<Problem>,
    /// What is wrong with literals, which is told where nothing else is wrong.
    literals: Vec<Problem>,
    /// How many calls around may be given lists of anything: `format`.
    mixed: usize,
    /// The types of the items of the list literal that was visited last.
    listed: Vec<Type>,
}

/// How large a value of a declared type is.
fn declared(kind: &Type) -> u64 {
    match kind {
        Type::Any(most)
        | Type::Text(most)
        | Type::Bytes(most)
        | Type::Time(most)
        | Type::List(_, most)
        | Type::Map(_, _, most) => *most,
        Type::Duration => super::types::TIME,
        Type::Dyn => super::types::UNBOUNDED - 2,
        _ => 0,
    }
}

impl Checker {
    fn wrong(&mut self, at: usize, text: String) -> Type {
        self.problems.push(Problem { at, text });
        Type::Dyn
    }

    /// How large the value at a place is by its declaration. As upstream, whatever a place begins with is taken for `self`, though not for
    /// a device.
    fn size_at(&self, steps: &[String]) -> Option<Size> {
        let (first, steps) = steps.split_first()?;
        if self.devices && self.names.first().is_none_or(|device| device.name != *first) {
            return None;
        }
        let mut here = self.root.as_ref()?;
        for step in steps {
            here = match (here, step.as_str()) {
                (Type::List(item, _), "@items") => item,
                (Type::Map(_, value, _), "@values") => value,
                (Type::Map(key, ..), "@keys") => key,
                (Type::Object(object), field) => object.fields.get(field)?,
                // Attributes are as large whatever their name.
                (Type::Map(_, value, _), _) if matches!(**value, Type::Any(_)) => value,
                _ => return None,
            };
        }
        let max = match here {
            Type::Bool if self.devices => 1,
            declared_as => declared(declared_as),
        };
        Some(Size { min: 0, max })
    }

    /// A node whose size is known, where it can be: as it was computed, by its place, by its type, as the macro bound it. When this
    /// is asked matters (see [`Place`]): upstream asks for an argument's once it is visited, and for a loop's range after the loop.
    fn sized(&self, mut node: Node) -> Node {
        let by_type = || is_scalar(&node.kind).then_some(Size::of(1));
        let mut steps = node.place.steps();
        node.size = node.size.or_else(|| self.size_at(&steps)).or_else(by_type).or(node.bound);
        if !steps.is_empty() {
            steps.push("@items".to_owned());
            node.items = self.size_at(&steps).unwrap_or(ANY);
        }
        node
    }

    /// A part whose size is asked for at once.
    fn value(&mut self, expr: &Expr) -> Node {
        let node = self.visit(expr);
        self.sized(node)
    }

    fn visit(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { operand, field, optional } => {
                if let Some(name) = dotted(operand).map(|p| format!("{p}.{field}"))
                    && !self.names.iter().any(|l| name.starts_with(&format!("{}.", l.name)))
                    && type_value(&name).is_some()
                {
                    Node { place: Place::of(&name), ..Node::new(Type::Type, 1) }
                } else {
                    let of = self.visit(operand);
                    let kind = self.field(expr.at, &of.kind, field);
                    if *optional {
                        Node::new(optional_of(kind), of.cost.saturating_add(1))
                    } else {
                        let step = u64::from(matches!(of.kind, Type::Map(..) | Type::Object(_)));
                        let place = of.place.step(field);
                        Node { place, ..Node::new(kind, of.cost.saturating_add(step)) }
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
            Kind::Let { variable, value, body } => self.named(variable, value, body),
        }
    }

    fn ident(&mut self, at: usize, name: &str) -> Node {
        if let Some(local) = self.names.iter().rev().find(|l| l.name == name) {
            let place = local.place.clone().unwrap_or_else(|| Place::of(name));
            let (bound, entry) = (local.size, local.entry);
            return Node { place, bound, entry, ..Node::new(local.kind.clone(), 1) };
        }
        let kind = match type_value(name) {
            Some(_) => Type::Type,
            None => self.wrong(at, format!("undeclared reference to '{name}' (in container '')")),
        };
        Node { place: Place::of(name), ..Node::new(kind, 1) }
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Node {
        let (of, by) = (self.value(operand), self.value(index));
        let cost = of.cost.saturating_add(by.cost).saturating_add(1);
        let (inner, wraps) = match &of.kind {
            Type::Optional(inner) => ((**inner).clone(), true),
            kind => (kind.clone(), optional),
        };
        let (kind, step) = match &inner {
            Type::List(item, _) if by.kind.fits(&Type::Int) => ((**item).clone(), "@items"),
            Type::Map(key, value, _) if by.kind.fits(key) => ((**value).clone(), "@values"),
            Type::Dyn | Type::Any(_) | Type::Free => (Type::Dyn, "@values"),
            _ => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                (self.no_overload(at, name, &[&of.kind, &by.kind], false), "@values")
            }
        };
        if wraps {
            return Node::new(optional_of(kind), cost);
        }
        let place = of.place.step(step);
        self.sized(Node { place, size: of.entry.map(|(_, value)| value), ..Node::new(kind, cost) })
    }

    /// The type of items so far and one more; of mixed ones, any.
    fn joined(so_far: Option<Type>, kind: &Type) -> Type {
        match so_far {
            None => kind.clone(),
            Some(known) if known.fits(kind) => known.join(kind),
            Some(_) => Type::Dyn,
        }
    }

    /// Literals are of one type (upstream: cel-go's `ValidateHomogeneousAggregateLiterals`): the first item's. Whether that is so.
    fn alike(&mut self, at: usize, first: Option<&Type>, kind: &Type) -> bool {
        let differs = first.filter(|first| self.mixed == 0 && !first.same(kind));
        let Some(first) = differs else { return true };
        self.literals.push(Problem { at, text: format!("expected type '{first}' but found '{kind}'") });
        false
    }

    /// The type of an item's value where the item is left out if there is none: `?a`.
    fn unwrapped(&mut self, at: usize, kind: Type, optional: bool) -> Type {
        match kind {
            Type::Optional(inner) if optional => *inner,
            kind if optional && !matches!(kind, Type::Dyn | Type::Any(_) | Type::Free) => {
                let text = format!("expected type 'optional_type({kind})' but found '{kind}'");
                self.wrong(at, text);
                kind
            }
            kind => kind,
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Node {
        let (mut kind, mut cost, mut kinds) = (None, cost::LIST, Vec::with_capacity(items.len()));
        let (mut size, mut alike): (Option<Size>, bool) = (None, true);
        for (item, optional) in items {
            let node = self.value(item);
            cost = cost.saturating_add(node.cost);
            size = Some(size.map_or(node.size(), |s| s.union(node.size())));
            let of = self.unwrapped(item.at, node.kind, *optional);
            kind = Some(Self::joined(kind, &of));
            alike = alike && self.alike(item.at, kinds.first(), &of);
            kinds.push(of);
        }
        self.listed = kinds;
        let list = Type::List(Box::new(kind.unwrap_or(Type::Free)), items.len() as u64);
        let entry = Some((Size::of(1), size.unwrap_or(Size::of(0))));
        Node { size: Some(Size::of(items.len() as u64)), entry, ..Node::new(list, cost) }
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Node {
        let (mut keys, mut values, mut cost) = (None, None, cost::MAP);
        let mut first: Option<(Type, Type)> = None;
        let mut sizes: Option<(Size, Size)> = None;
        for (key, value, optional) in entries {
            // Upstream asks for both sizes after it visited both.
            let (k, v) = (self.visit(key), self.visit(value));
            let (k, v) = (self.sized(k), self.sized(v));
            cost = cost.saturating_add(k.cost).saturating_add(v.cost);
            let (ks, vs) = (k.size(), v.size());
            sizes = Some(sizes.map_or((ks, vs), |(a, b)| (a.union(ks), b.union(vs))));
            let of = self.unwrapped(value.at, v.kind, *optional);
            let (known_key, known_value) = first.as_ref().map(|(key, value)| (key, value)).unzip();
            self.alike(key.at, known_key, &k.kind);
            self.alike(value.at, known_value, &of);
            keys = Some(Self::joined(keys, &k.kind));
            values = Some(Self::joined(values, &of));
            first = first.or(Some((k.kind, of)));
        }
        let (key, value) = (keys.unwrap_or(Type::Free), values.unwrap_or(Type::Free));
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
            Type::Dyn | Type::Any(_) | Type::Free => Type::Dyn,
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

/// Of one size whatever its value.
fn is_scalar(kind: &Type) -> bool {
    match kind {
        Type::Optional(inner) => is_scalar(inner),
        kind => kind.is_scalar(),
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
