//! What calls cost: at most, before an expression is evaluated, and in fact (upstream: cel-go's `checker/cost.go` and
//! `interpreter/runtimecost.go`, Kubernetes' `cel/library/cost.go`). A rule is accepted or refused by the first, so that it is
//! upstream's to the unit.

use super::place::Place;
use super::types::Type;
use super::value::Value;

/// What looking at a text costs by its length.
const TRAVERSE: f64 = 0.1;
/// What a pattern costs by its length.
const PATTERN: f64 = 0.25;
/// What making a list costs.
pub(super) const LIST: u64 = 10;
/// What making a map costs.
pub(super) const MAP: u64 = 30;
/// What making an object costs.
pub(super) const OBJECT: u64 = 40;
/// The longest pattern of a named format.
const FORMAT_PATTERN: u64 = 128;

/// How large a value may be: characters, items, entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

pub(super) const ANY: Size = Size { min: 0, max: u64::MAX };

impl Size {
    pub(super) const fn of(size: u64) -> Self {
        Size { min: size, max: size }
    }

    pub(super) fn union(self, other: Size) -> Size {
        Size { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn add(self, other: Size) -> Size {
        Size { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Size) -> Size {
        Size { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}

/// An expression's part as its cost is estimated.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The type of its value.
    pub(super) kind: Type,
    /// What it costs at most.
    pub(super) cost: u64,
    /// How large its value is, where that is known.
    pub(super) size: Option<Size>,
    /// How large its items (or keys and values) are, where that follows from the expression.
    pub(super) entry: Option<(Size, Size)>,
    /// How large its items are by its type.
    pub(super) items: Size,
    /// How large the value of a macro's variable is, where neither its place nor its type says it.
    pub(super) bound: Option<Size>,
    pub(super) place: Place,
    /// Its value, where it is an integer written out.
    pub(super) literal: Option<i64>,
}

impl Node {
    pub(super) fn new(kind: Type, cost: u64) -> Self {
        let place = Place::default();
        Node { kind, cost, size: None, bound: None, entry: None, items: ANY, place, literal: None }
    }

    pub(super) fn size(&self) -> Size {
        self.size.unwrap_or(ANY)
    }
}

/// How a function's cost follows from its arguments, the one it is called on first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cost {
    Fixed(u64),
    /// Looks at the first so many times.
    Text(u64),
    /// Looks at the first once, and gives one as large.
    Same,
    Encoded,
    Decoded,
    /// The first in quotes.
    Quoted,
    /// By the second at most, by the first in fact.
    Affix,
    /// Looks for the second in the first.
    Contains,
    /// Looks for a pattern in the first.
    Pattern,
    /// The same, and gives what it finds.
    Found,
    /// Looks at every item of the second.
    Member,
    /// Looks at the shorter of two.
    Compare,
    /// The same; libraries' own values are compared at once.
    Equal,
    /// Two texts in one.
    Concat,
    /// Two lists in one.
    Append,
    /// Looks at every item of the first.
    Items,
    /// Cuts a text at a separator.
    Split,
    /// Replaces parts of a text.
    Replace,
    Join,
    /// Is it in the network? The second is parsed, where true.
    InNetwork(bool),
    /// Is the network in it? The second is parsed, where true.
    Subnet(bool),
    /// A text against a named format.
    Format,
    /// Reads the second as a selector.
    Selector,
    /// Every item with every other, so many times.
    Sets(u64),
    /// Part of a list.
    Slice,
    Range,
    /// The list, every item once.
    Reverse,
    /// The list, items of items once for each level.
    Flatten,
    /// The list, every item against every other; the argument whose items are compared.
    Sort(usize),
    /// The same of the first; the estimate does not look at how long texts are.
    Distinct,
}

fn scaled(size: u64, factor: f64) -> u64 {
    // A cast of what is too large is the largest.
    (size as f64 * factor).ceil() as u64
}

fn traverse(size: u64) -> u64 {
    scaled(size, TRAVERSE)
}

/// Looking so many times, multiplied in the order in which upstream does it.
fn again(size: u64, times: u64) -> u64 {
    (size as f64 * times as f64 * TRAVERSE).ceil() as u64
}

fn pattern(text: u64, pattern: u64) -> u64 {
    traverse(text.saturating_add(1)).saturating_mul(scaled(pattern, PATTERN))
}

/// A list of requirements: the shortest is two characters long, and each has a list of values.
fn selector(text: u64) -> u64 {
    let requirements = scaled(text, 0.5);
    LIST.saturating_add(traverse(text)).saturating_add(requirements.saturating_mul(LIST + OBJECT))
}

fn is_text(kind: &Type) -> bool {
    matches!(kind, Type::Text(_) | Type::Bytes(_))
}

impl Cost {
    /// What a call costs at most beside its arguments, and how large its value is.
    pub(super) fn estimate(self, args: &[Node]) -> (u64, Option<Size>) {
        let size = |at: usize| args.get(at).map_or(ANY, Node::size);
        let most = |at: usize| size(at).max;
        let literal = |at: usize| args.get(at).and_then(|a| a.literal);
        let listed =
            |factor: f64, made: Size| (scaled(made.max, factor).saturating_add(1 + LIST), Some(made));
        match self {
            Cost::Fixed(cost) => (cost, None),
            Cost::Text(times) => (scaled(most(0), TRAVERSE * times as f64), None),
            Cost::Same => (traverse(most(0)), Some(size(0))),
            Cost::Encoded => {
                let made = Size { min: size(0).min, max: most(0).saturating_mul(4) };
                (traverse(most(0)), Some(made))
            }
            Cost::Decoded => (traverse(most(0)), Some(Size { min: size(0).min / 4, max: most(0) })),
            Cost::Quoted => {
                let max = most(0).saturating_mul(2).saturating_add(2);
                (traverse(most(0)), Some(Size { min: size(0).min.saturating_add(2), max }))
            }
            Cost::Affix => (traverse(most(1)), None),
            Cost::Contains => (traverse(most(0)).saturating_mul(traverse(most(1))), None),
            Cost::Pattern => (pattern(most(0), most(1)), None),
            Cost::Found => (pattern(most(0), most(1)), Some(Size { min: 0, max: most(0) })),
            Cost::Member => (most(1), None),
            Cost::Compare => (traverse(most(0).min(most(1))), None),
            Cost::Equal => match args {
                [a, b] if a.kind == b.kind && matches!(a.kind, Type::Named(_)) => match a.kind {
                    Type::Named("kubernetes.NamedFormat") => (traverse(64), None),
                    Type::Named("kubernetes.URL") => (traverse(b.size.map_or(1, |s| s.max)), None),
                    _ => (1, None),
                },
                _ => Cost::Compare.estimate(args),
            },
            Cost::Concat => {
                let made = size(0).add(size(1));
                (traverse(made.max), Some(made))
            }
            Cost::Append => (1, Some(size(0).add(size(1)))),
            Cost::Items => {
                let each = match args.first().map(|a| &a.kind) {
                    Some(Type::List(item, _)) if is_text(item) => {
                        traverse(args.first().map_or(u64::MAX, |a| a.items.max)).saturating_add(1)
                    }
                    Some(Type::List(..)) => 1,
                    _ => return (traverse(most(0)), None),
                };
                (most(0).saturating_mul(each), None)
            }
            Cost::Split => {
                let max = literal(2).map_or(most(0), |n| u64::try_from(n).unwrap_or(u64::MAX));
                (scaled(most(0), 2.0 * TRAVERSE), Some(Size { min: 0, max }))
            }
            Cost::Replace => (scaled(most(0), 2.0 * TRAVERSE), Some(replaced(size(0), size(1), size(2)))),
            Cost::Join => {
                let (list, items) = (size(0), args.first().map_or(ANY, |a| a.items));
                let mut made = list.times(items);
                if args.len() > 1 {
                    let between = Size { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                    made = made.add(size(1).times(between));
                }
                (traverse(made.max), Some(made))
            }
            Cost::InNetwork(parsed) => (traverse(32) + if parsed { traverse(most(1)) } else { 0 }, None),
            Cost::Subnet(parsed) => {
                (traverse(32) + traverse(16) + 1 + if parsed { traverse(most(1)) } else { 0 }, None)
            }
            Cost::Format => (scaled(traverse(most(1)), FORMAT_PATTERN as f64 * PATTERN), None),
            Cost::Selector => (selector(most(1)), None),
            Cost::Sets(times) => {
                let pairs = most(0).saturating_mul(most(1));
                (pairs.saturating_mul(times).saturating_add(1), None)
            }
            Cost::Slice => {
                let from = literal(1).map_or(0, |n| n.max(0).unsigned_abs());
                let to = literal(2).map_or(most(0), |n| n.max(0).unsigned_abs());
                listed(1.0, Size::of(to.wrapping_sub(from)))
            }
            Cost::Range => listed(1.0, Size::of(literal(0).map_or(u64::MAX, |n| n.max(0).unsigned_abs()))),
            Cost::Reverse => listed(1.0, size(0)),
            Cost::Flatten => {
                let depth = if args.len() > 1 { literal(1).map_or(f64::MAX, |n| n as f64) } else { 1.0 };
                listed(depth.max(0.0), size(0))
            }
            Cost::Distinct => listed(2.0, size(0).times(size(0))),
            Cost::Sort(at) => {
                let text = match args.get(at).map(|a| &a.kind) {
                    // Of anything, the dearest.
                    Some(Type::List(item, _)) => is_text(item) || **item == Type::Dyn,
                    _ => false,
                };
                listed(if text { 2.0 + TRAVERSE } else { 2.0 }, size(at).times(size(at)))
            }
        }
    }

    /// What a call cost in fact.
    pub(super) fn spent(self, args: &[Value], value: &Value) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::size);
        let listed = |factor: f64, made: u64| (made as f64 * factor) as u64 + 1 + LIST;
        match self {
            Cost::Fixed(cost) => cost,
            Cost::Text(times) => again(size(0), times),
            Cost::Same | Cost::Encoded | Cost::Decoded | Cost::Quoted | Cost::Affix => traverse(size(0)),
            Cost::Contains => traverse(size(0)).saturating_mul(traverse(size(1))),
            Cost::Pattern | Cost::Found => pattern(size(0), size(1)),
            Cost::Member => size(1),
            Cost::Compare => traverse(size(0).min(size(1))),
            Cost::Equal => match args {
                [
                    Value::Quantity(_)
                    | Value::Ip(_)
                    | Value::Cidr(_)
                    | Value::Format(_)
                    | Value::Url(_)
                    | Value::Semver(_)
                    | Value::Authorization(_),
                    ..,
                ] => 1,
                _ => traverse(size(0).min(size(1))),
            },
            Cost::Concat => traverse(size(0).saturating_add(size(1))),
            Cost::Append => 1,
            Cost::Items => args.first().map_or(1, walked),
            Cost::Split | Cost::Replace => again(size(0), 2),
            Cost::Join => again(value.size(), 2),
            Cost::InNetwork(parsed) => traverse(2 * size(0)) + if parsed { traverse(size(1)) } else { 0 },
            Cost::Subnet(parsed) => {
                traverse(2 * size(0)) + traverse(size(0)) + 1 + if parsed { traverse(size(1)) } else { 0 }
            }
            Cost::Format => match args.first() {
                Some(Value::Format(name)) => pattern(size(1), super::named::pattern_length(name)),
                _ => 1,
            },
            Cost::Selector => selector(size(1)),
            Cost::Sets(times) => size(0).saturating_mul(size(1)).saturating_mul(times).saturating_add(1),
            Cost::Slice | Cost::Range | Cost::Reverse => listed(1.0, value.size()),
            Cost::Flatten => {
                let depth = match args {
                    [_, Value::Int(depth)] => *depth as f64,
                    _ => 1.0,
                };
                listed(depth, size(0))
            }
            Cost::Distinct => Cost::Sort(0).spent(args, value),
            Cost::Sort(at) => {
                let text = match args.get(at) {
                    Some(Value::List(items)) => {
                        matches!(items.first(), Some(Value::Text(_) | Value::Bytes(_)))
                    }
                    _ => false,
                };
                listed(if text { 2.0 + TRAVERSE } else { 2.0 }, size(at).saturating_mul(size(at)))
            }
        }
    }
}

/// How large a text is in which parts were replaced.
fn replaced(text: Size, part: Size, by: Size) -> Size {
    let max = if part.min == 0 {
        // An empty part is before every character, and at the end.
        text.max.saturating_add(1).saturating_mul(by.max).saturating_add(text.max)
    } else if by.max <= part.min {
        text.max
    } else {
        text.max.div_ceil(part.min).saturating_mul(by.max)
    };
    let min = if part.max == 0 {
        text.min.saturating_add(1).saturating_mul(by.min).saturating_add(text.min)
    } else if part.max <= by.min {
        text.min
    } else {
        text.min.div_ceil(part.max).saturating_mul(by.min)
    };
    Size { min, max }
}

/// What looking at all of a value costs.
fn walked(value: &Value) -> u64 {
    match value {
        // Upstream counts these by bytes.
        Value::Text(text) => (text.len() as f64 * TRAVERSE) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSE) as u64,
        Value::List(items) => items.iter().map(walked).sum(),
        Value::Map(entries) => entries.iter().map(|(k, v)| walked(&k.value()) + walked(v)).sum(),
        _ => 1,
    }
}
