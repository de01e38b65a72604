//! The API server: with others in `windlass server`, or alone as kube-apiserver ([`alone`]).
//!
//! [`checks`] and [`logging`]: its health by upstream's names; [`events`]: what it says is wrong; [`roles`]: the first roles; [`publish`]: what machines and other API servers
//! find in it; [`storage`]: where its objects are.

mod admission;
pub(super) mod alone;
mod checks;
mod events;
mod logging;
pub(crate) mod publish;
mod roles;
pub(crate) mod storage;

use anyhow::Context as _;
use apiserver::health::Health;
use apiserver::metrics::Metrics;
use apiserver::registry::{self, EndpointReconciler, Registry};
use apiserver::server::{Authorization, Config, Parts};
use apiserver::tasks::Tasks;
use apiserver::tls::ServingCertificate;
use apiserver::write::Writer;
use apiserver::{
    Aggregator, ApiServer, AuthenticationConfig, Authorities, Catalog, CustomResources, Dialer, FrontProxies,
    Observer, OpenId, Shared, User, default_node_addresses,
};
use ipnet::IpNet;
use logging::Logging;
use pki::service_account::{SigningKey, Verifier, VerifyingKey};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use storage::Storage;
use store::embedded::Store;
use supervise::{Scope, Supervisor, Task};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What an API server is made of.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// Where others reach it.
    pub(crate) advertise: IpAddr,
    pub(crate) storage: storage::Settings,
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Who gives out tokens of service accounts; the first one does so from now on.
    pub(crate) issuers: Vec<String>,
    /// Audiences of tokens that ask for none; by default the first issuer.
    pub(crate) audiences: Vec<String>,
    /// Signs such tokens; without one none are given out.
    pub(crate) signing_key: Option<Arc<SigningKey>>,
    pub(crate) verifying_keys: Vec<VerifyingKey>,
    pub(crate) certificates: Certificates,
    /// Who may say in headers who a caller is.
    pub(crate) front_proxies: Option<FrontProxies>,
    pub(crate) services: Services,
    /// The rest, as the crate has it by default.
    pub(crate) limits: Limits,
}

/// What Services are given, and who is behind that of the API itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    /// The first and the last.
    pub(crate) node_ports: (u16, u16),
    pub(crate) endpoints: EndpointReconciler,
}

impl Default for Services {
    fn default() -> Self {
        let registry::Config { node_ports, endpoint_reconciler, .. } = registry::Config::default();
        Self { node_ports, endpoints: endpoint_reconciler }
    }
}

/// What may be replaced while it runs, as PEM: certificates with their keys, and authorities.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) serving: (String, String),
    /// Whose client certificates are believed.
    pub(crate) client_authorities: Option<String>,
    /// What kubelets are shown.
    pub(crate) kubelet_client: (String, String),
    pub(crate) kubelet_authorities: String,
    /// What other API servers are shown.
    pub(crate) proxy_client: (String, String),
}

/// Bounds on requests: how many, how long, from which callers.
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) mutating: usize,
    pub(crate) timeout: std::time::Duration,
    pub(crate) anonymous: bool,
    pub(crate) bootstrap_tokens: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let Config {
            max_requests_in_flight,
            max_mutating_requests_in_flight,
            request_timeout,
            authentication,
            ..
        } = Config::default();
        Self {
            requests: max_requests_in_flight,
            mutating: max_mutating_requests_in_flight,
            timeout: request_timeout,
            anonymous: authentication.anonymous,
            bootstrap_tokens: authentication.bootstrap_tokens,
        }
    }
}

/// A started API server.
pub(crate) struct Api {
    server: ApiServer,
    writer: Arc<Writer>,
    registry: Arc<Registry>,
    aggregator: Arc<Aggregator>,
    observer: Arc<dyn Observer>,
    certificate: Arc<ServingCertificate>,
    dialer: Arc<Dialer>,
    listener: Mutex<Option<TcpListener>>,
    embedded: Option<Arc<Store>>,
    etcd: Option<etcd::Client>,
    /// The store's own tasks.
    keeping: Scope,
    /// Ends watches, listeners and the registry's tasks.
    stopping: CancellationToken,
    ready: watch::Sender<bool>,
    supervisor: Supervisor,
    health: Arc<Health>,
    logging: Logging,
}

/// Opens the port, the store, and an API server on them. It answers once [`Api::ready`] has returned.
pub(crate) async fn start(mut settings: Settings) -> anyhow::Result<Api> {
    let front_proxies = settings.front_proxies.take();
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("listen on {}", settings.listen))?;
    let Storage { backend, embedded, etcd, tasks: storage_tasks } = storage::open(&settings.storage).await?;
    let supervisor = Supervisor::default();
    // Not with the listeners: requests that end after them write, too.
    let keeping = Scope::new(&supervisor, "", &CancellationToken::new());
    storage_tasks.into_iter().for_each(|task| keeping.keep(task));
    let registry_config = registry::Config { supervisor: supervisor.clone(), ..registry_config(&settings) };
    let registry = Registry::new(backend.clone(), registry_config);
    let writer = Writer::new(registry.clone());
    let stored = Shared(writer.clone());
    let authorization = Authorization::default();
    let observer = authorization.observer();
    let certificates = &settings.certificates;
    let (shown, key) = &certificates.kubelet_client;
    let dialer = Dialer::new(&certificates.kubelet_authorities, shown, key);
    let dialer = Arc::new(dialer.context("prepare the kubelet client")?);
    let (health, stopping) = (Arc::new(Health::new(supervisor.clone())), CancellationToken::new());
    let logging = Logging::default();
    let log = logging.clone();
    health.add("log", true, move || log.check(Instant::now()));
    for (name, live) in [("etcd", true), ("etcd-readiness", false)] {
        let backend = backend.clone();
        health.add(name, live, move || backend.health().map_err(|error| error.to_string()));
    }
    let ready = watch::Sender::new(false);
    checks::add(&health, &ready, &registry);
    let (tasks, metrics) = (Tasks::new(&supervisor), Metrics::default());
    metrics.tasks(&supervisor);
    let help = "Objects of the API that could not be read, once a version";
    metrics.count("windlass_unreadable_objects", help, client::decode::unreadable);
    let aggregator = Aggregator::new(writer.clone(), tasks.clone(), certificates.proxy_client.clone());
    let parts = Parts {
        aggregator: Some(aggregator.clone()),
        objects: Arc::new(stored.clone()),
        resources: Arc::new(stored.clone()),
        catalog: Arc::new(Catalog::new(vec![
            Arc::new(CustomResources(registry.clone())),
            aggregator.clone(),
        ])),
        documents: Vec::new(),
        authorization,
        health: health.clone(),
        metrics: Arc::new(metrics),
        tasks,
    };
    let server = ApiServer::new(config(&settings, front_proxies)?, parts, stopping.clone());
    registry.attach(server.front(dialer.clone(), Arc::new(stored), default_node_addresses()));
    let observer: Arc<dyn Observer> = Arc::new(vec![observer, server.flow()]);
    let certificate = ServingCertificate::from_pem(&certificates.serving.0, &certificates.serving.1)?;
    let listener = Mutex::new(Some(listener));
    Ok(Api {
        server,
        writer,
        registry,
        aggregator,
        observer,
        certificate,
        dialer,
        listener,
        embedded,
        etcd,
        keeping,
        stopping,
        ready,
        supervisor,
        health,
        logging,
    })
}

fn registry_config(settings: &Settings) -> registry::Config {
    let default = registry::Config::default();
    registry::Config {
        service_cidrs: settings.service_cidrs.clone(),
        // No pod reaches a loopback: such a server is in nobody's endpoints.
        advertise_address: Some(settings.advertise).filter(|ip| !ip.is_loopback()),
        secure_port: settings.listen.port(),
        node_ports: settings.services.node_ports,
        endpoint_reconciler: settings.services.endpoints,
        host_name: node::config::host_name().ok(),
        service_account_key: settings.signing_key.clone(),
        service_account_issuer: settings.issuers.first().cloned().unwrap_or(default.service_account_issuer),
        api_audiences: settings.audiences(),
        ..registry::Config::default()
    }
}

impl Settings {
    fn audiences(&self) -> Vec<String> {
        match self.audiences.is_empty() {
            true => self.issuers.iter().take(1).cloned().collect(),
            false => self.audiences.clone(),
        }
    }
}

fn config(settings: &Settings, front_proxies: Option<FrontProxies>) -> anyhow::Result<Config> {
    let (default, limits) = (Config::default(), &settings.limits);
    let authorities = settings.certificates.client_authorities.as_deref().map(Authorities::from_pem);
    let authentication = AuthenticationConfig {
        front_proxies,
        client_authorities: authorities.transpose().context("client authorities")?,
        service_accounts: Some(Verifier {
            keys: settings.verifying_keys.clone(),
            issuers: settings.issuers.clone(),
        }),
        api_audiences: settings.audiences(),
        anonymous: limits.anonymous,
        bootstrap_tokens: limits.bootstrap_tokens,
        ..default.authentication
    };
    let advertise = SocketAddr::new(settings.advertise, settings.listen.port()).to_string();
    let keys_uri = format!("https://{advertise}{}", pki::openid::KEYS_PATH);
    let openid = settings.issuers.first().map(|issuer| OpenId {
        configuration: pki::openid::configuration(issuer, &keys_uri, &settings.verifying_keys),
        keys: pki::openid::key_set(&settings.verifying_keys),
    });
    Ok(Config {
        authentication,
        advertise,
        openid,
        max_requests_in_flight: limits.requests,
        max_mutating_requests_in_flight: limits.mutating,
        request_timeout: limits.timeout,
        ..Config::default()
    })
}

impl Api {
    /// Fills the caches, writes the first roles, and loads them into authorisation.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let client = self.client("system:apiserver", &["system:masters"]);
        self.record(&client);
        self.writer.start(self.stopping.clone()).await.context("start the registry")?;
        roles::reconcile(&client).await.context("write the cluster's first roles")?;
        self.registry.observe(&self.observer, &self.stopping);
        self.aggregator.start(&self.stopping);
        self.ready.send_replace(true);
        Ok(())
    }

    /// Has its own tasks record events.
    fn record(&self, client: &kube::Client) {
        let (recorder, writer) = client::recorder::Recorder::new(Some(client.clone()), None);
        self.keeping.keep(writer.task("events"));
        self.writer.record_with(Arc::new(events::Events(recorder)));
    }

    /// Every task of this process.
    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// True once [`Api::ready`] has returned.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// A client without a socket, as `user` in `groups`.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        let user = User { name: user.to_owned(), groups, ..User::default() };
        kube::Client::new(self.server.local_service(user), "default")
    }

    /// Serves until `stop`, then lets requests finish.
    pub(crate) async fn serve(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = listener.context("the API server is served already")?;
        let stopper = async {
            stop.cancelled().await;
            self.stopping.cancel();
            std::future::pending::<()>().await;
        };
        let served = tokio::select! {
            served = self.server.listen(listener, self.certificate.clone()) => Ok(served?),
            () = stopper => Ok(()),
        };
        // Others are told that it is gone.
        self.writer.ended().await;
        served
    }

    /// Where its objects are, unless in etcd.
    pub(crate) fn embedded_store(&self) -> Option<&Arc<Store>> {
        self.embedded.as_ref()
    }

    /// The members of the etcd where they are.
    pub(crate) fn etcd(&self) -> Option<&etcd::Client> {
        self.etcd.as_ref()
    }

    /// Its health checks, for the parts beside it to add theirs.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The task behind the check whether logging works.
    pub(crate) fn logging(&self) -> Task {
        self.logging.task()
    }

    /// Uses other certificates from the next connection on.
    pub(crate) fn replace(&self, certificates: &Certificates) -> anyhow::Result<()> {
        self.certificate.replace(&certificates.serving.0, &certificates.serving.1)?;
        let (shown, key) = &certificates.kubelet_client;
        self.dialer.replace(&certificates.kubelet_authorities, shown, key)?;
        self.aggregator.replace_identity(certificates.proxy_client.clone());
        if let Some(authorities) = &certificates.client_authorities {
            self.server.authenticator().set_client_authorities(Authorities::from_pem(authorities)?);
        }
        Ok(())
    }
}
