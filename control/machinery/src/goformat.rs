//! Go's `%q` and `%v`, where an error text repeats a value.

use serde_json::{Number, Value};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// `strconv.Quote`: double quotes, with control and unprintable characters escaped.
#[must_use]
pub fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => escape(&mut out, 'x', 2, c),
            c if is_unprintable(c) && (c as u32) < 0x1_0000 => escape(&mut out, 'u', 4, c),
            c if is_unprintable(c) => escape(&mut out, 'U', 8, c),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, kind: char, width: usize, c: char) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\{kind}{:0width$x}", c as u32);
}

/// Close to `!unicode.IsPrint`: controls, separators other than the space, format and private characters.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
            | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
}

/// Several errors in one text, as apimachinery's aggregate prints them.
#[must_use]
pub fn aggregate(errors: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for error in errors {
        if !unique.contains(&error.as_str()) {
            unique.push(error);
        }
    }
    match unique.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// `%v` of an integer or a float64.
#[must_use]
pub(crate) fn go_number(n: &Number) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() => go_float(f),
        _ => n.to_string(),
    }
}

/// `%v` of a float64: the shortest digits that read back, with an exponent of two digits below -4 and from 21 on.
#[must_use]
pub(crate) fn go_float(f: f64) -> String {
    if f == 0.0 {
        return if f.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let exp_form = format!("{f:e}");
    let Some((mantissa, exponent)) = exp_form.split_once('e') else { return exp_form };
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..21).contains(&e) => {
            format!("{mantissa}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
        }
        _ => format!("{f}"),
    }
}

/// `%v` of what JSON decodes to: `map[a:1 b:[x y]]`.
#[must_use]
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => go_number(n),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// `%T` of what JSON decodes to.
#[must_use]
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%#v` of what JSON decodes to: `map[string]interface {}{"a":1}`.
#[must_use]
pub fn go_syntax(value: &Value) -> String {
    let list = |parts: Vec<String>| format!("{}{{{}}}", go_type(value), parts.join(", "));
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(_) | Value::Number(_) => go_value(value),
        Value::String(text) => go_quote(text),
        Value::Array(items) => list(items.iter().map(go_syntax).collect()),
        Value::Object(map) => {
            list(map.iter().map(|(k, v)| format!("{}:{}", go_quote(k), go_syntax(v))).collect())
        }
    }
}

/// What Go's `os` says of an operation on a file that failed.
#[must_use]
pub fn path_error(operation: &str, path: &Path, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("{operation} {}: {reason}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(go_quote("a\"b\\c\n\u{1}\u{7f}é\u{a0}"), "\"a\\\"b\\\\c\\n\\x01\\x7fé\\u00a0\"");
    }

    #[test]
    fn floats_as_go_prints_them() {
        for (f, text) in [
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (3.0, "3"),
        ] {
            assert_eq!(go_float(f), text);
        }
    }
}
