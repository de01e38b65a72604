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
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::Revision;
use store::cache::{Cached, Change, ChangeKind, Watcher};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bookmarks come about this often, and once shortly before a watch times out.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch yields.
#[derive(Debug, Clone)]
pub(crate) enum WatchEvent {
    /// `ADDED`, `MODIFIED` or `DELETED`, and the object as wire JSON in the stored version.
    Object(&'static str, Bytes),
    /// Everything up to the revision was sent; true at the end of the initial events.
    Bookmark(Revision, bool),
    /// The client's version of an object cannot be made: the watch ends.
    Failed(Status),
}

/// What makes a client's version of custom objects.
struct Presenter {
    registry: Weak<Registry>,
    kind: Kind,
}

impl Presenter {
    /// As [`transition`], of objects as the client sees them.
    async fn transition(
        &self,
        options: &ListOptions,
        change: &Change,
    ) -> Result<Option<(&'static str, Bytes)>, Status> {
        let registry = self.registry.upgrade().ok_or_else(super::slot::gone)?;
        let mut bytes = vec![change.object.bytes.clone()];
        bytes.extend(change.prev.as_ref().map(|p| p.bytes.clone()));
        let mut objects = registry.present_all(&self.kind, &bytes).await?.into_iter();
        let (Some(now), before) = (objects.next(), objects.next()) else { return Ok(None) };
        let matches = |cached: &Arc<Cached>, object: &Value| {
            options.labels.matches(&cached.labels) && storage::selects(&self.kind, &options.fields, object)
        };
        let was = change.prev.as_ref().zip(before.as_ref()).is_some_and(|(c, o)| matches(c, o));
        let is = change.kind != ChangeKind::Deleted && matches(&change.object, &now);
        let (event, mut object) = match (was, is) {
            (false, false) => return Ok(None),
            (false, true) => ("ADDED", now),
            (true, true) => ("MODIFIED", now),
            (true, false) if change.kind == ChangeKind::Deleted => ("DELETED", now),
            (true, false) => ("DELETED", before.unwrap_or(now)),
        };
        super::stored::set_revision(&mut object, change.revision);
        Ok(Some((event, serde_json::to_vec(&object).map_err(Status::internal_error)?.into())))
    }
}

pub(crate) struct Watch {
    options: ListOptions,
    watcher: Watcher,
    initial: VecDeque<Bytes>,
    /// What makes the client's version of each object, where that is a webhook's to make.
    presenter: Option<Presenter>,
    /// The bookmark that ends the initial events, if asked for.
    initial_end: Option<Revision>,
    deadline: Instant,
    next_bookmark: Instant,
    last_sent: Revision,
    /// The storage behind it is no longer fed.
    replaced: CancellationToken,
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
        loop {
            let replaced = kind.replaced();
            tokio::select! {
                opened = self.open_watch(kind, namespace, options.clone()) => return opened,
                // What is waited for never comes to a cache that is fed no more: the next one has it.
                () = replaced.cancelled() => {}
            }
        }
    }

    async fn open_watch(&self, kind: &Kind, namespace: &str, options: ListOptions) -> Result<Watch, Status> {
        // Before the cache is taken: where another takes its place meanwhile, the watch ends.
        let replaced = kind.replaced();
        let cache = self.filled(kind).await?;
        let converted = kind.is_converted();
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
                .filter(|o| scope.holds(o) && (converted || selected(&options, &o.labels, &o.fields)))
                .filter(|o| options.labels.matches(&o.labels))
                .map(|o| o.bytes.clone())
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
        let initial = if converted { self.converted(kind, &options, initial).await? } else { initial };
        let jitter = f64::from(u16::try_from(self.random() % 1000).unwrap_or(0)) / 1000.0;
        let timeout = options.timeout.unwrap_or_else(|| self.config.watch_time.mul_f64(1.0 + jitter));
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
            presenter: converted.then(|| Presenter { registry: self.own.clone(), kind: *kind }),
            replaced,
        })
    }
}

impl Registry {
    /// The state a watch of converted objects begins with, as its client sees it.
    async fn converted(
        &self,
        kind: &Kind,
        options: &ListOptions,
        initial: VecDeque<Bytes>,
    ) -> Result<VecDeque<Bytes>, Status> {
        let bytes: Vec<Bytes> = initial.into();
        let objects = self.present_all(kind, &bytes).await?;
        let chosen = objects.iter().filter(|o| storage::selects(kind, &options.fields, o));
        chosen.map(|o| serde_json::to_vec(o).map(Bytes::from).map_err(Status::internal_error)).collect()
    }
}

impl Watch {
    /// The next event; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(object) = self.initial.pop_front() {
            return Some(WatchEvent::Object("ADDED", object));
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
                () = self.replaced.cancelled() => return None,
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
            if let Some(presenter) = &self.presenter {
                match presenter.transition(&self.options, &change).await {
                    Ok(Some((event, bytes))) => return Some(WatchEvent::Object(event, bytes)),
                    Ok(None) => continue,
                    Err(status) => return Some(WatchEvent::Failed(status)),
                }
            }
            if let Some((event, bytes)) = transition(&self.options, &change) {
                return Some(WatchEvent::Object(event, bytes));
            }
        }
    }
}
