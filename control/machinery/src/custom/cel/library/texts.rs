//! Texts: cutting, joining, finding, formatting, named formats.

use super::super::eval::{Evaluated, Run, fail, no_overload};
use super::super::functions::regex;
use super::super::value::Value;
use crate::custom::formats;
use crate::goformat::go_float;
use crate::names;
use std::sync::Arc;

fn at(text: &[char], index: i64) -> Result<usize, super::super::eval::Error> {
    usize::try_from(index)
        .ok()
        .filter(|i| *i <= text.len())
        .map_or_else(|| fail(format!("index out of range: {index}")), Ok)
}

fn find(text: &[char], part: &[char], from: usize) -> Option<usize> {
    (from..=text.len().checked_sub(part.len())?).find(|i| text[*i..].starts_with(part))
}

pub(super) fn method(run: &mut Run<'_>, text: &Arc<str>, function: &str, args: &[Value]) -> Evaluated {
    run.pay(text.len() as u64 / 10)?;
    let chars: Vec<char> = text.chars().collect();
    let made = |chars: &[char]| Ok(Value::text_of(&chars.iter().collect::<String>()));
    match (function, args) {
        ("charAt", [Value::Int(i)]) => {
            let i = at(&chars, *i)?;
            made(chars.get(i..i + 1).unwrap_or_default())
        }
        ("indexOf", [Value::Text(part), rest @ ..]) => {
            let from = match rest {
                [] => 0,
                [Value::Int(from)] => at(&chars, *from)?,
                _ => return no_overload(),
            };
            let part: Vec<char> = part.chars().collect();
            Ok(Value::Int(find(&chars, &part, from).map_or(-1, |i| i as i64)))
        }
        ("lastIndexOf", [Value::Text(part), rest @ ..]) => {
            let part: Vec<char> = part.chars().collect();
            let to = match rest {
                [] => chars.len(),
                [Value::Int(to)] => at(&chars, *to)?,
                _ => return no_overload(),
            };
            let last = chars.len().checked_sub(part.len()).map(|most| most.min(to));
            let found = last.and_then(|last| (0..=last).rev().find(|i| chars[*i..].starts_with(&part)));
            Ok(Value::Int(found.map_or(-1, |i| i as i64)))
        }
        ("lowerAscii", []) => Ok(Value::text_of(&text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text_of(&text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text_of(text.trim())),
        ("reverse", []) => made(&chars.iter().rev().copied().collect::<Vec<_>>()),
        ("replace", [Value::Text(old), Value::Text(new), rest @ ..]) => {
            let times = match rest {
                [] => -1,
                [Value::Int(n)] => *n,
                _ => return no_overload(),
            };
            // Every place may grow by the whole replacement.
            run.pay(text.len() as u64 * (1 + new.len() as u64) / 10)?;
            Ok(Value::text_of(&match usize::try_from(times) {
                Ok(times) => text.replacen(&**old, new, times),
                Err(_) => text.replace(&**old, new),
            }))
        }
        ("split", [Value::Text(separator), rest @ ..]) => {
            let most = match rest {
                [] => -1,
                [Value::Int(n)] => *n,
                _ => return no_overload(),
            };
            let parts: Vec<Value> = match (most, &**separator) {
                (0, _) => Vec::new(),
                (n, "") => {
                    let whole = usize::try_from(n).unwrap_or(usize::MAX);
                    let mut parts: Vec<Value> = chars
                        .iter()
                        .take(whole.saturating_sub(1))
                        .map(|c| Value::text_of(&c.to_string()))
                        .collect();
                    let rest: String = chars.iter().skip(whole.saturating_sub(1)).collect();
                    if !rest.is_empty() {
                        parts.push(Value::text_of(&rest));
                    }
                    parts
                }
                (n, separator) if n < 0 => text.split(separator).map(Value::text_of).collect(),
                (n, separator) => text
                    .splitn(usize::try_from(n).unwrap_or(usize::MAX), separator)
                    .map(Value::text_of)
                    .collect(),
            };
            run.pay(parts.len() as u64)?;
            Ok(Value::list_of(parts))
        }
        ("substring", [Value::Int(from)]) => made(&chars[at(&chars, *from)?..]),
        ("substring", [Value::Int(from), Value::Int(to)]) => {
            let (start, end) = (at(&chars, *from)?, at(&chars, *to)?);
            if start > end {
                return fail(format!("invalid substring range. start: {start}, end: {end}"));
            }
            made(&chars[start..end])
        }
        ("find", [Value::Text(pattern)]) => {
            run.pay((1 + text.len() as u64 / 10) * (pattern.len() as u64 / 4).max(1))?;
            Ok(Value::text_of(regex(pattern)?.find(text).map_or("", |m| m.as_str())))
        }
        ("findAll", [Value::Text(pattern), rest @ ..]) => {
            run.pay((1 + text.len() as u64 / 10) * (pattern.len() as u64 / 4).max(1))?;
            let most = match rest {
                [] => usize::MAX,
                [Value::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => return no_overload(),
            };
            let regex = regex(pattern)?;
            Ok(Value::list_of(regex.find_iter(text).take(most).map(|m| Value::text_of(m.as_str())).collect()))
        }
        ("format", [Value::List(args)]) => format(run, text, args),
        _ => no_overload(),
    }
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%o`.
fn format(run: &mut Run<'_>, text: &str, args: &[Value]) -> Evaluated {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(d) = chars.peek().filter(|d| d.is_ascii_digit()) {
                digits.push(*d);
                chars.next();
            }
            // A longer tail would only be zeros.
            precision = digits.parse::<usize>().ok().map(|p| p.min(64));
        }
        let Some(arg) = args.next() else {
            return fail("index out of range: not enough arguments to format");
        };
        run.pay_for(arg)?;
        let float = match arg {
            Value::Double(n) => Some(*n),
            Value::Int(n) => Some(*n as f64),
            Value::Uint(n) => Some(*n as f64),
            _ => None,
        };
        match (chars.next(), arg) {
            (Some('s'), arg) => out.push_str(&arg.text()),
            (Some('d'), Value::Int(_) | Value::Uint(_)) => out.push_str(&arg.text()),
            (Some('d'), Value::Double(n)) => out.push_str(&go_float(*n)),
            (Some('f'), _) => match float {
                Some(n) => out.push_str(&format!("{n:.*}", precision.unwrap_or(6))),
                None => return no_overload(),
            },
            (Some('e'), _) => match float {
                Some(n) => out.push_str(&format!("{n:.*e}", precision.unwrap_or(6))),
                None => return no_overload(),
            },
            (Some('b'), Value::Int(n)) => out.push_str(&format!("{n:b}")),
            (Some('b'), Value::Bool(is)) => out.push_str(if *is { "1" } else { "0" }),
            (Some('x'), Value::Int(n)) => out.push_str(&format!("{n:x}")),
            (Some('X'), Value::Int(n)) => out.push_str(&format!("{n:X}")),
            (Some('o'), Value::Int(n)) => out.push_str(&format!("{n:o}")),
            (Some('x'), Value::Text(text)) => text.bytes().for_each(|b| out.push_str(&format!("{b:02x}"))),
            _ => return fail("could not parse formatting clause"),
        }
    }
    Ok(Value::text_of(&out))
}

const FORMATS: [&str; 14] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "cidr",
];

pub(super) fn named_format(name: &str) -> Option<&'static str> {
    FORMATS.into_iter().find(|f| *f == name)
}

/// What is wrong with a text of a named format: none, or a list of texts.
pub(super) fn validate(format: &str, text: &str) -> Value {
    let prefix = |check: fn(&str) -> Vec<String>| check(&names::mask_trailing_dash(text));
    let wrong = match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "dns1123LabelPrefix" => prefix(names::dns1123_label),
        "dns1123SubdomainPrefix" => prefix(names::dns1123_subdomain),
        "dns1035LabelPrefix" => prefix(names::dns1035_label),
        other if formats::holds(other, text) => Vec::new(),
        "uuid" => vec!["does not match the UUID format".to_owned()],
        "byte" => vec!["invalid base64".to_owned()],
        "date" => vec!["invalid date".to_owned()],
        "datetime" => vec!["invalid datetime".to_owned()],
        "cidr" => vec!["invalid cidr".to_owned()],
        _ => vec!["invalid URI for request".to_owned()],
    };
    if wrong.is_empty() {
        return Value::Optional(None);
    }
    Value::Optional(Some(Arc::new(Value::list_of(wrong.iter().map(|w| Value::text_of(w)).collect()))))
}
