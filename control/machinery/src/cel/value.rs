//! JSON to CEL's values and back.

use super::EvaluationError;
use base64::Engine as _;
use kube_cel::cel::Value as CelValue;
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use serde_json::{Number, Value};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn from_json(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(b) => CelValue::Bool(*b),
        // Whole numbers are ints, as upstream decodes them.
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => CelValue::Int(i),
            (_, Some(u), _) => CelValue::UInt(u),
            (.., f) => CelValue::Float(f.unwrap_or(f64::NAN)),
        },
        Value::String(s) => CelValue::String(Arc::new(s.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(fields) => {
            let map: HashMap<Key, CelValue> =
                fields.iter().map(|(k, v)| (Key::from(k.as_str()), from_json(v))).collect();
            CelValue::Map(Map { map: Arc::new(map) })
        }
    }
}

pub(super) fn to_json(value: &CelValue) -> Result<Value, EvaluationError> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(b) => Value::Bool(*b),
        CelValue::Int(i) => Value::from(*i),
        CelValue::UInt(u) => Value::from(*u),
        CelValue::Float(f) => Number::from_f64(*f).map_or(Value::Null, Value::Number),
        CelValue::String(s) => Value::String(s.to_string()),
        CelValue::Bytes(bytes) => {
            Value::String(base64::engine::general_purpose::STANDARD.encode(bytes.as_slice()))
        }
        CelValue::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        CelValue::Map(map) => Value::Object(
            map.map
                .iter()
                .map(|(key, value)| Ok((key.to_string(), to_json(value)?)))
                .collect::<Result<_, EvaluationError>>()?,
        ),
        CelValue::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => optional.value().map_or(Ok(Value::Null), to_json)?,
            None => return Err(EvaluationError(format!("unsupported type {}", opaque.runtime_type_name()))),
        },
        other => Value::String(shown(other)?),
    })
}

/// Durations and times, as the conversion to string has them.
fn shown(value: &CelValue) -> Result<String, EvaluationError> {
    let mut context = kube_cel::cel::Context::default();
    context.add_variable_from_value("x", value.clone());
    let text = kube_cel::cel::Program::compile("string(x)").ok().and_then(|p| p.execute(&context).ok());
    match text {
        Some(CelValue::String(text)) => Ok(text.to_string()),
        _ => Err(EvaluationError(format!("unsupported type {}", value.type_of()))),
    }
}
