//! The tasks of the server: one that accepts, one a connection, and the tunnels of upgraded requests.

use crate::chain::Chain;
use crate::serve::{self, Limits};
use rustls::ServerConfig;
use std::future::Future;
use std::sync::Arc;
use supervise::{Supervisor, Work, accept};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Tasks that outlive the request that began them; they end with the server.
#[derive(Clone)]
pub struct Tasks {
    tunnels: Work,
    connections: Work,
    streams: Work,
    stop: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new(&Supervisor::default())
    }
}

impl Tasks {
    /// Tasks that are counted by `supervisor`.
    #[must_use]
    pub fn new(supervisor: &Supervisor) -> Self {
        Self {
            tunnels: Work::new(supervisor, "apiserver/tunnel"),
            connections: Work::new(supervisor, "apiserver/connection"),
            streams: Work::new(supervisor, "apiserver/stream"),
            stop: CancellationToken::new(),
        }
    }

    /// Runs `task` until it is done, or the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tunnels.spawn(async move {
            let _ = stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Stops all tasks and waits for them, for at most `patience`.
    async fn stop(&self, patience: std::time::Duration) {
        self.stop.cancel();
        self.tunnels.finish(patience).await;
    }
}

/// Accepts connections until `chain.stopping` is cancelled, then lets requests finish for at most `limits.drain`.
pub async fn run(listener: TcpListener, tls: ServerConfig, chain: Arc<Chain>, tasks: Tasks, limits: Limits) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let abandon = CancellationToken::new();
    let connections = &tasks.connections;
    let serve = |stream, address| {
        let (acceptor, chain, abandon) = (acceptor.clone(), chain.clone(), abandon.clone());
        let streams = tasks.streams.clone();
        async move {
            // Boxed: it holds the whole chain of a request, and there may be thousands.
            let serving = Box::pin(serve::connection(stream, address, acceptor, chain, limits, streams));
            let _ = abandon.run_until_cancelled_owned(serving).await;
        }
    };
    accept(&listener, limits.connections, connections, &chain.stopping, serve).await;
    drop(listener);
    if !connections.finish(limits.drain).await {
        tracing::warn!(left = connections.len(), "connections are cut off: they did not finish in time");
        abandon.cancel();
        connections.finish(limits.drain).await;
    }
    tasks.stop(limits.drain).await;
}
