//! Whether a server answers, and is ready: a frozen process takes connections and says nothing.
//!
//! It is asked without credentials: a server that refuses to say how it is lives, and counts as ready. But it has to be one of our cluster, by the
//! node's authorities, as far as these are known: whoever else has come to its address serves nobody here. One connection is used again and again,
//! so that a look costs no handshake; not for ever, as certificates end.

use futures::future::{Either, select};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use pki::tls::AnyPeer;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Stream = TokioIo<TlsStream<TcpStream>>;

/// How long a connection is used.
const LIFE: Duration = Duration::from_secs(60);

/// Whose servers are taken for ours: the authorities in a file, which are written when the node joins and follow the cluster's; anybody's while
/// there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust(pub(super) Option<PathBuf>);

impl Trust {
    /// # Errors
    /// The file holds no authorities.
    fn config(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let text = self.0.as_deref().map(pki::files::read_optional).transpose().map_err(io::Error::other)?;
        let Some(text) = text.flatten() else {
            let any = config.dangerous().with_custom_certificate_verifier(Arc::new(AnyPeer::default()));
            return Ok(any.with_no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pki::pem::certificates(text.as_bytes()).map_err(io::Error::other)?);
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A connection to one server, once there is one.
#[derive(Default)]
pub(super) struct Probe {
    trust: Trust,
    open: Option<Open>,
}

struct Open {
    server: String,
    since: Instant,
    requests: SendRequest<Empty<Bytes>>,
    connection: Pin<Box<Connection<Stream, Empty<Bytes>>>>,
}

impl Probe {
    pub(super) fn new(trust: &Trust) -> Self {
        Self { trust: trust.clone(), open: None }
    }

    /// Lets go of the connection.
    pub(super) fn reset(&mut self) {
        self.open = None;
    }

    /// Asks `server` whether it is ready; gives what it says.
    ///
    /// # Errors
    /// It says nothing, or is not one of ours.
    pub(super) async fn ask(&mut self, server: &str) -> io::Result<StatusCode> {
        if self.open.as_ref().is_none_or(|open| !open.is_of_use(server)) {
            self.open = Some(Open::new(server, self.trust.config()?).await?);
        }
        let Some(open) = &mut self.open else { return Err(io::ErrorKind::NotConnected.into()) };
        let request = Request::get("/readyz").header(header::HOST, super::NAME).body(Empty::new());
        let request = request.map_err(io::Error::other)?;
        let asked = Box::pin(async {
            let answer = open.requests.send_request(request).await?;
            let status = answer.status();
            // To its end, or the connection is of no use any more.
            answer.into_body().collect().await.map(|_| status)
        });
        let answered = match select(asked, open.connection.as_mut()).await {
            Either::Left((answered, _)) => answered.map_err(io::Error::other),
            Either::Right((Err(broken), _)) => Err(io::Error::other(broken)),
            Either::Right((Ok(()), _)) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        if answered.is_err() {
            self.open = None;
        }
        answered
    }
}

impl Open {
    fn is_of_use(&self, server: &str) -> bool {
        self.server == server && self.since.elapsed() < LIFE && !self.requests.is_closed()
    }

    async fn new(server: &str, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from(super::NAME).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(server).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        let since = Instant::now();
        Ok(Self { server: server.to_owned(), since, requests, connection: Box::pin(connection) })
    }
}
