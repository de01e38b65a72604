//! The API servers there are, as one on this machine's loopback: whoever speaks to the API does so through here, and does not notice which
//! server answers.
//!
//! - [`choice`]: the servers and which one is used, pure; [`probe`]: whether one answers; [`list`]: which there are, from the cluster, kept on disk
//!
//! Woken by connections, by time while there are several servers, and by the `kubernetes` Service's endpoints. Promises: a new connection goes to
//! a server that takes it; a server is left when it refuses a connection, or twice in turn does not answer or says that it is not ready, and another
//! one is better; so is one that is not of our cluster, whoever answers there: within five seconds, and all connections to it are ended, so that their owners come again; one slow connection or answer
//! moves nobody; what was known is known after a restart. TLS is the two ends' own: here pass only bytes.

mod choice;
mod list;
mod probe;

use crate::identity::{Files, NAME};
use choice::{Choice, Health, better};
use futures::future::join_all;
use parking_lot::Mutex;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Task, Work, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Where the servers are on this machine, unless somebody else is there.
const PORT: u16 = 6444;
/// Connections at once: a node's watches, and what its kubelet asks meanwhile.
const CONNECTIONS: usize = 512;
/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_millis(1500);
/// Between two looks at the server in use, before the second look at one that failed the first, and how long an answer may take: a frozen server is
/// left after `LOOK + PATIENCE + AGAIN + PATIENCE` at the latest, which is less than five seconds.
const LOOK: Duration = Duration::from_millis(1000);
const AGAIN: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two looks at the configured server while another one is in use.
const RETURN: Duration = Duration::from_secs(15);

/// The servers, a handle.
#[derive(Clone)]
pub(crate) struct Balancer {
    choice: Arc<Mutex<Choice>>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    list: Arc<list::File>,
    trust: probe::Trust,
    /// The server in use was slow to take a connection.
    slow: Arc<Notify>,
}

impl Balancer {
    /// In front of `server`, `https://HOST:PORT`, and those that `dir` says were known before.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) async fn bind(dir: &Path, server: &http::Uri) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?
            }
            bound => bound?,
        };
        let list = list::File::new(dir);
        let mut choice = Choice::new(authority(server));
        choice.know(list.read());
        Ok(Self {
            choice: Arc::new(Mutex::new(choice)),
            address: listener.local_addr()?,
            listener: Arc::new(listener),
            list: Arc::new(list),
            trust: probe::Trust(Some(Files::new(dir).client_ca())),
            slow: Arc::default(),
        })
    }

    /// The servers as this machine's clients are told.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it does: `connections` before anybody speaks to a server, `others` with a client that may read endpoints.
    pub(crate) fn connections(&self, supervisor: &Supervisor) -> Task {
        let (this, supervisor) = (self.clone(), supervisor.clone());
        Task::new("api-balancer", move |stop| {
            let (this, supervisor) = (this.clone(), supervisor.clone());
            async move {
                let work = Work::new(&supervisor, "api-balancer/connections");
                let looking = async { tokio::join!(this.look(), this.look_back()).0 };
                let accepting = accept(&*this.listener, CONNECTIONS, &work, &stop, |stream, _| {
                    let this = this.clone();
                    async move { this.serve(stream).await }
                });
                tokio::select! {
                    () = accepting => {}
                    never = looking => match never {},
                }
                Ok(())
            }
        })
    }

    /// Follows which servers there are.
    pub(crate) fn others(&self, client: kube::Client) -> Task {
        let this = self.clone();
        Task::endless("api-servers", move || {
            let (this, client) = (this.clone(), client.clone());
            async move { list::follow(&client, |servers| this.know(servers)).await }
        })
    }

    fn know(&self, servers: Vec<String>) {
        if servers.is_empty() || !self.choice.lock().know(servers.clone()) {
            return;
        }
        tracing::info!(?servers, "the API servers");
        if let Err(error) = self.list.write(&servers) {
            tracing::warn!(error = %supervise::chain(&error), "keep the list of API servers");
        }
    }

    /// One connection: to the server in use, or to the first of the others that takes it. One that refuses it is left by all; one that is slow
    /// by this connection only, until it was looked at.
    async fn serve(&self, client: TcpStream) {
        let servers = self.choice.lock().servers();
        let mut refused = true;
        for server in &servers {
            let upstream = match tokio::time::timeout(CONNECT, TcpStream::connect(server)).await {
                Ok(Ok(upstream)) => upstream,
                Ok(Err(error)) => {
                    refused &= is_refusal(&error);
                    continue;
                }
                Err(_) => {
                    refused = false;
                    self.slow.notify_one();
                    continue;
                }
            };
            let cut = {
                let mut choice = self.choice.lock();
                if refused && let Some(first) = servers.first() {
                    choice.leave(first, server);
                }
                choice.connected(server)
            };
            // Small requests and answers, each waited for.
            let _ = (upstream.set_nodelay(true), client.set_nodelay(true));
            let joined = splice::join(client, upstream);
            if let Some(Err(error)) = cut.run_until_cancelled(joined).await {
                tracing::debug!(server, %error, "a connection to the API server broke");
            }
            return;
        }
        tracing::debug!("no API server takes a connection");
    }

    /// Looks at the server in use, forever, and moves to a better one where it fails twice.
    async fn look(&self) -> std::convert::Infallible {
        let mut probe = probe::Probe::new(&self.trust);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                // What is open already says nothing of new connections.
                () = self.slow.notified() => probe.reset(),
            }
            let servers = self.choice.lock().servers();
            // With one there is nothing to choose, and nothing to look at.
            let [current, others @ ..] = servers.as_slice() else { continue };
            if others.is_empty() {
                continue;
            }
            if health(&mut probe, current).await == Health::Ready {
                self.choice.lock().end_strays();
                continue;
            }
            // Once may be chance. While it is asked again, so are the others.
            let again = async {
                tokio::time::sleep(AGAIN).await;
                health(&mut probe, current).await
            };
            let asked = others.iter().map(|server| async move {
                (server.as_str(), health(&mut probe::Probe::new(&self.trust), server).await)
            });
            let (now, others) = tokio::join!(again, join_all(asked));
            let Some(server) = better(now, &others) else { continue };
            // A connection may have moved on meanwhile.
            if self.choice.lock().leave(current, server) {
                tracing::warn!(from = current, to = server, was = ?now, "the API server fails; using another");
            }
        }
    }

    /// Looks at the configured server while another one is in use, forever, and moves back once it has been well for long.
    async fn look_back(&self) -> std::convert::Infallible {
        let mut probe = probe::Probe::new(&self.trust);
        loop {
            tokio::time::sleep(supervise::jittered(RETURN)).await;
            let preferred = self.choice.lock().preferred().map(str::to_owned);
            let Some(server) = preferred else { continue };
            let found = health(&mut probe, &server).await;
            let mut choice = self.choice.lock();
            if choice.preferred() == Some(server.as_str()) && choice.may_return(found) {
                tracing::info!(server, "the configured API server has been well for long; using it again");
                choice.use_server(&server);
            }
        }
    }
}

/// Whether the server itself said that it takes no connection: an error of this machine's own, such as of too many files, says nothing of it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

async fn health(probe: &mut probe::Probe, server: &str) -> Health {
    let answer = tokio::time::timeout(PATIENCE, probe.ask(server)).await;
    match answer {
        Ok(Ok(status)) if status.is_server_error() => Health::Unready,
        Ok(Ok(_)) => Health::Ready,
        Ok(Err(_)) | Err(_) => {
            // What comes late must not pass for the next answer.
            probe.reset();
            Health::Dead
        }
    }
}

/// `HOST:PORT`.
fn authority(server: &http::Uri) -> String {
    format!("{}:{}", server.host().unwrap_or_default(), server.port_u16().unwrap_or(443))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
