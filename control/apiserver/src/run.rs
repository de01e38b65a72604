//! A listener: one task that accepts, one a connection.

use crate::chain::Chain;
use crate::serve::{self, Limits};
use crate::tasks::Tasks;
use crate::tls::End;
use std::sync::Arc;
use supervise::accept;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Accepts connections until `chain.stopping` is cancelled, then lets requests finish for at most `limits.drain`.
pub(crate) async fn run(listener: TcpListener, tls: End, chain: Arc<Chain>, tasks: Tasks, limits: Limits) {
    let abandon = CancellationToken::new();
    let connections = &tasks.connections;
    let serve = |stream: TcpStream, address| {
        let acceptor = tls.acceptor(stream.local_addr().ok().map(|called| called.ip()));
        let (chain, abandon) = (chain.clone(), abandon.clone());
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
