//! HTTP requests of probes and lifecycle handlers. TLS is not verified: upstream does not either, since the certificate
//! of a pod is for its service's name.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
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
    #[error("Get \"{url}\": {reason}")]
    Get { url: String, reason: String },
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

/// A request, and where it goes.
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

    /// The same request where a redirect leads; `None` for another host.
    fn led_to(&self, location: &str) -> Option<Self> {
        let mut next = self.clone();
        let absolute = match location.strip_prefix("//") {
            Some(_) => format!("{}:{location}", if self.tls { "https" } else { "http" }),
            None => location.to_owned(),
        };
        let path = |uri: &http::Uri| uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        if absolute.contains("://") {
            let uri: http::Uri = absolute.parse().ok()?;
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
            if host != self.host {
                return None;
            }
            next.tls = uri.scheme_str() == Some("https");
            next.port = uri.port_u16().unwrap_or(if next.tls { 443 } else { 80 });
            next.path = path(&uri);
        } else if location.starts_with('/') {
            next.path = location.to_owned();
        } else {
            let dir = self.path.split('?').next().and_then(|p| p.rfind('/').map(|at| &p[..=at]));
            next.path = format!("{}{location}", dir.unwrap_or("/"));
        }
        Some(next)
    }

    /// The same request without TLS and without credentials: the second try of a lifecycle handler.
    pub fn in_plain(&self) -> Self {
        let mut plain = self.clone();
        plain.tls = false;
        plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        plain
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        joined(&self.host, self.port)
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", joined(&self.host, self.port), self.path)
    }
}

/// What came back at the end of the redirects that were followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The body, cut at [`BODY_BYTES`].
    pub body: String,
}

impl Reply {
    /// What a probe makes of it: a warning where it was led elsewhere, an error where it is no success.
    pub fn judged(self) -> Result<Option<String>, Error> {
        match self.status {
            200..300 => Ok(None),
            300..400 => Ok(Some(format!("Probe terminated redirects, Response body: {}", self.body))),
            status => Err(Error::Status(status)),
        }
    }
}

/// Asks within `timeout`. Redirects are followed on the same host; one to another host is the answer itself: the
/// container did answer.
pub async fn get(request: &Request, timeout: Duration) -> Result<Reply, Error> {
    let mut request = request.clone();
    let url = request.url();
    let deadline = tokio::time::Instant::now() + timeout;
    for _ in 0..REDIRECTS {
        let answer = tokio::time::timeout_at(deadline, Box::pin(send(&request))).await;
        let (answer, location) = answer.map_err(|_| Error::Get {
            url: url.clone(),
            reason: "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        })??;
        let next = location.filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308));
        match next.and_then(|location| request.led_to(&location)) {
            Some(next) => request = next,
            None => return Ok(answer),
        }
    }
    Err(Error::Get { url, reason: format!("stopped after {REDIRECTS} redirects") })
}

async fn send(request: &Request) -> Result<(Reply, Option<String>), Error> {
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
        let stream = connector.connect(name, stream).await.map_err(|error| failed(handshake(&error)))?;
        exchange(TokioIo::new(stream), built).await.map_err(failed)
    } else {
        exchange(TokioIo::new(stream), built).await.map_err(failed)
    }
}

async fn exchange<S>(
    stream: S,
    request: http::Request<Empty<bytes::Bytes>>,
) -> Result<(Reply, Option<String>), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| match error {
            early if early.is_incomplete_message() => "EOF".to_owned(),
            other => other.to_string(),
        })?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(http::header::LOCATION);
        let location = location.and_then(|l| l.to_str().ok()).map(str::to_owned);
        Ok((Reply { status, body: read(answer.into_body()).await }, location))
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

/// The body up to the bound; what is beyond it is not ours to read.
async fn read(mut body: hyper::body::Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = BODY_BYTES - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == BODY_BYTES {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What Go says of a peer that does not speak TLS.
pub const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

fn handshake(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => PLAIN_ANSWER.to_owned(),
        _ => error.to_string(),
    }
}

fn unverified() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[allow(
        clippy::expect_used,
        reason = "the provider is named and its default versions are its own: this cannot fail"
    )]
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

    async fn answer(with: &'static str) -> Result<Option<String>, String> {
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
        outcome.and_then(Reply::judged).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn statuses() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await, Ok(None));
        assert_eq!(
            answer("HTTP/1.1 302 Found\r\nLocation: http://other/\r\nContent-Length: 5\r\n\r\nthere").await,
            Ok(Some("Probe terminated redirects, Response body: there".to_owned()))
        );
        let cut = answer("").await.unwrap_err();
        assert!(cut.starts_with("Get \"http://127.0.0.1:") && cut.ends_with("/healthz\": EOF"), "{cut}");
        let failed = answer("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap_err();
        assert_eq!(failed, "HTTP probe failed with statuscode: 503");
    }

    #[test]
    fn redirects_stay_on_the_host() {
        let action = serde_json::from_value(serde_json::json!({"port": 80, "path": "/a/b?c"})).unwrap();
        let request = Request::of(&action, &Container::default(), "10.0.0.1", "a").unwrap();
        let led = |location: &str| request.led_to(location).map(|next| next.url());
        assert_eq!(led("/x").as_deref(), Some("http://10.0.0.1:80/x"));
        assert_eq!(led("x").as_deref(), Some("http://10.0.0.1:80/a/x"));
        assert_eq!(led("https://10.0.0.1/y?z").as_deref(), Some("https://10.0.0.1:443/y?z"));
        assert_eq!(led("http://0.0.0.0/"), None);
        assert_eq!(led("//other/"), None);
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_is_said_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = serde_json::from_value(serde_json::json!({"port": port, "scheme": "HTTPS"})).unwrap();
        let request = Request::of(&action, &Container::default(), "127.0.0.1", "a").unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 1024];
            let _ = stream.read(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(get(&request, Duration::from_secs(2)), server);
        assert!(outcome.unwrap_err().to_string().ends_with(PLAIN_ANSWER));
    }

    #[tokio::test]
    async fn nobody_there() {
        let action = serde_json::from_value(serde_json::json!({"port": 1})).unwrap();
        let request = Request::of(&action, &Container::default(), "127.0.0.1", "a").unwrap();
        let error = get(&request, Duration::from_secs(1)).await.unwrap_err().to_string();
        assert_eq!(error, "Get \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused");
    }
}
