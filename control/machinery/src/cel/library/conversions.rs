//! Conversions.

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::overload::{Body, Overload, Sig, global};
use super::super::value::Value;
use super::operators::{checked, unsigned};
use jiff::Timestamp;

fn to_bool(args: &[Value]) -> Evaluated {
    match args {
        [Value::Bool(is)] => Ok(Value::Bool(*is)),
        [Value::Text(text)] => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => unconverted("bool"),
        },
        _ => no_overload(),
    }
}

fn to_text(args: &[Value]) -> Evaluated {
    match args {
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text_of(text)),
            Err(_) => fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [value] => Ok(Value::text_of(&value.text())),
        _ => no_overload(),
    }
}

fn to_bytes(args: &[Value]) -> Evaluated {
    match args {
        [Value::Text(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        [bytes @ Value::Bytes(_)] => Ok(bytes.clone()),
        _ => no_overload(),
    }
}

/// A text that names no value of the type (cel-go: `String.ConvertToType`).
fn unconverted(to: &str) -> Evaluated {
    fail(format!("type conversion error from 'string' to '{to}'"))
}

fn to_duration(args: &[Value]) -> Evaluated {
    match args {
        [Value::Duration(nanos) | Value::Int(nanos)] => Ok(Value::Duration(*nanos)),
        [Value::Text(text)] => match crate::duration::parse(text) {
            Ok(nanos) => Ok(Value::Duration(nanos)),
            Err(_) => unconverted("google.protobuf.Duration"),
        },
        _ => no_overload(),
    }
}

fn to_time(args: &[Value]) -> Evaluated {
    match args {
        [Value::Time(time)] => Ok(Value::Time(*time)),
        [Value::Text(text)] => match text.parse::<Timestamp>() {
            Ok(time) => Ok(Value::Time(time)),
            Err(_) => unconverted("google.protobuf.Timestamp"),
        },
        [Value::Int(seconds)] => match Timestamp::from_second(*seconds) {
            Ok(time) => Ok(Value::Time(time)),
            Err(_) => fail("timestamp overflow"),
        },
        _ => no_overload(),
    }
}

fn to_int(args: &[Value]) -> Evaluated {
    let [value] = args else { return no_overload() };
    match value {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Uint(n) => checked(i64::try_from(*n).ok()),
        // As cel-go: what is behind the point is cut.
        Value::Double(n) if n.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*n as i64)),
        Value::Double(_) => fail("integer overflow"),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Int(n)),
            Err(_) => unconverted("int"),
        },
        Value::Time(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        _ => no_overload(),
    }
}

fn to_uint(args: &[Value]) -> Evaluated {
    let [value] = args else { return no_overload() };
    match value {
        Value::Uint(n) => Ok(Value::Uint(*n)),
        Value::Int(n) => unsigned(u64::try_from(*n).ok()),
        Value::Double(n) if *n >= 0.0 && *n < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*n as u64)),
        Value::Double(_) => fail("unsigned integer overflow"),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Uint(n)),
            Err(_) => unconverted("uint"),
        },
        _ => no_overload(),
    }
}

fn to_double(args: &[Value]) -> Evaluated {
    let [value] = args else { return no_overload() };
    match value {
        Value::Double(n) => Ok(Value::Double(*n)),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::Text(text) => match text.parse() {
            Ok(n) => Ok(Value::Double(n)),
            Err(_) => unconverted("double"),
        },
        _ => no_overload(),
    }
}

pub(super) fn all() -> Vec<Overload> {
    use Sig::{Bool, Bytes, Double, Duration, Int, Text, Time, Uint};
    let from: [(&'static str, Sig, Body, Vec<Sig>); 8] = [
        ("int", Int, to_int, vec![Int, Uint, Double, Text, Time, Duration]),
        ("uint", Uint, to_uint, vec![Uint, Int, Double, Text]),
        ("double", Double, to_double, vec![Double, Int, Uint, Text]),
        ("bool", Bool, to_bool, vec![Bool, Text]),
        (
            "string",
            Text,
            to_text,
            vec![
                Text,
                Bool,
                Bytes,
                Double,
                Duration,
                Int,
                Time,
                Uint,
                Sig::Named("net.IP"),
                Sig::Named("net.CIDR"),
            ],
        ),
        ("bytes", Bytes, to_bytes, vec![Bytes, Text]),
        ("duration", Duration, to_duration, vec![Duration, Text, Int]),
        ("timestamp", Time, to_time, vec![Time, Text, Int]),
    ];
    let mut out = Vec::new();
    for (name, gives, body, takes) in from {
        for sig in takes {
            let cost = match (name, &sig) {
                ("bytes", Text) => Cost::Encoded,
                ("string", Bytes) => Cost::Decoded,
                _ => Cost::Fixed(1),
            };
            out.push(global(name, vec![sig], gives.clone(), cost, body));
        }
    }
    out
}
