//! One request on a connection of its own: its answer comes back as a stream, or both ends leave HTTP and bytes go both
//! ways until one of them ends.

use super::destination::Destination;
use super::dial::Dialer;
use super::{html, messages, rewrite};
use crate::answer;
use crate::audit::Trail;
use crate::context::{Body, Request, Response};
use crate::tasks::Tasks;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::{StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use machinery::goformat::go_quote;
use machinery::object::Gr;
use machinery::status::{Reason, Status};

/// Bytes of a kubelet's error message that are passed on.
const LONGEST_ERROR: usize = 50_000;

/// What kind of request it is.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Leaves HTTP, or is no use.
    UpgradeOnly,
    /// A log: a failure is told as a `Status`.
    Log {
        /// What the failure is about.
        resource: Gr,
        name: String,
    },
    /// Somebody else's HTTP server, below `prefix`.
    Proxy {
        /// Our path that stands for its root.
        prefix: String,
    },
}

/// Carries `request` to `destination` and the answer back; `trail` ends with what leaves HTTP.
pub async fn carry(
    dialer: &Dialer,
    tasks: &Tasks,
    mut request: Request,
    destination: Destination,
    manner: Manner,
    trail: &Trail,
) -> Result<Response, Status> {
    // A log's reader may want messages; the kubelet is asked in plain HTTP all the same.
    let reader = match manner {
        Manner::Log { .. } if messages::is_wanted(request.headers()) => {
            Some((messages::agree(request.headers())?, hyper::upgrade::on(&mut request)))
        }
        _ => None,
    };
    let upgrade = reader.is_none() && rewrite::is_upgrade(request.headers());
    if matches!(manner, Manner::UpgradeOnly) && !upgrade {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let asked = request.headers().get(HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let stream =
        dialer.dial(&destination).await.map_err(|e| unreachable(&destination, &manner, &e.to_string()))?;
    let broken = |e: hyper::Error| unreachable(&destination, &manner, &e.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tasks.spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "connection behind ended");
        }
    });
    let outgoing = outgoing(request, &destination, &manner, upgrade)?;
    let mut response = sender.send_request(outgoing).await.map_err(broken)?;

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(Status::internal_error("the server behind switched protocols unasked"));
        };
        let server = hyper::upgrade::on(&mut response);
        tasks.spawn(trail.clone().until(tunnel(client, server)));
        let mut answer = response.map(|_| answer::body(Bytes::new()));
        rewrite::drop_hop_by_hop(answer.headers_mut(), true);
        return Ok(answer);
    }
    // The sender goes: the connection ends with the answer's body.
    drop(sender);
    rewrite::drop_hop_by_hop(response.headers_mut(), false);
    let response = response.map(|body| body.map_err(Into::into).boxed_unsync());
    match manner {
        Manner::UpgradeOnly => Ok(response),
        Manner::Log { resource, name } => {
            let response = log(response, &resource, &name).await?;
            let Some((agreed, client)) = reader else { return Ok(response) };
            let answer = agreed.answer();
            tasks.spawn(trail.clone().until(agreed.send(client, response.into_body())));
            Ok(answer)
        }
        Manner::Proxy { prefix } => {
            let authority = destination.authority();
            let links = rewrite::Links { prefix: &prefix, authority: &authority, asked: asked.as_deref() };
            let (mut parts, mut body) = response.into_parts();
            if parts.headers.contains_key(LOCATION) {
                rewrite::location(&mut parts.headers, &links);
            } else if html::is_page(&parts) {
                body = html::body(&mut parts, body, &links).await;
            }
            Ok(Response::from_parts(parts, body))
        }
    }
}

fn outgoing(
    request: Request,
    destination: &Destination,
    manner: &Manner,
    upgrade: bool,
) -> Result<http::Request<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    rewrite::drop_hop_by_hop(&mut parts.headers, upgrade);
    if let Manner::Proxy { prefix } = manner {
        rewrite::forwarded(&mut parts.headers, prefix, &destination.path);
    }
    parts.uri = destination.path.parse().map_err(|_| Status::bad_request("the path cannot be proxied"))?;
    parts.version = Version::HTTP_11;
    if let Ok(host) = HeaderValue::from_str(&destination.authority()) {
        parts.headers.insert(HOST, host);
    }
    // What the server put there is about the client's connection.
    parts.extensions.clear();
    let body = if upgrade { answer::body(Bytes::new()) } else { body };
    Ok(http::Request::from_parts(parts, body))
}

/// Passes bytes between both ends until they have ended.
pub(crate) async fn tunnel(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(e) => return tracing::debug!(error = %e, "upgrade failed"),
    };
    if let Err(e) = splice::join(TokioIo::new(client), TokioIo::new(server)).await {
        tracing::debug!(error = %e, "tunnel ended");
    }
}

/// What clients are told where nobody answers, in the words of the respective upstream path.
fn unreachable(destination: &Destination, manner: &Manner, error: &str) -> Status {
    let failure = |message: String| Status::failure(500, Reason::Unknown, message);
    match manner {
        Manner::UpgradeOnly => {
            failure(format!("error dialing backend: dial tcp {}: {error}", destination.authority()))
        }
        Manner::Log { .. } => failure(format!(
            "Get {}: dial tcp {}: {error}",
            go_quote(&destination.url()),
            destination.authority()
        )),
        Manner::Proxy { .. } => Status::service_unavailable(format!(
            "error trying to reach service: dial tcp {}: {error}",
            destination.authority()
        )),
    }
}

/// A log as it is; a kubelet's refusal as a `Status`.
async fn log(response: Response, resource: &Gr, name: &str) -> Result<Response, Status> {
    if (200..=206).contains(&response.status().as_u16()) {
        let (mut parts, body) = response.into_parts();
        parts.headers.clear();
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(Response::from_parts(parts, body));
    }
    let code = response.status().as_u16();
    // Boxed: the compiler cannot prove a future over `Limited` of a boxed error to be `Send`.
    let body: Body = Limited::new(response.into_body(), LONGEST_ERROR).boxed_unsync();
    let text =
        body.collect().await.map(|t| String::from_utf8_lossy(&t.to_bytes()).into_owned()).unwrap_or_default();
    Err(match code {
        500 => Status::internal_error(text),
        400 => Status::bad_request(text),
        _ => Status::generic_server_response(code, "", resource, name, &text, 0, false),
    })
}
