//! Amounts that cannot be had in part.

use serde_json::Value;

use crate::{field::Path, goformat::go_quote, quantity::Quantity};

/// Warns of an amount of bytes that is no whole number.
pub(super) fn fractional(path: &Path, amounts: &Value, resource: &str, found: &mut Vec<String>) {
    let text = amounts.get(resource).and_then(Value::as_str).unwrap_or_default();
    if let Ok(amount) = Quantity::parse(text)
        && amount.milli_value() % 1000 != 0
    {
        let amount = go_quote(&amount.to_string());
        found.push(format!(
            "{}: fractional byte value {amount} is invalid, must be an integer",
            path.key(resource)
        ));
    }
}
