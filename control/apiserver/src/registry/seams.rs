//! What the front asks of the registry: answers to requests, single objects, and word of changes.

use super::Registry;
use super::kind::Kind;
use super::metadata::{name, namespace, set};
use crate::chain::Resources;
use crate::context::{Context, Request, RequestInfo, Response};
use crate::objects::{Lookup, OBSERVED, Observer};
use futures::future::BoxFuture;
use machinery::object::{self, Gr};
use machinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::cache::{Cache, ChangeKind, Scope, Watcher};
use supervise::Task;
use tokio_util::sync::CancellationToken;

/// The registry as the front's filters hold it.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<Registry>);

impl Resources for Shared {
    fn serve(&self, context: Context, request: Request) -> BoxFuture<'static, Response> {
        let registry = self.0.clone();
        Box::pin(async move { crate::handler::handle(&registry, context, request).await })
    }

    fn knows(&self, info: &RequestInfo) -> bool {
        self.0.kind(&info.group, &info.version, &info.resource).is_some()
    }
}

impl Lookup for Shared {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Option<Arc<Value>>> {
        Box::pin(async move {
            let kind = self.0.kind_of(group, resource)?;
            match self.0.lookup(&kind, namespace, name).await {
                Ok(found) => found.map(Arc::new),
                Err(error) => {
                    tracing::warn!(%error, group, resource, namespace, name, "lookup");
                    None
                }
            }
        })
    }

    fn label_secret<'a>(
        &'a self,
        secret: &'a Value,
        label: &'static str,
        value: &'a str,
    ) -> BoxFuture<'a, ()> {
        let change = move |old: &Value| {
            if object::uid(old) != object::uid(secret) {
                return Err(Status::not_found(&Gr::new("", "secrets"), object::name(secret)));
            }
            let mut new = old.clone();
            object::set_resource_version(&mut new, "");
            set(&mut new, &["metadata", "labels", label], value);
            Ok(new)
        };
        Box::pin(async move {
            let Some(kind) = Kind::of("", "secrets") else { return };
            let (namespace, name) = (namespace(secret), name(secret));
            if let Err(error) = self.0.amend(&kind, namespace, name, "", &change).await {
                tracing::warn!(%error, namespace, name, label, "secret not labelled");
            }
        })
    }
}

/// What an observer knows of one resource, by which it is told of what went while it was not looking.
type Known = BTreeMap<Arc<str>, ()>;

impl Registry {
    /// Tells `observer` of every object of the observed resources, now and until `shutdown`. Returns once it knows all there
    /// is now; call it after [`Registry::start`].
    pub fn observe(self: &Arc<Self>, observer: &Arc<dyn Observer>, shutdown: &CancellationToken) {
        for (group, plural) in OBSERVED {
            let Some(kind) = Kind::of(group, plural) else { continue };
            let Ok(cache) = self.cache(&kind) else { continue };
            let known = Arc::new(Mutex::new(Known::new()));
            let Some(first) = tell_all(&kind, &cache, &**observer, &mut known.lock()) else { continue };
            let (observer, first) = (observer.clone(), Arc::new(Mutex::new(Some(first))));
            let name = format!("observe/{}", kind.resource.qualified_name());
            self.tasks(shutdown).keep(Task::endless(name, move || {
                let watcher = first.lock().take();
                follow(kind, cache.clone(), observer.clone(), watcher, known.clone())
            }));
        }
    }
}

/// Puts everything there is, deletes what is no longer, and gives the watch that goes on from there.
fn tell_all(kind: &Kind, cache: &Cache, observer: &dyn Observer, known: &mut Known) -> Option<Watcher> {
    let (snapshot, watcher) = cache.snapshot_and_watch(&Scope::All).ok()?;
    let mut gone = std::mem::take(known);
    for object in snapshot.range(cache.prefix(), None) {
        gone.remove(&object.key);
        known.insert(object.key.clone(), ());
        if let Ok(value) = kind.decode_wire(&object.bytes) {
            observer.put(kind.resource.group, kind.resource.plural, &value);
        }
    }
    for key in gone.keys() {
        let path = key.strip_prefix(cache.prefix()).unwrap_or(key);
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        observer.delete(kind.resource.group, kind.resource.plural, namespace, name);
    }
    Some(watcher)
}

/// Follows one resource, from `watcher` on or from what there is now. What is known outlives it, so that whoever follows next tells of
/// what went meanwhile.
async fn follow(
    kind: Kind,
    cache: Cache,
    observer: Arc<dyn Observer>,
    mut watcher: Option<Watcher>,
    known: Arc<Mutex<Known>>,
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
                known.lock().insert(change.object.key.clone(), ());
                observer.put(group, plural, &object);
            }
        }
        // The watch was too slow, or the cache began anew: both leave a state to begin from.
        cache.ready().await;
        watcher = tell_all(&kind, &cache, &*observer, &mut known.lock());
    }
}
