//! Libraries beyond the standard one: texts, lists, sets, regular expressions, optionals, and what Kubernetes adds.

mod net;
mod texts;
mod versions;

use super::eval::{Evaluated, Run, fail, no_overload};
use super::value::Value;
use crate::quantity::{Format, Quantity};
use std::sync::Arc;

/// Functions with a dot in their name.
const NAMESPACED: [&str; 17] = [
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "ip.isCanonical",
    "format.named",
    "strings.quote",
    "math.greatest",
    "math.least",
    "math.abs",
    "math.ceil",
    "math.floor",
    "math.round",
    "math.sign",
    "math.trunc",
];

pub(super) fn is_namespaced(name: &str) -> bool {
    NAMESPACED.contains(&name)
}

/// Whether any function has this name, and whether any method.
pub(super) fn knows(name: &str, method: bool) -> bool {
    const GLOBAL: [&str; 21] = [
        "dyn",
        "type",
        "size",
        "int",
        "uint",
        "double",
        "bool",
        "string",
        "bytes",
        "duration",
        "timestamp",
        "matches",
        "quantity",
        "isQuantity",
        "url",
        "isURL",
        "ip",
        "isIP",
        "cidr",
        "isCIDR",
        "semver",
    ];
    const METHODS: [&str; 88] = [
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "getFullYear",
        "getMonth",
        "getDayOfYear",
        "getDayOfMonth",
        "getDate",
        "getDayOfWeek",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
        "hasValue",
        "value",
        "or",
        "orValue",
        "optMap",
        "optFlatMap",
        "charAt",
        "indexOf",
        "lastIndexOf",
        "join",
        "lowerAscii",
        "upperAscii",
        "replace",
        "split",
        "substring",
        "trim",
        "format",
        "reverse",
        "find",
        "findAll",
        "isSorted",
        "sum",
        "min",
        "max",
        "sign",
        "isInteger",
        "asInteger",
        "asApproximateFloat",
        "isGreaterThan",
        "isLessThan",
        "compareTo",
        "add",
        "sub",
        "getScheme",
        "getHost",
        "getHostname",
        "getPort",
        "getEscapedPath",
        "getQuery",
        "family",
        "isUnspecified",
        "isLoopback",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isGlobalUnicast",
        "containsIP",
        "containsCIDR",
        "ip",
        "masked",
        "prefixLength",
        "major",
        "minor",
        "patch",
        "validate",
        "isCanonical",
        "of",
        "none",
        "ofNonZeroValue",
        "equivalent",
        "intersects",
        "named",
        "quote",
        "greatest",
        "least",
        "abs",
        "ceil",
        "floor",
        "round",
        "path",
        "check",
        "allowed",
        "reason",
        "errored",
    ];
    const MORE: [&str; 6] = ["group", "serviceAccount", "resource", "subresource", "namespace", "name"];
    const AUTHORIZER: [&str; 3] = ["error", "fieldSelector", "labelSelector"];
    if method {
        METHODS.contains(&name) || MORE.contains(&name) || AUTHORIZER.contains(&name)
    } else {
        GLOBAL.contains(&name) || name == "isSemver" || name.contains('_') || name == "@in"
    }
}

pub(super) fn namespaced(run: &mut Run<'_>, name: &str, args: &[Value]) -> Evaluated {
    match (name, args) {
        ("optional.of", [value]) => Ok(Value::Optional(Some(Arc::new(value.clone())))),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(Value::Optional((!value.is_zero()).then(|| Arc::new(value.clone()))))
        }
        ("sets.contains", [Value::List(a), Value::List(b)]) => {
            run.pay((a.len() * b.len()) as u64)?;
            Ok(Value::Bool(b.iter().all(|item| a.contains(item))))
        }
        ("sets.equivalent", [Value::List(a), Value::List(b)]) => {
            run.pay((a.len() * b.len()) as u64)?;
            let inside = |a: &[Value], b: &[Value]| b.iter().all(|item| a.contains(item));
            Ok(Value::Bool(inside(a, b) && inside(b, a)))
        }
        ("sets.intersects", [Value::List(a), Value::List(b)]) => {
            run.pay((a.len() * b.len()) as u64)?;
            Ok(Value::Bool(b.iter().any(|item| a.contains(item))))
        }
        ("ip.isCanonical", [Value::Text(text)]) => match net::ip(text) {
            Some(ip) => Ok(Value::Bool(ip.to_string() == **text)),
            None => fail(format!("IP Address {:?} parse error during conversion from string", &**text)),
        },
        ("format.named", [Value::Text(name)]) => {
            Ok(Value::Optional(texts::named_format(name).map(|f| Arc::new(Value::Format(f)))))
        }
        ("strings.quote", [Value::Text(text)]) => Ok(Value::text_of(&crate::goformat::go_quote(text))),
        ("math.greatest" | "math.least", args) => {
            let list: Vec<Value> = match args {
                [Value::List(items)] => items.to_vec(),
                items => items.to_vec(),
            };
            run.pay(list.len() as u64)?;
            extreme(&list, name == "math.greatest")
        }
        (_, [Value::Double(n)]) if name.starts_with("math.") => Ok(Value::Double(match name {
            "math.abs" => n.abs(),
            "math.ceil" => n.ceil(),
            "math.floor" => n.floor(),
            "math.round" => n.round(),
            "math.sign" => n.signum(),
            _ => n.trunc(),
        })),
        ("math.abs", [Value::Int(n)]) => {
            n.checked_abs().map_or_else(|| fail("integer overflow"), |n| Ok(Value::Int(n)))
        }
        ("math.sign", [Value::Int(n)]) => Ok(Value::Int(n.signum())),
        _ => no_overload(),
    }
}

pub(super) fn global(_run: &mut Run<'_>, function: &str, args: &[Value]) -> Evaluated {
    match (function, args) {
        ("quantity", [Value::Text(text)]) => match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(error) => fail(error.to_string()),
        },
        ("isQuantity", [Value::Text(text)]) => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        _ => match net::global(function, args) {
            Some(result) => result,
            None => versions::global(function, args).unwrap_or_else(no_overload),
        },
    }
}

pub(super) fn method(run: &mut Run<'_>, function: &str, args: &[Value]) -> Evaluated {
    match args {
        [Value::Quantity(quantity), rest @ ..] => quantity_method(quantity, function, rest),
        [Value::List(items), rest @ ..] => list_method(run, items, function, rest),
        [Value::Text(text), rest @ ..] => texts::method(run, text, function, rest),
        [Value::Ip(_) | Value::Cidr(_) | Value::Url(_), ..] => net::method(function, args),
        [Value::Semver(_), ..] => versions::method(function, args),
        [Value::Format(name), Value::Text(text)] if function == "validate" => Ok(texts::validate(name, text)),
        [Value::Opaque(of), rest @ ..] => match of.call(function, rest) {
            Some(Ok(value)) => Ok(value),
            Some(Err(text)) => fail(text),
            None => no_overload(),
        },
        _ => no_overload(),
    }
}

fn quantity_method(quantity: &Quantity, function: &str, args: &[Value]) -> Evaluated {
    let other = |value: &Value| match value {
        Value::Quantity(other) => Some(other.clone()),
        Value::Int(n) => Some(Quantity::new(*n, Format::DecimalSi)),
        _ => None,
    };
    match (function, args) {
        ("sign", []) => Ok(Value::Int(i64::from(quantity.sign()))),
        ("isInteger", []) => Ok(Value::Bool(quantity.as_i64().is_some())),
        ("asInteger", []) => match quantity.as_i64() {
            Some(n) => Ok(Value::Int(n)),
            None => fail("cannot convert value to integer"),
        },
        ("asApproximateFloat", []) => Ok(Value::Double(quantity.as_f64())),
        ("isGreaterThan" | "isLessThan" | "compareTo", [Value::Quantity(other)]) => {
            let order = quantity.cmp(other);
            Ok(match function {
                "isGreaterThan" => Value::Bool(order.is_gt()),
                "isLessThan" => Value::Bool(order.is_lt()),
                _ => Value::Int(order as i64),
            })
        }
        ("add" | "sub", [value]) => match other(value) {
            Some(other) if function == "add" => Ok(Value::Quantity(quantity.add(&other))),
            Some(other) => Ok(Value::Quantity(quantity.sub(&other))),
            None => no_overload(),
        },
        _ => no_overload(),
    }
}

fn extreme(items: &[Value], greatest: bool) -> Evaluated {
    let mut best: Option<&Value> = None;
    for item in items {
        let Some(so_far) = best else {
            best = Some(item);
            continue;
        };
        match item.order(so_far) {
            Some(order) if order.is_gt() == greatest && order.is_ne() => best = Some(item),
            Some(_) => {}
            None => return no_overload(),
        }
    }
    match best {
        Some(best) => Ok(best.clone()),
        None => fail(if greatest { "max called on empty list" } else { "min called on empty list" }),
    }
}

fn list_method(run: &mut Run<'_>, items: &[Value], function: &str, args: &[Value]) -> Evaluated {
    run.pay(items.len() as u64)?;
    match (function, args) {
        ("isSorted", []) => {
            for pair in items.windows(2) {
                match pair[0].order(&pair[1]) {
                    Some(order) if order.is_gt() => return Ok(Value::Bool(false)),
                    Some(_) => {}
                    None => return no_overload(),
                }
            }
            Ok(Value::Bool(true))
        }
        ("sum", []) => {
            let mut sum = match items.first() {
                Some(Value::Double(_)) => Value::Double(0.0),
                Some(Value::Uint(_)) => Value::Uint(0),
                Some(Value::Duration(_)) => Value::Duration(0),
                _ => Value::Int(0),
            };
            for item in items {
                sum = super::functions::global(run, "_+_", &[sum, item.clone()])?;
            }
            Ok(sum)
        }
        ("min", []) => extreme(items, false),
        ("max", []) => extreme(items, true),
        ("indexOf", [item]) => Ok(Value::Int(items.iter().position(|i| i == item).map_or(-1, |i| i as i64))),
        ("lastIndexOf", [item]) => {
            Ok(Value::Int(items.iter().rposition(|i| i == item).map_or(-1, |i| i as i64)))
        }
        ("join", rest) => {
            let separator = match rest {
                [] => "",
                [Value::Text(text)] => text,
                _ => return no_overload(),
            };
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let Value::Text(text) = item else { return no_overload() };
                run.pay(text.len() as u64 / 10)?;
                out.push(&**text);
            }
            Ok(Value::text_of(&out.join(separator)))
        }
        ("reverse", []) => Ok(Value::list_of(items.iter().rev().cloned().collect())),
        _ => no_overload(),
    }
}
