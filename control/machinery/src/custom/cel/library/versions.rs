//! Semantic versions.

use super::super::eval::{Evaluated, fail, no_overload};
use super::super::value::{Semver, Value};
use std::cmp::Ordering;
use std::sync::Arc;

/// Upstream's bound.
const LONGEST: usize = 256;

fn parse(text: &str, lenient: bool) -> Option<Semver> {
    if text.len() > LONGEST {
        return None;
    }
    let bare = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (rest, build) = bare.split_once('+').unwrap_or((bare, ""));
    let (core, pre) = rest.split_once('-').unwrap_or((rest, ""));
    let mut parts: Vec<&str> = core.split('.').collect();
    if lenient {
        parts.resize(parts.len().max(3), "0");
    }
    let number = |text: &&str| {
        let zeros = text.len() > 1 && text.starts_with('0') && !lenient;
        text.parse::<u64>().ok().filter(|_| !zeros && text.bytes().all(|b| b.is_ascii_digit()))
    };
    let numbers: Vec<u64> = parts.iter().map(number).collect::<Option<_>>()?;
    let valid = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let identifiers: Vec<String> = match pre {
        "" if rest.contains('-') => return None,
        "" => Vec::new(),
        pre => pre.split('.').map(str::to_owned).collect(),
    };
    if !identifiers.iter().all(|p| valid(p)) || (bare.contains('+') && !build.split('.').all(valid)) {
        return None;
    }
    Some(Semver { numbers: numbers.try_into().ok()?, pre: identifiers, build: build.to_owned() })
}

fn compare(a: &Semver, b: &Semver) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let one = |(a, b): (&String, &String)| match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            };
            a.pre.iter().zip(&b.pre).map(one).find(|o| o.is_ne()).unwrap_or(a.pre.len().cmp(&b.pre.len()))
        }
    })
}

pub(super) fn global(function: &str, args: &[Value]) -> Option<Evaluated> {
    let (text, lenient) = match args {
        [Value::Text(text)] => (text, false),
        [Value::Text(text), Value::Bool(lenient)] => (text, *lenient),
        _ => return None,
    };
    match function {
        "semver" => Some(match parse(text, lenient) {
            Some(version) => Ok(Value::Semver(Arc::new(version))),
            None => fail("invalid semver"),
        }),
        "isSemver" => Some(Ok(Value::Bool(parse(text, lenient).is_some()))),
        _ => None,
    }
}

pub(super) fn method(function: &str, args: &[Value]) -> Evaluated {
    match args {
        [Value::Semver(of)] => {
            let at = match function {
                "major" => 0,
                "minor" => 1,
                "patch" => 2,
                _ => return no_overload(),
            };
            Ok(Value::Int(i64::try_from(of.numbers[at]).unwrap_or(i64::MAX)))
        }
        [Value::Semver(a), Value::Semver(b)] => {
            let order = compare(a, b);
            Ok(match function {
                "compareTo" => Value::Int(order as i64),
                "isGreaterThan" => Value::Bool(order.is_gt()),
                "isLessThan" => Value::Bool(order.is_lt()),
                _ => return no_overload(),
            })
        }
        _ => no_overload(),
    }
}
