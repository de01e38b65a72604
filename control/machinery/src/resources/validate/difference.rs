//! Which fields of two values differ.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{access::same, field::Path};

/// A line for each field of a spec that differs: upstream prints a diff of its own types here.
pub(super) fn changed(new: &Value, old: &Value) -> String {
    let mut lines = Vec::new();
    differences(&Path::new("spec"), new, old, &mut lines);
    lines.join("\n")
}

fn differences(path: &Path, new: &Value, old: &Value, lines: &mut Vec<String>) {
    match (new, old) {
        _ if same(new, old) => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of =
                    |fields: &'_ serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                differences(&path.child(key), &of(a), &of(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&path.index(index), a, b, lines);
            }
        }
        _ => lines.extend([format!("- {path}: {old}"), format!("+ {path}: {new}")]),
    }
}
