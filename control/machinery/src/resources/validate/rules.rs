//! The few rules most fields are held to.

use serde_json::Value;

use super::Errors;
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// One error for each message about a text.
pub(super) fn text(path: &Path, value: &str, messages: Vec<String>, errors: &mut Errors) {
    errors.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

pub(super) fn label(path: &Path, value: &str, errors: &mut Errors) {
    text(path, value, names::dns1123_label(value), errors);
}

pub(super) fn subdomain(path: &Path, value: &str, errors: &mut Errors) {
    text(path, value, names::dns1123_subdomain(value), errors);
}

pub(super) fn qualified(path: &Path, value: &str, errors: &mut Errors) {
    text(path, value, names::qualified_name(value), errors);
}

pub(super) fn required(path: &Path, value: &str, errors: &mut Errors) -> bool {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    !value.is_empty()
}

pub(super) fn not_negative(path: &Path, value: &Value, errors: &mut Errors) {
    if let Some(number) = value.as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(path, number, NOT_NEGATIVE));
    }
}

/// Several counts of one object, by name.
pub(super) fn not_negatives(path: &Path, object: &Value, names: &[&str], errors: &mut Errors) {
    for name in names {
        not_negative(&path.child(name), object.at(name), errors);
    }
}

pub(super) fn between(path: &Path, value: &Value, low: i64, high: i64, errors: &mut Errors) {
    if let Some(number) = value.as_i64().filter(|number| !(low..=high).contains(number)) {
        errors.push(FieldError::invalid(path, number, names::range_error(low, high)));
    }
}

/// One of an enumeration; empty is a missing value.
pub(super) fn one_of(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    if required(path, value, errors) {
        supported_or_empty(path, value, supported, errors);
    }
}

/// One of an enumeration, where it is set at all.
pub(super) fn supported_or_empty(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    if !value.is_empty() && !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, supported));
    }
}

pub(super) fn immutable(path: &Path, new: &Value, old: &Value, errors: &mut Errors) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

pub(super) fn port_number(path: &Path, value: &Value, errors: &mut Errors) {
    let number = value.as_i64().unwrap_or_default();
    errors.extend(
        names::port_number(number).into_iter().map(|message| FieldError::invalid(path, number, message)),
    );
}

/// A port by number or by name.
pub(super) fn port(path: &Path, value: &Value, errors: &mut Errors) {
    match value {
        Value::String(name) => text(path, name, names::port_name(name), errors),
        other => port_number(path, other, errors),
    }
}

/// A count or a percentage, not negative.
pub(super) fn count_or_percent(path: &Path, value: &Value, errors: &mut Errors) {
    match value {
        Value::String(percent) => text(path, percent, names::percent(percent), errors),
        other => not_negative(path, other, errors),
    }
}

pub(super) fn not_over_100_percent(path: &Path, value: &Value, errors: &mut Errors) {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// Whether a count or percentage is nothing.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(percent) => percent.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()) == Some(0),
        other => other.as_i64().unwrap_or_default() == 0,
    }
}

/// A name that can stand in a URL's path.
pub(super) fn segment(path: &Path, value: &str, errors: &mut Errors) {
    if required(path, value, errors) {
        text(path, value, names::path_segment(value), errors);
    }
}

/// A path below a domain, as `example.com/controller`.
pub(super) fn domain_path(path: &Path, value: &str, errors: &mut Errors) {
    if !required(path, value, errors) {
        return;
    }
    let Some((host, rest)) =
        value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, value, detail));
        return;
    };
    text(path, host, names::dns1123_subdomain(host), errors);
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let detail = names::regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(FieldError::invalid(path, rest, detail));
    }
}

/// A key below a domain, as `example.com/key`.
pub(super) fn domain_key(path: &Path, value: &str, errors: &mut Errors) {
    if !required(path, value, errors) {
        return;
    }
    let messages = names::qualified_name(value);
    if messages.is_empty() && value.split('/').count() != 2 {
        let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, value, detail));
    }
    text(path, value, messages, errors);
}

/// A service account token lives ten minutes at least.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

pub(super) fn token_seconds(path: &Path, value: &Value, errors: &mut Errors) {
    let Some(seconds) = value.as_i64() else { return };
    if seconds < TOKEN_SECONDS_MIN {
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > TOKEN_SECONDS_MAX {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(path, seconds, detail));
    }
}

/// Labels: keys are qualified names, values label values.
pub(super) fn labels(path: &Path, labels: &Value, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        qualified(path, key, errors);
        let value = value.as_str().unwrap_or_default();
        text(&path.key(key), value, names::label_value(value), errors);
    }
}
