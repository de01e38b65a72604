//! Events, in both groups that serve them: the older one takes whatever it always took.

use serde_json::Value;

use super::{Errors, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

/// Longest reporter, action and reason, and longest message, in bytes.
const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

/// What both groups hold events to; `controller` is what the group calls who reports.
fn legacy(event: &Value, controller: &str, errors: &mut Errors) {
    let (about, own) = (event.text("involvedObject.namespace"), event.text("metadata.namespace"));
    let path = Path::from("involvedObject.namespace");
    // What lives nowhere has its events in `default`, and since events have a time of their own also in `kube-system`.
    let timed = !event.text("eventTime").is_empty();
    let fits = match (timed, about.is_empty()) {
        (_, true) => own == "default" || (timed && own == "kube-system") || (!timed && own.is_empty()),
        (false, false) => about == own,
        (true, false) => true,
    };
    if !fits {
        errors.push(FieldError::invalid(&path, about, "does not match event.namespace"));
    }
    if timed {
        let (reporter, path) = (event.text("reportingComponent"), Path::new(controller));
        rules::required(&path, reporter, errors);
        rules::qualified(&path, reporter, errors);
        for key in ["reportingInstance", "action", "reason"] {
            let path = Path::new(key);
            rules::required(&path, event.text(key), errors);
            bounded(&path, event.text(key), TEXT_MAX, errors);
        }
        bounded(&Path::new("message"), event.text("message"), MESSAGE_MAX, errors);
    }
    rules::text(&Path::new("namespace"), own, names::dns1123_subdomain(own), errors);
}

fn bounded(path: &Path, value: &str, max: usize, errors: &mut Errors) {
    if value.len() > max {
        errors.push(FieldError::invalid(path, "", format!("can have at most {max} characters")));
    }
}

pub(super) fn core_event(event: &Value, errors: &mut Errors) {
    legacy(event, "reportingComponent", errors);
}

pub(super) fn event(event: &Value, errors: &mut Errors) {
    legacy(event, "reportingController", errors);
}

fn series(event: &Value, errors: &mut Errors) {
    if !event.has("series") {
        return;
    }
    if event.int("series.count").unwrap_or_default() < 2 {
        errors.push(FieldError::invalid(&Path::from("series.count"), "", "should be at least 2"));
    }
    if event.text("series.lastObservedTime").is_empty() {
        errors.push(FieldError::required(&Path::from("series.lastObservedTime"), ""));
    }
}

/// The newer group's events have a time and a type, and nothing of the older form.
pub(super) fn create(event: &Value, errors: &mut Errors) {
    series(event, errors);
    rules::required(&Path::new("eventTime"), event.text("eventTime"), errors);
    let kind = event.text("type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(FieldError::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    for key in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let value = event.at(key);
        let unset = value.is_null() || value.as_i64() == Some(0) || same(value, &serde_json::json!({}));
        if !unset {
            errors.push(FieldError::invalid(&Path::new(key), "", "needs to be unset"));
        }
    }
}

/// Of the newer group's events only the series goes on; each field by the name upstream has for it.
const FIXED: [(&str, &str); 12] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    if !same(new.at("series"), old.at("series")) {
        series(new, errors);
    }
    for (key, shown) in FIXED {
        rules::immutable(&Path::new(shown), new.at(key), old.at(key), errors);
    }
    // Some clients cut nanoseconds off.
    let micros = |event: &Value| {
        let parsed = crate::time::parse(event.text("eventTime")).ok();
        parsed.map(|time| time.as_microsecond())
    };
    if micros(new) != micros(old) {
        rules::immutable(&Path::new("eventTime"), new.at("eventTime"), old.at("eventTime"), errors);
    }
}
