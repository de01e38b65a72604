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

pub(super) fn ip(path: &Path, value: &str, errors: &mut Errors) -> bool {
    let valid = value.parse::<std::net::IpAddr>().is_ok();
    if !valid {
        errors.push(FieldError::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
    valid
}

/// A network in CIDR form, as `10.0.0.0/8`.
pub(super) fn is_cidr(value: &str) -> bool {
    let Some((address, length)) = value.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let max = if address.is_ipv4() { 32 } else { 128 };
    !length.starts_with('+') && length.parse::<u8>().is_ok_and(|length| length <= max)
}

pub(super) fn cidr(path: &Path, value: &str, errors: &mut Errors) {
    if !is_cidr(value) {
        errors.push(FieldError::invalid(
            path,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
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
