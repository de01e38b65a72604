//! A client's upgraded connection and the runtime's as one: bytes both ways, whatever protocol they are.

use super::upgrade::{Outcome, dial};
use crate::server::answer::{self, HttpResponse};
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use supervise::Work;
use tokio_util::sync::CancellationToken;

/// Answers an upgrade request with what the runtime answers, and joins the two.
pub async fn serve(
    streams: &Work,
    shutdown: &CancellationToken,
    mut request: Request<Incoming>,
    url: &str,
) -> HttpResponse {
    let client = hyper::upgrade::on(&mut request);
    let mut headers = request.headers().clone();
    // The caller's credentials are for us; the rest of its connection's headers ends here too.
    for name in [HOST, AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    let (response, runtime) = match dial(streams, url, request.method().clone(), headers).await {
        Outcome::Refused(answer) => return answer,
        Outcome::Switched(both) => *both,
    };
    let tunnel = async move {
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return tracing::debug!(%error, "upgrade of a client"),
        };
        if let Err(error) = splice::join(client, runtime).await {
            tracing::debug!(%error, "stream ended");
        }
    };
    let shutdown = shutdown.clone();
    streams.spawn(async move {
        shutdown.run_until_cancelled(tunnel).await;
    });
    let mut answer = response.map(|()| answer::body(Bytes::new()));
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer.headers_mut().entry(CONNECTION).or_insert(http::HeaderValue::from_static("Upgrade"));
    answer
}
