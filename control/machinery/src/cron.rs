//! A cron schedule: five fields, a word (`@hourly`), or a fixed pause (`@every 90m`), in a time zone. Pure.
//!
//! What is accepted is what upstream's parser (robfig/cron, five fields) accepts. Where clocks are put forward, times that do not exist
//! are skipped; where they are put back, times that are there twice count twice.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// How far ahead a time is looked for: `59 23 31 2 *` has none.
const HORIZON_YEARS: i16 = 5;

/// Why a schedule cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Count and text where five fields are expected.
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Fields(usize, String),
    /// An unknown `@word`.
    #[error("unrecognized descriptor: {0}")]
    Word(String),
    /// `@every` what?
    #[error("failed to parse duration {0}")]
    Pause(String),
    /// Not a number.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing \"{0}\": invalid syntax")]
    Number(String),
    /// Too many hyphens or slashes.
    #[error("too many {0}: {1}")]
    Shape(&'static str, String),
    /// Out of the field's range.
    #[error("{0}: {1}")]
    Range(String, String),
    /// The zone of `TZ=`.
    #[error("provided bad location {0}")]
    Zone(String),
}

/// The minutes, hours, days and months that match, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Both days must match where one of the fields is a star; else one of them is enough.
    any_day: bool,
}

#[derive(Clone, Debug)]
enum Rule {
    Fields(Fields),
    Every(SignedDuration),
}

/// A schedule in its zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads a schedule. A `TZ=` or `CRON_TZ=` before it overrides the zone (old objects have it).
    ///
    /// # Errors
    /// What upstream's parser says.
    pub fn parse(text: &str, mut zone: TimeZone) -> Result<Self, Error> {
        let mut text = text;
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            zone = TimeZone::get(name).map_err(|_| Error::Zone(name.to_owned()))?;
            text = rest.trim();
        }
        if text.starts_with('@') {
            if let Some(pause) = text.strip_prefix("@every ") {
                let nanos = crate::duration::parse(pause).map_err(|_| Error::Pause(text.to_owned()))?;
                let whole = SignedDuration::from_secs((nanos / 1_000_000_000).max(1));
                return Ok(Self { rule: Rule::Every(whole), zone });
            }
            let word = WORDS.iter().find(|(word, _)| *word == text);
            text = word.ok_or_else(|| Error::Word(text.to_owned()))?.1;
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(Error::Fields(fields.len(), fields.join(" ")));
        };
        let (minute, _) = field(minute, 0, 59, &[])?;
        let (hour, _) = field(hour, 0, 23, &[])?;
        let (day, star_day) = field(day, 1, 31, &[])?;
        let (month, _) = field(month, 1, 12, &MONTHS)?;
        let (weekday, star_weekday) = field(weekday, 0, 6, &WEEKDAYS)?;
        let any_day = !(star_day || star_weekday);
        Ok(Self { rule: Rule::Fields(Fields { minute, hour, day, month, weekday, any_day }), zone })
    }

    /// The first time after `after`, if there is one within five years.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let fields = match &self.rule {
            Rule::Every(pause) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                return whole.checked_add(*pause).ok();
            }
            Rule::Fields(fields) => fields,
        };
        let minute = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut at = Timestamp::from_second(minute).ok()?.to_zoned(self.zone.clone());
        let last_year = at.year().checked_add(HORIZON_YEARS)?;
        let has = |bits: u64, value: i8| bits & (1 << value) != 0;
        while at.year() <= last_year {
            if !has(fields.month, at.month()) {
                let first = Date::new(at.year(), at.month(), 1).ok()?.checked_add(1.month()).ok()?;
                at = first.to_zoned(self.zone.clone()).ok()?;
            } else if !fields.matches_day(&at) {
                at = at.date().tomorrow().ok()?.to_zoned(self.zone.clone()).ok()?;
            } else if !has(fields.hour, at.hour()) {
                let left = SignedDuration::from_mins(60 - i64::from(at.minute()));
                at = at.checked_add(left).ok()?;
            } else if !has(fields.minute, at.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }
}

impl Fields {
    fn matches_day(&self, at: &Zoned) -> bool {
        let day = self.day & (1 << at.day()) != 0;
        let weekday = self.weekday & (1 << at.weekday().to_sunday_zero_offset()) != 0;
        if self.any_day { day || weekday } else { day && weekday }
    }
}

/// A field's bits, and whether it is a star.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(u64, bool), Error> {
    let (mut bits, mut star) = (0, false);
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (more, is_star) = range(part, low, high, names)?;
        bits |= more;
        star |= is_star;
    }
    Ok((bits, star))
}

fn range(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(u64, bool), Error> {
    let number = |part: &str| -> Result<u32, Error> {
        if let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(part)) {
            return Ok(low + u32::try_from(at).unwrap_or(0));
        }
        part.parse().map_err(|_| Error::Number(part.to_owned()))
    };
    let pieces: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let star = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends[..] {
        _ if star => (low, high),
        [one] => (number(one)?, number(one)?),
        [first, last] => (number(first)?, number(last)?),
        _ => return Err(Error::Shape("hyphens", text.to_owned())),
    };
    let step = match pieces[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 && !star {
                end = high;
            }
            number(step)?
        }
        _ => return Err(Error::Shape("slashes", text.to_owned())),
    };
    let refuse = |why: String| Err(Error::Range(why, text.to_owned()));
    if start < low {
        return refuse(format!("beginning of range ({start}) below minimum ({low})"));
    }
    if end > high {
        return refuse(format!("end of range ({end}) above maximum ({high})"));
    }
    if start > end {
        return refuse(format!("beginning of range ({start}) beyond end of range ({end})"));
    }
    if step == 0 {
        return refuse("step of range should be a positive number".to_owned());
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, n| bits | 1 << n);
    Ok((bits, star && step == 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        Schedule::parse(schedule, zone).unwrap().next(at(after)).map_or("never".into(), |t| t.to_string())
    }

    #[test]
    fn the_next_time() {
        let cases = [
            ("*/15 * * * *", "2026-01-01T10:07:30Z", "2026-01-01T10:15:00Z"),
            ("*/15 * * * *", "2026-01-01T10:15:00Z", "2026-01-01T10:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("59 23 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("30 6-16/4 * * 1-5", "2026-01-02T14:30:00Z", "2026-01-05T06:30:00Z"),
            // either day, as neither is a star
            ("0 0 13 * fri", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),
            ("0 0 13 * FRI", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z"),
            ("0 0 */2 * fri", "2026-02-01T00:00:00Z", "2026-02-03T00:00:00Z"),
            ("0 0 * * fri", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),
            ("@hourly", "2026-01-01T10:59:59Z", "2026-01-01T11:00:00Z"),
            ("@every 1h30m", "2026-01-01T10:00:00.5Z", "2026-01-01T11:30:00Z"),
            ("0 0 1 jan,jul ?", "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        ];
        for (schedule, after, wanted) in cases {
            assert_eq!(next(schedule, "UTC", after), wanted, "{schedule} after {after}");
        }
    }

    #[test]
    fn clocks_that_change() {
        // 02:30 does not exist on 2026-03-29 in Berlin, and is there twice on 2026-10-25
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-24T23:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(next("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z"), "2026-01-01T03:30:00Z");
        assert_eq!(next("TZ=Asia/Kolkata 0 9 * * *", "UTC", "2026-01-01T00:00:00Z"), "2026-01-01T03:30:00Z");
    }

    #[test]
    fn what_is_refused_and_why() {
        let why = |text: &str| Schedule::parse(text, TimeZone::UTC).unwrap_err().to_string();
        assert_eq!(why("* * * *"), "expected exactly 5 fields, found 4: [* * * *]");
        assert_eq!(why("0 * * * * *"), "expected exactly 5 fields, found 6: [0 * * * * *]");
        assert_eq!(why("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(why("* * 0 * *"), "beginning of range (0) below minimum (1): 0");
        assert_eq!(why("5-1 * * * *"), "beginning of range (5) beyond end of range (1): 5-1");
        assert_eq!(why("*/0 * * * *"), "step of range should be a positive number: */0");
        assert_eq!(why("1-2-3 * * * *"), "too many hyphens: 1-2-3");
        assert_eq!(why("1/2/3 * * * *"), "too many slashes: 1/2/3");
        assert_eq!(why("@reboot"), "unrecognized descriptor: @reboot");
        assert_eq!(
            why("x * * * *"),
            "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"
        );
        for text in ["* * * * 7", "* * L * *", "* * 1W * *", "* * * * 1#2", "@every", "@every x", ""] {
            assert!(Schedule::parse(text, TimeZone::UTC).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_moves_on(text in "[0-9*/,@a-z -]{0,20}", seconds in 0_i64..4_000_000_000) {
            if let Ok(schedule) = Schedule::parse(&text, TimeZone::UTC) {
                let after = Timestamp::from_second(seconds).unwrap();
                prop_assert!(schedule.next(after).is_none_or(|next| next > after));
            }
        }

        #[test]
        fn is_the_first_minute_that_matches(minute in 0..60_i64, hour in 0..24_i64, seconds in 0_i64..2_000_000_000) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), TimeZone::UTC).unwrap();
            let next = schedule.next(Timestamp::from_second(seconds).unwrap()).unwrap().as_second();
            prop_assert_eq!(next.rem_euclid(86400), hour * 3600 + minute * 60);
            prop_assert!(next > seconds && next - seconds <= 86400);
        }
    }
}
