//! One connection: TLS, then HTTP/1.1 or HTTP/2 as the client prefers.

use crate::authn::Peer;
use crate::chain::{Caller, Chain};
use crate::context::{Body, BoxError, Request, Response};
use crate::{drain, request};
use bytes::Bytes;
use http::header::CONNECTION;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use supervise::Work;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Time for the TLS handshake, and for the headers of an HTTP/1.1 request.
    pub handshake: Duration,
    /// Bytes of a request body. Upstream: 3 MiB; watch bookmarks and patches stay far below.
    pub body: usize,
    /// Time for requests to finish when the server stops.
    pub drain: Duration,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// The part of requests after which an HTTP/2 connection is ended, so that its client meets other servers, too.
    pub goaway: f64,
}

impl Limits {
    /// Whether this request is the last on its connection.
    fn ends_here(&self) -> bool {
        self.goaway > 0.0 && drain::fraction() < self.goaway
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 10_000,
            streams: 100,
            handshake: Duration::from_secs(32),
            body: 3 * 1024 * 1024,
            drain: Duration::from_secs(10),
            http2: true,
            goaway: 0.0,
        }
    }
}

/// The tasks of HTTP/2's streams.
#[derive(Clone)]
struct Streams(Work);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// Serves a connection to its end. When the server stops, requests under way are finished and no more are taken.
pub(crate) async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    chain: Arc<Chain>,
    limits: Limits,
    streams: Work,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, %address, "set TCP_NODELAY");
    }
    let stopping = chain.stopping.clone();
    let handshake = tokio::time::timeout(limits.handshake, acceptor.accept(stream));
    let stream = match stopping.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(e))) => return tracing::debug!(error = %e, %address, "TLS handshake failed"),
        Some(Err(_)) => return tracing::debug!(%address, "TLS handshake took too long"),
        None => return,
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|c| c.clone().into_owned()).collect();
    let caller = Caller::Remote(Arc::new(Peer::new(Some(address), certificates)));

    let leave = CancellationToken::new();
    let left = leave.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (chain, caller, leave) = (chain.clone(), caller.clone(), leave.clone());
        async move {
            let http2 = request.version() == http::Version::HTTP_2;
            let (request, kept) = keep(bounded(request, limits.body));
            let mut response = chain.handle(caller, request).await;
            // HTTP/2 has no such header: the connection is ended once its requests are (GOAWAY).
            let closes = |response: &mut Response| {
                response.headers().get(CONNECTION).is_some_and(|said| said == "close")
                    && response.headers_mut().remove(CONNECTION).is_some()
            };
            if http2 && (closes(&mut response) || limits.ends_here()) {
                leave.cancel();
            }
            Ok::<_, Infallible>(match kept {
                Some(kept) => response.map(|body| UntilRead::new(body, kept).boxed_unsync()),
                None => response,
            })
        }
    });
    let mut builder = Builder::new(Streams(streams));
    if !limits.http2 {
        builder = builder.http1_only();
    }
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.handshake).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = either(&stopping, &left) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, %address, "connection ended");
    }
}

/// Until one of two is cancelled.
async fn either(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// A request whose body ends with an error beyond `limit` bytes; what is proxied has the other server's bounds.
fn bounded(request: http::Request<Incoming>, limit: usize) -> Request {
    let info = request::parse(request.method(), request.uri().path(), &[]);
    let proxied = info.is_ok_and(|i| i.verb == "proxy" || i.subresource == "proxy");
    request.map(|body| {
        if proxied {
            body.map_err(Into::into).boxed_unsync()
        } else {
            Limited::new(body, limit).boxed_unsync()
        }
    })
}

/// A request's body that lives as long as its answer.
///
/// An HTTP/2 stream whose request body is let go unread before the answer is out is reset, and the client never learns
/// why it was refused.
struct Shared(Arc<Mutex<Body>>);

/// How much of an unread body is read for its sender's sake, and for how long.
const COURTESY: (usize, Duration) = (4 << 20, Duration::from_secs(2));

/// A response body that ends only when the request's body has been read, within bounds: a client that is still sending when its
/// stream is reset takes the response for lost.
struct UntilRead {
    body: Body,
    asked: Arc<Mutex<Body>>,
    courtesy: usize,
    patience: Option<Pin<Box<tokio::time::Sleep>>>,
    read: bool,
}

impl UntilRead {
    fn new(body: Body, asked: Arc<Mutex<Body>>) -> Self {
        Self { body, asked, courtesy: COURTESY.0, patience: None, read: false }
    }

    /// Reads what is left of the request; ready when it has ended or its bounds have.
    fn finish_reading(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let mut asked = self.asked.lock();
        while !self.read && self.courtesy > 0 && !asked.is_end_stream() {
            match Pin::new(&mut *asked).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    self.courtesy = self.courtesy.saturating_sub(length.max(1));
                }
                Poll::Ready(Some(Err(_)) | None) => break,
                Poll::Pending => {
                    let patience =
                        self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(COURTESY.1)));
                    if patience.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        self.read = true;
        Poll::Ready(())
    }
}

/// Keeps the body of an HTTP/2 request that has one.
fn keep(request: Request) -> (Request, Option<Arc<Mutex<Body>>>) {
    if request.version() != http::Version::HTTP_2 || request.body().is_end_stream() {
        return (request, None);
    }
    let (parts, body) = request.into_parts();
    let kept = Arc::new(Mutex::new(body));
    (Request::from_parts(parts, Shared(kept.clone()).boxed_unsync()), Some(kept))
}

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

impl hyper::body::Body for UntilRead {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(None) => self.finish_reading(cx).map(|()| None),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && (self.read || self.asked.lock().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
