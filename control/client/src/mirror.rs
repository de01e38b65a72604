//! A watch as changes of single objects.
//!
//! Promises: an object that was deleted while nobody watched is reported as gone once the new list is complete; one that took another's name is
//! reported after that one's end; one that cannot be read hides no other, and its own end is seen.

use crate::decode::{Metadata, decode, report};
use crate::follow::{Error, Raw, follow};
use crate::key::{Identity, Key};
use crate::source::Source;
use futures::stream::{BoxStream, StreamExt, unfold};
use kube::Resource;
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// One change of the mirror.
#[derive(Debug)]
pub enum Event<K> {
    /// An object came or changed, or was listed again as it was.
    Set(Key, K),
    /// The object was deleted.
    Gone(Identity),
    /// It is there and cannot be read: what was known of it stays.
    Unreadable(Identity),
    /// The list is complete, the first one or a further one.
    Synced,
    /// Interrupted; what is known stays, and the watch goes on by itself.
    Failed(Error),
}

/// Follows a source forever. Memory: the keys and uids of what there is.
pub fn mirror<K>(source: Source) -> BoxStream<'static, Event<K>>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let mirror = Mirror { path: source.path.clone(), ..Mirror::default() };
    unfold((follow(source), mirror, VecDeque::new()), |(mut raw, mut mirror, mut due)| async move {
        loop {
            if let Some(event) = due.pop_front() {
                return Some((event, (raw, mirror, due)));
            }
            mirror.take(raw.next().await?, &mut due);
        }
    })
    .boxed()
}

/// Which objects there are.
#[derive(Default)]
struct Mirror {
    path: String,
    known: HashMap<Key, Arc<str>>,
    listing: HashSet<Key>,
}

impl Mirror {
    fn take<K: Resource + DeserializeOwned>(&mut self, raw: Raw, due: &mut VecDeque<Event<K>>) {
        match raw {
            Raw::Begin => self.listing.clear(),
            Raw::Listed(json) => {
                let key = self.set(json.get(), due);
                self.listing.insert(key);
            }
            Raw::End => {
                let listed = std::mem::take(&mut self.listing);
                let gone = self.known.extract_if(|key, _| !listed.contains(key));
                due.extend(gone.map(|(key, uid)| Event::Gone(Identity { key, uid })));
                due.push_back(Event::Synced);
            }
            Raw::Set(json) => drop(self.set(json.get(), due)),
            Raw::Gone(json) => {
                let gone = Metadata::of(json.get()).identity();
                self.known.remove(&gone.key);
                due.push_back(Event::Gone(gone));
            }
            Raw::Failed(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::debug!(path = self.path, error = cause, "watch interrupted; it is resumed");
                due.push_back(Event::Failed(error));
            }
        }
    }

    fn set<K: Resource + DeserializeOwned>(&mut self, json: &str, due: &mut VecDeque<Event<K>>) -> Key {
        let read = decode::<K>(json);
        let identity = match &read {
            Ok(object) => Identity::of(object),
            Err(_) => Metadata::of(json).identity(),
        };
        let Identity { key, uid } = identity.clone();
        if let Some(before) = self.known.get(&key).filter(|before| **before != uid) {
            due.push_back(Event::Gone(Identity { key: key.clone(), uid: before.clone() }));
        }
        self.known.insert(key.clone(), uid);
        due.push_back(match read {
            Ok(object) => Event::Set(key.clone(), object),
            Err(error) => {
                report(&self.path, &key, &error);
                Event::Unreadable(identity)
            }
        });
        key
    }
}

#[cfg(test)]
mod tests;
