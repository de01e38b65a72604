//! Whether a server answers, and is ready: a frozen process takes connections and says nothing.
//!
//! It is asked without credentials: a server that refuses to say how it is lives, and counts as ready. One connection is used again and again, so
//! that a look costs no handshake.

use futures::future::{Either, select};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use pki::tls::AnyPeer;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Stream = TokioIo<TlsStream<TcpStream>>;

/// A connection to one server, once there is one.
#[derive(Default)]
pub(super) struct Probe(Option<Open>);

struct Open {
    server: String,
    requests: SendRequest<Empty<Bytes>>,
    connection: Pin<Box<Connection<Stream, Empty<Bytes>>>>,
}

impl Probe {
    /// Asks `server` whether it is ready; gives what it says.
    ///
    /// # Errors
    /// It says nothing.
    pub(super) async fn ask(&mut self, server: &str) -> io::Result<StatusCode> {
        if self.0.as_ref().is_none_or(|open| open.server != server || open.requests.is_closed()) {
            self.0 = Some(Open::new(server).await?);
        }
        let Some(open) = &mut self.0 else { return Err(io::ErrorKind::NotConnected.into()) };
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
            self.0 = None;
        }
        answered
    }
}

impl Open {
    async fn new(server: &str) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyPeer::default()))
            .with_no_client_auth();
        let name = ServerName::try_from(super::NAME).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(server).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (requests, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        Ok(Self { server: server.to_owned(), requests, connection: Box::pin(connection) })
    }
}
