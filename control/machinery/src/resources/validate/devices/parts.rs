//! What several kinds of devices and claims are held to.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{names, resources::validate::cursor::Cursor};

/// Bytes of a pool's name.
const POOL_MAX: usize = 253;
/// Bytes of an attribute's name, behind its domain.
const ID_MAX: usize = 32;
/// Conditions of either sort that a device may wait for.
const BINDING_MAX: usize = 4;

/// False, and said, where there are more items than there may be: they are not looked at then.
pub(super) fn fits(list: Cursor<'_>, max: usize) -> bool {
    let count = list.values().len();
    if count > max {
        list.too_many(count, max);
    }
    count <= max
}

/// A list whose items are told apart by a key.
pub(super) fn keyed<'v>(list: Cursor<'v>, max: usize, key: &str, check: impl Fn(Cursor<'v>)) {
    if !fits(list, max) {
        return;
    }
    list.items().for_each(check);
    let mut seen = BTreeSet::new();
    for item in list.items().filter(|item| !seen.insert(item.text(key))) {
        item.duplicate_value(item.text(key), "");
    }
}

/// A list of texts that differ.
pub(super) fn distinct<'v>(list: Cursor<'v>, max: usize, check: impl Fn(Cursor<'v>)) {
    if !fits(list, max) {
        return;
    }
    list.items().for_each(check);
    let mut seen = BTreeSet::new();
    for item in list.items().filter(|item| !seen.insert(item.str())) {
        item.duplicate();
    }
}

/// A pool's name: subdomains with slashes between.
pub(super) fn pool_name(pool: Cursor<'_>) {
    if pool.required() {
        pool.bounded(POOL_MAX);
        for part in pool.str().split('/') {
            pool.format_of(part, names::dns1123_subdomain);
        }
    }
}

fn c_identifier(text: &str) -> Vec<String> {
    let mut bytes = text.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Vec::new();
    }
    let what = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
                characters or '_'";
    vec![names::regex_error(what, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

fn identifier(place: Cursor<'_>, id: &str) {
    if id.len() > ID_MAX {
        place.too_long(ID_MAX);
    }
    place.format_of(id, c_identifier);
}

/// An attribute's name, with a domain in front or without; said of `place`.
pub(super) fn qualified_name(place: Cursor<'_>, name: &str) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(place, id),
        [domain, id] => {
            if domain.is_empty() {
                place.invalid_value("", "the domain must not be empty");
            } else {
                place.over(&Value::from(domain), |domain| domain.driver_name());
            }
            if id.is_empty() {
                place.invalid_value("", "the name must not be empty");
            } else {
                identifier(place, id);
            }
        }
        // Upstream takes what has more parts.
        _ => {}
    }
}

/// An attribute's name that must have a domain in front.
pub(super) fn fully_qualified_name(name: Cursor<'_>) {
    qualified_name(name, name.str());
    if !name.str().contains('/') {
        name.invalid("a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// What only a driver understands: an object of so many bytes at most, unless it was there before.
pub(super) fn raw(extension: Cursor<'_>, max: usize, stored: bool) {
    match extension.value {
        Value::Null => extension.missing(""),
        value if !stored && value.to_string().len() > max => extension.too_long(max),
        Value::Object(_) => {}
        _ => extension.invalid_value("<value omitted>", "must be a valid JSON object"),
    }
}

/// The identifier of a share of a device: a UUID in its normal form (upstream checks by `google/uuid`).
pub(super) fn share_id(id: Cursor<'_>) {
    let text = id.str();
    if let Some(fault) = uuid_fault(text) {
        id.invalid(format!("error validating uid: {fault}"));
    } else if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        id.invalid(
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal \
             characters",
        );
    }
}

/// What keeps a text from being a UUID in any of its forms.
fn uuid_fault(text: &str) -> Option<String> {
    let format = || Some("invalid UUID format".to_owned());
    let plain = match text.len() {
        36 => text,
        45 => match text.get(..9) {
            Some(prefix) if prefix.eq_ignore_ascii_case("urn:uuid:") => &text[9..],
            prefix => {
                let prefix = crate::goformat::go_quote(prefix.unwrap_or_default());
                return Some(format!("invalid urn prefix: {prefix}"));
            }
        },
        38 => match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(plain) => plain,
            None => return Some("invalid bracketed UUID format".to_owned()),
        },
        32 if text.bytes().all(|b| b.is_ascii_hexdigit()) => return None,
        32 => return format(),
        length => return Some(format!("invalid UUID length: {length}")),
    };
    let fits = |(at, b): (usize, u8)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    };
    if plain.bytes().enumerate().all(fits) { None } else { format() }
}

/// Conditions that a device waits for before a pod is bound, and those that say it cannot be had.
pub(super) fn binding_conditions(holder: Cursor<'_>) {
    let (wanted, failing) = (holder.field("bindingConditions"), holder.field("bindingFailureConditions"));
    for list in [wanted, failing] {
        if fits(list, BINDING_MAX) {
            list.items().for_each(|name| {
                name.qualified();
            });
        }
    }
    let mut seen = BTreeSet::new();
    wanted.items().filter(|name| !seen.insert(name.str())).for_each(Cursor::duplicate);
    let mut seen = BTreeSet::new();
    for name in failing.items() {
        if !seen.insert(name.str()) {
            name.duplicate();
        }
        if wanted.strs().contains(&name.str()) {
            name.invalid("bindingFailureConditions must not overlap with bindingConditions");
        }
    }
    match (wanted.values().is_empty(), failing.values().is_empty()) {
        (true, false) => wanted.invalid("bindingConditions are required to use bindingFailureConditions"),
        (false, true) => failing.invalid("bindingFailureConditions are required to use bindingConditions"),
        _ => {}
    }
}
