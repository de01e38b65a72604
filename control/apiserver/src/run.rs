//! The tasks of the server: one that accepts, one a connection, and the tunnels of upgraded requests.

use crate::chain::Chain;
use crate::serve::{self, Limits};
use rustls::ServerConfig;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that outlive the request that began them; they end with the server.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `task` until it is done, or the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let _ = stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Stops all tasks and waits for them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Accepts connections until `chain.stopping` is cancelled, then lets requests finish for at most `limits.drain`.
pub async fn run(listener: TcpListener, tls: ServerConfig, chain: Arc<Chain>, tasks: Tasks, limits: Limits) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let abandon = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = chain.stopping.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let (acceptor, chain, abandon) = (acceptor.clone(), chain.clone(), abandon.clone());
        connections.spawn(async move {
            // Boxed: it holds the whole chain of a request, and there may be thousands.
            let serving = Box::pin(serve::connection(stream, address, acceptor, chain, limits));
            let _ = abandon.run_until_cancelled_owned(serving).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections are cut off: they did not finish in time");
        abandon.cancel();
        connections.wait().await;
    }
    tasks.stop().await;
}

type Accepted = (tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(e) => {
            // Out of file descriptors, or the peer is gone already; the kernel tells no event for the former's end.
            tracing::warn!(error = %e, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
