//! The pull half of the OCI distribution protocol, over an [`ImageStore`]. Every node's containerd is told to ask here first.

use crate::image::ImageStore;
use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use supervise::{Task, Work};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections that are carried, and image pulls that are served, at once.
pub(crate) const CONNECTIONS: usize = 1024;

/// Repositories that are given to who knows the password only: `lab.local/private/echo:1` is `lab.local/echo:1`.
const PRIVATE: &str = "private/";
/// User `puller`, password `secret`.
const LOGIN: &str = "Basic cHVsbGVyOnNlY3JldA==";

/// The task that serves.
pub fn serve(listener: Arc<TcpListener>, store: ImageStore, work: Work, stop: CancellationToken) -> Task {
    Task::endless("registry", move || {
        let (listener, store, work, stop) = (listener.clone(), store.clone(), work.clone(), stop.clone());
        async move {
            let serve = |stream, _| {
                let store = store.clone();
                let service = service_fn(move |request| {
                    let answer = answer(&request, &store);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let serving = http.serve_connection(TokioIo::new(stream), service);
                async move { drop(serving.await) }
            };
            supervise::accept(&*listener, CONNECTIONS, &work, &stop, serve).await;
        }
    })
}

fn answer(request: &Request<Incoming>, store: &ImageStore) -> Response<Full<Bytes>> {
    let Some(path) = request.uri().path().strip_prefix("/v2/") else { return status(StatusCode::NOT_FOUND) };
    if path.is_empty() {
        return status(StatusCode::OK);
    }
    let path = match path.strip_prefix(PRIVATE) {
        Some(_) if request.headers().get("authorization").is_none_or(|login| login != LOGIN) => {
            let mut refusal = status(StatusCode::UNAUTHORIZED);
            let asks = hyper::header::HeaderValue::from_static("Basic realm=\"lab\"");
            refusal.headers_mut().insert("www-authenticate", asks);
            return refusal;
        }
        Some(rest) => rest,
        None => path,
    };
    let parts: Vec<&str> = path.rsplitn(3, '/').collect();
    let found = match parts[..] {
        [digest, "blobs", _] => blob(store, digest, "application/octet-stream"),
        [reference, "manifests", repository] => {
            let digest = match reference.strip_prefix("sha256:") {
                Some(_) => Ok(reference.to_owned()),
                None => store.resolve(repository, reference).map(|d| format!("sha256:{d}")),
            };
            digest.and_then(|d| blob(store, &d, "application/vnd.oci.image.manifest.v1+json"))
        }
        _ => return status(StatusCode::NOT_FOUND),
    };
    let Ok((body, digest, kind)) = found else { return status(StatusCode::NOT_FOUND) };
    let length = body.len();
    let body = if request.method() == Method::HEAD { Bytes::new() } else { Bytes::from(body) };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static(kind));
    headers.insert("content-length", length.into());
    if let Ok(value) = digest.parse() {
        headers.insert("docker-content-digest", value);
    }
    response
}

fn blob(store: &ImageStore, digest: &str, kind: &'static str) -> Result<(Vec<u8>, String, &'static str)> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    Ok((store.blob(hex)?, digest.to_owned(), kind))
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}
