//! A recorder for tests, and what is written of what it records.

use std::convert::Infallible;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;
use supervise::{Scope, Supervisor};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::sync::CancellationToken;

use super::Recorder;

/// What is told of an event that is the one before once more.
pub(crate) const AGAIN: &str = "again";

/// A recorder of the node `n1`; the events as `REASON: MESSAGE`; and what writes them, which ends with this.
pub(crate) fn recorded() -> (Recorder, UnboundedReceiver<String>, Scope) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let tell = tell.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let event: Value = serde_json::from_slice(&bytes).unwrap();
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let line = match parts.method {
                Method::PATCH => AGAIN.to_owned(),
                _ => format!("{}: {}", text("reason"), text("message")),
            };
            // A test that is over is told nothing.
            tell.send(line).ok();
            Ok::<_, Infallible>(Response::new(Body::from(bytes.to_vec())))
        }
    });
    let client = kube::Client::new(service, "default");
    let scope = Scope::new(&Supervisor::default(), "test/", &CancellationToken::new());
    let (recorder, writer) = Recorder::new(Some(client), "n1");
    scope.keep(writer.task("events"));
    (recorder, told, scope)
}
