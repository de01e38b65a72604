//! When schedules fire, as cron writes it.

/// Minute, hour, day of month, month, day of week.
const CRON_FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Whether a schedule can be read, and why not.
pub(super) fn parse(schedule: &str) -> Result<(), String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        return if known.contains(&word) || word.starts_with("every ") {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != CRON_FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (low, high, names)) in fields.iter().zip(CRON_FIELDS) {
        for range in field.split(',') {
            cron_range(range, low, high, names)?;
        }
    }
    Ok(())
}

fn cron_range(range: &str, low: i64, high: i64, names: &[&str]) -> Result<(), String> {
    let number = |text: &str| -> Result<i64, String> {
        if let Some(index) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(low + i64::try_from(index).unwrap_or_default());
        }
        text.parse::<i64>().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
        })
    };
    let (bounds, step) = match range.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step)),
        None => (range, None),
    };
    let (start, end) = if matches!(bounds, "*" | "?") {
        (low, high)
    } else if let Some((start, end)) = bounds.split_once('-') {
        (number(start)?, number(end)?)
    } else {
        let start = number(bounds)?;
        (start, if step.is_some() { high } else { start })
    };
    let step = step.map_or(Ok(1), number)?;
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {range}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}
