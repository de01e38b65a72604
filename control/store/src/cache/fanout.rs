//! Which watches get a change: an index by scope, so that a change costs its own watches and not all of them.

use super::object::{Change, Scope};
use crate::Revision;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// A watch's number in its cache.
pub(super) type WatchId = u64;

struct Watch {
    scope: Scope,
    /// It gets what comes after this revision, which may still lie ahead of the cache.
    from: Revision,
    sender: Sender<Arc<Change>>,
}

/// The watches of one cache.
#[derive(Default)]
pub(super) struct Fanout {
    next: WatchId,
    watches: HashMap<WatchId, Watch>,
    all: Vec<WatchId>,
    namespaces: HashMap<String, Vec<WatchId>>,
    /// By namespace (empty for cluster-scoped) and name.
    objects: HashMap<String, HashMap<String, Vec<WatchId>>>,
    /// By field name and value.
    fields: HashMap<String, HashMap<String, Vec<WatchId>>>,
}

impl Fanout {
    pub(super) fn add(
        &mut self,
        scope: &Scope,
        from: Revision,
        queue: usize,
    ) -> (WatchId, Receiver<Arc<Change>>) {
        let id = self.next;
        self.next += 1;
        let (sender, receiver) = mpsc::channel(queue.max(1));
        self.watches.insert(id, Watch { scope: scope.clone(), from, sender });
        match scope {
            Scope::All => self.all.push(id),
            Scope::Namespace(namespace) => self.namespaces.entry(namespace.clone()).or_default().push(id),
            Scope::Object { namespace, name } => {
                let names = self.objects.entry(namespace.clone().unwrap_or_default()).or_default();
                names.entry(name.clone()).or_default().push(id);
            }
            Scope::Field { name, value } => {
                let values = self.fields.entry(name.clone()).or_default();
                values.entry(value.clone()).or_default().push(id);
            }
        }
        (id, receiver)
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        let Some(Watch { scope, .. }) = self.watches.remove(&id) else { return };
        match scope {
            Scope::All => self.all.retain(|&w| w != id),
            Scope::Namespace(namespace) => forget(&mut self.namespaces, &namespace, id),
            Scope::Object { namespace, name } => {
                forget_nested(&mut self.objects, &namespace.unwrap_or_default(), &name, id);
            }
            Scope::Field { name, value } => forget_nested(&mut self.fields, &name, &value, id),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// Hands `change` to its watches. A watch whose queue is full is ended, as upstream ends it: its client lists or
    /// watches again from where it was.
    pub(super) fn publish(&mut self, change: &Arc<Change>) {
        let mut ended = Vec::new();
        for id in self.interested(change) {
            if let Some(watch) = self.watches.get(&id)
                && change.revision > watch.from
                && watch.sender.try_send(change.clone()).is_err()
            {
                ended.push(id);
            }
        }
        ended.into_iter().for_each(|id| self.remove(id));
    }

    fn interested(&self, change: &Change) -> Vec<WatchId> {
        let object = &change.object;
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let mut found = self.all.clone();
        found.extend(self.namespaces.get(namespace).into_iter().flatten());
        found.extend(
            self.objects.get(namespace).and_then(|names| names.get(&*object.name)).into_iter().flatten(),
        );
        for (field, values) in &self.fields {
            let after = object.fields.get(field);
            let before = change.prev.as_ref().and_then(|p| p.fields.get(field)).filter(|&b| Some(b) != after);
            found.extend(after.into_iter().chain(before).filter_map(|v| values.get(v)).flatten());
        }
        found
    }

    #[cfg(test)]
    pub(super) fn index_is_empty(&self) -> bool {
        self.watches.is_empty()
            && self.all.is_empty()
            && self.namespaces.is_empty()
            && self.objects.is_empty()
            && self.fields.is_empty()
    }
}

fn forget(index: &mut HashMap<String, Vec<WatchId>>, key: &str, id: WatchId) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|&w| w != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

fn forget_nested(
    index: &mut HashMap<String, HashMap<String, Vec<WatchId>>>,
    outer: &str,
    inner: &str,
    id: WatchId,
) {
    if let Some(ids) = index.get_mut(outer) {
        forget(ids, inner, id);
        if ids.is_empty() {
            index.remove(outer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_watch_leaves_nothing_behind() {
        let mut fanout = Fanout::default();
        let scopes = [
            Scope::All,
            Scope::Namespace("a".into()),
            Scope::Object { namespace: None, name: "n".into() },
            Scope::Object { namespace: Some("a".into()), name: "n".into() },
            Scope::Field { name: "f".into(), value: "v".into() },
        ];
        let watches: Vec<_> = scopes.iter().chain(&scopes).map(|s| fanout.add(s, 0, 1)).collect();
        for (id, _) in &watches {
            assert!(!fanout.index_is_empty());
            fanout.remove(*id);
        }
        assert!(fanout.index_is_empty());
    }
}
