//! Events, in both groups that serve them: the older one takes whatever it always took.

use serde_json::Value;

use super::cursor::Cursor;
use crate::{
    access::{Get as _, same},
    names, time,
};

/// Longest reporter, action and reason, and longest message, in bytes.
const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

/// What both groups hold events to; `controller` is what the group calls who reports.
fn legacy<'v>(event: Cursor<'v>, controller: &'v str) {
    let about = event.field("involvedObject.namespace");
    let own = event.field("metadata.namespace");
    // What lives nowhere has its events in `default`, and since events have a time of their own also in `kube-system`.
    let timed = !event.text("eventTime").is_empty();
    let fits = match (timed, about.is_empty()) {
        (_, true) => own.str() == "default" || own.str() == if timed { "kube-system" } else { "" },
        (false, false) => about.str() == own.str(),
        (true, false) => true,
    };
    if !fits {
        about.invalid("does not match event.namespace");
    }
    if timed {
        let reporter = event.field("reportingComponent").named(controller);
        reporter.required();
        reporter.qualified();
        for text in ["reportingInstance", "action", "reason"].map(|key| event.field(key)) {
            text.required();
            bounded(text, TEXT_MAX);
        }
        bounded(event.field("message"), MESSAGE_MAX);
    }
    own.named("namespace").format(names::dns1123_subdomain);
}

fn bounded(text: Cursor<'_>, max: usize) {
    if text.str().len() > max {
        text.invalid_value("", format!("can have at most {max} characters"));
    }
}

pub(super) fn core_event(event: Cursor<'_>) {
    legacy(event, "reportingComponent");
}

pub(super) fn event(event: Cursor<'_>) {
    legacy(event, "reportingController");
}

fn series(event: Cursor<'_>) {
    if let Some(series) = event.field("series").if_set() {
        if series.int("count") < 2 {
            series.field("count").invalid_value("", "should be at least 2");
        }
        series.field("lastObservedTime").required();
    }
}

/// The newer group's events have a time and a type, and nothing of the older form.
pub(super) fn create(event: Cursor<'_>) {
    series(event);
    event.field("eventTime").required();
    let kind = event.field("type");
    if !["Normal", "Warning"].contains(&kind.str()) {
        kind.invalid_value("", format!("has invalid value: {}", kind.str()));
    }
    for old in ["firstTimestamp", "lastTimestamp", "count", "source"].map(|key| event.field(key)) {
        if !(same(old.value, &Value::Object(serde_json::Map::new())) || old.number() == Some(0)) {
            old.invalid_value("", "needs to be unset");
        }
    }
}

/// Of the newer group's events only the series goes on.
const FIXED: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

pub(super) fn update(event: Cursor<'_>) {
    if event.field("series").changed() {
        series(event);
    }
    for key in FIXED {
        let shown = if key == "reportingComponent" { "reportingController" } else { key };
        event.field(key).named(shown).immutable();
    }
    // Some clients cut nanoseconds off.
    let micros = |event: &Value| time::parse(event.text("eventTime")).ok().map(|time| time.as_microsecond());
    if micros(event.value) != micros(event.old) {
        event.field("eventTime").immutable();
    }
}
