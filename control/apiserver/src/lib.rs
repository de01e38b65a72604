//! Request to authentication, authorisation, admission, store and watch.
//!
//! [`server`] puts the parts together: [`ApiServer`].
//!
//! The way in:
//! - [`run`]: a listener; [`serve`]: one connection; [`tls`]: certificates; [`local`]: no socket; [`tasks`]: what outlives a request
//! - [`chain`]: the filters every request goes through, in order, with [`request`] and [`query`] (what it is about),
//!   [`deadline`], [`authn`], [`impersonation`], [`flow`], [`authz`], and [`drain`] for what outlives a request, and [`shutdown`]
//! - [`audit`]: what is written of every request
//! - [`facts`]: who asks for what; [`context`]: what the filters found, as the registry gets it; [`objects`]: what they read of stored objects
//! - [`answer`]: small finished answers; [`headers`]: what is said beside every one
//!
//! What is no resource: [`paths`] (the table), [`discovery`], [`openapi`],
//! [`health`], [`metrics`], [`version`], with [`negotiate`].
//!
//! Resources: [`handler`] (verbs), [`registry`] (kinds, storage, reading), [`admission`], [`mod@write`], [`upkeep`] (the server's own
//! tasks); those that become byte streams: [`stream`]; those of other servers: [`aggregation`]; [`webhook`] asks one.
//! [`mod@etcd`]: how objects lie in an etcd that is shared with upstream's API servers.
//! `front` is what the registry asks of all this; `seams`, as [`Shared`], what the filters ask of the registry.

mod admission;
mod aggregation;
mod answer;
mod apart;
pub mod audit;
mod authn;
mod authz;
mod chain;
mod context;
mod deadline;
mod discovery;
mod drain;
pub mod etcd;
mod facts;
mod flow;
mod front;
mod handler;
mod headers;
pub mod health;
mod impersonation;
pub mod local;
pub mod metrics;
mod negotiate;
mod objects;
mod openapi;
mod paths;
pub mod query;
pub mod registry;
pub mod request;
mod run;
mod seams;
mod serve;
pub mod server;
mod shutdown;
mod stream;
pub mod tasks;
pub mod tls;
mod upkeep;
mod version;
mod webhook;
pub mod write;

pub use aggregation::Aggregator;
pub use authn::{
    Config as AuthenticationConfig,
    certificate::{Authorities, Peer},
    jwt,
    request_header::FrontProxies,
    static_token::StaticTokens,
    token_webhook::TokenWebhook,
};
pub use authz::{Attributes, Authorizer, abac::Abac, bootstrap, webhook as authorization_webhook};
pub use context::{Response, User};
pub use discovery::{Catalog, CustomResources};
pub use headers::Headers;
pub use objects::Observer;
pub use paths::OpenId;
pub use seams::Shared;
pub use serve::Limits;
pub use server::ApiServer;
pub use shutdown::Shutdown;
pub use stream::{default_node_addresses, dial::Dialer, trusted};
pub use upkeep::Stop;
pub use webhook::credentials as webhook_credentials;
