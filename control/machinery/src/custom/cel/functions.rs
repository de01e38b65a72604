//! The standard functions and operators.

use super::eval::{Evaluated, Run, fail, no_overload};
use super::library;
use super::value::Value;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use regex::Regex;

/// Names that are types.
const TYPES: [&str; 14] = [
    "null_type",
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "net.IP",
];

pub(super) fn type_value(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|t| *t == name)
}

fn checked(value: Option<i64>) -> Evaluated {
    value.map_or_else(|| fail("integer overflow"), |n| Ok(Value::Int(n)))
}

fn unsigned(value: Option<u64>) -> Evaluated {
    value.map_or_else(|| fail("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
}

fn span(value: Option<i64>) -> Evaluated {
    value.map_or_else(|| fail("integer overflow"), |n| Ok(Value::Duration(n)))
}

fn later(time: Timestamp, nanos: i64) -> Evaluated {
    time.checked_add(SignedDuration::from_nanos(nanos))
        .map_or_else(|_| fail("timestamp overflow"), |t| Ok(Value::Time(t)))
}

fn arithmetic(run: &mut Run<'_>, operator: &str, a: &Value, b: &Value) -> Evaluated {
    match (operator, a, b) {
        ("_+_", Value::Int(a), Value::Int(b)) => checked(a.checked_add(*b)),
        ("_-_", Value::Int(a), Value::Int(b)) => checked(a.checked_sub(*b)),
        ("_*_", Value::Int(a), Value::Int(b)) => checked(a.checked_mul(*b)),
        ("_/_", Value::Int(_), Value::Int(0)) | ("_/_", Value::Uint(_), Value::Uint(0)) => {
            fail("division by zero")
        }
        ("_%_", Value::Int(_), Value::Int(0)) | ("_%_", Value::Uint(_), Value::Uint(0)) => {
            fail("modulus by zero")
        }
        ("_/_", Value::Int(a), Value::Int(b)) => checked(a.checked_div(*b)),
        ("_%_", Value::Int(a), Value::Int(b)) => checked(a.checked_rem(*b)),
        ("_+_", Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_add(*b)),
        ("_-_", Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_sub(*b)),
        ("_*_", Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_mul(*b)),
        ("_/_", Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_div(*b)),
        ("_%_", Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_rem(*b)),
        ("_+_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        ("_-_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        ("_+_", Value::Text(a), Value::Text(b)) => {
            run.pay((a.len() + b.len()) as u64 / 10)?;
            Ok(Value::Text(format!("{a}{b}").into()))
        }
        ("_+_", Value::Bytes(a), Value::Bytes(b)) => {
            run.pay((a.len() + b.len()) as u64 / 10)?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        ("_+_", Value::List(a), Value::List(b)) => {
            run.pay((a.len() + b.len()) as u64)?;
            Ok(Value::list_of(a.iter().chain(b.iter()).cloned().collect()))
        }
        ("_+_", Value::Duration(a), Value::Duration(b)) => span(a.checked_add(*b)),
        ("_-_", Value::Duration(a), Value::Duration(b)) => span(a.checked_sub(*b)),
        ("_+_", Value::Time(t), Value::Duration(d)) | ("_+_", Value::Duration(d), Value::Time(t)) => {
            later(*t, *d)
        }
        ("_-_", Value::Time(t), Value::Duration(d)) => match d.checked_neg() {
            Some(d) => later(*t, d),
            None => fail("integer overflow"),
        },
        ("_-_", Value::Time(a), Value::Time(b)) => span(i64::try_from(a.duration_since(*b).as_nanos()).ok()),
        _ => no_overload(),
    }
}

fn compare(operator: &str, a: &Value, b: &Value) -> Evaluated {
    // Not a number is in no order to anything, and of two types only numbers are.
    let numbers = |v: &Value| matches!(v, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    let Some(order) = a.order(b) else {
        return if numbers(a) && numbers(b) { Ok(Value::Bool(false)) } else { no_overload() };
    };
    Ok(Value::Bool(match operator {
        "_<_" => order.is_lt(),
        "_<=_" => order.is_le(),
        "_>_" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn member(item: &Value, of: &Value) -> Evaluated {
    match of {
        Value::List(items) => Ok(Value::Bool(items.contains(item))),
        Value::Map(entries) => Ok(Value::Bool(item.key().is_some_and(|k| entries.contains_key(&k)))),
        _ => no_overload(),
    }
}

pub(super) fn regex(text: &str) -> Result<Regex, super::eval::Error> {
    Regex::new(text).or_else(|_| fail(format!("error parsing regexp: {text}")))
}

pub(super) fn global(run: &mut Run<'_>, function: &str, args: &[Value]) -> Evaluated {
    match (function, args) {
        ("_==_" | "_!=_", [a, b]) => {
            run.pay(a.size().min(b.size()) / 10)?;
            Ok(Value::Bool((a == b) == (function == "_==_")))
        }
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            run.pay(a.size().min(b.size()) / 10)?;
            compare(function, a, b)
        }
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(run, function, a, b),
        ("@in", [item, of]) => {
            if matches!(of, Value::List(_)) {
                run.pay(of.size())?;
            }
            member(item, of)
        }
        ("!_", [Value::Bool(is)]) => Ok(Value::Bool(!is)),
        ("-_", [Value::Int(n)]) => checked(n.checked_neg()),
        ("-_", [Value::Double(n)]) => Ok(Value::Double(-n)),
        ("-_", [Value::Duration(n)]) => span(n.checked_neg()),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_name())),
        ("size", [value]) => size(value),
        ("int", [value]) => to_int(value),
        ("uint", [value]) => to_uint(value),
        ("double", [value]) => to_double(value),
        ("bool", [Value::Bool(is)]) => Ok(Value::Bool(*is)),
        ("bool", [Value::Text(text)]) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => fail("type conversion error from 'string' to 'bool'"),
        },
        ("string", [value]) => {
            run.pay_for(value)?;
            match value {
                Value::List(_) | Value::Map(_) | Value::Type(_) | Value::Optional(_) | Value::Null => {
                    no_overload()
                }
                value => Ok(Value::text_of(&value.text())),
            }
        }
        ("bytes", [Value::Text(text)]) => {
            run.pay_for(&args[0])?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        ("bytes", [Value::Bytes(_)]) => Ok(args[0].clone()),
        ("duration", [Value::Duration(_)]) | ("timestamp", [Value::Time(_)]) => Ok(args[0].clone()),
        ("duration", [Value::Text(text)]) => match crate::duration::parse(text) {
            Ok(nanos) => Ok(Value::Duration(nanos)),
            Err(_) => fail(format!("time: invalid duration {:?}", &**text)),
        },
        ("timestamp", [Value::Text(text)]) => match text.parse::<Timestamp>() {
            Ok(time) => Ok(Value::Time(time)),
            Err(_) => fail(format!("parsing time {:?} as \"2006-01-02T15:04:05Z07:00\"", &**text)),
        },
        ("timestamp", [Value::Int(seconds)]) => match Timestamp::from_second(*seconds) {
            Ok(time) => Ok(Value::Time(time)),
            Err(_) => fail("timestamp overflow"),
        },
        ("matches", [_, _]) => method(run, function, args),
        _ => library::global(run, function, args),
    }
}

fn size(value: &Value) -> Evaluated {
    match value {
        Value::Text(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            Ok(Value::Int(value.size() as i64))
        }
        _ => no_overload(),
    }
}

fn to_int(value: &Value) -> Evaluated {
    match value {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Uint(n) => checked(i64::try_from(*n).ok()),
        // As cel-go: what is behind the point is cut.
        Value::Double(n) if n.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*n as i64)),
        Value::Double(_) => fail("integer overflow"),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Int(n)),
            Err(_) => fail(format!("strconv.ParseInt: parsing {:?}: invalid syntax", &**text)),
        },
        Value::Time(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        _ => no_overload(),
    }
}

fn to_uint(value: &Value) -> Evaluated {
    match value {
        Value::Uint(n) => Ok(Value::Uint(*n)),
        Value::Int(n) => unsigned(u64::try_from(*n).ok()),
        Value::Double(n) if *n >= 0.0 && *n < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*n as u64)),
        Value::Double(_) => fail("unsigned integer overflow"),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Uint(n)),
            Err(_) => fail(format!("strconv.ParseUint: parsing {:?}: invalid syntax", &**text)),
        },
        _ => no_overload(),
    }
}

fn to_double(value: &Value) -> Evaluated {
    match value {
        Value::Double(n) => Ok(Value::Double(*n)),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Double(n)),
            Err(_) => fail(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", &**text)),
        },
        _ => no_overload(),
    }
}

pub(super) fn method(run: &mut Run<'_>, function: &str, args: &[Value]) -> Evaluated {
    match (function, args) {
        ("size", [value]) => size(value),
        ("contains", [Value::Text(a), Value::Text(b)]) => {
            run.pay((a.len() as u64 / 10).max(1) * (b.len() as u64 / 10).max(1))?;
            Ok(Value::Bool(a.contains(&**b)))
        }
        ("startsWith", [Value::Text(a), Value::Text(b)]) => {
            run.pay(b.len() as u64 / 10)?;
            Ok(Value::Bool(a.starts_with(&**b)))
        }
        ("endsWith", [Value::Text(a), Value::Text(b)]) => {
            run.pay(b.len() as u64 / 10)?;
            Ok(Value::Bool(a.ends_with(&**b)))
        }
        ("matches", [Value::Text(text), Value::Text(pattern)]) => {
            // As cel-go: the text once for every four characters of the pattern.
            run.pay((1 + text.len() as u64 / 10) * (pattern.len() as u64 / 4).max(1))?;
            Ok(Value::Bool(regex(pattern)?.is_match(text)))
        }
        (name, [Value::Time(time), rest @ ..]) if name.starts_with("get") => part(*time, name, rest),
        ("getHours", [Value::Duration(n)]) => Ok(Value::Int(n / 3_600_000_000_000)),
        ("getMinutes", [Value::Duration(n)]) => Ok(Value::Int(n / 60_000_000_000)),
        ("getSeconds", [Value::Duration(n)]) => Ok(Value::Int(n / 1_000_000_000)),
        ("getMilliseconds", [Value::Duration(n)]) => Ok(Value::Int(n / 1_000_000 % 1000)),
        ("hasValue", [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        ("value", [Value::Optional(inner)]) => match inner {
            Some(inner) => Ok((**inner).clone()),
            None => fail("optional.none() dereference"),
        },
        _ => library::method(run, function, args),
    }
}

/// Parts of a time, in UTC or in the zone given.
fn part(time: Timestamp, name: &str, zone: &[Value]) -> Evaluated {
    let zone = match zone {
        [] => TimeZone::UTC,
        [Value::Text(name)] => match zone_of(name) {
            Some(zone) => zone,
            None => return fail(format!("unknown time zone {name}")),
        },
        _ => return no_overload(),
    };
    let at = time.to_zoned(zone);
    let number = match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return no_overload(),
    };
    Ok(Value::Int(number))
}

/// `Europe/Paris`, `UTC`, `-08:00`.
fn zone_of(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
        let minutes: i32 = minutes.parse().ok()?;
        let seconds = (hours * 60 + minutes) * 60;
        let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}
