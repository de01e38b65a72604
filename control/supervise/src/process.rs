//! This process, as the kernel sees it.

/// Ticks of a second in `/proc` (`USER_HZ`, the same on every architecture Linux runs on today).
const TICKS: f64 = 100.0;

/// When this process started: seconds since the epoch, for `process_start_time_seconds`. `None` without `/proc`.
#[must_use]
pub fn started() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    // The program's name, which may hold anything, ends at the last parenthesis; the start is the 22nd field, the 20th behind it.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<f64>().ok()?;
    Some(boot + ticks / TICKS)
}

/// Tells the kernel how gladly it ends this process where memory runs out: -1000 (never) to 1000 (first).
///
/// # Errors
/// Only root may lower it.
pub fn set_oom_score(score: i32) -> std::io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    #[test]
    fn a_process_must_not_have_started_before_its_machine_or_in_the_future() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = super::started().unwrap();
        assert!(started <= now + 1.0 && now - started < 3600.0, "{started} of {now}");
    }
}
