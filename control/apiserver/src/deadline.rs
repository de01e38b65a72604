//! How long a request may take: what its `timeout` parameter asks for, at most the server's own bound.
//! Upstream: `apiserver/pkg/endpoints/filters/request_deadline.go`.

use crate::query;
use machinery::status::Status;
use std::time::Duration;

/// The time a request that is not long-running has.
pub fn of(query: &[(String, String)], longest: Duration) -> Result<Duration, Status> {
    let Some(text) = query::first(query, "timeout").filter(|t| !t.is_empty()) else { return Ok(longest) };
    match go_duration(text) {
        Some(wanted) if wanted.is_zero() => Ok(longest),
        Some(wanted) => Ok(wanted.min(longest)),
        None => Err(Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {}",
            machinery::goformat::go_quote(text)
        ))),
    }
}

/// The answer to a request that took longer.
#[must_use]
pub fn exceeded() -> Status {
    Status::timeout("request did not complete within the allotted timeout", 0)
}

/// Go's `time.ParseDuration`, for durations that are not negative.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(text: &str) -> Result<Duration, Status> {
        of(&[("timeout".to_owned(), text.to_owned())], Duration::from_secs(60))
    }

    #[test]
    fn a_request_may_ask_for_less_and_gets_no_more() {
        for (text, millis) in
            [("", 60_000), ("0", 60_000), ("1s", 1_000), ("1m", 60_000), ("2h", 60_000), ("1.5s100ms", 1_600)]
        {
            assert_eq!(ask(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        let message = ask("soon").unwrap_err().message;
        assert_eq!(message, "invalid timeout specified in the request URL - time: invalid duration \"soon\"");
        assert!(ask("1").is_err() && ask("-1s").is_err() && ask("s").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.a-zµ+-]{0,40}") {
            let _ = ask(&text);
        }
    }
}
