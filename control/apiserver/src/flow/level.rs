//! One priority level: so many seats, and queues of requests that wait for one.
//!
//! A flow is dealt a hand of queues by its hash, and joins the shortest of them, so that a flood of one flow fills few
//! queues and other flows find an empty one (upstream: `util/shufflesharding`, `util/flowcontrol/fairqueuing`). A seat that
//! becomes free goes to the queue that has used the least seat time so far. Everything is bounded: seats, queues, their
//! lengths, and how long a request waits.

use crate::objects::text;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What happens where no seat is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    Reject,
    Queue { queues: usize, hand: usize, length: usize },
}

/// How a PriorityLevelConfiguration limits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limits {
    /// Without a limit: requests are seated at once, and no longer counted.
    pub exempt: bool,
    pub shares: u64,
    pub response: Response,
}

/// Queues one level may have, whatever it says; upstream's validation allows more than anybody can use.
const MOST_QUEUES: usize = 4096;

impl Limits {
    /// Do both limit alike, but for the number of seats?
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.exempt == other.exempt && self.response == other.response
    }

    pub(super) fn parse(object: &Value) -> Self {
        let number =
            |pointer: &str, default: u64| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(default);
        let count =
            |pointer: &str, default: u64| usize::try_from(number(pointer, default)).unwrap_or_default();
        let exempt = text(object, "/spec/type") == "Exempt";
        let response = match text(object, "/spec/limited/limitResponse/type") {
            "Queue" => {
                let queues = count("/spec/limited/limitResponse/queuing/queues", 64).clamp(1, MOST_QUEUES);
                Response::Queue {
                    queues,
                    hand: count("/spec/limited/limitResponse/queuing/handSize", 8).clamp(1, queues),
                    length: count("/spec/limited/limitResponse/queuing/queueLengthLimit", 50),
                }
            }
            _ => Response::Reject,
        };
        let shares = if exempt {
            number("/spec/exempt/nominalConcurrencyShares", 0)
        } else {
            number("/spec/limited/nominalConcurrencyShares", 30)
        };
        Limits { exempt, shares, response }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<Seat>)>,
    /// Seat time given to this queue's requests, on the level's own clock: what fairness compares.
    used: f64,
}

struct State {
    seats: usize,
    taken: usize,
    queues: Vec<Queue>,
    ticket: u64,
}

/// A priority level at work.
pub(super) struct Level {
    pub limits: Limits,
    state: Mutex<State>,
}

/// A place among the requests worked on; given back when dropped.
pub struct Seat {
    held: Option<(Arc<Level>, Option<usize>, Instant)>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("limited", &self.held.is_some()).finish()
    }
}

/// Why a request gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    TooLong,
}

impl Level {
    pub(super) fn new(limits: Limits, seats: usize) -> Self {
        let queues = match limits.response {
            Response::Queue { queues, .. } if !limits.exempt => queues,
            _ => 0,
        };
        let state =
            State { seats, taken: 0, queues: (0..queues).map(|_| Queue::default()).collect(), ticket: 0 };
        Level { limits, state: Mutex::new(state) }
    }

    /// Gives the level another number of seats; what waits and now finds one goes on.
    pub(super) fn resize(self: &Arc<Self>, seats: usize) {
        self.state.lock().seats = seats;
        self.seat_waiting();
    }

    /// A seat for a request of the flow with this hash.
    pub(super) async fn admit(self: &Arc<Self>, hash: u64, longest: Duration) -> Result<Seat, Refusal> {
        if self.limits.exempt {
            return Ok(Seat { held: None });
        }
        let (ticket, queue, seated) = {
            let mut state = self.state.lock();
            let nobody_waits = state.queues.iter().all(|q| q.waiting.is_empty());
            if nobody_waits && state.taken < state.seats {
                state.taken += 1;
                let queue = self.deal(&state, hash);
                return Ok(Seat { held: Some((self.clone(), queue, Instant::now())) });
            }
            let Response::Queue { length, .. } = self.limits.response else { return Err(Refusal::Full) };
            let Some(index) = self.deal(&state, hash) else { return Err(Refusal::Full) };
            if state.queues[index].waiting.len() >= length {
                return Err(Refusal::Full);
            }
            state.ticket += 1;
            let ticket = state.ticket;
            if state.queues[index].waiting.is_empty() {
                // A queue that was idle does not make up for it.
                let least = state
                    .queues
                    .iter()
                    .filter(|q| !q.waiting.is_empty())
                    .map(|q| q.used)
                    .fold(f64::INFINITY, f64::min);
                if least.is_finite() {
                    state.queues[index].used = state.queues[index].used.max(least);
                }
            }
            let (sender, receiver) = oneshot::channel();
            state.queues[index].waiting.push_back((ticket, sender));
            (ticket, index, receiver)
        };
        // Whoever stops waiting, by time or because the client went, leaves its place.
        let _leave = Leave { level: self.clone(), queue, ticket };
        self.seat_waiting();
        match tokio::time::timeout(longest, seated).await {
            Ok(Ok(seat)) => Ok(seat),
            _ => Err(Refusal::TooLong),
        }
    }

    /// The shortest queue of the flow's hand.
    fn deal(&self, state: &State, hash: u64) -> Option<usize> {
        let Response::Queue { queues, hand, .. } = self.limits.response else { return None };
        super::shuffle::hand(hash, queues, hand)
            .into_iter()
            .min_by_key(|index| state.queues.get(*index).map_or(usize::MAX, |q| q.waiting.len()))
    }

    /// Gives free seats to what waits.
    fn seat_waiting(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                if state.taken >= state.seats {
                    return;
                }
                let fairest = state
                    .queues
                    .iter()
                    .enumerate()
                    .filter(|(_, q)| !q.waiting.is_empty())
                    .min_by(|(_, a), (_, b)| a.used.total_cmp(&b.used))
                    .map(|(index, _)| index);
                let Some(index) = fairest else { return };
                let Some((_, sender)) = state.queues[index].waiting.pop_front() else { return };
                state.taken += 1;
                (index, sender)
            };
            // Where the request is gone, the seat comes back by being dropped.
            let (index, sender) = next;
            let _ = sender.send(Seat { held: Some((self.clone(), Some(index), Instant::now())) });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((level, queue, since)) = self.held.take() else { return };
        {
            let mut state = level.state.lock();
            state.taken -= 1;
            if let Some(queue) = queue.and_then(|index| state.queues.get_mut(index)) {
                queue.used += since.elapsed().as_secs_f64();
            }
        }
        level.seat_waiting();
    }
}

struct Leave {
    level: Arc<Level>,
    queue: usize,
    ticket: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        // A sender dropped under the lock holds no seat, so this cannot lock again.
        if let Some(queue) = self.level.state.lock().queues.get_mut(self.queue) {
            queue.waiting.retain(|(ticket, _)| *ticket != self.ticket);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    fn level(response: Response, seats: usize) -> Arc<Level> {
        Arc::new(Level::new(Limits { exempt: false, shares: 1, response }, seats))
    }

    #[tokio::test]
    async fn without_queues_one_too_many_is_refused() {
        let level = level(Response::Reject, 1);
        let held = level.admit(1, LONG).await.unwrap();
        assert_eq!(level.admit(1, LONG).await.unwrap_err(), Refusal::Full);
        drop(held);
        assert!(level.admit(1, LONG).await.is_ok());
    }

    #[tokio::test]
    async fn queues_wait_and_are_bounded() {
        let level = level(Response::Queue { queues: 1, hand: 1, length: 1 }, 1);
        let held = level.admit(1, LONG).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { level.admit(1, LONG).await.is_ok() }
        });
        while level.state.lock().queues[0].waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(level.admit(1, LONG).await.unwrap_err(), Refusal::Full);
        drop(held);
        assert!(waiting.await.unwrap());
        assert_eq!(level.state.lock().taken, 0);
    }

    #[tokio::test]
    async fn who_waits_too_long_leaves_no_trace() {
        let level = level(Response::Queue { queues: 2, hand: 1, length: 5 }, 1);
        let held = level.admit(1, LONG).await.unwrap();
        assert_eq!(level.admit(1, SOON).await.unwrap_err(), Refusal::TooLong);
        assert!(level.state.lock().queues.iter().all(|q| q.waiting.is_empty()));
        drop(held);
        assert!(level.admit(1, SOON).await.is_ok());
    }

    #[tokio::test]
    async fn a_flood_does_not_starve_another_flow() {
        let level = level(Response::Queue { queues: 64, hand: 1, length: 100 }, 1);
        let held = level.admit(1, LONG).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..21 {
            let (level, order) = (level.clone(), order.clone());
            let flow = if n < 20 { 1 } else { 2 };
            tasks.push(tokio::spawn(async move {
                let seat = level.admit(flow, LONG).await.unwrap();
                order.lock().push(flow);
                drop(seat);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let place = order.lock().iter().position(|flow| *flow == 2).unwrap();
        assert!(place <= 1, "the other flow was served as number {place}");
    }
}
