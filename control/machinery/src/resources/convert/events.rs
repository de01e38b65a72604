//! Events: `events.k8s.io/v1` renames the core group's fields, and keeps the old ones under `deprecated...`.

use serde_json::Value;

use crate::access::{Fields, remove, set};

/// Core name, `events.k8s.io` name.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) fn to_core(event: &mut Value) {
    for (core, renamed) in NAMES {
        if let Some(value) = remove(event, renamed) {
            set(event, core, value);
        }
    }
    // The core type writes these even when they are empty.
    for key in ["involvedObject", "source"] {
        if event.get(key).is_none_or(Value::is_null) {
            set(event, key, Fields::new());
        }
    }
    for key in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        if event.get(key).is_none() {
            set(event, key, Value::Null);
        }
    }
    for key in ["reportingComponent", "reportingInstance"] {
        if event.get(key).is_none_or(Value::is_null) {
            set(event, key, "");
        }
    }
}

pub(super) fn from_core(event: &mut Value) {
    for (core, renamed) in NAMES {
        if let Some(value) = remove(event, core) {
            set(event, renamed, value);
        }
    }
    for key in ["reportingController", "reportingInstance"] {
        if event.get(key).and_then(Value::as_str) == Some("") {
            remove(event, key);
        }
    }
    if event.get("eventTime").is_none() {
        set(event, "eventTime", Value::Null);
    }
}
