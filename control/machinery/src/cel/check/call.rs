//! Calls: which function is meant, and what it costs at most.

use super::super::ast::{Expr, Kind};
use super::super::cost::{ANY, Node, Size};
use super::super::library::json_patches::SPACE;
use super::super::names::dotted;
use super::super::overload::Overload;
use super::super::place::Place;
use super::super::table;
use super::super::value::Value;
use super::{Checker, Type, formats, is_scalar};

impl Checker {
    pub(super) fn call(&mut self, at: usize, target: Option<&Expr>, function: &str, args: &[Expr]) -> Node {
        // `optional.of(x)`, `ip.isCanonical(x)`: functions with a dot in their name.
        let spaced = target.and_then(dotted).map(|name| format!("{name}.{function}"));
        let known = |name: &&str| table::is_global(name) && (self.patches || !name.starts_with(SPACE));
        let (target, function) = match spaced.as_deref().filter(known) {
            Some(name) => (None, name),
            None => (target, function),
        };
        let mixes = usize::from(function == "format");
        self.mixed += mixes;
        // Upstream visits what a function is called on after its arguments.
        let given: Vec<Node> = args.iter().map(|a| self.value(a)).collect();
        let formatted = std::mem::take(&mut self.listed);
        let on = target.map(|target| self.value(target));
        self.mixed -= mixes;
        if let (Some(target), "format", [Expr { kind: Kind::List(items), .. }]) = (target, function, args)
            && let Kind::Literal(Value::Text(text)) = &target.kind
        {
            self.literals.extend(formats::wrong(at, text, items, &formatted));
        }
        let nodes: Vec<Node> = on.into_iter().chain(given).collect();
        match (function, nodes.as_slice()) {
            ("_&&_" | "_||_", [_, _]) => self.logical(at, function, &nodes),
            ("_?_:_", [condition, yes, no]) => self.conditional(at, condition, yes, no),
            ("dyn", [of]) if target.is_none() => {
                let cost = of.cost.saturating_add(1);
                Node { size: of.size, entry: of.entry, ..Node::new(Type::Dyn, cost) }
            }
            _ => self.invoke(at, function, target.is_some(), &nodes),
        }
    }

    fn logical(&mut self, at: usize, function: &str, nodes: &[Node]) -> Node {
        if !nodes.iter().all(|n| n.kind.fits(&Type::Bool)) {
            let kinds: Vec<&Type> = nodes.iter().map(|n| &n.kind).collect();
            self.no_overload(at, function, &kinds, false);
        }
        Node::new(Type::Bool, nodes.iter().fold(0, |sum, n| sum.saturating_add(n.cost)))
    }

    fn conditional(&mut self, at: usize, condition: &Node, yes: &Node, no: &Node) -> Node {
        let kind = if condition.kind.fits(&Type::Bool) && yes.kind.fits(&no.kind) {
            yes.kind.join(&no.kind)
        } else {
            self.no_overload(at, "_?_:_", &[&condition.kind, &yes.kind, &no.kind], false)
        };
        Node {
            size: Some(yes.size().union(no.size())),
            entry: both(yes.entry, no.entry),
            ..Node::new(kind, condition.cost.saturating_add(yes.cost.max(no.cost)))
        }
    }

    pub(super) fn invoke(&mut self, at: usize, function: &str, member: bool, nodes: &[Node]) -> Node {
        let own = nodes.iter().fold(0_u64, |sum, n| sum.saturating_add(n.cost));
        if table::named(function, member).next().is_none() && table::named(function, !member).next().is_none()
        {
            let text = format!("undeclared reference to '{function}' (in container '')");
            return Node::new(self.wrong(at, text), own);
        }
        let kinds: Vec<&Type> = nodes.iter().map(|n| &n.kind).collect();
        let fitting: Vec<(&Overload, Type)> =
            table::named(function, member).filter_map(|o| Some((o, o.result(&kinds)?))).collect();
        let Some(kind) = fitting.iter().map(|(_, kind)| kind.clone()).reduce(|a, b| a.either(&b)) else {
            return Node::new(self.no_overload(at, function, &kinds, member), own);
        };
        let estimates = fitting.iter().map(|(overload, _)| overload.cost.estimate(nodes));
        let (cost, size) = estimates
            .reduce(|(a, of), (b, other)| {
                let size = match (of, other) {
                    (Some(of), Some(other)) => Some(of.union(other)),
                    (of, other) => of.or(other),
                };
                (a.max(b), size)
            })
            .unwrap_or((1, None));
        // `a + b`: items are as large as either's.
        let entry = match (function, nodes) {
            ("_+_", [a, b]) => both(a.entry, b.entry),
            _ => None,
        };
        Node { size, entry, ..Node::new(kind, own.saturating_add(cost)) }
    }

    /// `optMap` and `optFlatMap`: is there a value, what becomes of it; upstream evaluates the optional for each.
    pub(super) fn bind(&mut self, operand: &Expr, variable: &str, body: &Expr, flat: bool) -> Node {
        let of = self.value(operand);
        let kind = super::inner_of(of.kind.clone());
        if !matches!(of.kind, Type::Optional(_) | Type::Dyn | Type::Free) {
            self.no_overload(operand.at, "hasValue", &[&of.kind], true);
        }
        let local = super::Local {
            name: variable.to_owned(),
            size: kind.is_scalar().then_some(Size::of(1)),
            kind,
            place: Some(Place::default()),
            entry: None,
        };
        self.names.push(local);
        let out = self.value(body);
        self.names.pop();
        if flat && !matches!(out.kind, Type::Optional(_) | Type::Dyn | Type::Free) {
            let none = Type::Optional(Box::new(Type::Dyn));
            self.no_overload(operand.at, "_?_:_", &[&Type::Bool, &out.kind, &none], false);
        }
        let size = out.size();
        let kind = if flat { out.kind } else { Type::Optional(Box::new(out.kind)) };
        // Either an optional of the value or none, which is of the same type.
        let none = if is_scalar(&kind) { Size::of(1) } else { ANY };
        let size = Some(if flat { size.union(none) } else { none });
        let taken = of.cost.saturating_add(1 + super::cost::LIST).saturating_add(out.cost);
        let taken = taken.saturating_add(u64::from(!flat));
        Node { size, ..Node::new(kind, of.cost.saturating_add(1).saturating_add(taken)) }
    }
}

impl Checker {
    /// `cel.bind`: to upstream a loop over an empty list.
    pub(super) fn named(&mut self, variable: &str, value: &Expr, body: &Expr) -> Node {
        let of = self.value(value);
        self.names.push(super::Local {
            name: variable.to_owned(),
            kind: of.kind,
            place: Some(of.place),
            size: of.size,
            entry: of.entry,
        });
        let out = self.value(body);
        self.names.pop();
        let cost = of.cost.saturating_add(super::cost::LIST).saturating_add(out.cost);
        Node { size: out.size, entry: out.entry, ..Node::new(out.kind, cost) }
    }
}

pub(super) fn both(a: Option<(Size, Size)>, b: Option<(Size, Size)>) -> Option<(Size, Size)> {
    a.zip(b).map(|((ak, av), (bk, bv))| (ak.union(bk), av.union(bv)))
}
