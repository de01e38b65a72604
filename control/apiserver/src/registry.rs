//! Resources and how they are read: what lies between an authorised request and the store, but for writes ([`crate::write`]).
//!
//! - a resource in one version: `kind`, its `rules`; objects at rest: `stored`; the store and the caches: `storage`; `page_token`
//! - reading: `get`, `list`, `watch`, with their `options`; `observe` for the front
//! - a write as all see it: `call`, `operation`, `options`
//! - custom resources: `custom` (what is served) on `slot`, `serving` (what one definition says); `convert` between their versions
//! - `served`: which built-in resources there are for clients
//! - configuration read from stored objects: `parsed`; where Services are: `reachable`; members of objects: `metadata`
//! - [`hooks`]: what the front of the server does for us (`crate::front`)

pub(crate) mod call;
mod convert;
pub(crate) mod custom;
mod get;
pub(crate) mod hooks;
pub(crate) mod kind;
pub(crate) mod list;
pub(crate) mod metadata;
mod observe;
pub(crate) mod operation;
pub(crate) mod options;
mod page_token;
pub(crate) mod parsed;
mod reachable;
pub(crate) mod rules;
mod served;
pub(crate) mod serving;
pub(crate) mod slot;
pub(crate) mod storage;
pub(crate) mod stored;
pub(crate) mod watch;

pub use hooks::Record;
pub use served::Served;

use crate::webhook::credentials::Credentials;
use futures::future::join_all;
use hooks::Hooks;
use ipnet::IpNet;
use kind::Kind;
use machinery::pod_security::configuration::Configuration as PodSecurity;
use machinery::resources;
use machinery::resources::quota::limited::Limited;
use machinery::status::Status;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use store::Backend;
use store::cache::{self, Cache};
use supervise::{Scope, Supervisor, Task};
use tokio_util::sync::CancellationToken;

/// How the registry behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges of cluster IPs, the primary family first; one or two.
    pub service_cidrs: Vec<IpNet>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Where other machines reach this server; `None` leaves the `kubernetes` Service without endpoints.
    pub advertise_address: Option<IpAddr>,
    /// HTTPS port at `advertise_address`.
    pub secure_port: u16,
    /// How the servers behind the `kubernetes` Service are known.
    pub endpoint_reconciler: EndpointReconciler,
    /// This machine's name, from which the server's identity follows; without it there is no Lease.
    pub host_name: Option<String>,
    /// Node port of the `kubernetes` Service; without one it has none.
    pub service_node_port: Option<u16>,
    /// The built-in resources that are served.
    pub served: Served,
    /// A watch whose client sets it no time lasts this long, up to twice.
    pub watch_time: Duration,
    /// How many objects of a collection are deleted at once.
    pub delete_workers: usize,
    /// Whether a garbage collector deletes dependents, so that deletes are to wait for it.
    pub garbage_collection: bool,
    /// Whether containers may be privileged.
    pub privileged: bool,
    /// How many seconds a new pod stays on a node that is not ready, and on one that is not reachable.
    pub toleration_seconds: (i64, i64),
    /// Whether aggregated servers may send clients elsewhere.
    pub pass_redirects: bool,
    /// Whether Services are called at their cluster IPs, which must be routed where the server is, and not at their endpoints.
    pub by_cluster_ip: bool,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// Signs service account tokens; without it no tokens are given out.
    pub service_account_key: Option<Arc<pki::service_account::SigningKey>>,
    /// `iss` of service account tokens.
    pub service_account_issuer: String,
    /// Audiences of tokens whose request names none.
    pub api_audiences: Vec<String>,
    /// Longest life of a service account token, in seconds.
    pub max_token_seconds: i64,
    /// Whether the tokens of projected volumes outlive what they say by a year's grace, as upstream's do by default.
    pub extend_token_expiration: bool,
    /// What PodSecurity does where labels say nothing, and whom it does not judge.
    pub pod_security: PodSecurity,
    /// What may be used under a quota that covers it only.
    pub limited_resources: Vec<Limited>,
    /// How this server proves itself to mutating webhooks; not at all without.
    pub mutating_webhooks: Option<Arc<dyn Credentials>>,
    /// The same to validating webhooks.
    pub validating_webhooks: Option<Arc<dyn Credentials>>,
    /// How the watch caches behave.
    pub cache: cache::Options,
    /// Where the registry's tasks are listed: one a watch cache, and those that keep objects.
    pub supervisor: Supervisor,
}

/// How the servers behind the `kubernetes` Service are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointReconciler {
    /// Each has a lease in the store.
    #[default]
    Lease,
    /// There are so many.
    MasterCount(usize),
    /// By others than the servers.
    None,
}

impl Default for Config {
    fn default() -> Self {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Config {
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(
                std::net::Ipv4Addr::new(10, 96, 0, 0),
                12,
            ))],
            node_ports: (30000, 32767),
            advertise_address: None,
            secure_port: 6443,
            endpoint_reconciler: EndpointReconciler::default(),
            host_name: None,
            service_node_port: None,
            served: Served::default(),
            watch_time: Duration::from_secs(1800),
            delete_workers: 1,
            garbage_collection: true,
            privileged: true,
            toleration_seconds: (300, 300),
            pass_redirects: false,
            by_cluster_ip: false,
            event_ttl: Duration::from_secs(3600),
            service_account_key: None,
            api_audiences: vec![issuer.clone()],
            service_account_issuer: issuer,
            max_token_seconds: 1 << 32,
            extend_token_expiration: true,
            pod_security: PodSecurity::default(),
            limited_resources: Vec::new(),
            mutating_webhooks: None,
            validating_webhooks: None,
            cache: cache::Options::default(),
            supervisor: Supervisor::default(),
        }
    }
}

/// All resources and their storage.
pub struct Registry {
    /// Itself, for watches, which outlive a call.
    own: Weak<Registry>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) config: Config,
    front: OnceLock<Arc<dyn Hooks>>,
    /// By key prefix: resources of two groups may share one.
    caches: BTreeMap<&'static str, Cache>,
    feeds: Mutex<Vec<Task>>,
    tasks: OnceLock<Scope>,
    /// What requests are answered from.
    serving: OnceLock<Scope>,
    pub(crate) custom: custom::Table,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry on `backend`. It answers once [`crate::write::Writer::start`] has returned.
    ///
    /// The front reads objects through the registry, and the registry asks the front who may do what: [`Registry::attach`]
    /// closes that circle.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, config: Config) -> Arc<Self> {
        let mut by_prefix: BTreeMap<&'static str, Vec<Kind>> = BTreeMap::new();
        for resource in resources::all().iter().filter(|r| r.is_stored()) {
            by_prefix.entry(resource.key_prefix.as_str()).or_default().push(Kind::stored(resource));
        }
        let mut caches = BTreeMap::new();
        let mut feeds = Vec::new();
        for (prefix, kinds) in by_prefix {
            let (cache, feed) = Cache::new(
                backend.clone(),
                prefix,
                move |entry| storage::extract(&kinds, entry),
                config.cache.clone(),
            );
            caches.insert(prefix, cache);
            feeds.push(storage::feed_task(prefix, feed));
        }
        Arc::new_cyclic(|own| Registry {
            own: own.clone(),
            backend,
            config,
            front: OnceLock::new(),
            caches,
            feeds: Mutex::new(feeds),
            tasks: OnceLock::new(),
            serving: OnceLock::new(),
            custom: custom::Table::default(),
        })
    }

    /// Gives the registry its front; the first one given stays.
    pub fn attach(&self, hooks: Arc<dyn Hooks>) {
        if self.front.set(hooks).is_err() {
            tracing::warn!("the registry has its front already");
        }
    }

    /// The front, or the refusal of what needs one.
    pub(crate) fn front(&self) -> Result<&Arc<dyn Hooks>, Status> {
        self.front.get().ok_or_else(|| Status::service_unavailable("the server is starting"))
    }

    /// The registry's tasks; they end with `shutdown`, and so does everything the first call was for.
    pub(crate) fn tasks(&self, shutdown: &CancellationToken) -> &Scope {
        self.tasks.get_or_init(|| Scope::new(&self.config.supervisor, "", shutdown))
    }

    /// The tasks without which requests wait in vain; they end once the last request has been answered, with the first call's `drained`.
    pub(crate) fn serving(&self, drained: &CancellationToken) -> &Scope {
        self.serving.get_or_init(|| Scope::new(&self.config.supervisor, "", drained))
    }

    /// Ends the tasks of [`Registry::serving`].
    pub(crate) async fn end_serving(&self) {
        if let Some(serving) = self.serving.get() {
            serving.stop().cancel();
            serving.ended().await;
        }
    }

    /// Waits until the registry's tasks have ended.
    pub(crate) async fn tasks_ended(&self) {
        if let Some(tasks) = self.tasks.get() {
            tasks.ended().await;
        }
    }

    /// Starts the feeds of the watch caches, and waits until all are filled.
    pub(crate) async fn fill(&self, drained: &CancellationToken) {
        let tasks = self.serving(drained);
        std::mem::take(&mut *self.feeds.lock()).into_iter().for_each(|feed| tasks.keep(feed));
        join_all(self.caches.values().map(Cache::ready)).await;
    }

    /// Random bits: for names, addresses and jitter, never for secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        match getrandom::fill(&mut bytes) {
            Ok(()) => u64::from_ne_bytes(bytes),
            // Without a random source the clock's nanoseconds still spread names; every use checks for collisions.
            Err(_) => u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs()),
        }
    }
}
