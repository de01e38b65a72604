//! Watches on a store, whichever engine it has.
//!
//! Each watch has a bounded queue that the engine fills with what it publishes. A watch that starts in the past, or whose queue
//! overflowed, reads the engine's [`History`] instead until it has caught up with what was published, then goes back to its queue; both
//! moves happen under the hub's lock, so no change falls between the two. What is published at once is queued at once: changes of one
//! revision stay together.

use crate::{Error, Event, Revision};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Changes a watch may have waiting before it is sent to the log.
const QUEUE: usize = 1024;

/// The past, as a watch that catches up reads it.
pub(crate) trait History: Send + Sync + 'static {
    /// Changes under `prefix` in (`after`, `until`], a bounded page of them that ends with a revision's last change.
    fn changes(
        self: Arc<Self>,
        prefix: Arc<str>,
        after: Revision,
        until: Revision,
    ) -> BoxFuture<'static, Result<Changes, Error>>;
}

/// One page of the past.
pub(crate) struct Changes {
    pub(crate) events: Vec<Event>,
    /// Every change up to here has been looked at.
    pub(crate) scanned: Revision,
}

/// Where the engine publishes and watches listen.
pub(crate) struct Hub {
    state: Mutex<State>,
}

struct State {
    published: Revision,
    compacted: Revision,
    closed: bool,
    /// How many watches there have ever been.
    joined: u64,
    slots: Vec<Arc<Slot>>,
}

struct Slot {
    /// Which of those that have joined.
    number: u64,
    prefix: Arc<str>,
    queue: Mutex<Queue>,
    wake: Notify,
}

impl Slot {
    fn distrust(&self) {
        let mut queue = self.queue.lock();
        queue.events.clear();
        queue.lagging = true;
        drop(queue);
        self.wake.notify_one();
    }
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The queue cannot vouch for everything up to `published`: read the history.
    lagging: bool,
    /// The oldest and the newest revision asked for: progress is to be told once everything up to the one is published, and again for the
    /// other. So who asks all the time, for what is ever newer, does not put off the answer.
    progress_asked: Option<(Revision, Revision)>,
}

/// What a watch finds when it looks at its slot.
enum Taken {
    Events(VecDeque<Event>),
    /// Read the history up to here; later changes are queued.
    CatchUp(Revision),
    /// Nothing new up to here, and the caller had asked.
    Progress(Revision),
    Nothing,
    Closed,
}

impl Hub {
    pub(crate) fn new(published: Revision, compacted: Revision) -> Self {
        Self {
            state: Mutex::new(State { published, compacted, closed: false, joined: 0, slots: Vec::new() }),
        }
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    /// Says that history before `revision` is gone.
    pub(crate) fn forget(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.compacted = state.compacted.max(revision);
    }

    pub(crate) fn published(&self) -> Revision {
        self.state.lock().published
    }

    /// Hands committed `events` to the watches; `revision` is the newest committed one.
    pub(crate) fn publish(&self, revision: Revision, events: &[Event]) {
        self.publish_heard(revision, events, u64::MAX, &[]);
    }

    /// As [`Hub::publish`], where `events` are only those that [`Hub::hears`] told of, asked after `joined` watches had joined, and without
    /// those of the keys `unreadable`: watches that may miss some read the history instead, and fail by themselves where that fails.
    pub(crate) fn publish_heard(
        &self,
        revision: Revision,
        events: &[Event],
        joined: u64,
        unreadable: &[String],
    ) {
        let mut state = self.state.lock();
        state.published = revision;
        for slot in &state.slots {
            if slot.number > joined || unreadable.iter().any(|key| key.starts_with(&*slot.prefix)) {
                slot.distrust();
                continue;
            }
            let mut queue = slot.queue.lock();
            let mut touched = queue.progress_asked.is_some_and(|(first, _)| first <= revision);
            for event in events.iter().filter(|e| e.key().is_some_and(|k| k.starts_with(&*slot.prefix))) {
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

    /// Has the watches of `prefix` tell progress once everything up to `revision` is published.
    pub(crate) fn request_progress(&self, prefix: &str, revision: Revision) {
        for slot in self.state.lock().slots.iter().filter(|s| *s.prefix == *prefix) {
            let mut queue = slot.queue.lock();
            let (first, last) = queue.progress_asked.unwrap_or((revision, revision));
            queue.progress_asked = Some((first.min(revision), last.max(revision)));
            drop(queue);
            slot.wake.notify_one();
        }
    }

    /// Whether a change of `key` concerns any watch.
    pub(crate) fn hears(&self, key: &str) -> bool {
        self.state.lock().slots.iter().any(|slot| key.starts_with(&*slot.prefix))
    }

    /// How many watches have joined so far.
    pub(crate) fn joined(&self) -> u64 {
        self.state.lock().joined
    }

    /// Goes on at `revision` without what happened before: each watch reads that from the history.
    pub(crate) fn skip(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.published = revision;
        state.slots.iter().for_each(|slot| slot.distrust());
    }

    pub(crate) fn close(&self) {
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
        } else if let Some((_, last)) = queue.progress_asked.take_if(|(first, _)| *first <= state.published) {
            queue.progress_asked = Some((last, last)).filter(|_| last > state.published);
            Taken::Progress(state.published)
        } else {
            Taken::Nothing
        }
    }
}

/// Every change under `prefix` after `from`.
pub(crate) fn watch(
    hub: Arc<Hub>,
    history: Arc<impl History>,
    prefix: &str,
    from: Revision,
) -> BoxStream<'static, Result<Event, Error>> {
    let mut state = hub.state.lock();
    state.joined += 1;
    let slot = Arc::new(Slot {
        number: state.joined,
        prefix: prefix.into(),
        // Lagging from the start: the first look decides how far back to read.
        queue: Mutex::new(Queue { lagging: true, ..Queue::default() }),
        wake: Notify::new(),
    });
    state.slots.push(slot.clone());
    drop(state);
    let follower =
        Follower { hub, history, slot, cursor: from, catch_up: None, ready: VecDeque::new(), done: false };
    stream::unfold(follower, |mut f| async move { f.next().await.map(|item| (item, f)) }).boxed()
}

struct Follower<H> {
    hub: Arc<Hub>,
    history: Arc<H>,
    slot: Arc<Slot>,
    /// Every change up to here is delivered or in `ready`.
    cursor: Revision,
    /// The history is being read up to here.
    catch_up: Option<Revision>,
    ready: VecDeque<Event>,
    done: bool,
}

impl<H: History> Follower<H> {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.done {
                return None;
            }
            if let Some(until) = self.catch_up {
                if let Err(e) = self.read_history(until).await {
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

    async fn read_history(&mut self, until: Revision) -> Result<(), Error> {
        let prefix = self.slot.prefix.clone();
        let page = self.history.clone().changes(prefix, self.cursor, until).await?;
        self.cursor = page.scanned;
        self.ready = page.events.into();
        if page.scanned >= until {
            self.catch_up = None;
        }
        Ok(())
    }
}

impl<H> Drop for Follower<H> {
    fn drop(&mut self) {
        self.hub.state.lock().slots.retain(|s| !Arc::ptr_eq(s, &self.slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use futures::FutureExt;

    /// Everything that ever happened, but for what cannot be read.
    struct Past {
        events: Vec<Event>,
        unreadable: Option<Revision>,
    }

    impl History for Past {
        fn changes(
            self: Arc<Self>,
            prefix: Arc<str>,
            after: Revision,
            until: Revision,
        ) -> BoxFuture<'static, Result<Changes, Error>> {
            async move {
                if self.unreadable.is_some_and(|at| after < at && at <= until) {
                    return Err(Error::Closed { what: "unreadable".to_owned() });
                }
                let asked = |e: &&Event| {
                    e.key().is_some_and(|k| k.starts_with(&*prefix))
                        && e.revision() > after
                        && e.revision() <= until
                };
                Ok(Changes { events: self.events.iter().filter(asked).cloned().collect(), scanned: until })
            }
            .boxed()
        }
    }

    fn put(key: &str, revision: Revision) -> Event {
        let entry = Entry {
            key: key.into(),
            value: bytes::Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
            stale: false,
        };
        Event::Put { entry, prev: None }
    }

    #[tokio::test]
    async fn a_watch_that_joins_while_a_change_is_decoded_must_not_miss_it() {
        let hub = Arc::new(Hub::new(4, 0));
        let past = Arc::new(Past { events: vec![put("/a/x", 5)], unreadable: None });
        let joined = hub.joined();
        assert!(!hub.hears("/a/x"));
        let mut watch = watch(hub.clone(), past, "/a/", 4);
        assert!(watch.next().now_or_never().is_none(), "it has caught up with what was published");
        hub.publish_heard(5, &[], joined, &[]);
        assert_eq!(watch.next().now_or_never().unwrap().unwrap().unwrap().revision(), 5);
    }

    #[tokio::test]
    async fn an_unreadable_change_must_not_be_passed_over_by_a_later_one() {
        let hub = Arc::new(Hub::new(4, 0));
        let past = Arc::new(Past { events: vec![put("/a/y", 6)], unreadable: Some(5) });
        let mut hit = watch(hub.clone(), past.clone(), "/a/", 4);
        let mut other = watch(hub.clone(), past, "/a/y", 4);
        assert!(hit.next().now_or_never().is_none() && other.next().now_or_never().is_none());
        hub.publish_heard(6, &[put("/a/y", 6)], hub.joined(), &["/a/x".to_owned()]);
        assert!(hit.next().now_or_never().unwrap().unwrap().is_err());
        assert_eq!(other.next().now_or_never().unwrap().unwrap().unwrap().revision(), 6);
    }

    #[tokio::test]
    async fn progress_must_not_be_put_off_by_who_asks_again() {
        let hub = Arc::new(Hub::new(4, 0));
        let past = Arc::new(Past { events: Vec::new(), unreadable: None });
        let mut watch = watch(hub.clone(), past, "/a/", 4);
        let mut progress = || watch.next().now_or_never().map(|told| told.unwrap().unwrap().revision());
        hub.request_progress("/a/", 5);
        assert_eq!(progress(), None);
        hub.request_progress("/a/", 7);
        hub.publish(5, &[]);
        assert_eq!(progress(), Some(5));
        assert_eq!(progress(), None);
        hub.publish(6, &[]);
        assert_eq!(progress(), None);
        hub.publish(7, &[]);
        assert_eq!((progress(), progress()), (Some(7), None));
    }
}
