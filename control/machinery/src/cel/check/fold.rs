//! Macros over lists and maps: cel-go writes them as loops with an accumulator, whose parts are paid for each.

use super::super::ast::{Expr, Fold, Macro};
use super::super::cost::{self, Node, Size};
use super::call::both;
use super::{Checker, Local, Type};

/// What reading the accumulator costs.
const READ: u64 = 1;
/// `accumulator + [x]` beside `x`.
const PUSH: u64 = READ + cost::LIST + 1;
/// An accumulator that is an empty list.
const EMPTY: Option<(Size, Size)> = Some((Size::of(1), Size::of(0)));

impl Checker {
    fn push_item(&mut self, name: &str, kind: &Type, range: &Node, step: &str, size: Option<Size>) {
        let place = Some(range.place.step(step));
        self.names.push(Local { name: name.to_owned(), kind: kind.clone(), place, size, entry: None });
    }

    fn wants_bool(&mut self, at: usize, kind: &Type) {
        if !kind.fits(&Type::Bool) {
            self.wrong(at, format!("expected type 'bool' but found '{kind}'"));
        }
    }

    /// cel-go writes a filter as a condition between two accumulators.
    fn decides(&mut self, at: usize, kind: &Type, accumulator: &Type) {
        if !kind.fits(&Type::Bool) {
            self.no_overload(at, "_?_:_", &[kind, accumulator, accumulator], false);
        }
    }

    pub(super) fn fold(&mut self, at: usize, fold: &Fold) -> Node {
        let range = self.visit(&fold.range);
        if fold.kind == Macro::SortBy {
            return self.sort_by(at, fold, &range);
        }
        self.over(at, fold, &range)
    }

    fn over(&mut self, at: usize, fold: &Fold, range: &Node) -> Node {
        let is_list = matches!(range.kind, Type::List(..));
        let (key, item) = match &range.kind {
            Type::List(item, _) => (Type::Int, (**item).clone()),
            Type::Map(key, value, _) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Free => (Type::Dyn, Type::Dyn),
            other => {
                let why = "(must be list, map, or dynamic)";
                let text = format!("expression of type '{other}' cannot be range of a comprehension {why}");
                self.wrong(fold.range.at, text);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.names.len();
        let (key_size, value_size) = range.entry.unzip();
        let (key_step, value_step) = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        let single = if is_list { item.clone() } else { key.clone() };
        match &fold.second {
            Some(second) => {
                self.push_item(&fold.variable, &key, range, key_step, key_size);
                self.push_item(second, &item, range, value_step, value_size);
            }
            None if is_list => self.push_item(&fold.variable, &single, range, value_step, value_size),
            None => self.push_item(&fold.variable, &single, range, key_step, key_size),
        }
        let filter = fold.filter.as_ref().map(|f| self.visit(f));
        let body = self.value(&fold.body);
        // What passes a filter is listed after it was asked.
        let listed = (fold.kind == Macro::Filter).then(|| self.ident(at, &fold.variable));
        let variable = listed.map_or(Size::of(0), |item| self.sized(item).size());
        self.names.truncate(depth);
        match fold.kind {
            Macro::All | Macro::Exists => self.wants_bool(fold.body.at, &body.kind),
            Macro::ExistsOne => self.decides(at, &body.kind, &Type::Int),
            Macro::Filter => self.decides(at, &body.kind, &Type::list(single.clone())),
            Macro::TransformMap | Macro::TransformMapEntry => {
                let map = Type::Map(Box::new(Type::Dyn), Box::new(Type::Dyn), 0);
                filter.iter().for_each(|f| self.decides(at, &f.kind, &map));
            }
            Macro::Map | Macro::TransformList | Macro::SortBy => {
                let list = Type::list(body.kind.clone());
                filter.iter().for_each(|f| self.decides(at, &f.kind, &list));
            }
        }
        let filter = filter.map(|node| node.cost);
        let (init, step, result) = match fold.kind {
            // Each begins by asking whether the answer is known.
            Macro::All => (0, body.cost.saturating_add(READ + 1 + READ), READ),
            Macro::Exists => (0, body.cost.saturating_add(READ + 2 + READ), READ),
            Macro::ExistsOne => (0, body.cost.saturating_add(READ + 1), READ + 1),
            Macro::Filter => (cost::LIST, body.cost.saturating_add(PUSH + 1), READ),
            Macro::Map | Macro::TransformList | Macro::SortBy => {
                (cost::LIST, body.cost.saturating_add(PUSH), READ)
            }
            Macro::TransformMap => (cost::MAP, body.cost.saturating_add(READ + 2), READ),
            Macro::TransformMapEntry => (cost::MAP, body.cost.saturating_add(READ + 1), READ),
        };
        let step = step.saturating_add(filter.unwrap_or(0));
        // Upstream asks how many there are after it visited the body.
        let count = self.sized(range.clone()).size();
        let cost = range.cost.saturating_add(init + result).saturating_add(count.max.saturating_mul(step));
        let size = Some(if init == 0 { Size::of(1) } else { count });
        let (kind, entry) = match fold.kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => (Type::Bool, None),
            Macro::Filter => (Type::list(single), both(EMPTY, Some((Size::of(1), variable)))),
            Macro::Map | Macro::TransformList | Macro::SortBy => {
                let entry = both(EMPTY, Some((Size::of(1), body.size())));
                (Type::list(body.kind), entry)
            }
            Macro::TransformMap => {
                (Type::Map(Box::new(key), Box::new(body.kind), super::super::types::UNBOUNDED), None)
            }
            Macro::TransformMapEntry => (self.entry_map(&fold.body, body.kind), None),
        };
        Node { size, entry, ..Node::new(kind, cost) }
    }

    fn entry_map(&mut self, body: &Expr, kind: Type) -> Type {
        if matches!(kind, Type::Map(..) | Type::Dyn | Type::Free) {
            return kind;
        }
        self.no_overload(body.at, "cel.@mapInsert", &[&Type::Dyn, &kind], false)
    }

    /// `list.sortBy(x, key)`: the list is bound, its keys are made, and it is sorted by them.
    fn sort_by(&mut self, at: usize, fold: &Fold, range: &Node) -> Node {
        // The bound variable is read twice, each time as a variable is.
        let known = self.sized(range.clone());
        let bound = Node { cost: READ, size: None, bound: known.size, ..range.clone() };
        let keys = self.over(at, &Fold { kind: Macro::Map, ..fold.clone() }, &bound);
        let bound = self.sized(bound);
        let sorted = self.invoke(at, "@sortByAssociatedKeys", true, &[bound, keys]);
        let cost = sorted.cost.saturating_add(cost::LIST).saturating_add(range.cost);
        Node { cost, ..sorted }
    }
}
