//! Leases that many keys share, as upstream's lease manager shares them: one a window of at most a minute and a twentieth of the keys'
//! life, with at most 1000 keys.

use ::etcd::{Client, Failure};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The longest window (upstream: `--lease-reuse-duration-seconds`, 60).
const WINDOW: u64 = 60;
/// Keys of one lease; all go at one revision.
const KEYS: u32 = 1000;

#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    ends: Instant,
    keys: u32,
}

/// The lease in use.
#[derive(Default)]
pub(super) struct Leases {
    current: Mutex<Option<Lease>>,
}

/// Seconds a lease outlives the first key it is made for.
fn window(ttl: u64) -> u64 {
    (ttl / 20).min(WINDOW)
}

impl Lease {
    /// Whether a key written `now` to live `ttl` seconds may be of this lease.
    fn fits(&self, now: Instant, ttl: u64) -> bool {
        let lives = now + Duration::from_secs(ttl);
        lives < self.ends && self.ends < lives + Duration::from_secs(window(ttl)) && self.keys < KEYS
    }
}

impl Leases {
    /// A lease for one key that is to live for `ttl`, rounded up to seconds.
    pub(super) async fn get(&self, client: &Client, ttl: Duration) -> Result<i64, Failure> {
        let ttl = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(lease) = current.as_mut().filter(|lease| lease.fits(now, ttl)) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let life = ttl + window(ttl);
        let id = client.grant(super::signed(life)).await?;
        *current = Some(Lease { id, ends: now + Duration::from_secs(life), keys: 1 });
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_serves_its_window_and_no_key_lives_shorter_or_much_longer() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let lease = Lease { id: 1, ends: now + seconds(3660), keys: 1 };
        assert!(lease.fits(now + seconds(1), 3600));
        assert!(lease.fits(now + seconds(59), 3600));
        // It would end with the key, or before.
        assert!(!lease.fits(now + seconds(60), 3600));
        // Another life: the lease ends too late.
        assert!(!lease.fits(now + seconds(1), 60));
        assert!(!Lease { keys: KEYS, ..lease }.fits(now + seconds(1), 3600));
        assert_eq!((window(3600), window(100), window(10)), (60, 5, 0));
    }
}
