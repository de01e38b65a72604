//! `format` (upstream: cel-go's `ext/formatting.go`).

use super::super::fault::{Evaluated, fail, no_overload};
use super::super::value::Value;
use crate::goformat::go_float;

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%o`.
pub(super) fn format(text: &str, args: &[Value]) -> Evaluated {
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
