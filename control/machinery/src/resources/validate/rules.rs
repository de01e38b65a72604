//! Checks by path, for policies of admission.

use super::Errors;
use crate::{
    field::{FieldError, Path},
    names,
};

/// One error for each message about a text.
pub(super) fn text(path: &Path, value: &str, messages: Vec<String>, errors: &mut Errors) {
    errors.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

pub(super) fn subdomain(path: &Path, value: &str, errors: &mut Errors) {
    text(path, value, names::dns1123_subdomain(value), errors);
}

pub(super) fn required(path: &Path, value: &str, errors: &mut Errors) -> bool {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    !value.is_empty()
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
