//! `format` of a schema: which are known, and what they ask of a text.

mod mail;

use crate::address;
use crate::re2::Regex;
use crate::url::Url;
use std::net::Ipv6Addr;
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
        ("time of day", r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"),
        ("byte", r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"),
        ("duration", r"\d+\s*([A-Za-zµ]+)"),
        ("k8sshortname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("k8slongname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ];
    table.into_iter().filter_map(|(name, text)| Some((name, Regex::new(text).ok()?))).collect()
});

fn matches(format: &str, text: &str) -> bool {
    PATTERNS.iter().any(|(name, regex)| *name == format && regex.is_match(text))
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ' | '\t' | '\n' | '\u{c}' | '\r')).collect()
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

fn mac(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    [(':', 2), ('-', 2), ('.', 4)].into_iter().any(|(separator, len)| {
        let parts: Vec<&str> = text.split(separator).collect();
        matches!(parts.len() * len, 12 | 16 | 40) && parts.iter().all(|p| hex(p, len))
    })
}

/// Whether a text is of a known format; of an unknown one every text is.
#[must_use]
pub(crate) fn holds(format: &str, text: &str) -> bool {
    let format = format.replace('-', "");
    match format.as_str() {
        "email" => mail::is_address(text),
        "ssn" => text.len() == 11 && matches(&format, text),
        "ipv4" => text.contains('.') && address::parse(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => address::parse_cidr(text).is_some(),
        "mac" => mac(text),
        "uri" => Url::of_request(text).is_ok(),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => {
            let bare: String = text.chars().filter(char::is_ascii_digit).collect();
            matches(&format, &bare) && luhn(&bare)
        }
        "date" => date(text),
        "datetime" => date_time(text),
        "duration" => crate::duration::parse(text).is_ok() || spoken_duration(text),
        "hostname" => {
            matches(&format, text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63)
        }
        "k8sshortname" => text.len() <= 63 && matches(&format, text),
        "k8slongname" => text.len() <= 253 && matches(&format, text),
        other => !PATTERNS.iter().any(|(name, _)| *name == other) || matches(other, text),
    }
}

fn date(text: &str) -> bool {
    matches("date", text) && text.parse::<jiff::civil::Date>().is_ok()
}

/// A date, then a time behind the first `t`; a leap second is none, whatever stands behind a second `t`.
fn date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(day), Some(time)) = (parts.next(), parts.next()) else { return false };
    let below = |at: usize, most: &str| time.get(at..at + 2).is_some_and(|part| part <= most);
    text.len() >= 4
        && date(day)
        && matches("time of day", time)
        && below(0, "23")
        && below(3, "59")
        && below(6, "59")
}

/// Numbers with units in words, anywhere in the text: `22 ns`, `3 hours`, `about 2weeks`.
fn spoken_duration(text: &str) -> bool {
    /// Names of a unit; what only starts with the last one is that unit too.
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    let named = |unit: &str| {
        UNITS
            .iter()
            .any(|names| names.contains(&unit) || names.last().is_some_and(|last| unit.starts_with(last)))
    };
    let Some((_, regex)) = PATTERNS.iter().find(|(name, _)| *name == "duration") else { return false };
    let counts = |found: &str| {
        let end = found.find(|c: char| !c.is_ascii_digit()).unwrap_or(found.len());
        let (count, unit) = found.split_at(end);
        count.parse::<i64>().ok().map(|_| named(&unit.trim().to_lowercase()))
    };
    let found: Option<Vec<bool>> = regex.find_iter(text).map(|found| counts(found.as_str())).collect();
    found.is_some_and(|units| units.contains(&true))
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
        for (format, good) in [
            ("date-time", "2014-12-15t19:30:20z"),
            ("date-time", "2014-12-15T19:30:20+99:99"),
            ("ipv4", "010.001.1.1"),
            ("ipv4", "::ffff:1.2.3.4"),
            ("cidr", "010.0.0.0/08"),
            ("byte", "aGl="),
            ("duration", "wait 3 hours"),
            ("duration", "2weeksandmore"),
            ("duration", "-1.5h"),
            ("email", "A B <a@b>"),
            ("uri", "https://a/b c"),
            ("ssn", "123-45-6789"),
        ] {
            assert!(holds(format, good), "{format} {good}");
        }
        for (format, bad) in [
            ("date-time", "2014-12-15 19:30:20Z"),
            ("date-time", "2014-12-15T19:30:20"),
            ("date-time", "2014-13-15T19:30:20Z"),
            ("date-time", "2014-12-15T24:30:20Z"),
            ("date-time", "2014-12-15T19:30:60Z"),
            ("date-time", "2014-12-15T19:30:20+0100"),
            ("date", "2014-02-30"),
            ("ipv4", "1.2.3"),
            ("ipv4", "1.2.3.256"),
            ("cidr", "10.0.0.0/33"),
            ("byte", ""),
            ("byte", "aGk"),
            ("duration", "3 fortnights"),
            ("duration", "hours"),
            ("email", "a@b, c@d"),
            ("uri", "https://a b"),
            ("uri", "#a"),
            ("ssn", "123456789"),
        ] {
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(!known("string", "no-such") && holds("no-such", "anything"));
        assert!(known("integer", "int32") && !known("string", "int32") && !known("object", "uri"));
    }
}
