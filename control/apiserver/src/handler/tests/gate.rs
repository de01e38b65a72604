//! A store with a gate in front of it, for tests of what happens while it does not answer.

use super::*;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Entry, Error, Event, Expect, Page, Revision};
use tokio::sync::Notify;

/// What becomes of the next write of a key that begins so.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// It waits until the gate is opened.
    Waits(&'static str),
    /// Nobody takes it.
    Fails(&'static str),
}

/// A store with a gate in front of it.
pub(super) struct Gate {
    inner: Arc<dyn Backend>,
    pub(super) next: Mutex<Option<Next>>,
    pub(super) reached: Notify,
    pub(super) open: Notify,
    /// Watches bring nothing.
    pub(super) still: Arc<AtomicBool>,
}

impl Gate {
    async fn pass(&self, key: &str) -> Result<(), Error> {
        let next = {
            let mut next = self.next.lock();
            let hit =
                matches!(*next, Some(Next::Waits(prefix) | Next::Fails(prefix)) if key.starts_with(prefix));
            if hit { next.take() } else { None }
        };
        match next {
            None => Ok(()),
            Some(Next::Waits(_)) => {
                self.reached.notify_one();
                self.open.notified().await;
                Ok(())
            }
            Some(Next::Fails(_)) => {
                Err(Error::Unavailable { what: format!("write {key}"), source: "no member".into() })
            }
        }
    }
}

impl Backend for Gate {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn newest(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.newest()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        self.inner.get(key)
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        self.inner.list(prefix, start_after, limit, at)
    }

    fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<Entry, Error>> {
        let key = key.to_owned();
        async move {
            self.pass(&key).await?;
            self.inner.put(&key, value, expect, ttl).await
        }
        .boxed()
    }

    fn delete(&self, key: &str, expect: Expect) -> BoxFuture<'_, Result<(Entry, Revision), Error>> {
        let key = key.to_owned();
        async move {
            self.pass(&key).await?;
            self.inner.delete(&key, expect).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        let still = self.still.clone();
        let passed = move |event| {
            let still = still.clone();
            async move {
                if still.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                event
            }
        };
        Ok(self.inner.watch(prefix, from)?.then(passed).boxed())
    }

    fn request_progress(&self, prefix: &str) {
        self.inner.request_progress(prefix);
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(revision)
    }
}

pub(super) async fn gated() -> (Server, Arc<Gate>) {
    let (inner, ground) = ground::open().await;
    let gate = Arc::new(Gate {
        inner,
        next: Mutex::default(),
        reached: Notify::new(),
        open: Notify::new(),
        still: Arc::default(),
    });
    let server = Server::on(gate.clone(), Config::default(), Arc::new(hooks::AllowAll), ground).await;
    (server, gate)
}
