//! The loop that accepts connections.
//!
//! Promises: no error of `accept` ends it (out of descriptors, out of memory, a peer that is gone already): it pauses with backoff
//! and goes on; there are never more connections than allowed, the rest waits in the kernel's queue; a connection that panics is
//! its own affair.

use crate::backoff::Backoff;
use crate::work::Work;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// First and longest pause after an error: the kernel does not signal that descriptors are free again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What connections come from.
pub trait Listen {
    /// An accepted connection.
    type Stream;

    /// The next connection and its peer. Cancel-safe.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.accept().await?;
        // A socket of both families names IPv4 peers in the words of IPv6.
        Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
    }
}

/// Serves connections, at most `most` at a time, each as a piece of `work`, until `stop` is cancelled. Those that are open then go
/// on; [`Work::finish`] waits for them.
pub async fn accept<L, F, Fut>(listener: &L, most: usize, work: &Work, stop: &CancellationToken, serve: F)
where
    L: Listen,
    F: Fn(L::Stream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.next().await {
                Ok((stream, peer)) => {
                    backoff.reset();
                    let served = serve(stream, peer);
                    work.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(%error, ?pause, "cannot accept a connection");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Supervisor;
    use parking_lot::Mutex;
    use std::collections::VecDeque;

    struct Fake(Mutex<VecDeque<io::Result<u8>>>);

    impl Listen for Fake {
        type Stream = u8;

        async fn next(&self) -> io::Result<(u8, SocketAddr)> {
            let next = self.0.lock().pop_front();
            match next {
                Some(next) => next.map(|n| (n, SocketAddr::from(([127, 0, 0, 1], 1)))),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_accept_must_not_end_the_loop() {
        let supervisor = Supervisor::default();
        let work = Work::new(&supervisor, "connections");
        let out_of_files = || Err(io::Error::from_raw_os_error(24));
        let mut script: VecDeque<io::Result<u8>> = (0..20).map(|_| out_of_files()).collect();
        script.extend([Err(io::ErrorKind::ConnectionAborted.into()), Ok(0), Ok(1), Ok(2)]);
        let (stop, served) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let serve = |n: u8, _| {
            let (served, stop) = (served.clone(), stop.clone());
            async move {
                assert!(n > 0, "the first one panics");
                served.lock().push(n);
                if n == 2 {
                    stop.cancel();
                }
            }
        };
        let listener = Fake(Mutex::new(script));
        let accepting = accept(&listener, 1, &work, &stop, serve);
        tokio::time::timeout(Duration::from_secs(60), accepting).await.unwrap();
        assert_eq!(*served.lock(), [1, 2]);
        assert_eq!(supervisor.report("connections").unwrap().panics, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_bounded() {
        let supervisor = Supervisor::default();
        let (work, stop) = (Work::new(&supervisor, "connections"), CancellationToken::new());
        let script = (0..10).map(Ok).collect();
        let serve = |_, _| std::future::pending();
        let listener = Fake(Mutex::new(script));
        let accepting = accept(&listener, 3, &work, &stop, serve);
        let look = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(work.len(), 3);
            stop.cancel();
        };
        tokio::join!(accepting, look);
        assert!(!work.finish(Duration::from_secs(1)).await);
    }
}
