//! How scheduler and controllers are that are programs of their own on this machine, for `componentstatuses`. As upstream: those on the
//! usual ports, whatever their certificates. Upstream: `pkg/registry/core/rest`, `serversToValidate`.

use crate::parts::{CONTROLLERS_PORT, SCHEDULER_PORT};
use anyhow::Context as _;
use apiserver::health::Health;
use futures::FutureExt as _;
use http::Request;
use kube::client::Body;
use std::time::Duration;

/// The longest an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has `health` ask them.
pub(super) fn add(health: &Health) -> anyhow::Result<()> {
    for (name, port) in [("controller-manager", CONTROLLERS_PORT), ("scheduler", SCHEDULER_PORT)] {
        let client = client(port).with_context(|| format!("prepare to ask the {name}"))?;
        health.add_neighbour(name, move || {
            let client = client.clone();
            async move { ask(&client, port, PATIENCE).await }.boxed()
        });
    }
    Ok(())
}

fn client(port: u16) -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse()?);
    config.accept_invalid_certs = true;
    Ok(kube::Client::try_from(config)?)
}

/// What is said on `/healthz`; the error is why that is not good, as upstream's prober words it.
async fn ask(client: &kube::Client, port: u16, patience: Duration) -> Result<String, String> {
    let url = format!("https://127.0.0.1:{port}/healthz");
    let failed = |why: String| format!("Get {url:?}: {why}");
    let request = Request::get("/healthz").body(Body::empty()).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let response = client.send(request).await.map_err(|error| failed(client::message_of(&error)))?;
        let code = response.status().as_u16();
        if !(200..400).contains(&code) {
            return Err(format!("HTTP probe failed with statuscode: {code}"));
        }
        let body = response.into_body().collect_bytes().await.map_err(|error| failed(error.to_string()))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    let late = || Err(failed("context deadline exceeded".to_owned()));
    tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Response, StatusCode};

    #[tokio::test(start_paused = true)]
    async fn a_neighbour_must_not_be_called_well_unasked() {
        let answering = |code: StatusCode, text: &'static str| {
            let service = tower::service_fn(move |_: Request<Body>| async move {
                let mut response = Response::new(Body::from(text.as_bytes().to_vec()));
                *response.status_mut() = code;
                Ok::<_, std::convert::Infallible>(response)
            });
            kube::Client::new(service, "default")
        };
        let ask = async |client: &kube::Client| ask(client, 10259, PATIENCE).await;
        assert_eq!(ask(&answering(StatusCode::OK, "ok")).await, Ok("ok".to_owned()));
        let ill = ask(&answering(StatusCode::INTERNAL_SERVER_ERROR, "secret")).await;
        assert_eq!(ill, Err("HTTP probe failed with statuscode: 500".to_owned()));
        let silent = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        });
        let late = ask(&kube::Client::new(silent, "default")).await;
        assert_eq!(
            late,
            Err("Get \"https://127.0.0.1:10259/healthz\": context deadline exceeded".to_owned())
        );
    }

    #[tokio::test]
    async fn a_neighbour_that_is_not_there_is_not_well() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let why = ask(&client(port).unwrap(), port, PATIENCE).await.unwrap_err();
        assert!(why.starts_with(&format!("Get \"https://127.0.0.1:{port}/healthz\": ")), "{why}");
    }
}
