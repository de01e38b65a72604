//! Watches on the embedded store.
//!
//! Each watch has a bounded queue the writer fills after its commit. A watch that starts in the past, or whose queue
//! overflowed, reads the log instead until it has caught up with what was published, then goes back to its queue; both
//! moves happen under the hub's lock, so no change falls between the two.

use super::read::Reader;
use crate::{Error, Event, Revision};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Changes a watch may have waiting before it is sent to the log.
const QUEUE: usize = 1024;

/// Where the writer publishes and watches listen.
pub(super) struct Hub {
    state: Mutex<State>,
}

struct State {
    published: Revision,
    compacted: Revision,
    closed: bool,
    slots: Vec<Arc<Slot>>,
}

struct Slot {
    prefix: String,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The queue cannot vouch for everything up to `published`: read the log.
    lagging: bool,
    progress_asked: bool,
}

/// What a watch finds when it looks at its slot.
enum Taken {
    Events(VecDeque<Event>),
    /// Read the log up to here; later changes are queued.
    CatchUp(Revision),
    /// Nothing new up to here, and the caller had asked.
    Progress(Revision),
    Nothing,
    Closed,
}

impl Hub {
    pub(super) fn new(published: Revision, compacted: Revision) -> Self {
        Self { state: Mutex::new(State { published, compacted, closed: false, slots: Vec::new() }) }
    }

    pub(super) fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    /// Says that history before `revision` is gone.
    pub(super) fn forget(&self, revision: Revision) {
        self.state.lock().compacted = revision;
    }

    pub(super) fn published(&self) -> Revision {
        self.state.lock().published
    }

    /// Hands committed `events` to the watches; `revision` is the newest committed one.
    pub(super) fn publish(&self, revision: Revision, events: &[Event]) {
        let mut state = self.state.lock();
        state.published = revision;
        for slot in &state.slots {
            let mut queue = slot.queue.lock();
            let mut touched = false;
            for event in events.iter().filter(|e| e.key().is_some_and(|k| k.starts_with(&slot.prefix))) {
                touched = true;
                if queue.lagging {
                    break;
                }
                if queue.events.len() == QUEUE {
                    queue.events.clear();
                    queue.lagging = true;
                } else {
                    queue.events.push_back(event.clone());
                }
            }
            drop(queue);
            if touched {
                slot.wake.notify_one();
            }
        }
    }

    pub(super) fn request_progress(&self, prefix: &str) {
        for slot in self.state.lock().slots.iter().filter(|s| s.prefix == prefix) {
            slot.queue.lock().progress_asked = true;
            slot.wake.notify_one();
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for slot in &state.slots {
            slot.wake.notify_one();
        }
    }

    fn take(&self, slot: &Slot) -> Taken {
        let state = self.state.lock();
        let mut queue = slot.queue.lock();
        if queue.lagging {
            queue.lagging = false;
            Taken::CatchUp(state.published)
        } else if !queue.events.is_empty() {
            Taken::Events(std::mem::take(&mut queue.events))
        } else if state.closed {
            Taken::Closed
        } else if std::mem::take(&mut queue.progress_asked) {
            Taken::Progress(state.published)
        } else {
            Taken::Nothing
        }
    }
}

/// Every change under `prefix` after `from`.
pub(super) fn watch(
    hub: Arc<Hub>,
    reader: Arc<Reader>,
    prefix: &str,
    from: Revision,
) -> BoxStream<'static, Result<Event, Error>> {
    let slot = Arc::new(Slot {
        prefix: prefix.to_owned(),
        // Lagging from the start: the first look decides how far back to read.
        queue: Mutex::new(Queue { lagging: true, ..Queue::default() }),
        wake: Notify::new(),
    });
    hub.state.lock().slots.push(slot.clone());
    let follower =
        Follower { hub, reader, slot, cursor: from, catch_up: None, ready: VecDeque::new(), done: false };
    stream::unfold(follower, |mut f| async move { f.next().await.map(|item| (item, f)) }).boxed()
}

struct Follower {
    hub: Arc<Hub>,
    reader: Arc<Reader>,
    slot: Arc<Slot>,
    /// Every change up to here is delivered or in `ready`.
    cursor: Revision,
    /// The log is being read up to here.
    catch_up: Option<Revision>,
    ready: VecDeque<Event>,
    done: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.done {
                return None;
            }
            if let Some(until) = self.catch_up {
                if let Err(e) = self.read_log(until).await {
                    self.done = true;
                    return Some(Err(e));
                }
                continue;
            }
            match self.hub.take(&self.slot) {
                Taken::Events(mut events) => {
                    events.retain(|e| e.revision() > self.cursor);
                    self.cursor = events.back().map_or(self.cursor, Event::revision);
                    self.ready = events;
                }
                Taken::CatchUp(until) => self.catch_up = Some(until).filter(|&u| u > self.cursor),
                Taken::Progress(revision) => return Some(Ok(Event::Progress { revision })),
                Taken::Closed => {
                    self.done = true;
                    return Some(Err(Error::Closed { what: format!("watch {}", self.slot.prefix) }));
                }
                Taken::Nothing => self.slot.wake.notified().await,
            }
        }
    }

    async fn read_log(&mut self, until: Revision) -> Result<(), Error> {
        let (reader, slot, after) = (self.reader.clone(), self.slot.clone(), self.cursor);
        let page =
            super::blocking("watch", &self.slot.prefix, move || reader.changes(&slot.prefix, after, until))
                .await?;
        self.cursor = page.scanned;
        self.ready = page.events.into();
        if page.scanned >= until {
            self.catch_up = None;
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.hub.state.lock().slots.retain(|s| !Arc::ptr_eq(s, &self.slot));
    }
}
