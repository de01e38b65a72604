//! Resources and their storage: what lies between an authorised request and the store.
//!
//! - verbs: `create`, `update` (and patch), `delete`, `list`, `watch`, `get`; their `options`
//! - who owns which field: `managed`; who may grant which right: `escalation`
//! - one view of a resource: `kind`; objects at rest: `stored`; the store and the caches: `storage`; `page_token`
//! - configuration read from stored objects: `parsed`; where Services are: `reachable`
//! - objects the server keeps: `upkeep`, for `flow_objects`, `api_services` and `policy_status`
//! - [`custom`]: custom resources: what is served, its storage, conversion and removal
//! - Services: `services` on `allocator`; `bootstrap`: what a new cluster holds; `kubernetes_service`: our own Service
//! - [`hooks`]: what the front of the server does for us (`crate::front`); `seams`: what we do for it ([`Shared`]); `run`: the tasks

mod allocator;
pub(crate) mod api_services;
mod bootstrap;
pub(crate) mod create;
pub(crate) mod custom;
pub(crate) mod delete;
mod escalation;
mod flow_objects;
mod get;
pub mod hooks;
pub(crate) mod kind;
mod kubernetes_service;
pub(crate) mod list;
pub(crate) mod managed;
pub(crate) mod metadata;
pub(crate) mod options;
mod page_token;
pub(crate) mod parsed;
mod policy_status;
mod reachable;
mod run;
mod seams;
mod services;
mod storage;
pub(crate) mod stored;
mod system;
pub(crate) mod update;
mod upkeep;
pub(crate) mod watch;

pub use custom::CustomResources;
pub use run::StartError;
pub use seams::Shared;

use hooks::Hooks;
use ipnet::IpNet;
use kind::Kind;
use machinery::resources;
use machinery::status::Status;
use parking_lot::Mutex;
use services::Numbers;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::Backend;
use store::cache::{self, Cache};
use supervise::{Scope, Supervisor, Task};

/// How the registry behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges of cluster IPs, the primary family first; one or two.
    pub service_cidrs: Vec<IpNet>,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Where other machines reach this server; `None` leaves the `kubernetes` Service without endpoints.
    pub advertise_address: Option<IpAddr>,
    /// The port there.
    pub secure_port: u16,
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
    /// How the watch caches behave.
    pub cache: cache::Options,
    /// Where the registry's tasks are listed: one a watch cache, and those that keep objects.
    pub supervisor: Supervisor,
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
            event_ttl: Duration::from_secs(3600),
            service_account_key: None,
            api_audiences: vec![issuer.clone()],
            service_account_issuer: issuer,
            max_token_seconds: 1 << 32,
            extend_token_expiration: true,
            cache: cache::Options::default(),
            supervisor: Supervisor::default(),
        }
    }
}

/// All resources, their storage and their rules.
pub struct Registry {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) config: Config,
    front: OnceLock<Arc<dyn Hooks>>,
    /// By key prefix: resources of two groups may share one.
    caches: BTreeMap<&'static str, Cache>,
    feeds: Mutex<Vec<Task>>,
    tasks: OnceLock<Scope>,
    numbers: Mutex<Numbers>,
    /// The webhooks among what is stored.
    pub(crate) webhooks: crate::admission::webhooks::Configured,
    /// The admission policies among what is stored.
    pub(crate) policies: crate::admission::policies::Configured,
    pub(crate) custom: custom::Table,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry on `backend`. It answers once [`Registry::start`] has returned.
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
            feeds.push(run::feed_task(prefix, feed));
        }
        let numbers = Numbers::new(&config.service_cidrs, config.node_ports);
        Arc::new(Registry {
            backend,
            config,
            front: OnceLock::new(),
            caches,
            feeds: Mutex::new(feeds),
            tasks: OnceLock::new(),
            numbers: Mutex::new(numbers),
            webhooks: crate::admission::webhooks::Configured::default(),
            policies: crate::admission::policies::Configured::default(),
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
