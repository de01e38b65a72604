//! The server as a program assembles it: configuration in, something that listens and something that is called directly out.

use crate::aggregation::Aggregator;
use crate::authn::{self, Authenticator};
use crate::authz::abac::Abac;
use crate::authz::graph::Graph;
use crate::authz::node::Node;
use crate::authz::policy::Policy;
use crate::authz::rbac::Rbac;
use crate::authz::webhook::Webhook;
use crate::authz::{Always, Authorizer, Changing, Masters, Union};
use crate::chain::{Chain, Resources};
use crate::context::User;
use crate::discovery::{Catalog, Discovery};
use crate::flow::Flow;
use crate::front::Front;
use crate::headers::Headers;
use crate::health::Health;
use crate::local::LocalService;
use crate::metrics::Metrics;
use crate::objects::{Lookup, Observer};
use crate::openapi::OpenApi;
use crate::paths::{Documents, OpenId, Table};
use crate::run;
use crate::serve::Limits;
use crate::shutdown::{Ending, Shutdown};
use crate::stream::{Connector, dial::Dialer};
use crate::tasks::Tasks;
use crate::tls::{Agreed, End, ServingCertificate, TlsError};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A request waits for its turn no longer than this part of its time (upstream: a quarter).
const WAIT_PART: u32 = 4;

/// How a server behaves.
pub struct Config {
    /// Which credentials are accepted.
    pub authentication: authn::Config,
    /// Requests that read, at once.
    pub max_requests_in_flight: usize,
    /// Requests that write, at once.
    pub max_mutating_requests_in_flight: usize,
    /// Whether the sum of both is shared out by priority and fairness.
    pub fair: bool,
    /// Longest time of a request that is not long-running.
    pub request_timeout: Duration,
    /// Where clients find the server, `host:port`.
    pub advertise: String,
    /// How others verify service account tokens.
    pub openid: Option<OpenId>,
    /// What handshakes may agree on.
    pub agreed: Agreed,
    /// What is said beside every answer.
    pub headers: Headers,
    /// How it stops.
    pub shutdown: Shutdown,
    /// Bounds of a listener.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            authentication: authn::Config {
                anonymous: true,
                bootstrap_tokens: true,
                ..authn::Config::default()
            },
            max_requests_in_flight: 400,
            max_mutating_requests_in_flight: 200,
            fair: true,
            request_timeout: Duration::from_secs(60),
            advertise: String::new(),
            openid: None,
            agreed: Agreed::default(),
            headers: Headers::default(),
            shutdown: Shutdown::default(),
            limits: Limits::default(),
        }
    }
}

/// What authorisation knows. Made before the registry, which feeds it and asks it.
#[derive(Clone)]
pub struct Authorization {
    /// Roles and bindings, followed as they change.
    pub policy: Arc<Policy>,
    /// What nodes have a reason to read.
    pub graph: Arc<Graph>,
    /// `system:masters`, then nodes, then roles, unless [`Authorization::use_modes`] says otherwise.
    pub authorizer: Arc<Changing>,
}

/// An authorizer by its type in upstream's configuration.
#[derive(Clone)]
pub enum Mode {
    /// `Node`
    Node,
    /// `RBAC`
    Rbac,
    /// `AlwaysAllow`, or `AlwaysDeny`.
    Always(bool),
    /// `ABAC`
    Abac(Arc<Abac>),
    /// `Webhook`
    Webhook(Arc<Webhook>),
}

impl Default for Authorization {
    fn default() -> Self {
        let (policy, graph) = (Arc::new(Policy::default()), Arc::new(Graph::default()));
        let authorizer = Arc::new(Changing::new(Union::new(Vec::new())));
        let authorization = Authorization { policy, graph, authorizer };
        authorization.use_modes(&[Mode::Node, Mode::Rbac]);
        authorization
    }
}

impl Authorization {
    /// Asks these in order from now on, after `system:masters`.
    pub fn use_modes(&self, modes: &[Mode]) {
        let one = |mode: &Mode| -> Arc<dyn Authorizer> {
            match mode {
                Mode::Node => Arc::new(Node::new(self.graph.clone())),
                Mode::Rbac => Arc::new(Rbac(self.policy.clone())),
                Mode::Always(allow) => Arc::new(Always(*allow)),
                Mode::Abac(policies) => policies.clone(),
                Mode::Webhook(webhook) => webhook.clone(),
            }
        };
        let masters: Arc<dyn Authorizer> = Arc::new(Masters);
        self.authorizer.replace(Union::new(std::iter::once(masters).chain(modes.iter().map(one)).collect()));
    }

    /// What must hear of every change to the resources in [`crate::objects::OBSERVED`].
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        let observers: Vec<Arc<dyn Observer>> = vec![self.policy.clone(), self.graph.clone()];
        Arc::new(observers)
    }
}

/// The parts the front does not own.
pub struct Parts {
    /// Reads what tokens are bound to.
    pub objects: Arc<dyn Lookup>,
    /// Answers requests about resources.
    pub resources: Arc<dyn Resources>,
    /// Knows the servers of other group versions.
    pub aggregator: Option<Arc<Aggregator>>,
    /// What is served, for discovery.
    pub catalog: Arc<Catalog>,
    /// Paths beyond discovery, health and the API's description.
    pub documents: Vec<Arc<dyn Documents>>,
    /// Who may do what.
    pub authorization: Authorization,
    /// Checks; `ping` and `shutdown` are added.
    pub health: Arc<Health>,
    /// Shared with every part that counts.
    pub metrics: Arc<Metrics>,
    /// Owner of exec, attach, port-forward and proxy tunnels.
    pub tasks: Tasks,
}

/// All filters, handlers and paths of the API server.
#[derive(Clone)]
pub struct ApiServer {
    chain: Arc<Chain>,
    policy: Arc<Policy>,
    health: Arc<Health>,
    tasks: Tasks,
    limits: Limits,
    agreed: Agreed,
}

impl ApiServer {
    /// Puts the parts together. `stopping` ends watches and listeners when it is cancelled.
    #[must_use]
    pub fn new(config: Config, parts: Parts, stopping: CancellationToken) -> Self {
        parts.health.add("ping", true, || Ok(()));
        let ending = Arc::new(Ending::new(config.shutdown, stopping.clone()));
        let ends = ending.clone();
        parts.health.add("shutdown", false, move || match ends.has_begun() {
            true => Err("process is shutting down".to_owned()),
            false => Ok(()),
        });
        let health = parts.health.clone();
        let mut documents = parts.documents;
        documents.push(Arc::new(OpenApi::new(parts.catalog.clone())));
        let table = Table {
            discovery: Discovery::new(parts.catalog, config.advertise),
            health: parts.health,
            metrics: parts.metrics.clone(),
            openid: config.openid,
            documents,
        };
        let (reading, writing) = (config.max_requests_in_flight, config.max_mutating_requests_in_flight);
        let flow = match config.fair {
            true => Flow::new(reading + writing, config.request_timeout / WAIT_PART, parts.metrics.clone()),
            false => Flow::plain(reading, writing, parts.metrics.clone()),
        };
        let chain = Chain {
            authenticator: Arc::new(Authenticator::new(config.authentication, parts.objects)),
            authorizer: parts.authorization.authorizer.clone(),
            flow: Arc::new(flow),
            metrics: parts.metrics,
            resources: parts.resources,
            aggregator: parts.aggregator,
            paths: Arc::new(table),
            longest: config.request_timeout,
            headers: config.headers,
            ending,
            stopping,
        };
        ApiServer {
            chain: Arc::new(chain),
            policy: parts.authorization.policy,
            health,
            tasks: parts.tasks,
            // Watches that are given time have it.
            limits: Limits { drain: config.limits.drain + config.shutdown.watches, ..config.limits },
            agreed: config.agreed,
        }
    }

    /// Cancelled when it has begun to stop, before it takes no more connections.
    #[must_use]
    pub fn leaving(&self) -> CancellationToken {
        self.chain.ending.begun()
    }

    /// Stops it, as it was told to.
    pub async fn end(&self) {
        self.chain.ending.end(self.chain.longest).await;
    }

    /// Who tells callers apart: TokenReview asks it, and its authorities can be replaced.
    #[must_use]
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.chain.authenticator
    }

    /// What must be given every change to flow schemas and priority levels.
    #[must_use]
    pub fn flow(&self) -> Arc<dyn Observer> {
        self.chain.flow.clone()
    }

    /// Answers SubjectAccessReviews as well as requests.
    #[must_use]
    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.chain.authorizer
    }

    /// What the registry asks of the front; streams go out through `dialer`.
    #[must_use]
    pub fn front(
        &self,
        dialer: Arc<Dialer>,
        objects: Arc<dyn Lookup>,
        node_addresses: Vec<String>,
    ) -> Arc<Front> {
        let connector = Connector {
            objects,
            authorizer: self.chain.authorizer.clone(),
            dialer,
            node_addresses,
            tasks: self.tasks.clone(),
        };
        Arc::new(Front {
            authenticator: self.chain.authenticator.clone(),
            authorizer: self.chain.authorizer.clone(),
            policy: self.policy.clone(),
            health: self.health.clone(),
            connector,
        })
    }

    /// A client's way in without a socket, as `user`.
    #[must_use]
    pub fn local_service(&self, user: User) -> LocalService {
        LocalService::new(self.chain.clone(), user)
    }

    /// Serves until the server is stopped and its connections have ended.
    pub async fn listen(
        &self,
        listener: TcpListener,
        certificate: Arc<ServingCertificate>,
    ) -> Result<(), TlsError> {
        let tls = End::new(certificate, &self.agreed)?;
        run::run(listener, tls, self.chain.clone(), self.tasks.clone(), self.limits).await;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
