//! So many things a second, and a burst of them at once.

use std::time::Duration;
use tokio::time::Instant;

/// A bucket of permits that fills at a rate.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    /// So many a second, 0 for as many as there are; at least one at once.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second, burst, tokens: burst, filled: Instant::now() }
    }

    /// Takes a permit: how long to wait before it is used.
    pub fn reserve(&mut self) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let earned = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst) - 1.0;
        self.filled = now;
        if self.tokens < 0.0 {
            Duration::try_from_secs_f64(-self.tokens / self.per_second).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        }
    }

    /// Waits for a permit.
    pub async fn take(&mut self) {
        let pause = self.reserve();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_must_wait_for_its_rate() {
        let began = Instant::now();
        let mut rate = Rate::new(2.0, 3);
        for _ in 0..3 {
            rate.take().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "the burst");
        for _ in 0..4 {
            rate.take().await;
        }
        assert!((2000..2010).contains(&began.elapsed().as_millis()), "two a second: {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let again = Instant::now();
        for _ in 0..3 {
            rate.take().await;
        }
        assert_eq!(again.elapsed(), Duration::ZERO, "no more than a burst is saved up");
        let mut free = Rate::new(0.0, 1);
        for _ in 0..100 {
            free.take().await;
        }
        assert_eq!(again.elapsed(), Duration::ZERO);
    }
}
