//! ConfigMaps, Secrets and Services that pods of this node refer to.
//!
//! ConfigMaps and Secrets are watched one by one, which is all the node authoriser allows; a watch lasts while a pod
//! refers to its object. What wakes it: a pod asking for an object, and the API's watch events. What it promises: an
//! answer is what the watch saw last; a change wakes the pods that use the object.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
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
        /// See above.
        namespace: String,
        /// See above.
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
enum Answer<K> {
    Pending(Option<String>),
    Known(Option<Arc<K>>),
}

struct Entry<K> {
    users: BTreeSet<String>,
    answer: watch::Receiver<Answer<K>>,
    stop: CancellationToken,
}

/// A watch to be run by whoever owns tasks.
pub type Job = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

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
        let known = |answer: &Answer<K>| matches!(answer, Answer::Known(_));
        // Whether it came in time is seen in the answer itself.
        tokio::time::timeout(FIRST_ANSWER, answer.wait_for(known)).await.ok();
        let reason = match &*answer.borrow() {
            Answer::Known(object) => return Ok(object.clone()),
            Answer::Pending(reason) => reason.clone(),
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
    ) -> watch::Receiver<Answer<K>> {
        let mut entries = self.entries.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let entry = entries.entry(key).or_insert_with(|| {
            let (tell, answer) = watch::channel(Answer::Pending(None));
            let stop = CancellationToken::new();
            let api: Api<K> = Api::namespaced(client.clone(), namespace);
            let job = follow(api, name.to_owned(), tell, shared.changed.clone(), stop.clone());
            if shared.jobs.send(Box::pin(job)).is_err() {
                tracing::debug!("shutting down: no new watches");
            }
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
    api: Api<K>,
    name: String,
    tell: watch::Sender<Answer<K>>,
    changed: mpsc::UnboundedSender<Changed>,
    stop: CancellationToken,
) where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher(api.clone(), config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed = None;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        let object = match event {
            None => return,
            Some(Err(error)) => {
                tell.send_if_modified(|answer| match answer {
                    Answer::Pending(reason) => {
                        *reason = Some(error.to_string());
                        false
                    }
                    Answer::Known(_) => false,
                });
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listed = None;
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed = Some(object);
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => listed.take(),
            Some(Ok(watcher::Event::Apply(object))) => Some(object),
            Some(Ok(watcher::Event::Delete(_))) => None,
        };
        tell.send_replace(Answer::Known(object.map(Arc::new)));
        let namespace = api.namespace().unwrap_or_default().to_owned();
        // The receiver is the pod manager; without it there is nobody to wake.
        changed.send(Changed { namespace, name: name.clone() }).ok();
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
    jobs: mpsc::UnboundedSender<Job>,
    changed: mpsc::UnboundedSender<Changed>,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    services: RwLock<Option<Vec<Arc<Service>>>>,
    services_ready: watch::Sender<bool>,
}

/// A shared handle to the caches.
#[derive(Clone)]
pub struct Objects(Arc<Shared>);

/// What the owner of tasks must serve: watches to run, and changes to pass on.
pub struct Work {
    /// Watches to run.
    pub jobs: mpsc::UnboundedReceiver<Job>,
    /// Objects that changed.
    pub changed: mpsc::UnboundedReceiver<Changed>,
}

impl Objects {
    /// Empty caches. The queues are bounded by the number of objects that pods of this node refer to.
    pub fn new(client: Option<kube::Client>) -> (Self, Work) {
        let (jobs, jobs_rx) = mpsc::unbounded_channel();
        let (changed, changed_rx) = mpsc::unbounded_channel();
        let shared = Shared {
            client,
            jobs,
            changed,
            config_maps: Cache::new("configmap"),
            secrets: Cache::new("secret"),
            services: RwLock::default(),
            services_ready: watch::Sender::new(false),
        };
        (Self(Arc::new(shared)), Work { jobs: jobs_rx, changed: changed_rx })
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
    /// first list is waited for, since a container never learns of services it was started without.
    pub async fn services(&self, namespace: &str) -> Result<Vec<Arc<Service>>, Error> {
        if self.0.client.is_none() {
            return Ok(Vec::new());
        }
        let mut ready = self.0.services_ready.subscribe();
        if tokio::time::timeout(FIRST_ANSWER, ready.wait_for(|ready| *ready)).await.is_err() {
            let reason = "services have not yet been read at least once, cannot construct envvars".to_owned();
            return Err(Error::Unavailable { kind: "service", reason });
        }
        let services = self.0.services.read();
        let relevant = |s: &&Arc<Service>| {
            let at = s.metadata.namespace.as_deref();
            at == Some(namespace)
                || (at == Some("default") && s.metadata.name.as_deref() == Some("kubernetes"))
        };
        Ok(services.iter().flatten().filter(relevant).cloned().collect())
    }

    /// Follows all Services until the process ends.
    pub async fn follow_services(self) {
        let Some(client) = self.0.client.clone() else { return };
        let stream = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut known: HashMap<(Option<String>, Option<String>), Arc<Service>> = HashMap::new();
        let mut listing = HashMap::new();
        let key = |s: &Service| (s.metadata.namespace.clone(), s.metadata.name.clone());
        while let Some(event) = stream.next().await {
            match event {
                Err(error) => {
                    tracing::debug!(%error, "watching services");
                    continue;
                }
                Ok(watcher::Event::Init) => {
                    listing = HashMap::new();
                    continue;
                }
                Ok(watcher::Event::InitApply(service)) => {
                    listing.insert(key(&service), Arc::new(service));
                    continue;
                }
                Ok(watcher::Event::InitDone) => known = std::mem::take(&mut listing),
                Ok(watcher::Event::Apply(service)) => {
                    known.insert(key(&service), Arc::new(service));
                }
                Ok(watcher::Event::Delete(service)) => {
                    known.remove(&key(&service));
                }
            }
            *self.0.services.write() = Some(known.values().cloned().collect());
            self.0.services_ready.send_replace(true);
        }
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
