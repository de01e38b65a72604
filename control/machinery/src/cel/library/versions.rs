//! Semantic versions (upstream: version 1 of `cel/library/semverlib.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, member};
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

fn made(text: &str, lenient: bool) -> Evaluated {
    match parse(text, lenient) {
        Some(version) => Ok(Value::Semver(Arc::new(version))),
        None => fail("invalid semver"),
    }
}

fn is(text: &str, lenient: bool) -> Evaluated {
    Ok(Value::Bool(parse(text, lenient).is_some()))
}

fn number(of: &Semver, at: usize) -> Evaluated {
    Ok(Value::Int(i64::try_from(of.numbers[at]).unwrap_or(i64::MAX)))
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{Bool, Int, Text};
    use Value::{Semver as V, Text as T};
    const ONE: Cost = Cost::Fixed(1);
    let version = || Sig::Named("kubernetes.Semver");
    let two = || vec![version(), version()];
    vec![
        global("semver", vec![Text], version(), Cost::Text(1), body!([T(text)] => made(text, false))),
        global(
            "semver",
            vec![Text, Bool],
            version(),
            Cost::Text(1),
            body!([T(text), Value::Bool(lenient)] => made(text, *lenient)),
        ),
        global("isSemver", vec![Text], Bool, Cost::Text(1), body!([T(text)] => is(text, false))),
        global(
            "isSemver",
            vec![Text, Bool],
            Bool,
            Cost::Text(1),
            body!([T(text), Value::Bool(lenient)] => is(text, *lenient)),
        ),
        member(
            "isGreaterThan",
            two(),
            Bool,
            ONE,
            body!([V(a), V(b)] => Ok(Value::Bool(compare(a, b).is_gt()))),
        ),
        member("isLessThan", two(), Bool, ONE, body!([V(a), V(b)] => Ok(Value::Bool(compare(a, b).is_lt())))),
        member("compareTo", two(), Int, ONE, body!([V(a), V(b)] => Ok(Value::Int(compare(a, b) as i64)))),
        member("major", vec![version()], Int, ONE, body!([V(of)] => number(of, 0))),
        member("minor", vec![version()], Int, ONE, body!([V(of)] => number(of, 1))),
        member("patch", vec![version()], Int, ONE, body!([V(of)] => number(of, 2))),
    ]
}
