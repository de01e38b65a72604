//! Leases that many keys share, as upstream's lease manager shares them: one a window of at most a minute (or what is set) and a twentieth
//! of the keys' life, with at most 1000 keys.

use ::etcd::{Client, Failure};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Keys of one lease; all go at one revision.
const KEYS: u32 = 1000;

#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    ends: Instant,
    keys: u32,
}

/// The lease in use.
pub(super) struct Leases {
    current: Mutex<Option<Lease>>,
    /// The longest window, in seconds.
    longest: u64,
}

/// Seconds a lease outlives the first key it is made for.
fn window(ttl: u64, longest: u64) -> u64 {
    (ttl / 20).min(longest)
}

impl Lease {
    /// Whether a key written `now` to live `ttl` seconds may be of this lease.
    fn fits(&self, now: Instant, ttl: u64, window: u64) -> bool {
        let lives = now + Duration::from_secs(ttl);
        lives < self.ends && self.ends < lives + Duration::from_secs(window) && self.keys < KEYS
    }
}

impl Leases {
    /// One is used for so many seconds, at most.
    pub(super) fn new(longest: u64) -> Self {
        Self { current: Mutex::default(), longest }
    }

    /// A lease for one key that is to live for `ttl`, rounded up to seconds.
    pub(super) async fn get(&self, client: &Client, ttl: Duration) -> Result<i64, Failure> {
        let ttl = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let window = window(ttl, self.longest);
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(lease) = current.as_mut().filter(|lease| lease.fits(now, ttl, window)) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let life = ttl + window;
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
        let fits =
            |lease: Lease, after: u64, ttl: u64| lease.fits(now + seconds(after), ttl, window(ttl, 60));
        assert!(fits(lease, 1, 3600));
        assert!(fits(lease, 59, 3600));
        // It would end with the key, or before.
        assert!(!fits(lease, 60, 3600));
        // Another life: the lease ends too late.
        assert!(!fits(lease, 1, 60));
        assert!(!fits(Lease { keys: KEYS, ..lease }, 1, 3600));
        assert_eq!((window(3600, 60), window(100, 60), window(10, 60)), (60, 5, 0));
        assert_eq!(
            (window(3600, 10), window(3600, 300)),
            (10, 180),
            "as long as is set, or as fits the life"
        );
    }
}
