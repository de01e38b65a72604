//! What a schema says of one value, whatever is in it: type, choices, texts, numbers.

use super::{Outcome, Problem, Wrong};
use crate::custom::schema::{Bound, Schema};
use crate::formats;
use crate::goformat::go_float;
use serde_json::{Number, Value};

pub(super) fn types(schema: &Schema) -> &[&str] {
    if schema.int_or_string {
        return &["integer", "string"];
    }
    match schema.kind.as_str() {
        "object" => &["object"],
        "array" => &["array"],
        "string" => &["string"],
        "integer" => &["integer"],
        "number" => &["number"],
        "boolean" => &["boolean"],
        _ => &[],
    }
}

/// JSON type and the format that goes with it.
fn found(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

pub(super) fn null(schema: &Schema, path: &str) -> Outcome {
    let types = types(schema);
    if types.is_empty() || schema.nullable {
        return Outcome { matches: 1, ..Outcome::default() };
    }
    Outcome::one(Problem::wrong_type(path, &types.join(","), "null"))
}

pub(super) fn kind(schema: &Schema, value: &Value, path: &str) -> Outcome {
    let (types, (kind, format)) = (types(schema), found(value));
    let has = |t: &str| types.contains(&t);
    let whole = value.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0);
    let fits =
        has(kind) || (kind == "number" && whole && has("integer")) || (kind == "integer" && has("number"));
    let texts = matches!(value, Value::String(_) | Value::Array(_));
    let numeric = has("number") || has("integer");
    if !texts && !schema.format.is_empty() && !fits && format != schema.format {
        return Outcome::one(Problem::wrong_type(path, &schema.format, format));
    }
    // As upstream: a schema of formatted texts says nothing of lists.
    if (!numeric && !schema.format.is_empty() && texts) || fits {
        return Outcome { matches: 1, ..Outcome::default() };
    }
    Outcome::one(Problem::wrong_type(path, &types.join(","), kind))
}

pub(super) fn choices(schema: &Schema, value: &Value, path: &str) -> Outcome {
    let equal = |choice: &&Value| match (choice, value) {
        (Value::Null, _) => false,
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (choice, value) => **choice == *value,
    };
    if schema.choices.is_empty() || schema.choices.iter().any(|c| equal(&c)) {
        return Outcome::default();
    }
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let all: Vec<String> = schema.choices.iter().map(shown).collect();
    let text = format!("should be one of [{}]", all.join(" "));
    Outcome::one(Problem::new(Wrong::Choices(all), path, value.clone(), text))
}

pub(super) fn text(schema: &Schema, text: &str, path: &str) -> Outcome {
    let length = text.chars().count() as i64;
    let refused = |wrong, why| Outcome::one(Problem::new(wrong, path, text.into(), why));
    if let Some(most) = schema.max_length.filter(|most| length > *most) {
        let wrong = Wrong::TooLong(usize::try_from(most).unwrap_or_default());
        return refused(wrong, format!("should be at most {most} chars long"));
    }
    if let Some(least) = schema.min_length.filter(|least| length < *least) {
        return refused(Wrong::Other, format!("should be at least {least} chars long"));
    }
    match &schema.pattern {
        Some(pattern) => match pattern.regex() {
            Some(regex) if regex.is_match(text) => Outcome::default(),
            Some(_) => refused(Wrong::Other, format!("should match '{}'", pattern.text)),
            None => refused(Wrong::Other, format!("should match '{}, but pattern is invalid'", pattern.text)),
        },
        None => Outcome::default(),
    }
}

pub(super) fn text_format(schema: &Schema) -> bool {
    !schema.format.is_empty() && formats::known("string", &schema.format)
}

pub(super) fn format(schema: &Schema, text: &str, path: &str) -> Outcome {
    if formats::holds(&schema.format, text) {
        return Outcome::default();
    }
    Outcome::one(Problem::wrong_type(path, &schema.format, text))
}

/// The bound as it is printed beside a value: whole beside a whole one.
fn shown(bound: f64, beside: &Number) -> String {
    if beside.is_f64() { go_float(bound) } else { format!("{}", bound as i64) }
}

fn beyond(value: &Number, bound: Bound, above: bool) -> bool {
    let compare = |order: Option<std::cmp::Ordering>| match order {
        Some(std::cmp::Ordering::Equal) => bound.exclusive,
        Some(std::cmp::Ordering::Greater) => above,
        Some(std::cmp::Ordering::Less) => !above,
        None => true,
    };
    match value.as_i64() {
        // As upstream: beside a whole number the bound is one too.
        Some(whole) => compare(Some(whole.cmp(&(bound.value as i64)))),
        None => compare(value.as_f64().unwrap_or_default().partial_cmp(&bound.value)),
    }
}

pub(super) fn number(schema: &Schema, value: &Number, path: &str) -> Outcome {
    let mut out = Outcome::default();
    let refused = |why| Problem::new(Wrong::Other, path, Value::Number(value.clone()), why);
    if let Some(text) = out_of_range(schema, value, path) {
        out.push(Problem::composite(text));
    }
    if let Some(factor) = schema.multiple_of {
        let multiple = match value.as_i64() {
            Some(whole) if factor as i64 > 0 => whole % (factor as i64) == 0,
            Some(_) => false,
            None => {
                let ratio = value.as_f64().unwrap_or_default() / factor;
                (ratio - ratio.round()).abs() < 1e-9
            }
        };
        if !multiple {
            out.push(refused(format!("should be a multiple of {}", shown(factor, value))));
        }
    }
    if let Some(bound) = schema.maximum.filter(|b| beyond(value, *b, true)) {
        let than = if bound.exclusive { "less than" } else { "less than or equal to" };
        out.push(refused(format!("should be {than} {}", shown(bound.value, value))));
    }
    if let Some(bound) = schema.minimum.filter(|b| beyond(value, *b, false)) {
        let than = if bound.exclusive { "greater than" } else { "greater than or equal to" };
        out.push(refused(format!("should be {than} {}", shown(bound.value, value))));
    }
    out.matches += 1;
    out
}

/// A number its type and format cannot hold.
fn out_of_range(schema: &Schema, value: &Number, path: &str) -> Option<String> {
    let (kind, format) = (schema.kind.as_str(), schema.format.as_str());
    let fits = match (kind, format) {
        ("integer", "int32") => whole(value).is_some_and(|n| i32::try_from(n).is_ok()),
        ("integer", _) => whole(value).is_some(),
        ("number", "float") => value.as_f64().is_some_and(|f| f.abs() <= f64::from(f32::MAX)),
        _ => true,
    };
    (!fits).then(|| match format {
        "" => format!("Checked value must be of type {kind} (default format) in {path}"),
        format => format!("Checked value must be of type {kind} with format {format} in {path}"),
    })
}

fn whole(value: &Number) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|f| value.is_f64() && f.fract() == 0.0 && f.abs() < 9.2e18)?;
        Some(float as i64)
    })
}
