//! Operators, `size`, `dyn`, `type`.

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::Value;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

const ONE: Cost = Cost::Fixed(1);

fn map(key: Sig, value: Sig) -> Sig {
    Sig::Map(Box::new(key), Box::new(value))
}

pub(super) fn checked(value: Option<i64>) -> Evaluated {
    value.map_or_else(|| fail("integer overflow"), |n| Ok(Value::Int(n)))
}

pub(super) fn unsigned(value: Option<u64>) -> Evaluated {
    value.map_or_else(|| fail("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
}

fn span(value: Option<i64>) -> Evaluated {
    value.map_or_else(|| fail("duration overflow"), |n| Ok(Value::Duration(n)))
}

fn later(time: Timestamp, nanos: i64) -> Evaluated {
    time.checked_add(SignedDuration::from_nanos(nanos))
        .map_or_else(|_| fail("timestamp overflow"), |t| Ok(Value::Time(t)))
}

/// `a + b`
pub(super) fn add(args: &[Value]) -> Evaluated {
    match args {
        [Value::Int(a), Value::Int(b)] => checked(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::Text(a), Value::Text(b)] => Ok(Value::Text(format!("{a}{b}").into())),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [Value::List(a), Value::List(b)] => Ok(Value::List(Arc::new(a.concat(b)))),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_add(*b)),
        [Value::Time(t), Value::Duration(d)] | [Value::Duration(d), Value::Time(t)] => later(*t, *d),
        _ => no_overload(),
    }
}

fn subtract(args: &[Value]) -> Evaluated {
    match args {
        [Value::Int(a), Value::Int(b)] => checked(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_sub(*b)),
        [Value::Time(a), Value::Time(b)] => span(i64::try_from(a.duration_since(*b).as_nanos()).ok()),
        [Value::Time(t), Value::Duration(d)] => match d.checked_neg() {
            Some(d) => later(*t, d),
            None => fail("timestamp overflow"),
        },
        _ => no_overload(),
    }
}

fn multiply(args: &[Value]) -> Evaluated {
    match args {
        [Value::Int(a), Value::Int(b)] => checked(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide(args: &[Value]) -> Evaluated {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("division by zero"),
        [Value::Int(a), Value::Int(b)] => checked(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo(args: &[Value]) -> Evaluated {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => checked(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

fn compare(args: &[Value], holds: fn(std::cmp::Ordering) -> bool) -> Evaluated {
    let [a, b] = args else { return no_overload() };
    // Not a number is in no order to anything, and of two types only numbers are.
    let number = |v: &Value| matches!(v, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    match a.order(b) {
        Some(order) => Ok(Value::Bool(holds(order))),
        None if number(a) && number(b) => Ok(Value::Bool(false)),
        None => no_overload(),
    }
}

fn size(args: &[Value]) -> Evaluated {
    match args {
        [value] => Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX))),
        _ => no_overload(),
    }
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{A, B, Bool, Bytes, Double, Duration, Dyn, Int, Text, Time, Uint};
    let mut out = vec![
        global("_==_", vec![A, A], Bool, Cost::Equal, body!([a, b] => Ok(Value::Bool(a == b)))),
        global("_!=_", vec![A, A], Bool, Cost::Compare, body!([a, b] => Ok(Value::Bool(a != b)))),
        global("!_", vec![Bool], Bool, ONE, body!([Value::Bool(is)] => Ok(Value::Bool(!is)))),
        global("-_", vec![Int], Int, ONE, body!([Value::Int(n)] => checked(n.checked_neg()))),
        global("-_", vec![Double], Double, ONE, body!([Value::Double(n)] => Ok(Value::Double(-n)))),
        global("@in", vec![A, list(A)], Bool, Cost::Member, |args| match args {
            [item, Value::List(items)] => Ok(Value::Bool(items.contains(item))),
            _ => no_overload(),
        }),
        global("@in", vec![A, map(A, B)], Bool, ONE, |args| match args {
            [item, Value::Map(entries)] => {
                Ok(Value::Bool(item.key().is_some_and(|k| entries.contains_key(&k))))
            }
            _ => no_overload(),
        }),
        global("_+_", vec![Text, Text], Text, Cost::Concat, add),
        global("_+_", vec![Bytes, Bytes], Bytes, Cost::Concat, add),
        global("_+_", vec![list(A), list(A)], list(A), Cost::Append, add),
        global("_+_", vec![Duration, Duration], Duration, ONE, add),
        global("_+_", vec![Time, Duration], Time, ONE, add),
        global("_+_", vec![Duration, Time], Time, ONE, add),
        global("_-_", vec![Duration, Duration], Duration, ONE, subtract),
        global("_-_", vec![Time, Duration], Time, ONE, subtract),
        global("_-_", vec![Time, Time], Duration, ONE, subtract),
        global("dyn", vec![A], Dyn, ONE, body!([value] => Ok(value.clone()))),
        global("type", vec![A], Sig::Type, ONE, body!([value] => Ok(Value::Type(value.type_name().into())))),
    ];
    for number in [Int, Uint, Double] {
        let two = || vec![number.clone(), number.clone()];
        out.push(global("_+_", two(), number.clone(), ONE, add));
        out.push(global("_-_", two(), number.clone(), ONE, subtract));
        out.push(global("_*_", two(), number.clone(), ONE, multiply));
        out.push(global("_/_", two(), number.clone(), ONE, divide));
    }
    for number in [Int, Uint] {
        out.push(global("_%_", vec![number.clone(), number.clone()], number, ONE, modulo));
    }
    let comparisons: [(&'static str, super::super::overload::Body); 4] = [
        ("_<_", |args| compare(args, std::cmp::Ordering::is_lt)),
        ("_<=_", |args| compare(args, std::cmp::Ordering::is_le)),
        ("_>_", |args| compare(args, std::cmp::Ordering::is_gt)),
        ("_>=_", |args| compare(args, std::cmp::Ordering::is_ge)),
    ];
    let numbers = [Int, Uint, Double];
    for (name, body) in comparisons {
        for kind in [Text, Bytes] {
            out.push(global(name, vec![kind.clone(), kind], Bool, Cost::Compare, body));
        }
        for kind in [Bool, Time, Duration] {
            out.push(global(name, vec![kind.clone(), kind], Bool, ONE, body));
        }
        for a in &numbers {
            out.extend(numbers.iter().map(|b| global(name, vec![a.clone(), b.clone()], Bool, ONE, body)));
        }
    }
    for kind in [Text, Bytes, list(A), map(A, B)] {
        out.push(global("size", vec![kind.clone()], Int, ONE, size));
        out.push(member("size", vec![kind], Int, ONE, size));
    }
    out
}
