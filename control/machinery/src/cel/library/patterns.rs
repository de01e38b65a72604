//! Regular expressions (upstream: `matches` of the standard library, Kubernetes' `cel/library/regex.go`).

use super::super::cost::Cost;
use super::super::fault::{Error, Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::Value;
use crate::re2::Regex;

pub(in super::super) fn compiled(text: &str) -> Result<Regex, Error> {
    Regex::lately(text).or_else(|why| fail(why.to_string()))
}

/// For functions of Kubernetes' own, which say so.
fn legal(text: &str) -> Result<Regex, Error> {
    Regex::lately(text).or_else(|why| fail(format!("Illegal regex: {why}")))
}

fn matches(text: &str, pattern: &str) -> Evaluated {
    Ok(Value::Bool(compiled(pattern)?.is_match(text)))
}

fn find(text: &str, pattern: &str) -> Evaluated {
    Ok(Value::text_of(legal(pattern)?.find(text).map_or("", |m| m.as_str())))
}

/// As many as there are, where `most` is negative.
fn find_all(text: &str, pattern: &str, most: i64) -> Evaluated {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = legal(pattern)?.find_iter(text).take(most).map(|m| Value::text_of(m.as_str())).collect();
    Ok(Value::list_of(found))
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{Bool, Int, Text};
    use Value::Text as T;
    vec![
        // Not called on a text, it is one step to upstream.
        global("matches", vec![Text, Text], Bool, Cost::Fixed(1), body!([T(a), T(b)] => matches(a, b))),
        member("matches", vec![Text, Text], Bool, Cost::Pattern, body!([T(a), T(b)] => matches(a, b))),
        member("find", vec![Text, Text], Text, Cost::Found, body!([T(a), T(b)] => find(a, b))),
        member(
            "findAll",
            vec![Text, Text],
            list(Text),
            Cost::Found,
            body!([T(a), T(b)] => find_all(a, b, -1)),
        ),
        member(
            "findAll",
            vec![Text, Text, Int],
            list(Text),
            Cost::Found,
            body!([T(a), T(b), Value::Int(n)] => find_all(a, b, *n)),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_go_cannot_read_must_not_match() {
        let why = "error parsing regexp: invalid nested repetition operator: `**`";
        assert_eq!(matches("xx", "x**").unwrap_err().to_string(), why);
        assert_eq!(find("xx", "x**").unwrap_err().to_string(), format!("Illegal regex: {why}"));
        assert_eq!(find_all("xx", "x**", 1).unwrap_err().to_string(), format!("Illegal regex: {why}"));
        for (pattern, text) in
            [(r"[^()[\]]", "a"), (r"\Q..\E", ".."), (r"\07", "\u{7}"), ("a{,5}", "a{,5}"), ("{", "{")]
        {
            assert_eq!(find(text, pattern).ok(), Some(Value::text_of(text)), "{pattern}");
        }
        assert_eq!(find("1é٣_", r"\w\W").ok(), Some(Value::text_of("1é")));
    }
}
