//! How long ago, in the few figures a person reads.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{access::Get, time};

/// Seconds in two figures at most: `45s`, `5m30s`, `3d2h`, `400d`, `2y30d`.
pub(crate) fn human_duration(seconds: i64) -> String {
    // Clocks differ by a little; by more than that somebody is wrong.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 2 * 60 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 3 * 60 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => pair(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// A moment as an object has it, in seconds or finer.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    time::parse(text).or_else(|_| time::parse_micro(text)).ok()
}

/// Whole seconds from one moment to a later one.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    let millis = to.as_millisecond().saturating_sub(from.as_millisecond());
    // Go cuts towards zero.
    millis / 1000
}

/// How long ago a moment was; `<unknown>` where there is none.
pub(crate) fn since(text: &str, now: Timestamp) -> String {
    moment(text).map_or_else(|| "<unknown>".to_owned(), |then| human_duration(seconds(then, now)))
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(object.text("metadata.creationTimestamp"), now))
}
