//! What people and monitors ask the DNS server over HTTP, at the ports CoreDNS has for it: `/metrics` (9153), `/health` (8080) and `/ready` (8181).

use crate::metrics::MEDIA_TYPE;
use crate::serve::Answerer;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Work, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// CoreDNS' ports.
pub(crate) const PORTS: [u16; 3] = [9153, 8080, 8181];
/// Connections at a time.
const MOST_CONNECTIONS: usize = 32;
/// The longest a connection lasts.
const LONGEST_CONNECTION: Duration = Duration::from_secs(30);

/// Answers until `stop`.
pub(crate) async fn serve(
    answerer: Arc<Answerer>,
    listener: Arc<TcpListener>,
    work: Work,
    stop: CancellationToken,
) {
    let connection = |stream: TcpStream, _| {
        let answerer = answerer.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.uri().path(), &answerer);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let _ended = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
        }
    };
    accept(&*listener, MOST_CONNECTIONS, &work, &stop, connection).await;
}

fn answer(path: &str, answerer: &Answerer) -> Response<Full<Bytes>> {
    let plain = |code, text: &str| (code, "text/plain; charset=utf-8", text.to_owned());
    let (code, kind, body) = match path {
        "/metrics" => (StatusCode::OK, MEDIA_TYPE, answerer.metrics()),
        "/health" => plain(StatusCode::OK, "OK"),
        "/ready" if answerer.knows_everything() => plain(StatusCode::OK, "OK"),
        // the plugin that is not ready, as CoreDNS says it
        "/ready" => plain(StatusCode::SERVICE_UNAVAILABLE, "kubernetes"),
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
