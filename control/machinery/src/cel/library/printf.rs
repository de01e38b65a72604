//! `format` (upstream: cel-go's `ext/formatting.go`, numbers as its English locale writes them).

use super::super::fault::{Evaluated, fail};
use super::super::value::{Key, Value};
use crate::goformat::go_quote;

/// Digits behind the point, where none are asked for.
const PRECISION: usize = 6;
/// Longer tails are zeros only.
const LONGEST: usize = 324;

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o`, with a precision after a point.
pub(super) fn format(text: &str, args: &[Value]) -> Evaluated {
    let mut out = String::new();
    let mut args = args.iter().enumerate();
    let mut asked = 0;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let Some((index, arg)) = args.next() else { return fail(format!("index {asked} out of range")) };
        asked = index + 1;
        let (written, after) = match clause(rest, arg) {
            Ok(done) => done,
            Err(why) => return fail(why),
        };
        out.push_str(&written);
        rest = after;
    }
    out.push_str(rest);
    Ok(Value::text_of(&out))
}

/// What a clause writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Clause {
    /// `%s`
    Text,
    /// `%d`
    Integer,
    /// `%f`
    Fixed,
    /// `%e`
    Scientific,
    /// `%b`
    Binary,
    /// `%o`
    Octal,
    /// `%x`, `%X`
    Hex,
}

impl Clause {
    /// As an error says it.
    pub(in super::super) fn takes(self) -> &'static str {
        match self {
            Clause::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Clause::Integer => "decimal clause can only be used on integers",
            Clause::Fixed => "fixed-point clause can only be used on doubles",
            Clause::Scientific => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Octal => "octal clause can only be used on integers",
            Clause::Hex => "only integers, byte buffers, and strings can be formatted as hex",
        }
    }
}

/// The clauses of a format, where so many arguments are given.
///
/// # Errors
/// With why it is none, or wants more.
pub(in super::super) fn clauses(text: &str, given: usize) -> Result<Vec<Clause>, String> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        if out.len() >= given && !rest.is_empty() {
            return Err(format!("index {} out of range", out.len()));
        }
        let read = read(rest)?;
        out.push(read.clause);
        rest = read.rest;
    }
    Ok(out)
}

/// A clause as it was read.
struct Read<'t> {
    clause: Clause,
    precision: usize,
    upper: bool,
    /// What is behind it.
    rest: &'t str,
}

fn read(text: &str) -> Result<Read<'_>, String> {
    if text.is_empty() {
        return Err("unexpected end of string".to_owned());
    }
    let (precision, text) = match text.strip_prefix('.') {
        None => (PRECISION, text),
        Some(after) => {
            let end = after.find(|c: char| !c.is_ascii_digit());
            let why = "could not parse formatting clause: error while parsing precision";
            let end = end.ok_or_else(|| format!("{why}: could not find end of precision specifier"))?;
            let digits = &after[..end];
            let parsed = digits.parse::<usize>().map_err(|_| {
                let go = format!("strconv.Atoi: parsing {digits:?}: invalid syntax");
                format!("{why}: error while converting precision to integer: {go}")
            })?;
            (parsed, &after[end..])
        }
    };
    let mut chars = text.chars();
    let verb = chars.next().unwrap_or_default();
    let clause = match verb {
        's' => Clause::Text,
        'd' => Clause::Integer,
        'f' => Clause::Fixed,
        'e' => Clause::Scientific,
        'b' => Clause::Binary,
        'o' => Clause::Octal,
        'x' | 'X' => Clause::Hex,
        other => {
            let why = format!("unrecognized formatting clause \"{other}\"");
            return Err(format!("could not parse formatting clause: {why}"));
        }
    };
    Ok(Read { clause, precision, upper: verb == 'X', rest: chars.as_str() })
}

/// What a clause makes of its argument, and what is behind the clause.
fn clause<'t>(text: &'t str, arg: &Value) -> Result<(String, &'t str), String> {
    let Read { clause, precision, upper, rest } = read(text)?;
    let written = match clause {
        Clause::Text => shown(arg),
        Clause::Integer => matches!(arg, Value::Int(_) | Value::Uint(_))
            .then(|| arg.text())
            .ok_or_else(|| wrong(clause.takes(), arg)),
        Clause::Fixed => float(arg).map(|n| fixed(n, precision)).ok_or_else(|| wrong(clause.takes(), arg)),
        Clause::Scientific => {
            float(arg).map(|n| scientific(n, precision)).ok_or_else(|| wrong(clause.takes(), arg))
        }
        Clause::Binary => match arg {
            Value::Bool(is) => Ok(u8::from(*is).to_string()),
            _ => integer(arg, |n| format!("{n:b}")).ok_or_else(|| wrong(clause.takes(), arg)),
        },
        Clause::Octal => integer(arg, |n| format!("{n:o}")).ok_or_else(|| wrong(clause.takes(), arg)),
        Clause::Hex => hex(arg).map(|text| if upper { text.to_uppercase() } else { text }),
    };
    written.map(|text| (text, rest)).map_err(|why| format!("error during formatting: {why}"))
}

fn wrong(why: &str, arg: &Value) -> String {
    format!("{why}, was given {}", arg.type_name())
}

/// Doubles, and texts that name what has no digits.
fn float(arg: &Value) -> Option<f64> {
    match arg {
        Value::Double(n) => Some(*n),
        Value::Text(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn special(n: f64) -> Option<String> {
    match n {
        n if n.is_nan() => Some("NaN".to_owned()),
        n if n.is_infinite() => Some(if n > 0.0 { "∞" } else { "-∞" }.to_owned()),
        _ => None,
    }
}

/// With a comma at every thousand.
fn fixed(n: f64, precision: usize) -> String {
    if let Some(text) = special(n) {
        return text;
    }
    let text = format!("{n:.*}", precision.min(LONGEST));
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |d| ("-", d));
    let (whole, tail) = digits.split_once('.').map_or((digits, None), |(w, t)| (w, Some(t)));
    let mut out = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out.extend(tail.map(|t| format!(".{t}")));
    out
}

/// `3.140000×10⁰⁰`
fn scientific(n: f64, precision: usize) -> String {
    if let Some(text) = special(n) {
        return text;
    }
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{n:.*e}", precision.min(LONGEST));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |d| ("⁻", d));
    let raised = format!("{digits:0>2}")
        .chars()
        .filter_map(|c| c.to_digit(10))
        .map(|d| RAISED[d as usize])
        .collect::<String>();
    format!("{mantissa}×10{sign}{raised}")
}

/// A number by its digits, with its sign before them.
fn integer(arg: &Value, digits: fn(u64) -> String) -> Option<String> {
    match arg {
        Value::Int(n) if *n < 0 => Some(format!("-{}", digits(n.unsigned_abs()))),
        Value::Int(n) => Some(digits(n.unsigned_abs())),
        Value::Uint(n) => Some(digits(*n)),
        _ => None,
    }
}

fn hex(arg: &Value) -> Result<String, String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    match arg {
        Value::Text(text) => Ok(bytes(text.as_bytes())),
        Value::Bytes(of) => Ok(bytes(of)),
        other => integer(other, |n| format!("{n:x}")).ok_or_else(|| wrong(Clause::Hex.takes(), other)),
    }
}

/// `%s`
fn shown(arg: &Value) -> Result<String, String> {
    match arg {
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(inside).collect::<Result<_, _>>()?;
            Ok(format!("[{}]", items.join(", ")))
        }
        Value::Map(entries) => {
            let key = |key: &Key| match key {
                Key::Text(text) => go_quote(text),
                other => other.text(),
            };
            let entry = |(k, v): (&Key, &Value)| Ok::<_, String>((key(k), inside(v)?));
            let mut pairs: Vec<(String, String)> = entries.iter().map(entry).collect::<Result<_, _>>()?;
            pairs.sort();
            let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            Ok(format!("{{{}}}", pairs.join(", ")))
        }
        Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Time(_)
        | Value::Duration(_)
        | Value::Type(_)
        | Value::Null => Ok(arg.text()),
        other => Err(wrong(Clause::Text.takes(), other)),
    }
}

/// An item of a list or map, as it would be written in an expression.
fn inside(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(go_quote(text)),
        Value::Bytes(bytes) => Ok(format!("b{}", go_quote(&String::from_utf8_lossy(bytes)))),
        Value::Time(_) => Ok(format!("timestamp({})", go_quote(&value.text()))),
        Value::Duration(_) => Ok(format!("duration({})", go_quote(&value.text()))),
        Value::Double(n) => Ok(match special(*n) {
            None => format!("{n:.PRECISION$}"),
            Some(_) if n.is_nan() => "\"NaN\"".to_owned(),
            Some(_) => if *n > 0.0 { "\"+Inf\"" } else { "\"-Inf\"" }.to_owned(),
        }),
        Value::List(_)
        | Value::Map(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Bool(_)
        | Value::Type(_)
        | Value::Null => shown(value),
        other => Err(format!("no formatting function for {}", other.type_name())),
    }
}
