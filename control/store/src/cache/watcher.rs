//! One watch on the cache: what it missed, then what happens.

use super::Shared;
use super::fanout::WatchId;
use super::object::Change;
use crate::Revision;
use futures::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc::Receiver;

/// A stream of changes in revision order. It ends when its reader is too slow for its queue, or the cache had to start
/// over: the client watches again from the last revision it saw.
pub struct Watcher {
    pub(super) shared: Arc<Shared>,
    pub(super) id: WatchId,
    /// Changes the watch missed before it began.
    pub(super) missed: VecDeque<Arc<Change>>,
    pub(super) live: Receiver<Arc<Change>>,
    /// The watch begins after this revision, which may still lie ahead.
    pub(super) from: Revision,
}

impl Watcher {
    /// The revision up to which the reader has been given everything, brought up to date with the store first: a bookmark's
    /// resourceVersion. `None` while changes are waiting to be read, or where the store cannot tell.
    pub async fn progress(&self) -> Option<Revision> {
        // A store that does not answer in time only makes the bookmark older.
        let _ = self.shared.wait_until_fresh(self.shared.backend.revision()).await;
        let state = self.shared.state.lock();
        let ended = self.live.is_closed();
        (self.missed.is_empty() && self.live.is_empty() && !ended).then(|| state.revision.max(self.from))
    }

    /// The next change, `None` once the watch has ended.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watcher {
    type Item = Arc<Change>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(change) = self.missed.pop_front() {
            return Poll::Ready(Some(change));
        }
        self.live.poll_recv(cx)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.state.lock().fanout.remove(self.id);
    }
}
