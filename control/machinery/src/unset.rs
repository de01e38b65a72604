//! Whether a value of a configuration says anything.

use serde_json::Value;

/// True for null, false, zero (of time, too), and what is empty or made of those only: what a file holds that was written with every
/// field in it.
#[must_use]
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || crate::duration::parse(text) == Ok(0),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_program_writes_for_nothing_must_not_look_like_a_wish() {
        for nothing in [json!(null), json!("0s"), json!({"a": [], "b": {"c": 0}}), json!([false, ""])] {
            assert!(says_nothing(&nothing), "{nothing}");
        }
        for wish in [json!(true), json!("1s"), json!({"a": {"b": 1}}), json!(["x"])] {
            assert!(!says_nothing(&wish), "{wish}");
        }
    }
}
