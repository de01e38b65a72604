//! Waiting for what becomes true, and for no longer than it may take.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The shortest and the longest pause between two looks. In between it is a twentieth of what has passed, so that looking does not take the processor from what
/// is waited for.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Looks until it is as it must be, and gives what was found.
///
/// # Errors
/// What it last was, after `patience`.
pub async fn eventually<T, E: Display>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(last) if began.elapsed() > patience => return Err(format!("{what}: {last}")),
            Err(_) => tokio::time::sleep((began.elapsed() / 20).clamp(LOOK.0, LOOK.1)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_must_not_be_without_end() {
        let mut looks = 0;
        let found = eventually("it", Duration::from_secs(60), async || {
            looks += 1;
            if looks < 3 { Err("not yet") } else { Ok(looks) }
        });
        assert_eq!(found.await, Ok(3));
        let never = eventually("it", Duration::ZERO, async || Err::<(), _>("is not there")).await;
        assert_eq!(never, Err("it: is not there".to_owned()));
    }
}
