//! The API servers there are, as one on this machine's loopback: whoever speaks to the API does so through here, and does not notice which
//! server answers.
//!
//! - [`choice`]: the servers and which one is used, pure; [`probe`]: whether one answers; [`list`]: which there are, from the cluster, kept on disk
//!
//! Woken by connections, by time while there are several servers, and by the `kubernetes` Service's endpoints. Promises: a new connection goes to
//! a server that takes it; connections to one that has died, is frozen or cut off are ended within five seconds if another one answers, so that
//! their owners come again; what was known is known after a restart. TLS is the two ends' own: here pass only bytes.

mod choice;
mod list;
mod probe;

use choice::Choice;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Supervisor, Task, Work, accept};
use tokio::net::{TcpListener, TcpStream};

/// A name that is in the certificate of every API server, whatever it is called elsewhere: what pods call it.
const NAME: &str = "kubernetes.default.svc";
/// Where the servers are on this machine, unless somebody else is there.
const PORT: u16 = 6444;
/// Connections at once: a node's watches, and what its kubelet asks meanwhile.
const CONNECTIONS: usize = 512;
/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_millis(1500);
/// Between two looks at the server in use, and how long it may take to answer: together with a look at the others within five seconds.
const LOOK: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_millis(1500);

/// The servers, a handle.
#[derive(Clone)]
pub(crate) struct Balancer {
    choice: Arc<Mutex<Choice>>,
    listener: Arc<TcpListener>,
    address: SocketAddr,
    list: Arc<list::File>,
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
                let looking = this.look();
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

    /// One connection: to the server in use, or to the first of the others that takes it.
    async fn serve(&self, client: TcpStream) {
        let servers = self.choice.lock().servers();
        for server in servers {
            let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&server)).await;
            let Ok(Ok(upstream)) = connected else { continue };
            let cut = self.choice.lock().used(&server);
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

    /// Looks at the server in use, forever, and moves to one that answers where it does not.
    async fn look(&self) -> std::convert::Infallible {
        let mut probe = probe::Probe::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let servers = self.choice.lock().servers();
            // With one there is nothing to choose, and nothing to look at.
            let [current, others @ ..] = servers.as_slice() else { continue };
            if others.is_empty() || answers(&mut probe, current).await {
                continue;
            }
            let mut asked: FuturesUnordered<_> =
                others
                    .iter()
                    .map(|server| async move {
                        answers(&mut probe::Probe::default(), server).await.then_some(server)
                    })
                    .collect();
            while let Some(answer) = asked.next().await {
                let Some(server) = answer else { continue };
                tracing::warn!(from = current, to = server, "the API server does not answer; using another");
                let _ = self.choice.lock().used(server);
                break;
            }
        }
    }
}

async fn answers(probe: &mut probe::Probe, server: &str) -> bool {
    let answered = matches!(tokio::time::timeout(PATIENCE, probe.ask(server)).await, Ok(Ok(())));
    if !answered {
        // What comes late must not pass for the next answer.
        *probe = probe::Probe::default();
    }
    answered
}

/// What `server` is called where it is on the loopback: behind the balancer it may be any, and not all have this address in their certificate.
pub(crate) fn name(server: &str) -> Option<&'static str> {
    let server: http::Uri = server.parse().ok()?;
    server.host()?.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()).then_some(NAME)
}

/// `HOST:PORT`.
fn authority(server: &http::Uri) -> String {
    format!("{}:{}", server.host().unwrap_or_default(), server.port_u16().unwrap_or(443))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test sees how what it spawns ends")]
mod tests;
