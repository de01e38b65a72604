//! HTTP requests of probes and lifecycle handlers. TLS is not verified: upstream does not either, since the certificate
//! of a pod is for its service's name.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// How much of an answer is read: enough for the event.
const BODY_BYTES: usize = 10 << 10;
/// How often a redirect on the same host is followed.
const REDIRECTS: usize = 10;

/// A request that failed; the texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is neither a number nor one of the container's names.
    #[error("invalid port: {0}")]
    Port(String),
    /// The request cannot be built.
    #[error("build request: {0}")]
    Build(#[from] http::Error),
    /// Nobody answered.
    #[error("Get \"{url}\": {reason}")]
    Get {
        /// What was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The answer was no success.
    #[error("HTTP probe failed with statuscode: {0}")]
    Status(u16),
}

/// A container's port by number or name.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, Error> {
    let wrong = || {
        Error::Port(match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        })
    };
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|n| *n > 0).ok_or_else(wrong),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            let number = named.map(|p| p.container_port).or_else(|| name.parse().ok());
            number.and_then(|n| u16::try_from(n).ok()).ok_or_else(wrong)
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An IO error in the words of Go's system call errors.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// What to ask whom.
#[derive(Clone, Debug)]
pub struct Request {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The request of an action, to `ip` unless it names a host.
    pub fn of(action: &HTTPGetAction, container: &Container, ip: &str, agent: &str) -> Result<Self, Error> {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        let path = action.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut headers: Vec<(String, String)> = Vec::new();
        for header in action.http_headers.iter().flatten() {
            headers.push((header.name.clone(), header.value.clone()));
        }
        let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let (agent_given, accept_given) = (has("user-agent"), has("accept"));
        if !agent_given {
            headers.push(("User-Agent".to_owned(), agent.to_owned()));
        }
        if !accept_given {
            headers.push(("Accept".to_owned(), "*/*".to_owned()));
        }
        Ok(Self {
            tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port: port(&action.port, container)?,
            path,
            headers,
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", joined(&self.host, self.port), self.path)
    }
}

/// Asks, and succeeds on a status from 200 to 399 within `timeout`.
pub async fn get(request: &Request, timeout: Duration) -> Result<(), Error> {
    let mut request = request.clone();
    let url = request.url();
    let deadline = tokio::time::Instant::now() + timeout;
    for _ in 0..REDIRECTS {
        let answer = tokio::time::timeout_at(deadline, Box::pin(send(&request))).await;
        let (status, location) = answer.map_err(|_| Error::Get {
            url: url.clone(),
            reason: "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        })??;
        match (status, location) {
            // A redirect to another host is a success, as upstream has it: the container did answer.
            (300..400, Some(path)) if path.starts_with('/') && !path.starts_with("//") => request.path = path,
            (200..400, _) => return Ok(()),
            (status, _) => return Err(Error::Status(status)),
        }
    }
    Err(Error::Get { url, reason: format!("stopped after {REDIRECTS} redirects") })
}

async fn send(request: &Request) -> Result<(u16, Option<String>), Error> {
    let failed = |reason: String| Error::Get { url: request.url(), reason };
    let address = joined(&request.host, request.port);
    let stream = TcpStream::connect(&address)
        .await
        .map_err(|error| failed(format!("dial tcp {address}: connect: {}", reason(&error))))?;
    let given_host = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = given_host.map_or(address.as_str(), |(_, value)| value.as_str());
    let mut built =
        http::Request::get(request.path.as_str()).header("Host", host).header("Connection", "close");
    for (name, value) in request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        built = built.header(name, value);
    }
    let built = built.body(Empty::<bytes::Bytes>::new())?;
    if request.tls {
        let name = rustls::pki_types::ServerName::try_from(request.host.clone())
            .map_err(|error| failed(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified()));
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        exchange(TokioIo::new(stream), built).await.map_err(failed)
    } else {
        exchange(TokioIo::new(stream), built).await.map_err(failed)
    }
}

async fn exchange<S>(
    stream: S,
    request: http::Request<Empty<bytes::Bytes>>,
) -> Result<(u16, Option<String>), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(http::header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        // Read to the end so that the server sees a polite client; what is beyond the bound is not ours to read.
        Limited::new(answer.into_body(), BODY_BYTES).collect().await.ok();
        Ok((status, location))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

fn unverified() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // The provider is named and its default versions are its own: this cannot fail.
    #[allow(clippy::expect_used)]
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions");
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pki::tls::AnyPeer::default()))
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn answer(with: &'static str) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = serde_json::from_value(serde_json::json!({"port": port, "path": "healthz",
            "httpHeaders": [{"name": "Host", "value": "own"}]}))
        .unwrap();
        let request = Request::of(&action, &Container::default(), "127.0.0.1", "kube-probe/1.36").unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 1024];
            let read = stream.read(&mut seen).await.unwrap();
            stream.write_all(with.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&seen[..read]).into_owned()
        };
        let (outcome, seen) = tokio::join!(get(&request, Duration::from_secs(2)), server);
        assert!(seen.starts_with("GET /healthz HTTP/1.1\r\nhost: own\r\n"), "{seen}");
        assert!(seen.contains("kube-probe/1.36"));
        outcome.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn statuses() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await, Ok(()));
        assert_eq!(
            answer("HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n").await,
            Ok(())
        );
        let failed = answer("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap_err();
        assert_eq!(failed, "HTTP probe failed with statuscode: 503");
    }

    #[tokio::test]
    async fn nobody_there() {
        let action = serde_json::from_value(serde_json::json!({"port": 1})).unwrap();
        let request = Request::of(&action, &Container::default(), "127.0.0.1", "a").unwrap();
        let error = get(&request, Duration::from_secs(1)).await.unwrap_err().to_string();
        assert_eq!(error, "Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused");
    }
}
