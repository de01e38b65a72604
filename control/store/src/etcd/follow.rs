//! The common watch: everything that happens in etcd, in order, into the hub.
//!
//! Woken by etcd. Writes the hub; nobody else publishes. What is published is whole revisions, so a watch that breaks is opened again after
//! the last one published, at another member, and nothing is lost or doubled. Where etcd has compacted the history between, it goes on at
//! the newest revision, and each watch on the hub finds out for itself what it missed: whose own history is gone is told so. What cannot be read
//! without asking somebody, a KMS plugin, is not waited for: the watches that it concerns read it by themselves.

use super::compactor;
use super::keys::everything;
use super::response::{Ended, Parts};
use super::{Core, signed};
use crate::encoding::{Source, Unreadable};
use crate::{Entry, Error, Event, Revision};
use ::etcd::v3::event::EventType;
use ::etcd::v3::{self, KeyValue, WatchCreateRequest};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use supervise::{Backoff, Task};

/// How often a change is read again: it has two values, and keys come and go.
const FETCHES: usize = 3;

pub(super) fn task(core: &Arc<Core>) -> Task {
    let core = core.clone();
    Task::endless("etcd/watch", move || {
        let core = core.clone();
        async move {
            let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
            loop {
                let before = core.hub.published();
                let why = follow(&core).await;
                if core.hub.published() > before {
                    pauses.reset();
                }
                tracing::warn!(why, after = core.hub.published(), "etcd: the watch is opened again");
                pauses.pause().await;
            }
        }
    })
}

/// A watch of everything after `seen`. It begins at that revision and not behind it, so that etcd refuses where a deletion may be among
/// what it has compacted.
pub(super) fn after(seen: Revision) -> WatchCreateRequest {
    WatchCreateRequest {
        key: everything(),
        range_end: everything(),
        start_revision: signed(seen.max(1)),
        prev_kv: true,
        fragment: true,
        ..WatchCreateRequest::default()
    }
}

/// Publishes until the watch is over; gives the reason.
async fn follow(core: &Core) -> String {
    let mut stream = match core.client.watch(after(core.hub.published())).await {
        Ok(stream) => stream,
        Err(status) => return status.message().to_owned(),
    };
    let mut parts = Parts::default();
    let why = loop {
        let response = tokio::select! {
            response = stream.next() => response,
            () = core.stalled.notified() => break "it stands still".to_owned(),
        };
        let taken = match response {
            Ok(response) => {
                core.responses.fetch_add(1, Ordering::Relaxed);
                parts.take(response, core.hub.published())
            }
            Err(status) => break status.message().to_owned(),
        };
        match taken {
            Ok(None) => {}
            Ok(Some(batch)) => publish(core, batch.events, batch.revision),
            Err(Ended::Refused(why)) => break why,
            Err(Ended::Compacted(oldest)) => {
                core.hub.forget(oldest);
                // Its failure is not the member's fault that the watch was at, but then there is no other, either.
                match core.ask_newest().await {
                    Ok(newest) => core.hub.skip(newest),
                    Err(error) => break supervise::chain(&error),
                }
                return format!("history before revision {oldest} is gone");
            }
        }
    };
    core.client.abandon(&stream, &why);
    why
}

/// Hands whole revisions to the watches.
fn publish(core: &Core, raw: Vec<v3::Event>, revision: Revision) {
    let mut events = Vec::with_capacity(raw.len());
    let mut unreadable = Vec::new();
    // Asked before it is asked what is heard: watches that join from here on read the history.
    let joined = core.hub.joined();
    for event in raw {
        let Some(kv) = &event.kv else { continue };
        let Some(key) = core.keys.named(&kv.key) else {
            if *kv.key == *compactor::KEY {
                core.hub.forget(compactor::told(&kv.value));
            }
            continue;
        };
        if !core.hub.hears(&key) {
            continue;
        }
        match core.read_event(&event) {
            Ok(event) => events.push(event),
            Err(Untold::Yet(..)) => unreadable.push(key),
            Err(Untold::Never(error)) => {
                tracing::error!(key, error = &error as &dyn std::error::Error, "etcd: an unreadable change");
                unreadable.push(key);
            }
        }
    }
    core.heard(revision);
    core.hub.publish_heard(revision, &events, joined, &unreadable);
}

/// Why what was stored cannot be told.
enum Untold {
    /// Not before the value of this key has what this future fetches.
    Yet(String, BoxFuture<'static, Result<(), Source>>),
    Never(Error),
}

fn damaged(key: &str, source: Source) -> Error {
    Error::Engine { what: format!("decode {key}"), source }
}

/// Reads again after each fetch that it takes.
async fn fetching<T>(read: impl Fn() -> Result<T, Untold>) -> Result<T, Error> {
    for tried in 0.. {
        match read() {
            Ok(told) => return Ok(told),
            Err(Untold::Never(error)) => return Err(error),
            Err(Untold::Yet(key, _)) if tried == FETCHES => {
                return Err(damaged(&key, "its key was fetched and is gone again".into()));
            }
            Err(Untold::Yet(key, fetch)) => fetch.await.map_err(|source| damaged(&key, source))?,
        }
    }
    unreachable!("the loop ends by returning only")
}

impl Core {
    /// A change as watches get it; its key is one of ours.
    pub(super) async fn event(&self, event: v3::Event) -> Result<Event, Error> {
        fetching(|| self.read_event(&event)).await
    }

    /// A key with its value, as those above the store see it.
    pub(super) async fn entry(&self, kv: KeyValue) -> Result<Entry, Error> {
        fetching(|| self.read_entry(&kv)).await
    }

    fn read_event(&self, event: &v3::Event) -> Result<Event, Untold> {
        let deletion = event.r#type() == EventType::Delete;
        let prev = event.prev_kv.as_ref().map(|prev| self.read_entry(prev)).transpose()?;
        let kv = event.kv.clone().unwrap_or_default();
        if !deletion {
            return Ok(Event::Put { entry: self.read_entry(&kv)?, prev });
        }
        let revision = super::unsigned(kv.mod_revision);
        let prev = prev.ok_or_else(|| {
            Untold::Never(Error::Engine {
                what: format!("watch {}", String::from_utf8_lossy(&kv.key)),
                source: format!("the value deleted at revision {revision} has been compacted").into(),
            })
        })?;
        Ok(Event::Delete { prev, revision })
    }

    fn read_entry(&self, kv: &KeyValue) -> Result<Entry, Untold> {
        let key = self.keys.named(&kv.key);
        let key = key.unwrap_or_else(|| String::from_utf8_lossy(&kv.key).into_owned());
        let decoded = match self.encoding.decode(&key, kv.value.clone()) {
            Ok(decoded) => decoded,
            Err(Unreadable::Yet(fetch)) => return Err(Untold::Yet(key, fetch)),
            Err(Unreadable::Damaged(source)) => return Err(Untold::Never(damaged(&key, source))),
        };
        Ok(Entry {
            key: key.into(),
            value: decoded.value,
            create_revision: super::unsigned(kv.create_revision),
            mod_revision: super::unsigned(kv.mod_revision),
            stale: decoded.stale,
        })
    }
}
