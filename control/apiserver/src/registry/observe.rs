//! Word of changes, for those who keep what they read of stored objects.

use super::Registry;
use super::kind::Kind;
use super::metadata::{name, namespace};
use crate::objects::{OBSERVED, Observer};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::cache::{Cache, ChangeKind, Scope, Watcher};
use supervise::Task;
use tokio_util::sync::CancellationToken;

/// The keys of the objects an observer has, which tell it what was deleted while it was not looking.
type Keys = BTreeSet<Arc<str>>;

impl Registry {
    /// Tells `observer` of every object of the observed resources, now and until the last request has been answered. Returns once it
    /// knows all there is now; call it after [`crate::write::Writer::start`].
    pub fn observe(self: &Arc<Self>, observer: &Arc<dyn Observer>, drained: &CancellationToken) {
        for (group, plural) in OBSERVED {
            let Some(kind) = Kind::of(group, plural) else { continue };
            let Ok(cache) = self.cache(&kind) else { continue };
            let known = Arc::new(Mutex::new(Keys::new()));
            let Some(first) = tell_all(&kind, &cache, &**observer, &mut known.lock()) else { continue };
            let (observer, first) = (observer.clone(), Arc::new(Mutex::new(Some(first))));
            let name = format!("observe/{}", kind.resource.qualified_name());
            self.serving(drained).keep(Task::endless(name, move || {
                let watcher = first.lock().take();
                follow(kind, cache.clone(), observer.clone(), watcher, known.clone())
            }));
        }
    }
}

/// Puts everything there is, deletes what is no longer, and gives the watch that goes on from there.
fn tell_all(kind: &Kind, cache: &Cache, observer: &dyn Observer, known: &mut Keys) -> Option<Watcher> {
    let (snapshot, watcher) = cache.snapshot_and_watch(&Scope::All).ok()?;
    let mut gone = std::mem::take(known);
    for object in snapshot.range(cache.prefix(), None) {
        gone.remove(&object.key);
        known.insert(object.key.clone());
        if let Ok(value) = kind.decode_wire(&object.bytes) {
            observer.put(kind.resource.group, kind.resource.plural, &value);
        }
    }
    for key in &gone {
        let path = key.strip_prefix(cache.prefix()).unwrap_or(key);
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        observer.delete(kind.resource.group, kind.resource.plural, namespace, name);
    }
    Some(watcher)
}

/// Follows one resource, from `watcher` on or from the present state. What is known outlives it, so that whoever follows next tells of
/// what went meanwhile.
async fn follow(
    kind: Kind,
    cache: Cache,
    observer: Arc<dyn Observer>,
    mut watcher: Option<Watcher>,
    known: Arc<Mutex<Keys>>,
) {
    let (group, plural) = (kind.resource.group, kind.resource.plural);
    loop {
        while let Some(change) = match &mut watcher {
            Some(watcher) => watcher.next().await,
            None => None,
        } {
            let Ok(object) = kind.decode_wire(&change.object.bytes) else { continue };
            if change.kind == ChangeKind::Deleted {
                known.lock().remove(&change.object.key);
                observer.delete(group, plural, namespace(&object), name(&object));
            } else {
                known.lock().insert(change.object.key.clone());
                observer.put(group, plural, &object);
            }
        }
        // The watch was too slow, or the cache was rebuilt: both leave a state to begin from.
        cache.ready().await;
        watcher = tell_all(&kind, &cache, &*observer, &mut known.lock());
    }
}
