//! `format` of a schema: which are known, and what they ask of a text.

use crate::names;
use crate::re2::Regex;
use base64::Engine as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

/// Formats of texts this version knows; dashes do not count. Others are ignored.
const TEXTS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether a schema of type `kind` may have this format.
#[must_use]
pub(crate) fn known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => TEXTS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

static PATTERNS: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    let table = [
        ("bsonobjectid", r"^[0-9a-fA-F]{24}$"),
        (
            "hostname",
            r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
        ),
        ("uuid", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid3", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid4", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        ("uuid5", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
        ("hexcolor", r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        (
            "rgbcolor",
            r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
        ),
        (
            "creditcard",
            r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
        ),
        ("date", r"^\d{4}-\d{2}-\d{2}$"),
        (
            "datetime",
            r"^([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?$",
        ),
        ("email", r"^(?:[^<>@]*<)?[^\s<>@()\[\],;:\\]+@[^\s<>@()\[\],;:\\]+>?$"),
        ("k8sshortname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("k8slongname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ];
    table.into_iter().filter_map(|(name, text)| Some((name, Regex::new(text).ok()?))).collect()
});

fn matches(format: &str, text: &str) -> bool {
    PATTERNS.iter().any(|(name, regex)| *name == format && regex.is_match(text))
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn isbn10(text: &str) -> bool {
    let digits = digits(text);
    let value = |(i, c): (usize, char)| match c {
        'X' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let sum: Option<u32> =
        digits.chars().enumerate().map(|(i, c)| Some((i as u32 + 1) * value((i, c))?)).sum();
    digits.len() == 10 && sum.is_some_and(|s| s % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let digits = digits(text);
    let sum: Option<u32> =
        digits.chars().enumerate().map(|(i, c)| Some([1, 3][i % 2] * c.to_digit(10)?)).sum();
    digits.len() == 13 && sum.is_some_and(|s| s % 10 == 0)
}

fn luhn(text: &str) -> bool {
    let sum: u32 = text
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(i, d)| {
            if i % 2 == 0 {
                d
            } else if d > 4 {
                2 * d - 9
            } else {
                2 * d
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(ip, bits)| {
        let Ok(ip) = ip.parse::<IpAddr>() else { return false };
        let most = if ip.is_ipv4() { 32 } else { 128 };
        !bits.starts_with('+') && bits.parse::<u8>().is_ok_and(|b| b <= most)
    })
}

fn mac(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    [(':', 2), ('-', 2), ('.', 4)].into_iter().any(|(separator, len)| {
        let parts: Vec<&str> = text.split(separator).collect();
        matches!(parts.len() * len, 12 | 16 | 40) && parts.iter().all(|p| hex(p, len))
    })
}

/// An absolute URI or an absolute path, as a request line has it.
fn uri(text: &str) -> bool {
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    !text.is_empty()
        && !text.contains(|c: char| c.is_control() || c == ' ')
        && (scheme || text.starts_with('/'))
}

/// Whether a text is of a known format; of an unknown one every text is.
#[must_use]
pub(crate) fn holds(format: &str, text: &str) -> bool {
    let format = format.replace('-', "");
    match format.as_str() {
        "ipv4" => text.contains('.') && text.parse::<IpAddr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uri" => uri(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => {
            let bare: String = text.chars().filter(char::is_ascii_digit).collect();
            matches(&format, &bare) && luhn(&bare)
        }
        "byte" => !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => matches(&format, text) && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => crate::duration::parse(text).is_ok() || scala_duration(text),
        "hostname" => {
            matches(&format, text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63)
        }
        "k8sshortname" => text.len() <= 63 && matches(&format, text),
        "k8slongname" => {
            text.len() <= 253 && matches(&format, text) && names::dns1123_subdomain(text).is_empty()
        }
        other => !PATTERNS.iter().any(|(name, _)| *name == other) || matches(other, text),
    }
}

/// `22 ns`, `3 hours`.
fn scala_duration(text: &str) -> bool {
    const UNITS: [&str; 26] = [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "m",
        "min",
        "minute",
        "minutes",
        "h",
        "hour",
    ];
    const LONG: [&str; 7] = ["hours", "hr", "d", "day", "days", "w", "week"];
    let text = text.trim().to_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (count, unit) = text.split_at(end);
    let unit = unit.trim();
    count.parse::<i64>().is_ok() && (UNITS.contains(&unit) || LONG.contains(&unit) || unit == "weeks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_for_what_they_name() {
        for (format, good, bad) in [
            ("date-time", "2014-12-15T19:30:20.000Z", "yesterday"),
            ("date", "2006-01-02", "2006-13-02"),
            ("ipv4", "10.0.0.1", "::1"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "x"),
            ("hostname", "a.example", "-a"),
            ("byte", "aGk=", "?"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("duration", "22 ns", "soon"),
            ("uri", "https://example.com/a", "example"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("hexcolor", "#fff", "#ff"),
            ("email", "a@example.com", "a"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A"),
        ] {
            assert!(known("string", format), "{format}");
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(!known("string", "no-such") && holds("no-such", "anything"));
        assert!(known("integer", "int32") && !known("string", "int32") && !known("object", "uri"));
    }
}
