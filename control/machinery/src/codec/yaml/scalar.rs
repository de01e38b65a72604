//! YAML 1.1 scalars, resolved as go-yaml v2 resolves them.

use super::Error;
use crate::goformat::go_float;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

const TRUE: [&str; 11] = ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"];
const FALSE: [&str; 11] = ["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"];
const NULL: [&str; 5] = ["", "~", "null", "Null", "NULL"];
const NOT_FINITE: [(&str, &str); 9] = [
    (".nan", "NaN"),
    (".NaN", "NaN"),
    (".NAN", "NaN"),
    (".inf", "+Inf"),
    (".Inf", "+Inf"),
    (".INF", "+Inf"),
    ("-.inf", "-Inf"),
    ("-.Inf", "-Inf"),
    ("-.INF", "-Inf"),
];
const CORE: &str = "tag:yaml.org,2002:";

/// A scalar's value. Only plain ones, and those tagged so, are anything but a text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Value, Error> {
    match tag.map(|t| t.strip_prefix(CORE).unwrap_or(t)) {
        None if plain => implicit(text),
        Some("int" | "float" | "bool" | "null") => implicit(text),
        Some("binary") => {
            let compact: String = text.split_whitespace().collect();
            let bytes = BASE64.decode(compact).map_err(|_| Error::Unsupported("!!binary".to_owned()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned().into())
        }
        _ => Ok(text.into()),
    }
}

fn implicit(text: &str) -> Result<Value, Error> {
    if NULL.contains(&text) {
        return Ok(Value::Null);
    }
    if TRUE.contains(&text) {
        return Ok(true.into());
    }
    if FALSE.contains(&text) {
        return Ok(false.into());
    }
    if let Some((_, name)) = NOT_FINITE.iter().find(|(t, _)| *t == text.strip_prefix('+').unwrap_or(text)) {
        return Err(Error::Unsupported((*name).to_owned()));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(text.into());
    }
    let digits = text.replace('_', "");
    match integer(&digits).or_else(|| float(&digits)) {
        Some(value) => Ok(value),
        None => Ok(text.into()),
    }
}

/// Go's `ParseInt` and `ParseUint` with base 0: `0x`, `0o`, `0b`, and a leading zero for octal.
fn integer(text: &str) -> Option<Value> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = body.to_ascii_lowercase();
    let (digits, radix) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, radix)))
        .unwrap_or(if lower.len() > 1 && lower.starts_with('0') { (&lower[1..], 8) } else { (&lower, 10) });
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        true => i64::try_from(-i128::from(magnitude)).ok().map(Value::from),
        // ParseUint takes no sign.
        false if text.starts_with('+') => i64::try_from(magnitude).ok().map(Value::from),
        false => Some(magnitude.into()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<Value> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = body.split_once(['e', 'E']).map_or((body, None), |(m, e)| (m, Some(e)));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    let mantissa_fits = digits(whole)
        && fraction.is_none_or(digits)
        && (!whole.is_empty() || fraction.is_some_and(|f| !f.is_empty()));
    if !(mantissa_fits && exponent_fits) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|f: &f64| f.is_finite())?;
    // Go writes a whole float without a point, so that it reads back as an integer.
    Some(if value.fract() == 0.0 && value.abs() < 9e15 { (value as i64).into() } else { value.into() })
}

/// A resolved scalar as a JSON key.
pub(super) fn key(value: &Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), go_float)),
        Value::Null => Err(Error::Key("nil")),
        Value::Array(_) => Err(Error::Key("slice")),
        Value::Object(_) => Err(Error::Key("map")),
    }
}

/// A text as it may stand in a document: bare where nobody could take it for something else, else in JSON's quotes.
pub(super) fn write(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let is_bare = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'))
        && text.chars().all(bare)
        && matches!(implicit(text), Ok(Value::String(_)))
        // Dates are times to some readers.
        && !text.starts_with(|c: char| c.is_ascii_digit());
    if is_bare { text.to_owned() } else { Value::from(text).to_string() }
}
