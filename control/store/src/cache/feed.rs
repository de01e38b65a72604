//! What keeps a cache filled: list, then watch from the list's revision, forever.
//!
//! Woken by the backend's watch. Reads the backend, writes the cache's state; it is the only one that does. When the watch
//! fails (compacted away, or the engine's error) it lists again, ends every watch of the cache, as their history has a
//! gap, and goes on; failures back off exponentially with jitter and leave the last good state readable.

use super::object::{Cached, Change, ChangeKind};
use super::{Shared, State};
use crate::{Entry, Error, Event, Revision};
use futures::StreamExt;
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
        let Shared { prefix, backend, .. } = &*self.shared;
        let mut page = backend.list(prefix, None, PAGE, None).await?;
        let revision = page.revision;
        let mut state = State::new(revision, self.shared.options.history);
        loop {
            for entry in &page.entries {
                state.map.insert(self.cached(entry));
            }
            let Some(last) = page.entries.last().filter(|_| page.more) else { break };
            let after = last.key.clone();
            page = backend.list(prefix, Some(&after), PAGE, Some(revision)).await?;
        }
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
        while let Some(event) = watch.next().await {
            match event {
                Ok(event) => self.apply(event),
                Err(e) => return e,
            }
        }
        Error::Closed { what: format!("watch {prefix}") }
    }

    fn apply(&self, event: Event) {
        match event {
            Event::Put { entry, .. } => {
                // Decoding the object is the costly part: before the lock is taken.
                let object = self.cached(&entry);
                self.shared.update(entry.mod_revision, |state| {
                    let prev = state.map.insert(object.clone());
                    let kind = if prev.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                    Some(Change { kind, object, prev, revision: entry.mod_revision })
                });
            }
            Event::Delete { prev, revision } => {
                let object = self.cached(&Entry { mod_revision: revision, ..prev });
                self.shared.update(revision, |state| {
                    let prev = Some(state.map.remove(&object.key)?);
                    Some(Change { kind: ChangeKind::Deleted, object, prev, revision })
                });
            }
            Event::Progress { revision } => self.shared.update(revision, |_| None),
        }
    }

    fn cached(&self, entry: &Entry) -> Arc<Cached> {
        Arc::new(Cached::new(&self.shared.prefix, entry, (self.shared.extract)(entry)))
    }
}
