//! Lists of a job's indexes, as `0,3-5`.

use crate::goformat::go_quote;

/// The first and the last index of an interval, both below `completions`; or what is wrong with it.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    if parts.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            go_quote(text)
        ));
    }
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {}", go_quote(text))),
        Ok(number) if number >= completions => Err(format!("too large index: {}", go_quote(text))),
        Ok(number) => Ok(number),
    };
    let first = index(parts[0])?;
    match parts.get(1).map(|last| index(last)).transpose()? {
        Some(last) if first >= last => {
            Err(format!("non-increasing order, previous: {first}, current: {last}"))
        }
        last => Ok((first, last.unwrap_or(first))),
    }
}

/// How many indexes a list holds; or what is wrong with it.
pub(super) fn count(list: &str, completions: i64) -> Result<i64, String> {
    let (mut before, mut total) = (None, 0);
    for text in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = interval(text, completions)?;
        if let Some(before) = before.filter(|before| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        total += last - first + 1;
        before = Some(last);
    }
    Ok(total)
}

/// The first index that both lists hold; intervals that cannot be read are passed over.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let mut completed = completed.split(',').filter_map(|text| interval(text, completions).ok());
    let mut failed = failed.split(',').filter_map(|text| interval(text, completions).ok());
    let (mut one, mut other) = (completed.next()?, failed.next()?);
    loop {
        if one.0 <= other.1 && other.0 <= one.1 {
            return Some(one.0.max(other.0));
        }
        if one.0 <= other.0 {
            one = completed.next()?;
        } else {
            other = failed.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_and_compared() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("0-5", 5), Err("too large index: \"5\"".to_owned()));
        assert_eq!(count("2,1", 5), Err("non-increasing order, previous: 2, current: 1".to_owned()));
        assert!(count("1-2-3", 5).is_err() && count("x", 5).is_err());
        assert_eq!(overlap("0,3-4", "1-2", 5), None);
        assert_eq!(overlap("0,x,2-4", "1,4", 5), Some(4));
        assert_eq!(overlap("", "1", 5), None);
    }
}
