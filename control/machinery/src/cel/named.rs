//! Named formats of texts (upstream: `apiserver/pkg/cel/library/format.go`).

use crate::formats;
use crate::names;
use crate::url::Url;

const URL: u64 = 1103;
const UUID: u64 = 70;
const BASE64: u64 = 84;
const DATE_TIME: u64 = 71;

type Check = fn(&str) -> Vec<String>;

/// Name, the length of its pattern as its cost is counted, check.
const FORMATS: [(&str, u64, Check); 13] = [
    ("dns1123Label", 30, names::dns1123_label),
    ("dns1123Subdomain", 60, names::dns1123_subdomain),
    ("dns1035Label", 30, names::dns1035_label),
    ("qualifiedName", 60, names::qualified_name),
    ("dns1123LabelPrefix", 30, |text| names::dns1123_label(&names::mask_trailing_dash(text))),
    ("dns1123SubdomainPrefix", 60, |text| names::dns1123_subdomain(&names::mask_trailing_dash(text))),
    ("dns1035LabelPrefix", 30, |text| names::dns1035_label(&names::mask_trailing_dash(text))),
    ("labelValue", 40, names::label_value),
    ("uri", URL, |text| Url::of_request(text).err().into_iter().collect()),
    ("uuid", UUID, |text| held("uuid", text, "does not match the UUID format")),
    ("byte", BASE64, |text| held("byte", text, "invalid base64")),
    ("date", DATE_TIME, |text| held("date", text, "invalid date")),
    ("datetime", DATE_TIME, |text| held("datetime", text, "invalid datetime")),
];

fn held(format: &str, text: &str, why: &str) -> Vec<String> {
    if formats::holds(format, text) { Vec::new() } else { vec![why.to_owned()] }
}

/// The format's name for good, if there is one.
pub(super) fn find(name: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(n, ..)| *n == name).map(|(n, ..)| *n)
}

pub(super) fn pattern_length(name: &str) -> u64 {
    FORMATS.iter().find(|(n, ..)| *n == name).map_or(0, |(_, length, _)| *length)
}

/// What is wrong with a text of a named format.
pub(super) fn wrong(name: &str, text: &str) -> Vec<String> {
    FORMATS.iter().find(|(n, ..)| *n == name).map_or_else(Vec::new, |(_, _, check)| check(text))
}
