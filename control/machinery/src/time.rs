//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 in UTC, to the second or with six digits.

use crate::goformat::go_quote;
use jiff::{Timestamp, civil, tz::Offset};

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A text that is no RFC 3339 time, worded as Go's `time.Parse` words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// `2006-01-02T15:04:05Z`; what is below a second is cut off.
#[must_use]
pub fn format(time: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(time);
    let (y, mo, d, h, mi, s) = (t.year(), t.month(), t.day(), t.hour(), t.minute(), t.second());
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// `2006-01-02T15:04:05.000000Z`.
#[must_use]
pub fn format_micro(time: Timestamp) -> String {
    let micros = Offset::UTC.to_datetime(time).subsec_nanosecond() / 1000;
    let mut text = format(time);
    text.pop();
    format!("{text}.{micros:06}Z")
}

/// Reads a `Time`: any fraction is accepted (and kept; [`format()`] cuts it off).
///
/// # Errors
/// For anything but RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, Error> {
    scan(text, None).map_err(|failed| describe(text, SECONDS_LAYOUT, &failed))
}

/// Reads a `MicroTime`: exactly six digits of fraction.
///
/// # Errors
/// For anything but RFC 3339 with microseconds.
pub fn parse_micro(text: &str) -> Result<Timestamp, Error> {
    scan(text, Some(6)).map_err(|failed| describe(text, MICROS_LAYOUT, &failed))
}

/// True for Go's zero time, the first second of year 1, which is written as null.
#[must_use]
pub(crate) fn is_zero(time: Timestamp) -> bool {
    time.as_second() == -62_135_596_800 && time.subsec_nanosecond() == 0
}

/// From the protobuf form.
#[must_use]
pub(crate) fn from_unix(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Timestamp::new(seconds, nanos).ok()
}

enum Failed<'a> {
    At(&'a str, &'static str),
    Range(&'static str),
}

fn describe(text: &str, layout: &str, failed: &Failed<'_>) -> Error {
    let (text, layout) = (go_quote(text), go_quote(layout));
    Error(match failed {
        Failed::At(rest, element) => {
            format!(
                "parsing time {text} as {layout}: cannot parse {} as {}",
                go_quote(rest),
                go_quote(element)
            )
        }
        Failed::Range(what) => format!("parsing time {text}: {what} out of range"),
    })
}

struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn digits(&mut self, n: usize, element: &'static str) -> Result<i32, Failed<'a>> {
        match self.0.as_bytes().get(..n) {
            Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
                let value = digits.iter().fold(0, |v, d| v * 10 + i32::from(d - b'0'));
                self.0 = &self.0[n..];
                Ok(value)
            }
            _ => Err(Failed::At(self.0, element)),
        }
    }

    fn literal(&mut self, c: char, element: &'static str) -> Result<(), Failed<'a>> {
        self.0 = self.0.strip_prefix(c).ok_or(Failed::At(self.0, element))?;
        Ok(())
    }

    /// Nanoseconds of a fraction, where there is one.
    fn fraction(&mut self, exact: Option<usize>) -> Result<i32, Failed<'a>> {
        let start = self.0;
        let body = start.strip_prefix(['.', ',']);
        let len = body.map_or(0, |b| b.bytes().take_while(u8::is_ascii_digit).count());
        match (body, exact) {
            (_, Some(n)) if len != n => Err(Failed::At(start, ".000000")),
            (Some(body), _) if len > 0 => {
                self.0 = &body[len..];
                Ok(body
                    .bytes()
                    .take(len)
                    .chain(std::iter::repeat(b'0'))
                    .take(9)
                    .fold(0, |v, d| v * 10 + i32::from(d - b'0')))
            }
            _ => Ok(0),
        }
    }

    fn offset_seconds(&mut self) -> Result<i32, Failed<'a>> {
        const ELEMENT: &str = "Z07:00";
        let start = self.0;
        if let Some(rest) = start.strip_prefix('Z') {
            self.0 = rest;
            return Ok(0);
        }
        let sign = match start.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(Failed::At(start, ELEMENT)),
        };
        self.0 = &start[1..];
        let at_start = |_| Failed::At(start, ELEMENT);
        let hours = self.digits(2, ELEMENT).map_err(at_start)?;
        self.literal(':', ELEMENT).map_err(at_start)?;
        let minutes = self.digits(2, ELEMENT).map_err(at_start)?;
        if hours > 24 {
            return Err(Failed::Range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(Failed::Range("time zone offset minute"));
        }
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

fn scan(text: &str, micros: Option<usize>) -> Result<Timestamp, Failed<'_>> {
    let mut s = Scanner(text);
    let year = s.digits(4, "2006")?;
    s.literal('-', "-")?;
    let month = s.digits(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(Failed::Range("month"));
    }
    s.literal('-', "-")?;
    let day = s.digits(2, "02")?;
    s.literal('T', "T")?;
    let hour = s.digits(2, "15")?;
    if hour > 23 {
        return Err(Failed::Range("hour"));
    }
    s.literal(':', ":")?;
    let minute = s.digits(2, "04")?;
    if minute > 59 {
        return Err(Failed::Range("minute"));
    }
    s.literal(':', ":")?;
    let second = s.digits(2, "05")?;
    if second > 59 {
        return Err(Failed::Range("second"));
    }
    let nanos = s.fraction(micros)?;
    let offset = s.offset_seconds()?;
    if !s.0.is_empty() {
        return Err(Failed::At(s.0, ""));
    }
    let small = |n: i32| i8::try_from(n).unwrap_or(i8::MAX);
    let date = i16::try_from(year).ok().and_then(|y| civil::Date::new(y, small(month), small(day)).ok());
    let time = civil::Time::new(small(hour), small(minute), small(second), nanos).ok();
    let (Some(date), Some(time)) = (date, time) else { return Err(Failed::Range("day")) };
    let local = Offset::UTC.to_timestamp(date.to_datetime(time)).map_err(|_| Failed::Range("year"))?;
    Timestamp::new(local.as_second() - i64::from(offset), local.subsec_nanosecond())
        .map_err(|_| Failed::Range("year"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_any_zone_and_written_in_utc() {
        for (text, out) in [
            ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
            ("2024-01-01T01:30:00.987+02:00", "2023-12-31T23:30:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(format(parse(text).unwrap()), out);
        }
        assert_eq!(
            format_micro(parse_micro("2024-01-01T00:00:00.000120Z").unwrap()),
            "2024-01-01T00:00:00.000120Z"
        );
        assert!(parse_micro("2024-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn errors_are_gos() {
        let text = |s: &str| parse(s).unwrap_err().to_string();
        assert_eq!(
            text("x"),
            r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#
        );
        assert_eq!(
            text("2024-13-01T00:00:00Z"),
            r#"parsing time "2024-13-01T00:00:00Z": month out of range"#
        );
        assert_eq!(text("2023-02-29T00:00:00Z"), r#"parsing time "2023-02-29T00:00:00Z": day out of range"#);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in -62_000_000_000_i64..250_000_000_000) {
            let time = from_unix(seconds, 0).unwrap();
            prop_assert_eq!(parse(&format(time)).unwrap(), time);
            prop_assert_eq!(parse_micro(&format_micro(time)).unwrap(), time);
        }

        #[test]
        fn no_input_panics(text in any::<String>()) {
            let _ = (parse(&text), parse_micro(&text));
        }
    }
}
