//! WATCH: the changes of a selection, as the transitions its client sees.
//!
//! An object that comes to match the selectors is ADDED, one that ceases to is DELETED (with its last matching state at
//! the new revision), whatever happened in the store. A watch ends by its timeout, when its client is too slow, or when
//! the cache starts over; the client goes on from the last resourceVersion it saw.

use super::kind::Kind;
use super::list::{scope, selected};
use super::options::ListOptions;
use super::{Registry, storage};
use bytes::Bytes;
use machinery::status::Status;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use store::Revision;
use store::cache::{Cached, Change, ChangeKind, Watcher};
use tokio::time::Instant;

/// Bookmarks come about this often, and once shortly before a watch times out.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Upstream's `--min-request-timeout`: a watch without its own lasts this long, up to twice.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// What a watch yields.
#[derive(Debug, Clone)]
pub(crate) enum WatchEvent {
    /// `ADDED`, `MODIFIED` or `DELETED`, and the object as wire JSON in the stored version.
    Object(&'static str, Bytes),
    /// Everything up to the revision was sent; true at the end of the initial events.
    Bookmark(Revision, bool),
}

/// One watch.
pub(crate) struct Watch {
    options: ListOptions,
    watcher: Watcher,
    initial: VecDeque<Arc<Cached>>,
    /// The bookmark that ends the initial events, if asked for.
    initial_end: Option<Revision>,
    deadline: Instant,
    next_bookmark: Instant,
    last_sent: Revision,
}

/// The event a client of these selectors sees of a change, if any.
fn transition(options: &ListOptions, change: &Change) -> Option<(&'static str, Bytes)> {
    let matches = |o: &Arc<Cached>| selected(options, &o.labels, &o.fields);
    let before = change.prev.as_ref().is_some_and(matches);
    let after = change.kind != ChangeKind::Deleted && matches(&change.object);
    match (before, after) {
        (false, false) => None,
        (false, true) => Some(("ADDED", change.object.bytes.clone())),
        (true, true) => Some(("MODIFIED", change.object.bytes.clone())),
        (true, false) if change.kind == ChangeKind::Deleted => Some(("DELETED", change.object.bytes.clone())),
        // The client is to see the last state that matched, at the revision at which it ceased to.
        (true, false) => {
            let prev = change.prev.as_ref()?;
            let mut object = serde_json::from_slice(&prev.bytes).ok()?;
            super::stored::set_revision(&mut object, change.revision);
            serde_json::to_vec(&object).ok().map(|b| ("DELETED", Bytes::from(b)))
        }
    }
}

impl Registry {
    /// Opens a watch on `kind` in `namespace` (empty: everywhere).
    pub(crate) async fn watch(
        &self,
        kind: &Kind,
        namespace: &str,
        options: ListOptions,
    ) -> Result<Watch, Status> {
        let cache = self.cache(kind)?;
        let scope = scope(kind, namespace, &options);
        let unready = |e: store::cache::Error| storage::unready(kind, &e);
        let from = options.revision.unwrap_or(0);
        let streaming = options.send_initial_events;
        // Unset or 0: the state first, then its changes; sendInitialEvents says so (or the opposite) at any revision.
        let with_state = streaming.unwrap_or(from == 0);
        let (initial, watcher, revision) = if with_state {
            match options.revision {
                None => {
                    cache.refresh().await.map_err(unready)?;
                }
                Some(0) => {}
                Some(revision) => cache.wait_until_fresh(revision).await.map_err(unready)?,
            }
            let (snapshot, watcher) = cache.snapshot_and_watch(&scope).map_err(unready)?;
            let initial = snapshot
                .range(&cache.key_prefix(&scope), None)
                .filter(|o| scope.holds(o) && selected(&options, &o.labels, &o.fields))
                .cloned()
                .collect();
            let revision = snapshot.revision();
            (initial, watcher, revision)
        } else if from == 0 {
            // sendInitialEvents=false without a revision: from now on.
            let revision = cache.refresh().await.map_err(unready)?;
            (VecDeque::new(), cache.watch(&scope, revision).map_err(unready)?, revision)
        } else {
            (VecDeque::new(), cache.watch(&scope, from).map_err(unready)?, from)
        };
        let jitter = f64::from(u16::try_from(self.random() % 1000).unwrap_or(0)) / 1000.0;
        let timeout = options.timeout.unwrap_or_else(|| DEFAULT_TIMEOUT.mul_f64(1.0 + jitter));
        let now = Instant::now();
        let initial_end = (streaming == Some(true) && options.bookmarks).then_some(revision);
        Ok(Watch {
            options,
            watcher,
            initial,
            initial_end,
            deadline: now + timeout,
            next_bookmark: now
                + BOOKMARK_EVERY
                    .mul_f64(0.75 + jitter / 2.0)
                    .min(timeout.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1))),
            last_sent: revision,
        })
    }
}

impl Watch {
    /// The next event; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(object) = self.initial.pop_front() {
            return Some(WatchEvent::Object("ADDED", object.bytes.clone()));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(WatchEvent::Bookmark(revision, true));
        }
        loop {
            let wake =
                if self.options.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            let change = tokio::select! {
                biased;
                change = self.watcher.next() => change?,
                () = tokio::time::sleep_until(wake) => {
                    if wake >= self.deadline {
                        return None;
                    }
                    let left = self.deadline.saturating_duration_since(Instant::now());
                    self.next_bookmark = Instant::now()
                        + BOOKMARK_EVERY.min(left.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1)));
                    match self.watcher.progress().await {
                        Some(revision) => {
                            self.last_sent = revision;
                            return Some(WatchEvent::Bookmark(revision, false));
                        }
                        None => continue,
                    }
                }
            };
            self.last_sent = change.revision;
            if let Some((event, bytes)) = transition(&self.options, &change) {
                return Some(WatchEvent::Object(event, bytes));
            }
        }
    }
}
