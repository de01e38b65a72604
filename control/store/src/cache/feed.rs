//! What keeps a cache filled: list, then watch from the list's revision, forever.
//!
//! Woken by the backend's watch. Reads the backend, writes the cache's state; it is the only one that does. When the watch
//! fails (compacted away, or the engine's error) it lists again, ends every watch of the cache, as their history has a
//! gap, and goes on; failures back off exponentially with jitter and leave the last good state readable.

use super::object::{Cached, Change, ChangeKind};
use super::{Shared, State};
use crate::{Entry, Error, Event, Revision};
use futures::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use supervise::Backoff;

/// Entries read from the backend at once.
const PAGE: usize = 1000;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Fills one cache. Clones are for a life after another, never for two at once.
#[derive(Clone)]
pub struct Feed {
    pub(super) shared: Arc<Shared>,
}

impl Feed {
    /// Runs forever; drop the future to stop.
    pub async fn run(self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let error = match self.fill().await {
                Ok(from) => {
                    backoff.reset();
                    self.follow(from).await
                }
                Err(e) => e,
            };
            tracing::warn!(prefix = %self.shared.prefix, %error, "watch cache: starting over");
            backoff.pause().await;
        }
    }

    /// Lists everything and makes it the cache's state.
    async fn fill(&self) -> Result<Revision, Error> {
        let state = self.shared.load(None).await?;
        let revision = state.revision;
        self.shared.replace(state);
        Ok(revision)
    }

    /// Applies changes after `from` until the watch fails.
    async fn follow(&self, from: Revision) -> Error {
        let prefix = &self.shared.prefix;
        let mut watch = match self.shared.backend.watch(prefix, from) {
            Ok(watch) => watch,
            Err(e) => return e,
        };
        let mut behind = None;
        loop {
            let first = match behind.take() {
                Some(event) => event,
                None => match watch.next().await {
                    Some(event) => event,
                    None => return Error::Closed { what: format!("watch {prefix}") },
                },
            };
            let mut events = match first {
                Ok(event) => vec![event],
                Err(e) => return e,
            };
            // The backend hands on whole revisions, so what belongs together is there at once.
            let revision = events.first().map(Event::revision);
            while let Some(Some(event)) = watch.next().now_or_never() {
                match event {
                    Ok(event) if Some(event.revision()) == revision => events.push(event),
                    other => {
                        behind = Some(other);
                        break;
                    }
                }
            }
            self.apply(events);
        }
    }

    /// Takes over what happened at one revision: nobody sees half of it.
    fn apply(&self, events: Vec<Event>) {
        let Some(revision) = events.first().map(Event::revision) else { return };
        // Decoding the objects is the costly part: before the lock is taken.
        let written = events.into_iter().filter_map(|event| match event {
            Event::Put { entry, .. } => Some((true, self.shared.cached(&entry))),
            Event::Delete { prev, revision } => {
                Some((false, self.shared.cached(&Entry { mod_revision: revision, ..prev })))
            }
            Event::Progress { .. } => None,
        });
        let written: Vec<_> = written.collect();
        self.shared.update(revision, |state| {
            let changes = written.into_iter().filter_map(|(is_there, object)| {
                if !is_there {
                    let prev = Some(state.map.remove(&object.key)?);
                    return Some(Change { kind: ChangeKind::Deleted, object, prev, revision });
                }
                let prev = state.map.insert(object.clone());
                let kind = if prev.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                Some(Change { kind, object, prev, revision })
            });
            changes.collect()
        });
    }
}

impl Shared {
    /// Everything as the backend has it at `at` (now where there is none), as a state of its own.
    pub(super) async fn load(&self, at: Option<Revision>) -> Result<State, Error> {
        let mut page = self.backend.list(&self.prefix, None, PAGE, at).await?;
        let revision = page.revision;
        let mut state = State::new(revision, self.options.history);
        loop {
            for entry in &page.entries {
                state.map.insert(self.cached(entry));
            }
            let Some(last) = page.entries.last().filter(|_| page.more) else { return Ok(state) };
            let after = last.key.clone();
            page = self.backend.list(&self.prefix, Some(&after), PAGE, Some(revision)).await?;
        }
    }

    fn cached(&self, entry: &Entry) -> Arc<Cached> {
        Arc::new(Cached::new(&self.prefix, entry, (self.extract)(entry)))
    }
}
