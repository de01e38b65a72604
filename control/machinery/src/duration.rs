//! Go's duration texts: `1h30m0s`, `1.5s`, `100ms`.

use crate::goformat::go_quote;

/// A text that is no duration, worded as Go words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form, or out of range.
    #[error("time: invalid duration {}", go_quote(.0))]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {}", go_quote(.0))]
    MissingUnit(String),
    /// A unit Go does not know.
    #[error("time: unknown unit {} in duration {}", go_quote(.1), go_quote(.0))]
    UnknownUnit(String, String),
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds.
///
/// # Errors
/// With Go's texts.
pub fn parse(text: &str) -> Result<i64, Error> {
    let invalid = || Error::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after_fraction) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end =
            after_fraction.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after_fraction.len());
        let (unit, next) = after_fraction.split_at(end);
        if unit.is_empty() {
            return Err(Error::MissingUnit(text.to_owned()));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(Error::UnknownUnit(text.to_owned(), unit.to_owned()));
        };
        let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i64>().ok() };
        let whole = i128::from(number(whole).ok_or_else(invalid)?);
        // Go drops digits of a fraction it has no room for.
        let fraction = &fraction[..fraction.len().min(18)];
        let part =
            i128::from(number(fraction).ok_or_else(invalid)?) * nanos / 10_i128.pow(fraction.len() as u32);
        total += whole * nanos + part;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `time.Duration.String`.
#[must_use]
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let unit = |divisor: u64, name: &str| format!("{sign}{}{name}", fraction(n, divisor));
    match n {
        0 => "0s".to_owned(),
        1..1_000 => unit(1, "ns"),
        1_000..1_000_000 => unit(1_000, "µs"),
        1_000_000..1_000_000_000 => unit(1_000_000, "ms"),
        _ => {
            let minutes = n / 60_000_000_000;
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

fn fraction(n: u64, divisor: u64) -> String {
    let (whole, rest) = (n / divisor, n % divisor);
    if rest == 0 {
        return whole.to_string();
    }
    let width = divisor.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_and_print_as_gos() {
        for (text, out) in [
            ("0", "0s"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("-1m", "-1m0s"),
            (".5s", "500ms"),
        ] {
            assert_eq!(format(parse(text).unwrap()), out, "{text}");
        }
        assert_eq!(parse("3").unwrap_err().to_string(), "time: missing unit in duration \"3\"");
        assert_eq!(parse("3x").unwrap_err().to_string(), "time: unknown unit \"x\" in duration \"3x\"");
        assert_eq!(parse("").unwrap_err().to_string(), "time: invalid duration \"\"");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn no_input_panics(text in any::<String>(), near in "[-+0-9.hmsuµn]{0,40}") {
            let _ = (parse(&text), parse(&near));
        }
    }
}
