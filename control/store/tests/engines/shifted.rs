//! A store whose revisions begin at 0, whatever they begin at: a fresh etcd is at 1, so that its first write is revision 2.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use store::{Backend, Entry, Error, Event, Expect, Page, Revision};

pub struct Shifted<B> {
    pub inner: Arc<B>,
    pub base: Revision,
}

fn entry(base: Revision, e: Entry) -> Entry {
    Entry { create_revision: e.create_revision - base, mod_revision: e.mod_revision - base, ..e }
}

fn error(base: Revision, e: Error) -> Error {
    match e {
        Error::Conflict { key, current } => {
            Error::Conflict { key, current: current.map(|c| Box::new(entry(base, *c))) }
        }
        Error::Compacted { asked, oldest } => Error::Compacted { asked: asked - base, oldest: oldest - base },
        Error::Future { asked, current } => Error::Future { asked: asked - base, current: current - base },
        other => other,
    }
}

fn event(base: Revision, e: Event) -> Event {
    match e {
        Event::Put { entry: new, prev } => {
            Event::Put { entry: entry(base, new), prev: prev.map(|p| entry(base, p)) }
        }
        Event::Delete { prev, revision } => {
            Event::Delete { prev: entry(base, prev), revision: revision - base }
        }
        Event::Progress { revision } => Event::Progress { revision: revision - base },
    }
}

impl<B> Shifted<B> {
    fn expect(&self, expect: Expect) -> Expect {
        match expect {
            Expect::Absent => Expect::Absent,
            Expect::At(revision) => Expect::At(revision + self.base),
        }
    }
}

impl<B: Backend> Backend for Shifted<B> {
    fn revision(&self) -> Revision {
        self.inner.revision() - self.base
    }

    fn newest(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        let base = self.base;
        self.inner.newest().map(move |r| r.map(|r| r - base)).boxed()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted().saturating_sub(self.base)
    }

    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let base = self.base;
        self.inner.get(key).map(move |r| r.map(|e| e.map(|e| entry(base, e)))).boxed()
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let base = self.base;
        let shift = move |page: Page| Page {
            entries: page.entries.into_iter().map(|e| entry(base, e)).collect(),
            revision: page.revision - base,
            ..page
        };
        let listed = self.inner.list(prefix, start_after, limit, at.map(|at| at + base));
        listed.map(move |r| r.map(shift).map_err(|e| error(base, e))).boxed()
    }

    fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<Entry, Error>> {
        let base = self.base;
        let put = self.inner.put(key, value, self.expect(expect), ttl);
        put.map(move |r| r.map(|e| entry(base, e)).map_err(|e| error(base, e))).boxed()
    }

    fn delete(&self, key: &str, expect: Expect) -> BoxFuture<'_, Result<(Entry, Revision), Error>> {
        let base = self.base;
        let deleted = self.inner.delete(key, self.expect(expect));
        deleted.map(move |r| r.map(|(e, at)| (entry(base, e), at - base)).map_err(|e| error(base, e))).boxed()
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        let base = self.base;
        let watch = self.inner.watch(prefix, from + base)?;
        Ok(watch.map(move |r| r.map(|e| event(base, e)).map_err(|e| error(base, e))).boxed())
    }

    fn request_progress(&self, prefix: &str) {
        self.inner.request_progress(prefix);
    }

    fn health(&self) -> Result<(), Error> {
        self.inner.health()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        let base = self.base;
        self.inner.compact(revision + base).map(move |r| r.map_err(|e| error(base, e))).boxed()
    }
}
