//! Lists and sets (upstream: Kubernetes' `cel/library/lists.go`, version 3 of cel-go's `ext/lists.go`, `ext/sets.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::Value;
use super::operators::add;

fn extreme(items: &[Value], name: &str, better: std::cmp::Ordering) -> Evaluated {
    let Some((first, rest)) = items.split_first() else {
        return fail(format!("{name} called on empty list"));
    };
    let mut best = first;
    for item in rest {
        match item.order(best) {
            Some(order) if order == better => best = item,
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(best.clone())
}

fn is_sorted(items: &[Value]) -> Evaluated {
    for pair in items.windows(2) {
        match pair[0].order(&pair[1]) {
            Some(order) if order.is_gt() => return Ok(Value::Bool(false)),
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(Value::Bool(true))
}

fn sum(items: &[Value], zero: Value) -> Evaluated {
    items.iter().try_fold(zero, |sum, item| add(&[sum, item.clone()]))
}

fn place(at: Option<usize>) -> Evaluated {
    Ok(Value::Int(at.map_or(-1, |i| i64::try_from(i).unwrap_or(i64::MAX))))
}

fn slice(items: &[Value], from: i64, to: i64) -> Evaluated {
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return fail(format!("cannot slice({from}, {to}), negative indexes not supported"));
    };
    if start > end {
        let why = "start index must be less than or equal to end index";
        return fail(format!("cannot slice({from}, {to}), {why}"));
    }
    match items.get(start..end) {
        Some(items) => Ok(Value::list_of(items.to_vec())),
        None => fail(format!("cannot slice({from}, {to}), list is length {}", items.len())),
    }
}

fn flat(items: &[Value], depth: i64, out: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::List(inner) if depth > 0 => flat(inner, depth - 1, out),
            item => out.push(item.clone()),
        }
    }
}

fn flatten(items: &[Value], depth: i64) -> Evaluated {
    if depth < 0 {
        return fail("level must be non-negative");
    }
    let mut out = Vec::new();
    flat(items, depth, &mut out);
    Ok(Value::list_of(out))
}

/// Items in the order of their keys.
fn sort(items: &[Value], keys: &[Value]) -> Evaluated {
    let mut pairs: Vec<(&Value, &Value)> = keys.iter().zip(items).collect();
    if let Some((first, _)) = pairs.first() {
        if first.order(first).is_none() {
            return fail("list elements must be comparable");
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return fail("list elements must have the same type");
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list_of(pairs.into_iter().map(|(_, item)| item.clone()).collect()))
}

fn distinct(items: &[Value]) -> Evaluated {
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !out.contains(item) {
            out.push(item.clone());
        }
    }
    Ok(Value::list_of(out))
}

fn within(part: &[Value], whole: &[Value]) -> bool {
    part.iter().all(|item| whole.contains(item))
}

pub(super) fn all() -> Vec<Overload> {
    use Cost::{Flatten, Items, Sets, Sort};
    use Sig::{A, B, Bool, Double, Duration, Dyn, Int, Ordered, Uint};
    use Value::List as L;
    use std::cmp::Ordering::{Greater, Less};
    vec![
        member("isSorted", vec![list(Ordered)], Bool, Items, body!([L(items)] => is_sorted(items))),
        member("sum", vec![list(Int)], Int, Items, body!([L(items)] => sum(items, zero_of(items)))),
        member("sum", vec![list(Uint)], Uint, Items, body!([L(items)] => sum(items, zero_of(items)))),
        member("sum", vec![list(Double)], Double, Items, body!([L(items)] => sum(items, zero_of(items)))),
        member("sum", vec![list(Duration)], Duration, Items, body!([L(items)] => sum(items, zero_of(items)))),
        member("min", vec![list(Ordered)], A, Items, body!([L(items)] => extreme(items, "min", Less))),
        member("max", vec![list(Ordered)], A, Items, body!([L(items)] => extreme(items, "max", Greater))),
        member(
            "indexOf",
            vec![list(A), A],
            Int,
            Items,
            body!([L(items), of] => place(items.iter().position(|i| i == of))),
        ),
        member(
            "lastIndexOf",
            vec![list(A), A],
            Int,
            Items,
            body!([L(items), of] => place(items.iter().rposition(|i| i == of))),
        ),
        member(
            "slice",
            vec![list(A), Int, Int],
            list(A),
            Cost::Slice,
            body!([L(items), Value::Int(a), Value::Int(b)] => slice(items, *a, *b)),
        ),
        member("flatten", vec![list(list(A))], list(A), Flatten, body!([L(items)] => flatten(items, 1))),
        member(
            "flatten",
            vec![list(Dyn), Int],
            list(Dyn),
            Flatten,
            body!([L(items), Value::Int(depth)] => flatten(items, *depth)),
        ),
        member("sort", vec![list(Ordered)], list(A), Sort(0), body!([L(items)] => sort(items, items))),
        member(
            "@sortByAssociatedKeys",
            vec![list(B), list(Ordered)],
            list(B),
            Sort(1),
            body!([L(items), L(keys)] => sort(items, keys)),
        ),
        global(
            "lists.range",
            vec![Int],
            list(Int),
            Cost::Range,
            body!([Value::Int(n)] => Ok(Value::list_of((0..*n).map(Value::Int).collect()))),
        ),
        member(
            "reverse",
            vec![list(A)],
            list(A),
            Cost::Reverse,
            body!([L(items)] => Ok(Value::list_of(items.iter().rev().cloned().collect()))),
        ),
        member("distinct", vec![list(A)], list(A), Cost::Distinct, body!([L(items)] => distinct(items))),
        global(
            "sets.contains",
            vec![list(A), list(A)],
            Bool,
            Sets(1),
            body!([L(a), L(b)] => Ok(Value::Bool(within(b, a)))),
        ),
        global(
            "sets.equivalent",
            vec![list(A), list(A)],
            Bool,
            Sets(2),
            body!([L(a), L(b)] => Ok(Value::Bool(within(a, b) && within(b, a)))),
        ),
        global(
            "sets.intersects",
            vec![list(A), list(A)],
            Bool,
            Sets(1),
            body!([L(a), L(b)] => Ok(Value::Bool(a.iter().any(|item| b.contains(item))))),
        ),
    ]
}

fn zero_of(items: &[Value]) -> Value {
    match items.first() {
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Uint(_)) => Value::Uint(0),
        Some(Value::Duration(_)) => Value::Duration(0),
        _ => Value::Int(0),
    }
}
