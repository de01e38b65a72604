//! The decision: what one contender makes of a lease. Pure: both clocks are arguments, the one that times (`now`) and the one that is
//! written (`clock`).
//!
//! As upstream (`client-go/tools/leaderelection`): the holder's clock is never compared with ours. A lease is good for as long as it
//! says from the moment we saw it change.

use jiff::{Timestamp, Unit};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use std::time::Duration;
use tokio::time::Instant;

/// What a lease says of who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who leads; empty once it was released.
    pub holder: String,
    /// Seconds it is good for after each renewal.
    pub seconds: i32,
    /// Since when its holder leads.
    pub acquired: Option<Timestamp>,
    /// When it was renewed last.
    pub renewed: Option<Timestamp>,
    /// How often leadership has moved.
    pub transitions: i32,
}

impl Record {
    /// What a lease says.
    #[must_use]
    pub fn of(spec: &LeaseSpec) -> Self {
        Self {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            seconds: spec.lease_duration_seconds.unwrap_or_default(),
            acquired: spec.acquire_time.as_ref().map(|time| time.0),
            renewed: spec.renew_time.as_ref().map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }

    /// The lease that says so.
    #[must_use]
    pub fn spec(&self) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(self.seconds),
            acquire_time: self.acquired.map(MicroTime),
            renew_time: self.renewed.map(MicroTime),
            lease_transitions: Some(self.transitions),
            ..LeaseSpec::default()
        }
    }
}

/// What one contender has seen of a lease.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    lease: Duration,
    /// The lease, and when it was seen to change.
    seen: Option<(Record, Instant)>,
}

impl Election {
    /// A contender that wants the lease for `lease` at a time.
    #[must_use]
    pub fn new(identity: &str, lease: Duration) -> Self {
        Self { identity: identity.to_owned(), lease, seen: None }
    }

    /// Whether the lease was last seen in our hands.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.holder() == Some(&self.identity)
    }

    /// Who has the lease, as it was last seen.
    #[must_use]
    pub fn holder(&self) -> Option<&String> {
        self.seen.as_ref().map(|(record, _)| &record.holder).filter(|holder| !holder.is_empty())
    }

    /// Whether the lease is good still.
    #[must_use]
    pub fn valid(&self, now: Instant) -> bool {
        self.runs_out().is_some_and(|until| until > now)
    }

    /// When the lease is over unless its holder, whoever that is, renews it.
    #[must_use]
    pub fn runs_out(&self) -> Option<Instant> {
        self.seen.as_ref().map(|(record, at)| *at + seconds(record.seconds))
    }

    /// Until when our own lease is good for sure; `None` while it is not ours.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.runs_out().filter(|_| self.leads())
    }

    /// The lease was read: what does not change ages.
    pub fn see(&mut self, record: Option<Record>, now: Instant) {
        if self.seen.as_ref().map(|(seen, _)| seen) != record.as_ref() {
            self.seen = record.map(|record| (record, now));
        }
    }

    /// Our own write of the lease, sent at `now`, succeeded: others may have seen it long before we heard of that.
    pub fn wrote(&mut self, record: Record, now: Instant) {
        self.seen = Some((record, now));
    }

    /// What to write to lead (on); `None` while somebody else does.
    #[must_use]
    pub fn claim(&self, now: Instant, clock: Timestamp) -> Option<Record> {
        let clock = micros(clock);
        let own = Record {
            holder: self.identity.clone(),
            seconds: i32::try_from(self.lease.as_secs()).unwrap_or(i32::MAX),
            acquired: Some(clock),
            renewed: Some(clock),
            transitions: 0,
        };
        Some(match &self.seen {
            None => own,
            Some((seen, _)) if self.leads() => {
                Record { acquired: seen.acquired.or(own.acquired), transitions: seen.transitions, ..own }
            }
            Some((seen, _)) if seen.holder.is_empty() || !self.valid(now) => {
                Record { transitions: seen.transitions.saturating_add(1), ..own }
            }
            Some(_) => return None,
        })
    }

    /// What to write to let others lead at once; `None` where the lease is not ours.
    #[must_use]
    pub fn release(&self, clock: Timestamp) -> Option<Record> {
        let (seen, _) = self.seen.as_ref().filter(|_| self.leads())?;
        let clock = Some(micros(clock));
        let transitions = seen.transitions;
        Some(Record { holder: String::new(), seconds: 1, acquired: clock, renewed: clock, transitions })
    }

    /// Whether we believe to lead, and have not renewed the lease for `tolerance` longer than it lasts.
    #[must_use]
    pub fn overdue(&self, now: Instant, tolerance: Duration) -> bool {
        let at = self.seen.as_ref().filter(|_| self.leads()).map(|(_, at)| *at);
        at.is_some_and(|at| now > at + self.lease + tolerance)
    }
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or_default())
}

/// As precise as it is written.
fn micros(clock: Timestamp) -> Timestamp {
    clock.round(Unit::Microsecond).unwrap_or(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn clock(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn held(holder: &str, transitions: i32) -> Record {
        let at = Some(clock(-1000));
        Record { holder: holder.into(), seconds: 15, acquired: at, renewed: at, transitions }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_another_renews_must_not_be_taken_however_old_its_times_are() {
        let (mut b, start) = (Election::new("b", LEASE), Instant::now());
        for seconds in 0..100_u64 {
            let now = start + Duration::from_secs(seconds);
            let renewed = Some(clock(seconds as i64 - 5000));
            b.see(Some(Record { renewed, ..held("a", 3) }), now);
            assert_eq!(b.claim(now, clock(0)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_renews_is_taken_when_its_time_is_over_and_not_before() {
        let (mut b, start) = (Election::new("b", LEASE), Instant::now());
        for seconds in [0, 7, 14] {
            b.see(Some(held("a", 3)), start + Duration::from_secs(seconds));
            assert_eq!(b.claim(start + Duration::from_secs(seconds), clock(0)), None, "{seconds}");
        }
        let taken = b.claim(start + LEASE, clock(15)).unwrap();
        let now = Some(clock(15));
        let expected =
            Record { holder: "b".into(), seconds: 15, acquired: now, renewed: now, transitions: 4 };
        assert_eq!(taken, expected);
        b.wrote(taken, start + LEASE);
        let renewed = b.claim(start + LEASE + Duration::from_secs(2), clock(17)).unwrap();
        assert_eq!((renewed.acquired, renewed.renewed, renewed.transitions), (now, Some(clock(17)), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn nobodys_a_released_and_our_own_lease_cost_no_wait() {
        let now = Instant::now();
        let mut b = Election::new("b", LEASE);
        assert_eq!(b.claim(now, clock(0)).unwrap().transitions, 0);
        b.see(Some(held("", 3)), now);
        assert_eq!(b.claim(now, clock(0)).unwrap().transitions, 4);
        // A life before this one was killed.
        b.see(Some(held("b", 3)), now);
        let claim = b.claim(now, clock(0)).unwrap();
        assert_eq!((claim.transitions, claim.acquired), (3, Some(clock(-1000))));
    }

    #[tokio::test(start_paused = true)]
    async fn only_ones_own_lease_is_released() {
        let now = Instant::now();
        let mut b = Election::new("b", LEASE);
        assert_eq!(b.release(clock(0)), None);
        b.see(Some(held("a", 3)), now);
        assert_eq!(b.release(clock(0)), None);
        b.see(Some(held("b", 3)), now);
        let released = b.release(clock(0)).unwrap();
        assert_eq!((released.holder.as_str(), released.seconds, released.transitions), ("", 1, 3));
        assert_eq!(released.renewed, Some(clock(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn health_complains_of_a_leader_that_does_not_renew_and_of_nobody_else() {
        let (now, tolerance) = (Instant::now(), Duration::from_secs(20));
        let mut b = Election::new("b", LEASE);
        b.see(Some(held("a", 3)), now);
        assert!(!b.overdue(now + Duration::from_secs(1000), tolerance));
        b.see(Some(held("b", 4)), now);
        assert!(!b.overdue(now + Duration::from_secs(35), tolerance));
        assert!(b.overdue(now + Duration::from_secs(36), tolerance));
    }

    #[test]
    fn a_lease_is_written_with_every_field_upstream_writes() {
        let record = Record { renewed: Some(clock(1)), ..held("b", 0) };
        let written = serde_json::to_value(record.spec()).unwrap();
        let expected = serde_json::json!({"holderIdentity": "b", "leaseDurationSeconds": 15, "leaseTransitions": 0,
            "acquireTime": "2023-11-14T21:56:40.000000Z", "renewTime": "2023-11-14T22:13:21.000000Z"});
        assert_eq!(written, expected);
        assert_eq!(Record::of(&record.spec()), record);
    }
}
