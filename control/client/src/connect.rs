//! Connections that end when the server's machine is gone.
//!
//! A machine whose plug is pulled says nothing, and one that has started again knows nothing of its connections: who only waits on one, as a watch does,
//! is never told. client-go asks by HTTP/2's pings; here TCP asks, with its times: after 30 s of silence (`READ_IDLE_TIMEOUT`), and 15 s for an answer
//! (`PING_TIMEOUT`). What `kube` would make of a configuration has no such setting.

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// Silence after which a server is asked whether it is there, how long until it is asked again, and how often.
const IDLE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(5);
const TIMES: u32 = 3;

/// A client of a configuration, as `kube` makes it but for the above. Credentials of another program, which expire, and proxies are left to `kube`.
///
/// # Errors
/// The configuration's certificates or credentials cannot be used.
pub fn connect(config: kube::Config) -> Result<kube::Client, kube::Error> {
    if config.proxy_url.is_some() || config.auth_info.exec.is_some() {
        return kube::Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_keepalive(Some(IDLE));
    connector.set_keepalive_interval(Some(AGAIN));
    connector.set_keepalive_retries(Some(TIMES));
    // Who has said something and hears nothing is not asked: this bounds that, too.
    connector.set_tcp_user_timeout(Some(IDLE + AGAIN * TIMES));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let connections: legacy::Client<_, Body> = legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    /// The kernel's timer of the connection to `port` (`/proc/net/tcp`: 2 is one of keep-alive).
    fn timer(port: u16) -> Option<String> {
        let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let to = format!(":{port:04X}");
        let line =
            table.lines().find(|line| line.split_whitespace().nth(2).is_some_and(|a| a.ends_with(&to)));
        Some(line?.split_whitespace().nth(5)?.split(':').next()?.to_owned())
    }

    #[tokio::test]
    async fn a_watch_must_not_wait_for_a_machine_that_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = kube::Config::new(format!("http://127.0.0.1:{port}").parse().unwrap());
        let client = connect(config).unwrap();
        let request = Request::get("/api/v1/pods?watch=true").body(Vec::new()).unwrap();
        let look = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "a request");
            assert_eq!(
                timer(port).as_deref(),
                Some("02"),
                "the connection asks whether its other end is there"
            );
        };
        tokio::select! {
            answer = client.request_text(request) => panic!("nobody answers: {answer:?}"),
            () = look => {}
        }
    }
}
