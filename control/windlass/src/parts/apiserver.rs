//! The API server: with others in `windlass server`, or alone as kube-apiserver ([`alone`]).
//!
//! [`checks`] and [`logging`]: its health by upstream's names; [`neighbours`]: that of parts beside it; [`events`]: what it says is wrong; [`roles`]: the first roles; [`publish`]: what
//! machines find in it; [`trust`]: whom other API servers are to believe; [`authentication`]: whose tokens are believed, [`authorization`]: who
//! decides, both perhaps by asking others ([`reviewer`]); [`storage`]: where its objects are; [`serving`]: how it serves; [`objects`]: what; [`audit`]: what is written of requests;
//! [`admission`]: how they are admitted; [`settings`]: all that flags settle of any API server, in `windlass server`, too, [`metrics`] among it; [`csv`]: tables.

pub(crate) mod admission;
pub(super) mod alone;
pub(crate) mod audit;
pub(crate) mod authentication;
pub(crate) mod authorization;
mod checks;
mod csv;
mod events;
mod logging;
mod metrics;
mod neighbours;
mod objects;
pub(crate) mod publish;
mod reviewer;
mod roles;
mod serving;
pub(crate) mod settings;
pub(crate) mod storage;
pub(crate) mod trust;

use anyhow::Context as _;
use apiserver::health::Health;
use apiserver::metrics::Metrics;
use apiserver::registry::{self, EndpointReconciler, Registry};
use apiserver::server::{Authorization, Config, Parts};
use apiserver::tasks::Tasks;
use apiserver::tls::ServingCertificate;
use apiserver::write::Writer;
use apiserver::{
    Aggregator, ApiServer, AuthenticationConfig, Authorities, Catalog, CustomResources, Dialer, Observer,
    OpenId, Shared, Stop, User, default_node_addresses,
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
use trust::{Front, Trust};

/// How long events of the audit log that wait may take to be written when the server stops.
const AUDIT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

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
    /// Proxies in front, here or before other servers; none without authorities of their certificates.
    pub(crate) front: Front,
    /// What else flags settle.
    pub(crate) flagged: Flagged,
    pub(crate) limits: Limits,
}

/// What flags settle of any API server, whatever settles the rest.
#[derive(Clone, Default)]
pub(crate) struct Flagged {
    /// Whose tokens are believed beside our own.
    pub(crate) other_issuers: authentication::Source,
    /// Tokens that nobody signs.
    pub(crate) tokens: authentication::Tokens,
    /// Who decides on requests.
    pub(crate) authorization: authorization::Source,
    /// What is written of requests, and where.
    pub(crate) audit: audit::Source,
    /// How requests are admitted.
    pub(crate) admission: admission::Configured,
    pub(crate) services: Services,
    pub(crate) serving: serving::Serving,
    /// What is served, and what becomes of objects.
    pub(crate) objects: registry::Config,
    pub(crate) accounts: Accounts,
    pub(crate) metrics: apiserver::metrics::Shown,
    /// Which of a node's addresses its kubelet is called at; ours, where none is named.
    pub(crate) node_addresses: Vec<String>,
}

/// What tokens of service accounts come with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// Where others find the keys that verify them; at this server, where nobody says.
    pub(crate) keys_uri: Option<String>,
    /// Tokens that are kept in secrets are believed although nobody looks whether they still are.
    pub(crate) unseen: bool,
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
    /// Who signs the certificates of proxies in front.
    pub(crate) front_authorities: Option<String>,
    /// Authorities that are believed no more, whoever may have written that they are.
    pub(crate) replaced: String,
    /// What kubelets are shown.
    pub(crate) kubelet_client: (String, String),
    /// Who signs the certificates of kubelets; any are believed where there is none.
    pub(crate) kubelet_authorities: Option<String>,
    /// What other API servers are shown.
    pub(crate) proxy_client: (String, String),
}

impl Certificates {
    fn trust(&self, front: Front) -> Trust {
        let front = self.front_authorities.clone().map(|pem| (pem, front));
        Trust { clients: self.client_authorities.clone(), front, replaced: self.replaced.clone() }
    }
}

/// Bounds on requests: how many, how long, from which callers.
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) mutating: usize,
    /// Whether the sum of both is shared out by priority and fairness.
    pub(crate) fair: bool,
    pub(crate) timeout: std::time::Duration,
    pub(crate) anonymous: authentication::Anonymous,
    pub(crate) bootstrap_tokens: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let Config {
            max_requests_in_flight,
            max_mutating_requests_in_flight,
            fair,
            request_timeout,
            authentication,
            ..
        } = Config::default();
        Self {
            requests: max_requests_in_flight,
            mutating: max_mutating_requests_in_flight,
            fair,
            timeout: request_timeout,
            anonymous: authentication::Anonymous { enabled: authentication.anonymous, paths: Vec::new() },
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
    shared_etcd: Option<storage::SharedEtcd>,
    /// The store's own tasks.
    keeping: Scope,
    /// Ends watches, listeners and the registry's tasks.
    stopping: CancellationToken,
    ready: watch::Sender<bool>,
    supervisor: Supervisor,
    health: Arc<Health>,
    logging: Logging,
    trust: watch::Sender<Trust>,
    /// Proxies in front, as they were set.
    front: Front,
    /// What follows files that say who decides.
    follows: Mutex<Vec<Task>>,
}

/// Opens the port, the store, and an API server on them. It answers once [`Api::ready`] has returned.
pub(crate) async fn start(settings: Settings) -> anyhow::Result<Api> {
    let flagged = &settings.flagged;
    let listener = flagged.serving.listen(settings.listen)?;
    let Storage { backend, embedded, etcd, encryption, tasks: storage_tasks } =
        storage::open(&settings.storage).await?;
    let supervisor = Supervisor::default();
    // Not with the listeners: requests that end after them write, too.
    let keeping = Scope::new(&supervisor, "", &CancellationToken::new());
    storage_tasks.into_iter().for_each(|task| keeping.keep(task));
    let registry_config = registry::Config { supervisor: supervisor.clone(), ..registry_config(&settings) };
    let registry = Registry::new(backend.clone(), registry_config);
    let writer = Writer::new(registry.clone());
    let stored = Shared(writer.clone());
    let authorization = Authorization::default();
    let authorizers = flagged.authorization.apply(&authorization).await?;
    let follows = flagged.authorization.follow(&authorization, authorizers);
    let observer = authorization.observer();
    let certificates = &settings.certificates;
    let (shown, key) = &certificates.kubelet_client;
    let dialer = Dialer::new(certificates.kubelet_authorities.as_deref(), shown, key);
    let dialer = Arc::new(dialer.context("prepare the kubelet client")?);
    let (health, stopping) = (Arc::new(Health::new(supervisor.clone())), CancellationToken::new());
    let logging = Logging::default();
    let log = logging.clone();
    if !flagged.serving.to_start.is_zero() {
        health.give_time(flagged.serving.to_start);
    }
    health.add("log", true, move || log.check(Instant::now()));
    for (name, live) in [("etcd", true), ("etcd-readiness", false)] {
        let backend = backend.clone();
        let state = move || if live { backend.health() } else { backend.readiness() };
        health.add(name, live, move || state().map_err(|error| error.to_string()));
    }
    if let Some(encryption) = encryption {
        health.add("kms-providers", true, move || encryption.check());
    }
    let ready = watch::Sender::new(false);
    checks::add(&health, &ready, &registry);
    let tasks = Tasks::new(&supervisor);
    let metrics = Metrics::default().showing(flagged.metrics.clone());
    metrics.tasks(&supervisor);
    let help = "Objects of the API that could not be read, once a version";
    metrics.count("windlass_unreadable_objects", help, client::decode::unreadable);
    let help =
        "How often a child of the server, its agent or its etcd, ended by itself or could not be started";
    metrics.count("windlass_child_ends", help, crate::child::ends);
    let aggregator = Aggregator::new(writer.clone(), tasks.clone(), certificates.proxy_client.clone());
    let parts = Parts {
        aggregator: Some(aggregator.clone()),
        objects: Arc::new(stored.clone()),
        resources: Arc::new(stored.clone()),
        catalog: Arc::new(
            Catalog::new(vec![Arc::new(CustomResources(registry.clone())), aggregator.clone()])
                .serving(&flagged.objects.served),
        ),
        documents: Vec::new(),
        authorization,
        health: health.clone(),
        metrics: Arc::new(metrics),
        tasks,
    };
    let audit = flagged.audit.start(&supervisor, &parts.metrics).await?;
    let mut config = Config { audit, ..config(&settings)? };
    config.authentication.webhook = flagged.tokens.webhook().await?;
    let server = ApiServer::new(config, parts, stopping.clone());
    let node_addresses = match flagged.node_addresses.as_slice() {
        [] => default_node_addresses(),
        named => named.to_vec(),
    };
    registry.attach(server.front(dialer.clone(), Arc::new(stored), node_addresses));
    let observer: Arc<dyn Observer> = Arc::new(vec![observer, server.flow()]);
    let certificate = ServingCertificate::from_pem(&certificates.serving.0, &certificates.serving.1)?;
    let authenticator = server.authenticator().clone();
    let issuers = flagged.other_issuers.follow(move |issuers| authenticator.set_issuers(issuers));
    let named = flagged.serving.show(&certificate)?;
    let follows = follows.into_iter().chain(issuers).chain(named).collect();
    let listener = Mutex::new(Some(listener));
    let trust = watch::Sender::new(certificates.trust(settings.front.clone()));
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
        shared_etcd: settings.storage.shared(),
        keeping,
        stopping,
        ready,
        supervisor,
        health,
        logging,
        trust,
        front: settings.front,
        follows: Mutex::new(follows),
    })
}

fn registry_config(settings: &Settings) -> registry::Config {
    let default = settings.flagged.objects.clone();
    registry::Config {
        service_cidrs: settings.service_cidrs.clone(),
        // No pod reaches a loopback: such a server is in nobody's endpoints.
        advertise_address: Some(settings.advertise).filter(|ip| !ip.is_loopback()),
        secure_port: settings.listen.port(),
        node_ports: settings.flagged.services.node_ports,
        endpoint_reconciler: settings.flagged.services.endpoints,
        host_name: node::config::host_name().ok(),
        service_account_key: settings.signing_key.clone(),
        service_account_issuer: settings.issuers.first().unwrap_or(&default.service_account_issuer).clone(),
        api_audiences: settings.audiences(),
        pod_security: settings.flagged.admission.pod_security.clone(),
        limited_resources: settings.flagged.admission.limited_resources.clone(),
        mutating_webhooks: settings.flagged.admission.mutating_webhooks.clone(),
        validating_webhooks: settings.flagged.admission.validating_webhooks.clone(),
        ..default
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

fn config(settings: &Settings) -> anyhow::Result<Config> {
    let (default, limits) = (Config::default(), &settings.limits);
    let authorities = settings.certificates.client_authorities.as_deref().map(Authorities::from_pem);
    let front_authorities = settings.certificates.front_authorities.as_deref();
    let front_authorities = front_authorities.filter(|_| settings.front.believed).map(Authorities::from_pem);
    let front_authorities = front_authorities.transpose().context("authorities of proxies in front")?;
    let authentication = AuthenticationConfig {
        front_proxies: front_authorities.map(|authorities| settings.front.proxies(authorities)),
        client_authorities: authorities.transpose().context("client authorities")?,
        service_accounts: Some(Verifier {
            keys: settings.verifying_keys.clone(),
            issuers: settings.issuers.clone(),
        }),
        api_audiences: settings.audiences(),
        anonymous: limits.anonymous.enabled,
        anonymous_paths: limits.anonymous.paths.clone(),
        issuers: settings.flagged.other_issuers.issuers()?,
        static_tokens: settings.flagged.tokens.fixed.clone(),
        unseen_secrets: settings.flagged.accounts.unseen,
        bootstrap_tokens: limits.bootstrap_tokens,
        ..default.authentication
    };
    let port = settings.listen.port();
    let advertise = match settings.flagged.serving.external.as_deref() {
        None => SocketAddr::new(settings.advertise, port).to_string(),
        Some(host) => external(host, port),
    };
    let own_keys = || format!("https://{advertise}{}", pki::openid::KEYS_PATH);
    let keys_uri = settings.flagged.accounts.keys_uri.clone().unwrap_or_else(own_keys);
    let openid = settings.issuers.first().map(|issuer| OpenId {
        configuration: pki::openid::configuration(issuer, &keys_uri, &settings.verifying_keys),
        keys: pki::openid::key_set(&settings.verifying_keys),
    });
    let config = Config {
        authentication,
        advertise,
        openid,
        max_requests_in_flight: limits.requests,
        max_mutating_requests_in_flight: limits.mutating,
        fair: limits.fair,
        request_timeout: limits.timeout,
        ..Config::default()
    };
    Ok(settings.flagged.serving.put_into(config))
}

/// The server as clients outside name it: its port is added where the name has none.
fn external(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            host.to_owned()
        }
        Err(_) => format!("{host}:{port}"),
    }
}

impl Api {
    /// Fills the caches, writes the first roles, and loads them into authorisation.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let client = self.client("system:apiserver", &["system:masters"]);
        self.record(&client);
        let (begun, drained) = (self.stopping.clone(), CancellationToken::new());
        let stop = Stop { leaving: self.server.leaving(), begun, drained };
        self.writer.start(stop.clone()).await.context("start the registry")?;
        roles::write_first(&client).await.context("write the cluster's first roles")?;
        self.registry.observe(&self.observer, &stop.drained);
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
            self.server.end().await;
            std::future::pending::<()>().await;
        };
        let served = tokio::select! {
            served = self.server.listen(listener, self.certificate.clone()) => Ok(served?),
            () = stopper => Ok(()),
        };
        // Others are told that it is gone.
        self.writer.ended().await;
        self.server.finish_audit(AUDIT_PATIENCE).await;
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

    /// What others are told of that etcd.
    pub(crate) fn shared_etcd(&self) -> Option<&storage::SharedEtcd> {
        self.shared_etcd.as_ref()
    }

    /// Its health checks, for the parts beside it to add theirs.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// What follows files that say who decides.
    pub(crate) fn follows(&self) -> Vec<Task> {
        std::mem::take(&mut *self.follows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What keeps telling other API servers whom to believe.
    pub(crate) fn trust(&self) -> Task {
        trust::task(self.client("system:apiserver", &["system:masters"]), self.trust.subscribe())
    }

    /// The task behind the check whether logging works.
    pub(crate) fn logging(&self) -> Task {
        self.logging.task()
    }

    /// Uses other certificates from the next connection on.
    pub(crate) fn replace(&self, certificates: &Certificates) -> anyhow::Result<()> {
        self.certificate.replace(&certificates.serving.0, &certificates.serving.1)?;
        let (shown, key) = &certificates.kubelet_client;
        self.dialer.replace(certificates.kubelet_authorities.as_deref(), shown, key)?;
        self.aggregator.replace_identity(certificates.proxy_client.clone());
        let authenticator = self.server.authenticator();
        if let Some(authorities) = &certificates.client_authorities {
            authenticator.set_client_authorities(Authorities::from_pem(authorities)?);
        }
        if let Some(authorities) = &certificates.front_authorities {
            authenticator.set_front_authorities(&Authorities::from_pem(authorities)?);
        }
        self.trust.send_modify(|trust| *trust = certificates.trust(self.front.clone()));
        Ok(())
    }
}
