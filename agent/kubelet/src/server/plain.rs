//! Ports without TLS: where everybody may read (`readOnlyPort`), and where this machine asks whether the kubelet is there (`healthzPort`).

use super::answer::{self, HttpResponse};
use super::handle::{Handler, Parts};
use super::query::Query;
use super::{Config, DRAIN, Error, Health, MOST_CONNECTIONS, Pods, speak};
use crate::stats::Stats;
use cri_proto::client::Runtime;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervise::checks::{self, Check};
use supervise::{Scope, listen};
use tokio::net::TcpStream;

/// Pause before an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest a connection to the port of health lasts.
const LONGEST: Duration = Duration::from_secs(30);

/// Serves what everybody may read: pods, health, metrics, stats. `config.address` names the port.
pub async fn read_only(
    config: Config,
    pods: Arc<dyn Pods>,
    runtime: Runtime,
    stats: Stats,
    health: Health,
) -> Result<(), Error> {
    let address = config.address;
    let listener = listen::listen(address).map_err(|source| Error::Listen { address, source })?;
    let (connections, stop) = (health.scope.work("read-only"), health.scope.stop().clone());
    let parts = Parts { pods, runtime, stats, health, streams: connections.clone() };
    let handler = Arc::new(Handler::new(Config { debugging: false, ..config }, None, parts));
    tracing::info!(%address, "serving the kubelet's read-only port");
    let serve = |stream: TcpStream, peer| Box::pin(speak(stream, peer, Arc::new([]), handler.clone()));
    supervise::accept(&listener, MOST_CONNECTIONS, &connections, &stop, serve).await;
    connections.finish(DRAIN).await;
    Ok(())
}

/// Answers whether the kubelet is there, until the scope ends. An address that cannot be had does not make it less so: it is tried again.
pub async fn healthz(address: SocketAddr, scope: Arc<Scope>) {
    let (connections, stop) = (scope.work("healthz"), scope.stop().clone());
    let listener = loop {
        match listen::listen(address) {
            Ok(listener) => break listener,
            Err(error) => tracing::error!(%address, %error, "Failed to start healthz server"),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let serve = |stream: TcpStream, _| {
        let stop = stop.clone();
        async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(about(request.uri().path(), request.uri().query()))
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that goes away is its own affair.
                _ = tokio::time::timeout(LONGEST, connection) => {}
            }
        }
    };
    supervise::accept(&listener, MOST_CONNECTIONS, &connections, &stop, serve).await;
}

/// Upstream's has one check, which says that somebody answers.
fn about(path: &str, query: Option<&str>) -> HttpResponse {
    let checks = [Check { name: "ping".into(), state: Ok(()) }];
    let told = match path {
        "/healthz" => Some(checks::all("healthz", &checks, &[], Query::new(query).has("verbose"))),
        "/healthz/ping" => checks::one(&checks, "ping"),
        _ => None,
    };
    match told {
        Some(told) => answer::text(StatusCode::from_u16(told.code).unwrap_or_default(), told.text),
        None => answer::refused(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::Supervisor;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn whoever_waits_for_the_kubelet_is_answered_on_its_port_of_health() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stop = CancellationToken::new();
        let scope = Arc::new(Scope::new(&Supervisor::default(), "kubelet/", &stop));
        let ask = async |path: &str| {
            let mut stream = loop {
                match TcpStream::connect(free).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            let code = text.split(' ').nth(1).unwrap().to_owned();
            (code, text.split("\r\n\r\n").nth(1).unwrap().to_owned())
        };
        let asked = async {
            assert_eq!(ask("/healthz").await, ("200".to_owned(), "ok".to_owned()));
            let verbose = "[+]ping ok\nhealthz check passed\n".to_owned();
            assert_eq!(ask("/healthz?verbose").await, ("200".to_owned(), verbose));
            assert_eq!(ask("/pods").await.0, "404");
            stop.cancel();
        };
        tokio::join!(healthz(free, scope.clone()), asked);
    }
}
