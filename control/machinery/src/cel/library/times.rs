//! Parts of times and durations.

use super::super::cost::Cost;
use super::super::fault::{Evaluated, fail, no_overload};
use super::super::overload::{Body, Overload, Sig, body, member};
use super::super::value::Value;
use jiff::Zoned;
use jiff::tz::TimeZone;

/// What is read off a time where it is.
fn part(args: &[Value], read: fn(&Zoned) -> i64) -> Evaluated {
    let (time, zone) = match args {
        [Value::Time(time)] => (time, TimeZone::UTC),
        [Value::Time(time), Value::Text(name)] => match zone_of(name) {
            Some(zone) => (time, zone),
            None => return fail(format!("unknown time zone {name}")),
        },
        _ => return no_overload(),
    };
    Ok(Value::Int(read(&time.to_zoned(zone))))
}

/// `Europe/Paris`, `UTC`, `-08:00`.
fn zone_of(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
        let minutes: i32 = minutes.parse().ok()?;
        let seconds = (hours * 60 + minutes) * 60;
        let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok()?;
        return Some(TimeZone::fixed(offset));
    }
    TimeZone::get(name).ok()
}

const PARTS: [(&str, Body); 10] = [
    ("getFullYear", |a| part(a, |at| i64::from(at.year()))),
    ("getMonth", |a| part(a, |at| i64::from(at.month()) - 1)),
    ("getDayOfYear", |a| part(a, |at| i64::from(at.day_of_year()) - 1)),
    ("getDayOfMonth", |a| part(a, |at| i64::from(at.day()) - 1)),
    ("getDate", |a| part(a, |at| i64::from(at.day()))),
    ("getDayOfWeek", |a| part(a, |at| i64::from(at.weekday().to_sunday_zero_offset()))),
    ("getHours", |a| part(a, |at| i64::from(at.hour()))),
    ("getMinutes", |a| part(a, |at| i64::from(at.minute()))),
    ("getSeconds", |a| part(a, |at| i64::from(at.second()))),
    ("getMilliseconds", |a| part(a, |at| i64::from(at.millisecond()))),
];

const SPANS: [(&str, Body); 4] = [
    ("getHours", body!([Value::Duration(n)] => Ok(Value::Int(n / 3_600_000_000_000)))),
    ("getMinutes", body!([Value::Duration(n)] => Ok(Value::Int(n / 60_000_000_000)))),
    ("getSeconds", body!([Value::Duration(n)] => Ok(Value::Int(n / 1_000_000_000)))),
    ("getMilliseconds", body!([Value::Duration(n)] => Ok(Value::Int(n / 1_000_000 % 1000)))),
];

pub(super) fn all() -> Vec<Overload> {
    let one = Cost::Fixed(1);
    let mut out = Vec::new();
    for (name, body) in PARTS {
        out.push(member(name, vec![Sig::Time], Sig::Int, one, body));
        out.push(member(name, vec![Sig::Time, Sig::Text], Sig::Int, one, body));
    }
    out.extend(SPANS.map(|(name, body)| member(name, vec![Sig::Duration], Sig::Int, one, body)));
    out
}
