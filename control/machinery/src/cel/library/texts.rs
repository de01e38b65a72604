//! Texts: looking, cutting, joining (upstream: the standard library, and version 2 of cel-go's `ext/strings.go`).

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail};
use super::super::overload::{Overload, Sig, body, global, list, member};
use super::super::value::Value;
use super::printf;
use crate::goformat::go_quote;

fn at(text: &[char], index: i64) -> Result<usize, super::super::fault::Error> {
    usize::try_from(index)
        .ok()
        .filter(|i| *i <= text.len())
        .map_or_else(|| fail(format!("index out of range: {index}")), Ok)
}

fn find(text: &[char], part: &[char], from: usize) -> Option<usize> {
    (from..=text.len().checked_sub(part.len())?).find(|i| text[*i..].starts_with(part))
}

fn made(chars: &[char]) -> Evaluated {
    Ok(Value::text_of(&chars.iter().collect::<String>()))
}

fn place(found: Option<usize>) -> Evaluated {
    Ok(Value::Int(found.map_or(-1, |i| i64::try_from(i).unwrap_or(i64::MAX))))
}

fn first(text: &str, part: &str, from: i64) -> Evaluated {
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let Ok(start) = usize::try_from(from) else { return fail(format!("index out of range: {from}")) };
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    place(find(&text, &part, start))
}

/// The last place, at `to` or before it; where `to` is behind the end, there is none.
fn last(text: &str, part: &str, to: Option<i64>) -> Evaluated {
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    if part.is_empty() {
        return Ok(Value::Int(to.unwrap_or(length)));
    }
    let end = match to {
        Some(to) if to < 0 => return fail(format!("index out of range: {to}")),
        Some(to) if to >= length => return place(None),
        Some(to) => usize::try_from(to).unwrap_or(usize::MAX),
        None => text.len(),
    };
    let most = text.len().checked_sub(part.len()).map(|most| most.min(end));
    place(most.and_then(|most| (0..=most).rev().find(|i| text[*i..].starts_with(&part))))
}

fn cut(text: &str, from: i64, to: Option<i64>) -> Evaluated {
    let chars: Vec<char> = text.chars().collect();
    if let Some(end) = to.filter(|to| from > *to) {
        return fail(format!("invalid substring range. start: {from}, end: {end}"));
    }
    let start = at(&chars, from)?;
    let end = to.map_or(Ok(chars.len()), |to| at(&chars, to))?;
    made(&chars[start..end])
}

fn replace(text: &str, old: &str, new: &str, times: i64) -> Evaluated {
    Ok(Value::text_of(&match usize::try_from(times) {
        Ok(times) => text.replacen(old, new, times),
        Err(_) => text.replace(old, new),
    }))
}

/// As Go's `strings.SplitN`: an empty separator cuts at every character.
fn split(text: &str, separator: &str, most: i64) -> Evaluated {
    let parts: Vec<String> = match (usize::try_from(most), separator) {
        (Ok(0), _) => Vec::new(),
        (most, "") => {
            let whole = most.unwrap_or(usize::MAX).saturating_sub(1);
            let mut parts: Vec<String> = text.chars().take(whole).map(String::from).collect();
            let rest: String = text.chars().skip(whole).collect();
            parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
            parts
        }
        (Ok(most), separator) => text.splitn(most, separator).map(str::to_owned).collect(),
        (Err(_), separator) => text.split(separator).map(str::to_owned).collect(),
    };
    Ok(Value::list_of(parts.iter().map(|p| Value::text_of(p)).collect()))
}

fn join(items: &[Value], separator: &str) -> Evaluated {
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let Value::Text(text) = item else { return fail(format!("join: invalid input: {}", item.text())) };
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(Value::text_of(&out))
}

fn char_at(text: &str, index: i64) -> Evaluated {
    let chars: Vec<char> = text.chars().collect();
    let i = at(&chars, index)?;
    made(chars.get(i..i + 1).unwrap_or_default())
}

pub(super) fn all() -> Vec<Overload> {
    use Cost::Same;
    use Sig::{Bool, Dyn, Int, Text};
    use Value::Text as T;
    const ONE: Cost = Cost::Fixed(1);
    vec![
        member(
            "contains",
            vec![Text, Text],
            Bool,
            Cost::Contains,
            body!([T(a), T(b)] => Ok(Value::Bool(a.contains(&**b)))),
        ),
        member(
            "startsWith",
            vec![Text, Text],
            Bool,
            Cost::Affix,
            body!([T(a), T(b)] => Ok(Value::Bool(a.starts_with(&**b)))),
        ),
        member(
            "endsWith",
            vec![Text, Text],
            Bool,
            Cost::Affix,
            body!([T(a), T(b)] => Ok(Value::Bool(a.ends_with(&**b)))),
        ),
        member("charAt", vec![Text, Int], Text, ONE, body!([T(text), Value::Int(i)] => char_at(text, *i))),
        member("indexOf", vec![Text, Text], Int, Cost::Items, body!([T(a), T(b)] => first(a, b, 0))),
        member(
            "indexOf",
            vec![Text, Text, Int],
            Int,
            Cost::Items,
            body!([T(a), T(b), Value::Int(i)] => first(a, b, *i)),
        ),
        member("lastIndexOf", vec![Text, Text], Int, Cost::Items, body!([T(a), T(b)] => last(a, b, None))),
        member(
            "lastIndexOf",
            vec![Text, Text, Int],
            Int,
            Cost::Items,
            body!([T(a), T(b), Value::Int(i)] => last(a, b, Some(*i))),
        ),
        member(
            "lowerAscii",
            vec![Text],
            Text,
            Same,
            body!([T(text)] => Ok(Value::text_of(&text.to_ascii_lowercase()))),
        ),
        member(
            "upperAscii",
            vec![Text],
            Text,
            Same,
            body!([T(text)] => Ok(Value::text_of(&text.to_ascii_uppercase()))),
        ),
        member("trim", vec![Text], Text, Same, body!([T(text)] => Ok(Value::text_of(text.trim())))),
        member(
            "substring",
            vec![Text, Int],
            Text,
            Same,
            body!([T(text), Value::Int(from)] => cut(text, *from, None)),
        ),
        member(
            "substring",
            vec![Text, Int, Int],
            Text,
            Same,
            body!([T(text), Value::Int(from), Value::Int(to)] => cut(text, *from, Some(*to))),
        ),
        member(
            "replace",
            vec![Text, Text, Text],
            Text,
            Cost::Replace,
            body!([T(text), T(old), T(new)] => replace(text, old, new, -1)),
        ),
        member(
            "replace",
            vec![Text, Text, Text, Int],
            Text,
            Cost::Replace,
            body!([T(text), T(old), T(new), Value::Int(n)] => replace(text, old, new, *n)),
        ),
        member(
            "split",
            vec![Text, Text],
            list(Text),
            Cost::Split,
            body!([T(text), T(by)] => split(text, by, -1)),
        ),
        member(
            "split",
            vec![Text, Text, Int],
            list(Text),
            Cost::Split,
            body!([T(text), T(by), Value::Int(n)] => split(text, by, *n)),
        ),
        member("join", vec![list(Text)], Text, Cost::Join, body!([Value::List(items)] => join(items, ""))),
        member(
            "join",
            vec![list(Text), Text],
            Text,
            Cost::Join,
            body!([Value::List(items), T(by)] => join(items, by)),
        ),
        member(
            "format",
            vec![Text, list(Dyn)],
            Text,
            Cost::Text(1),
            body!([T(text), Value::List(args)] => printf::format(text, args)),
        ),
        global(
            "strings.quote",
            vec![Text],
            Text,
            Cost::Quoted,
            body!([T(text)] => Ok(Value::text_of(&go_quote(text)))),
        ),
    ]
}
