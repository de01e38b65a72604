//! The kubelet's HTTPS port, 10250.
//!
//! - [`config`]: what it is told; [`tls`]: certificates, renewed while it runs
//! - [`authenticate`], [`authorize`]: who calls and what they may, decided by the API server; [`cache`] keeps its answers
//! - [`route`], [`query`]: what is asked for; `handle`: which handler answers; [`answer`]: the shapes of answers
//! - [`health`], [`logs`], [`podlist`], `system_logs`, [`metrics`], `indicators`, `zpages`: answers of their own; [`stream`]: exec, attach and port-forward
//! - [`pods`]: what the port needs to know of pods; [`plain`]: ports without TLS; `checkpoint`: containers written to files
//!
//! [`serve`] accepts connections until it is told to stop: requests under way then have [`DRAIN`] to finish, and streams,
//! which end when their users like, are cut.

pub(crate) mod answer;
mod authenticate;
pub(crate) mod authorize;
pub(crate) mod cache;
mod checkpoint;
mod config;
mod flags;
mod handle;
pub(crate) mod health;
mod indicators;
mod log_query;
pub(crate) mod logs;
pub(crate) mod metrics;
pub mod plain;
pub(crate) mod podlist;
mod pods;
pub(crate) mod query;
pub(crate) mod route;
pub(crate) mod stream;
mod system_logs;
mod tls;
mod zpages;

pub use authenticate::{Authenticator, User};
pub use cache::Cache;
pub use config::{Authentication, Authorization, Config};
pub use health::Health;
pub use pki::handshake::Agreed;
pub use pods::{Pods, View};
pub use tls::{Authorities, Files, server_config};

use crate::stats::Stats;
use authorize::Authorizer;
use cri_proto::client::Runtime;
use handle::{Gate, Handler};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervise::listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Connections at once; more wait in the kernel's queue.
pub(crate) const MOST_CONNECTIONS: usize = 2048;
/// Requests at once on one HTTP/2 connection.
const MOST_STREAMS: u32 = 250;
/// Time for the TLS handshake, and for the headers of a request.
const HANDSHAKE: Duration = Duration::from_secs(32);
/// Time for requests to finish when the server stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Why the port is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("listen on {address}")]
    Listen {
        /// IP and port, 10250 by default.
        address: SocketAddr,
        /// Error of bind or listen.
        source: std::io::Error,
    },
    /// Certificate, key or client authorities are unusable.
    #[error("set up TLS of the kubelet's port")]
    Tls(#[from] tls::Error),
}

/// Takes the port: from now on connections wait to be served.
pub fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    listen::listen(address).map_err(|source| Error::Listen { address, source })
}

/// Serves the port until the scope of `health` ends. `client` reviews tokens and permissions; without one, only certificates are known
/// and, in webhook mode, nothing is permitted.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    pods: Arc<dyn Pods>,
    runtime: Runtime,
    stats: Stats,
    client: Option<kube::Client>,
    health: Health,
) -> Result<(), Error> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&config.files, &config.agreed)?));
    let authorities = config.files.client_ca.as_deref().map(Authorities::new).transpose()?;
    let shutdown = health.scope.stop().clone();
    let (connections, streams) = (health.scope.work("connections"), health.scope.work("streams"));
    let gate = Gate {
        authenticator: Authenticator::new(config.authentication.clone(), authorities, client.clone()),
        authorizer: Authorizer::new(config.authorization.clone(), &config.node_name, client),
    };
    let parts = handle::Parts { pods, runtime, stats, health, streams: streams.clone() };
    let handler = Arc::new(Handler::new(config, Some(gate), parts));
    tracing::info!(address = ?listener.local_addr().ok(), "serving the kubelet's port");
    let serve = |stream, peer| Box::pin(connection(stream, peer, acceptor.clone(), handler.clone()));
    supervise::accept(&listener, MOST_CONNECTIONS, &connections, &shutdown, serve).await;
    drop(listener);
    if tokio::join!(connections.finish(DRAIN), streams.finish(DRAIN)) != (true, true) {
        tracing::debug!("requests were cut");
    }
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, handler: Arc<Handler>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "set TCP_NODELAY");
    }
    let shutdown = handler.shutdown.clone();
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let stream = match shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%error, %peer, "TLS handshake failed"),
        Some(Err(_)) => return tracing::debug!(%peer, "TLS handshake took too long"),
        None => return,
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Arc<[_]> = chain.iter().map(|c| c.clone().into_owned()).collect();
    speak(stream, peer, chain, handler).await;
}

/// Serves HTTP on a connection until it ends, or the server does.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    chain: Arc<[CertificateDer<'static>]>,
    handler: Arc<Handler>,
) {
    let shutdown = handler.shutdown.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, chain) = (handler.clone(), chain.clone());
        async move { Ok::<_, Infallible>(handler.handle(&chain, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // A followed log ends when its container does: not within the time there is.
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended");
    }
}
