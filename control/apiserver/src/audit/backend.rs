//! Where events go. Upstream: `apiserver/pkg/audit/{types,union}.go`.

use super::event::Event;
use futures::future::{BoxFuture, join_all};
use std::sync::Arc;
use std::time::Duration;

/// Takes events.
pub(super) trait Backend: Send + Sync {
    /// Takes them; false where requests are to be refused for what was lost. Whoever loses events counts them.
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool>;

    /// Waits for what it has not written yet, for at most `patience` a step; the last call.
    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()>;
}

/// Several, each of which gets every event.
pub(super) struct Union(pub(super) Vec<Box<dyn Backend>>);

impl Backend for Union {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            // All begin at once: who stops waiting must not keep an event from the ones behind.
            let all = self.0.iter().map(|backend| backend.process(events.clone()));
            join_all(all).await.into_iter().all(|kept| kept)
        })
    }

    fn finish(&self, patience: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for backend in &self.0 {
                backend.finish(patience).await;
            }
        })
    }
}
