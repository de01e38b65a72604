//! Whether this node answers for an address: what it hears, when it speaks. Pure; `now` is an argument.
//!
//! A node that does not answer asks who does: the nearer it is to being the one, the more often. Silence makes it answer itself, the later
//! the farther it is. Who is first by rank takes the address at once, and keeps it against others; the rest give way to whoever speaks.
//! A node whose knowledge of the cluster is old (it does not reach the API server), or which has just started (its proxy's rules may not be
//! there yet), takes nothing from anybody: it waits for silence, and gives way.

use netlink::link::Mac;
use std::time::{Duration, Instant};

/// Between two questions, and how long nobody answers before this node does, by rank. Each waits until those before it have had their turn,
/// whenever they asked last. The first by rank waits only where it may not take an address at once. Nodes beyond these wait until they are
/// nearer, which the API tells: however many nodes there are, five questions a second are asked about an address.
const PATIENCE: [(Duration, Duration); 4] = [
    (Duration::from_millis(100), Duration::from_millis(300)),
    (Duration::from_millis(500), Duration::from_millis(2200)),
    (Duration::from_millis(1000), Duration::from_millis(3300)),
    (Duration::from_millis(1000), Duration::from_millis(4400)),
];
/// When a node that begins to answer says so again.
const REPEATS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// How often a node answers for an address unasked that another one should: two of them must hear of each other.
const REMINDER: Duration = Duration::from_secs(10);
/// How often the first by rank contradicts another who speaks.
const DEFENCE: Duration = Duration::from_secs(1);

/// What this node is to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Its place among the nodes that could answer; none where it is not one of them.
    pub(crate) rank: Option<usize>,
    /// What it knows is new, and it is no newcomer.
    pub(crate) firm: bool,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// That the address is here, to everybody.
    Announce,
    /// Who has it: to the node that had it a moment ago, or to everybody.
    Ask(Option<Mac>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not concerned.
    Silent,
    /// Somebody else answers, or nobody.
    Watching { heard: Instant, by: Option<Mac>, asked: Option<Instant> },
    /// This node answers; so often it has said so, and then.
    Holding { said: usize, last: Instant },
}

/// One address at this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    phase: Phase,
}

impl Claim {
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Silent }
    }

    /// Whether this node answers for it.
    pub(crate) fn holds(&self) -> bool {
        matches!(self.phase, Phase::Holding { .. })
    }

    /// It is time, or something changed: what is to be sent, and when to come again.
    pub(crate) fn tick(&mut self, standing: Standing, now: Instant) -> (Option<Say>, Option<Instant>) {
        let Some(rank) = standing.rank else {
            self.phase = Phase::Silent;
            return (None, None);
        };
        let at_once = rank == 0 && standing.firm;
        match self.phase {
            Phase::Silent | Phase::Watching { .. } if at_once => self.take(rank, now),
            Phase::Silent => {
                self.phase = Phase::Watching { heard: now, by: None, asked: None };
                self.tick(standing, now)
            }
            Phase::Watching { heard, by, asked } => {
                let Some((period, silence)) = PATIENCE.get(rank).copied() else { return (None, None) };
                if now >= heard + silence {
                    return self.take(rank, now);
                }
                let due = asked.map_or(now, |asked| asked + period);
                if due > now {
                    return (None, Some(due.min(heard + silence)));
                }
                self.phase = Phase::Watching { heard, by, asked: Some(now) };
                // One who no longer answers must not hide another who does.
                let to = by.filter(|_| now < heard + period + period / 2);
                (Some(Say::Ask(to)), Some((now + period).min(heard + silence)))
            }
            Phase::Holding { said, last } => {
                let due = pause(said, rank).map(|pause| last + pause);
                match due {
                    Some(due) if due <= now => {
                        self.phase = Phase::Holding { said: said.saturating_add(1), last: now };
                        (Some(Say::Announce), pause(said.saturating_add(1), rank).map(|pause| now + pause))
                    }
                    due => (None, due),
                }
            }
        }
    }

    fn take(&mut self, rank: usize, now: Instant) -> (Option<Say>, Option<Instant>) {
        self.phase = Phase::Holding { said: 0, last: now };
        (Some(Say::Announce), pause(0, rank).map(|pause| now + pause))
    }

    /// Another node, or machine, says that it has the address. What is to be said to that; [`Claim::tick`] comes next.
    pub(crate) fn heard(&mut self, standing: Standing, from: Mac, now: Instant) -> Option<Say> {
        match self.phase {
            Phase::Holding { said, last } if standing.rank == Some(0) && standing.firm => {
                if said > 0 && now < last + DEFENCE {
                    return None;
                }
                self.phase = Phase::Holding { said: said.max(1), last: now };
                Some(Say::Announce)
            }
            Phase::Silent => None,
            Phase::Watching { asked, .. } => {
                self.phase = Phase::Watching { heard: now, by: Some(from), asked };
                None
            }
            Phase::Holding { .. } => {
                self.phase = Phase::Watching { heard: now, by: Some(from), asked: None };
                None
            }
        }
    }

    /// The link is another one, or has another hardware address: who answers says so again.
    pub(crate) fn relinked(&mut self, now: Instant) {
        if self.holds() {
            self.phase = Phase::Holding { said: 0, last: now };
        }
    }
}

/// How long after it has said so again a node says once more that it answers.
fn pause(said: usize, rank: usize) -> Option<Duration> {
    let reminder = (rank > 0).then_some(REMINDER);
    REPEATS.get(said).copied().or(reminder)
}

#[cfg(test)]
mod tests;
