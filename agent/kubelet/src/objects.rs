//! ConfigMaps, Secrets and Services that pods of this node refer to.
//!
//! ConfigMaps and Secrets are watched one by one, which is all the node authoriser allows; a watch lasts while a pod
//! refers to its object. What wakes it: a pod asking for an object, and the API's watch events. What it promises: an
//! answer is what the watch saw last; a change wakes the pods that use the object.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use client::{Event, Informer, Key, Source, mirror};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::Api;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use supervise::{Scope, Task};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long a pod waits for an object's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// An object that cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// This kubelet runs without an API server.
    #[error("{kind} {namespace}/{name}: there is no API server")]
    NoApi {
        /// What was asked for.
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// The API server does not answer, or refuses.
    #[error("failed to sync {kind} cache: {reason}")]
    Unavailable {
        /// What was asked for.
        kind: &'static str,
        /// What the watch said.
        reason: String,
    },
}

#[derive(Clone, Debug)]
enum Lookup<K> {
    Pending(Option<String>),
    Known(Option<Arc<K>>),
}

struct Entry<K> {
    users: BTreeSet<String>,
    answer: watch::Receiver<Lookup<K>>,
    stop: CancellationToken,
}

struct Cache<K> {
    kind: &'static str,
    entries: Mutex<HashMap<(String, String), Entry<K>>>,
}

impl<K> Cache<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    fn new(kind: &'static str) -> Self {
        Self { kind, entries: Mutex::default() }
    }

    async fn get(
        &self,
        shared: &Shared,
        namespace: &str,
        name: &str,
        user: &str,
    ) -> Result<Option<Arc<K>>, Error> {
        let Some(client) = &shared.client else {
            return Err(Error::NoApi {
                kind: self.kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        };
        let mut answer = self.subscribe(shared, client, namespace, name, user);
        let known = |answer: &Lookup<K>| matches!(answer, Lookup::Known(_));
        // Whether it came in time is seen in the answer itself.
        tokio::time::timeout(FIRST_ANSWER, answer.wait_for(known)).await.ok();
        let reason = match &*answer.borrow() {
            Lookup::Known(object) => return Ok(object.clone()),
            Lookup::Pending(reason) => reason.clone(),
        };
        let reason = reason.unwrap_or_else(|| "timed out waiting for the condition".to_owned());
        Err(Error::Unavailable { kind: self.kind, reason })
    }

    fn subscribe(
        &self,
        shared: &Shared,
        client: &kube::Client,
        namespace: &str,
        name: &str,
        user: &str,
    ) -> watch::Receiver<Lookup<K>> {
        let mut entries = self.entries.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let entry = entries.entry(key).or_insert_with(|| {
            let (tell, answer) = watch::channel(Lookup::Pending(None));
            let source = Source::of(Api::<K>::namespaced(client.clone(), namespace)).named(name);
            let told = Changed { namespace: namespace.to_owned(), name: name.to_owned() };
            let changed = shared.changed.clone();
            // One name for all of a kind: there may be as many as pods refer to.
            let task = Task::endless(format!("watch/{}", self.kind), move || {
                follow(mirror::<K>(source.clone()), tell.clone(), changed.clone(), told.clone())
            });
            let stop = shared.scope.keep_alone(task);
            Entry { users: BTreeSet::new(), answer, stop }
        });
        entry.users.insert(user.to_owned());
        entry.answer.clone()
    }

    fn forget(&self, user: &str) {
        self.entries.lock().retain(|_, entry| {
            entry.users.remove(user);
            if entry.users.is_empty() {
                entry.stop.cancel();
            }
            !entry.users.is_empty()
        });
    }

    fn users(&self, namespace: &str, name: &str) -> Vec<String> {
        let entries = self.entries.lock();
        let entry = entries.get(&(namespace.to_owned(), name.to_owned()));
        entry.map(|e| e.users.iter().cloned().collect()).unwrap_or_default()
    }
}

/// Follows one object until nobody needs it.
async fn follow<K>(
    mut events: BoxStream<'static, Event<K>>,
    tell: watch::Sender<Lookup<K>>,
    changed: mpsc::UnboundedSender<Changed>,
    told: Changed,
) {
    let mut there = false;
    let pending = |reason: String| {
        tell.send_if_modified(|answer| {
            if let Lookup::Pending(said) = answer {
                *said = Some(reason);
            }
            false
        });
    };
    while let Some(event) = events.next().await {
        let object = match event {
            Event::Set(_, object) => Some(object),
            Event::Gone(_) => None,
            Event::Synced if there => continue,
            Event::Synced => None,
            Event::Unreadable(_) => {
                there = true;
                pending("the object cannot be read".to_owned());
                continue;
            }
            Event::Failed(error) => {
                pending(supervise::chain(&error));
                continue;
            }
        };
        there = object.is_some();
        tell.send_replace(Lookup::Known(object.map(Arc::new)));
        // The receiver is the pod manager; without it there is nobody to wake.
        changed.send(told.clone()).ok();
    }
}

/// An object some pods refer to changed.
#[derive(Clone, Debug)]
pub struct Changed {
    namespace: String,
    name: String,
}

struct Shared {
    client: Option<kube::Client>,
    changed: mpsc::UnboundedSender<Changed>,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    services: Arc<Informer<Service>>,
    scope: Arc<Scope>,
}

/// A shared handle to the caches.
#[derive(Clone)]
pub struct Objects(Arc<Shared>);

impl Objects {
    /// Empty caches, whose watches run in `scope`, and the objects that change. The queue is bounded by the number of objects that pods
    /// of this node refer to.
    pub fn new(client: Option<kube::Client>, scope: &Arc<Scope>) -> (Self, mpsc::UnboundedReceiver<Changed>) {
        let (changed, changes) = mpsc::unbounded_channel();
        let services = Arc::new(Informer::default());
        if let Some(client) = &client {
            scope.keep(services.task("watch/services", Source::all::<Service>(client)));
        }
        let shared = Shared {
            client,
            changed,
            config_maps: Cache::new("configmap"),
            secrets: Cache::new("secret"),
            services,
            scope: scope.clone(),
        };
        (Self(Arc::new(shared)), changes)
    }

    /// The client these come from.
    pub fn client(&self) -> Option<&kube::Client> {
        self.0.client.as_ref()
    }

    /// A ConfigMap, `None` when it does not exist; `user` is the pod's UID.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        user: &str,
    ) -> Result<Option<Arc<ConfigMap>>, Error> {
        self.0.config_maps.get(&self.0, namespace, name, user).await
    }

    /// A Secret, `None` when it does not exist; `user` is the pod's UID.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        user: &str,
    ) -> Result<Option<Arc<Secret>>, Error> {
        self.0.secrets.get(&self.0, namespace, name, user).await
    }

    /// Services of a namespace, and `kubernetes` of `default`. Without an API server there are none; otherwise the
    /// first list is waited for, since a container never sees services it was started without.
    pub async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, Error> {
        if self.0.client.is_none() {
            return Ok(Vec::new());
        }
        if tokio::time::timeout(FIRST_ANSWER, self.0.services.synced()).await.is_err() {
            let reason = "services have not yet been read at least once, cannot construct envvars".to_owned();
            return Err(Error::Unavailable { kind: "service", reason });
        }
        let mut services = self.0.services.list(namespace);
        if namespace != "default" {
            services.extend(self.0.services.get(&Key::new("default", "kubernetes")));
        }
        Ok(services)
    }

    /// The UIDs of the pods that use a changed object.
    pub fn users(&self, changed: &Changed) -> Vec<String> {
        let mut users = self.0.config_maps.users(&changed.namespace, &changed.name);
        users.extend(self.0.secrets.users(&changed.namespace, &changed.name));
        users
    }

    /// A pod is gone: drops what only it needed.
    pub fn forget(&self, user: &str) {
        self.0.config_maps.forget(user);
        self.0.secrets.forget(user);
    }
}
