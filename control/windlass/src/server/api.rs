//! The API server and what runs on it, inside this process.

use super::logging::Logging;
use super::{Plan, checks, identity, roles, storage};
use anyhow::Context as _;
use apiserver::aggregation::Aggregator;
use apiserver::authn::certificate::Authorities;
use apiserver::context::User;
use apiserver::discovery::{Catalog, CustomResources};
use apiserver::health::Health;
use apiserver::metrics::Metrics;
use apiserver::objects::Observer;
use apiserver::paths::OpenId;
use apiserver::registry::{self, Registry};
use apiserver::server::{Authorization, Config, Parts};
use apiserver::stream::default_node_addresses;
use apiserver::stream::dial::Dialer;
use apiserver::tasks::Tasks;
use apiserver::tls::ServingCertificate;
use apiserver::write::Writer;
use apiserver::{ApiServer, Shared, authn};
use jiff::Timestamp;
use pki::Pki;
use pki::service_account::Verifier;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use supervise::{Scope, Supervisor, Task, TaskError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest sleep before the clock is read again: a suspended machine's timers stand still.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// A started API server.
pub(super) struct Api {
    server: ApiServer,
    writer: Arc<Writer>,
    registry: Arc<Registry>,
    aggregator: Arc<Aggregator>,
    observer: Arc<dyn Observer>,
    certificate: Arc<ServingCertificate>,
    dialer: Arc<Dialer>,
    listener: Mutex<Option<TcpListener>>,
    /// Ends watches, listeners and the registry's tasks.
    stopping: CancellationToken,
    ready: watch::Sender<bool>,
    supervisor: Supervisor,
    logging: Logging,
    /// The store's own tasks.
    _keeping: Scope,
}

/// Opens the port, the store, and an API server on them. It answers once [`Api::ready`] has returned.
pub(super) async fn start(plan: &Plan, pki: &Pki) -> anyhow::Result<Api> {
    let listener =
        TcpListener::bind(plan.listen).await.with_context(|| format!("listen on {}", plan.listen))?;
    let storage::Storage { backend, tasks: storage } = storage::open(plan).await?;
    let issuer = format!("https://kubernetes.default.svc.{}", plan.node.cluster_domain);
    let supervisor = Supervisor::default();
    // Not with the listeners: requests that end after them write, too.
    let keeping = Scope::new(&supervisor, "", &CancellationToken::new());
    storage.into_iter().for_each(|task| keeping.keep(task));
    let settings = registry::Config { supervisor: supervisor.clone(), ..registry_config(plan, pki, &issuer) };
    let registry = Registry::new(backend.clone(), settings);
    let writer = Writer::new(registry.clone());
    let stored = Shared(writer.clone());
    let authorization = Authorization::default();
    let observer = authorization.observer();
    let client = &pki.apiserver_kubelet_client;
    let dialer = Arc::new(
        Dialer::new(&pki.ca.cert_pem(), &client.cert_pem, &client.key_pem)
            .context("prepare the kubelet client")?,
    );
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
    let proxy = &pki.front_proxy_client;
    let identity = (proxy.cert_pem.clone(), proxy.key_pem.clone());
    let aggregator = Aggregator::new(writer.clone(), tasks.clone(), identity);
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
        health,
        metrics: Arc::new(metrics),
        tasks,
    };
    let server = ApiServer::new(config(plan, pki, &issuer)?, parts, stopping.clone());
    registry.attach(server.front(dialer.clone(), Arc::new(stored), default_node_addresses()));
    let observer: Arc<dyn Observer> = Arc::new(vec![observer, server.flow()]);
    let certificate = ServingCertificate::from_pem(&pki.apiserver.cert_pem, &pki.apiserver.key_pem)?;
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
        stopping,
        ready,
        supervisor,
        logging,
        _keeping: keeping,
    })
}

fn registry_config(plan: &Plan, pki: &Pki, issuer: &str) -> registry::Config {
    registry::Config {
        service_cidrs: plan.node.service_cidrs.clone(),
        // No pod reaches a loopback: such a server is in nobody's endpoints.
        advertise_address: Some(plan.advertise).filter(|ip| !ip.is_loopback()),
        secure_port: plan.listen.port(),
        service_account_key: Some(pki.service_account.clone()),
        service_account_issuer: issuer.to_owned(),
        api_audiences: vec![issuer.to_owned()],
        ..registry::Config::default()
    }
}

fn config(plan: &Plan, pki: &Pki, issuer: &str) -> anyhow::Result<Config> {
    let default = Config::default();
    let authentication = authn::Config {
        client_authorities: Some(Authorities::from_pem(&pki.ca.cert_pem()).context("client authorities")?),
        service_accounts: Some(Verifier {
            keys: pki.service_account_keys.clone(),
            issuers: vec![issuer.to_owned()],
        }),
        api_audiences: vec![issuer.to_owned()],
        ..default.authentication
    };
    let advertise = SocketAddr::new(plan.advertise, plan.listen.port()).to_string();
    let keys_uri = format!("https://{advertise}{}", pki::openid::KEYS_PATH);
    Ok(Config {
        authentication,
        advertise,
        openid: Some(OpenId {
            configuration: pki::openid::configuration(issuer, &keys_uri),
            keys: pki::openid::key_set(&pki.service_account_keys),
        }),
        ..Config::default()
    })
}

impl Api {
    /// Fills the caches, writes the first roles, and loads them into authorisation.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        self.writer.start(self.stopping.clone()).await.context("start the registry")?;
        let client = self.client("system:apiserver", &["system:masters"]);
        roles::reconcile(&client).await.context("write the cluster's first roles")?;
        self.registry.observe(&self.observer, &self.stopping);
        self.aggregator.start(&self.stopping);
        self.ready.send_replace(true);
        Ok(())
    }

    /// Every task of this process.
    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// True once [`Api::ready`] has returned.
    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// A client without a socket, as `user` in `groups`.
    pub(super) fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        let user = User { name: user.to_owned(), groups, ..User::default() };
        kube::Client::new(self.server.local_service(user), "default")
    }

    /// Serves until `stop`, then lets requests finish.
    pub(super) async fn serve(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = listener.context("the API server is served already")?;
        let stopper = async {
            stop.cancelled().await;
            self.stopping.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = self.server.listen(listener, self.certificate.clone()) => Ok(served?),
            () = stopper => Ok(()),
        }
    }

    /// Uses renewed certificates from the next connection on.
    fn replace_certificates(&self, pki: &Pki) -> anyhow::Result<()> {
        self.certificate.replace(&pki.apiserver.cert_pem, &pki.apiserver.key_pem)?;
        let client = &pki.apiserver_kubelet_client;
        self.dialer.replace(&pki.ca.cert_pem(), &client.cert_pem, &client.key_pem)?;
        let proxy = &pki.front_proxy_client;
        self.aggregator.replace_identity((proxy.cert_pem.clone(), proxy.key_pem.clone()));
        let authorities = Authorities::from_pem(&pki.ca.cert_pem())?;
        self.server.authenticator().set_client_authorities(authorities);
        Ok(())
    }
}

/// Scheduler, controllers, and the renewal of certificates.
pub(super) fn tasks(plan: &Arc<Plan>, pki: &Pki, api: &Arc<Api>) -> Vec<Task> {
    let (client, supervisor) = (api.client("system:kube-scheduler", &[]), api.supervisor.clone());
    vec![
        api.logging.task(),
        Task::new("scheduler", move |token| {
            let (client, supervisor) = (client.clone(), supervisor.clone());
            async move { Ok(scheduler::run(client, &supervisor, token).await?) }
        }),
        {
            let client = api.client("system:kube-controller-manager", &["system:masters"]);
            let (cluster_cidrs, authority) = (plan.node.cluster_cidrs.clone(), pki.ca.clone());
            let service_account_key = pki.service_account.clone();
            let supervisor = api.supervisor.clone();
            Task::new("controllers", move |token| {
                let config = controllers::Config {
                    cluster_cidrs: cluster_cidrs.clone(),
                    authority: authority.clone(),
                    service_account_key: service_account_key.clone(),
                };
                let (client, supervisor) = (client.clone(), supervisor.clone());
                async move {
                    controllers::run(client, config, &supervisor, token).await;
                    Ok(())
                }
            })
        },
        {
            let (plan, api, pki) = (plan.clone(), api.clone(), pki.clone());
            Task::new("certificates", move |token| {
                let (plan, api, pki) = (plan.clone(), api.clone(), pki.clone());
                async move { token.run_until_cancelled(renew(&plan, &api, pki)).await.unwrap_or(Ok(())) }
            })
        },
    ]
}

/// Renews what is due, at two thirds of each certificate's life; the node's are its agent's.
async fn renew(plan: &Plan, api: &Api, mut pki: Pki) -> Result<(), TaskError> {
    loop {
        let left = pki.next_renewal()?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        if left.is_zero() {
            pki = Pki::load_or_create(&plan.dir.join("pki"), &plan.names, Timestamp::now())?;
            api.replace_certificates(&pki)?;
            tracing::info!("renewed the server's certificates");
        }
        identity::write_admin(plan, &pki)?;
        tokio::time::sleep(left.clamp(Duration::from_secs(1), LONGEST_SLEEP)).await;
    }
}
