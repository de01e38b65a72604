//! The lab's long-running process. Woken by its socket; owns the lab's network, the registry, the published API port and the nodes.
//!
//! Everything it starts dies with it (`unshare --kill-child` asks the kernel for that), so `kill -9` leaves only files and empty cgroups,
//! which the next start removes.

use crate::control::{Ask, Machine, Reply};
use crate::image::{ImageStore, build_standard};
use crate::layout::{Family, Layout, REGISTRY_PORT, apart_address};
use crate::registry::CONNECTIONS;
use crate::{machine, network, registry};
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Scope, Supervisor, Task, Work};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The API server's port on its node.
const API_PORT: u16 = 6443;
/// So many nodes may be servers: those that were booted first, tried in that order.
const SERVERS: u8 = 3;
/// How long one may take to take a connection.
const CONNECT: Duration = Duration::from_secs(1);

struct Lab {
    layout: Layout,
    family: Family,
    api: String,
    /// Of each node, the primary one first.
    addresses: BTreeMap<String, Vec<String>>,
    nodes: BTreeMap<String, (Child, Machine)>,
    /// The addresses of the nodes that run and may be servers.
    servers: watch::Sender<Vec<String>>,
}

/// Runs the lab until it is told to quit or gets SIGTERM.
///
/// # Errors
/// The lab's network, images or socket cannot be made.
pub fn main(layout: &Layout, family: Family) -> Result<()> {
    fs::write(layout.pid_file(), std::process::id().to_string()).context("write the process id")?;
    // this socket stays in the host's network namespace; everything after `unshare` is the lab's
    let published = StdListener::bind((Ipv4Addr::LOCALHOST, API_PORT))
        .or_else(|_| StdListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("listen on the host's loopback")?;
    let api = published.local_addr()?.to_string();
    unshare(CloneFlags::CLONE_NEWNET).context("make the lab's network namespace")?;
    network::make_bridges(family)?;
    let store = ImageStore::open(&layout.images())?;
    build_standard(&store).context("build the lab's images")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (addresses, nodes) = (BTreeMap::new(), BTreeMap::new());
    let servers = watch::Sender::default();
    let lab = Lab { layout: layout.clone(), family, api, addresses, nodes, servers };
    runtime.block_on(run(lab, published, store))
}

async fn run(mut lab: Lab, published: StdListener, store: ImageStore) -> Result<()> {
    published.set_nonblocking(true)?;
    let scope = Scope::new(&Supervisor::default(), "lab/", &CancellationToken::new());
    let (published, work, stop) = (TcpListener::from_std(published)?, scope.work("published"), scope.stop());
    let published = publish(Arc::new(published), lab.servers.subscribe(), work, stop.clone());
    scope.keep(published);
    let gateway = lab.family.gateway();
    let registry = TcpListener::bind((gateway, REGISTRY_PORT)).await.context("listen for image pulls")?;
    scope.keep(registry::serve(Arc::new(registry), store, scope.work("pulls"), stop.clone()));
    let socket = lab.layout.control_socket();
    let control = UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            accepted = control.accept() => {
                if lab.converse(accepted?.0).await {
                    break;
                }
            }
        }
    }
    for name in lab.nodes.keys().cloned().collect::<Vec<_>>() {
        lab.power_off(&name)?;
    }
    Ok(())
}

/// Carries the host's loopback connections to the first API server that takes them.
fn publish(
    listener: Arc<TcpListener>,
    servers: watch::Receiver<Vec<String>>,
    work: Work,
    stop: CancellationToken,
) -> Task {
    let carry = async |mut outside: TcpStream, servers: Vec<String>| {
        let mut inside = server(servers).await?;
        let _ = outside.set_nodelay(true);
        let _ = inside.set_nodelay(true);
        copy_bidirectional(&mut outside, &mut inside).await
    };
    Task::endless("publish", move || {
        let (listener, servers, work, stop) = (listener.clone(), servers.clone(), work.clone(), stop.clone());
        async move {
            let serve = move |outside, _| {
                let servers = servers.borrow().clone();
                async move { drop::<std::io::Result<_>>(carry(outside, servers).await) }
            };
            supervise::accept(&*listener, CONNECTIONS, &work, &stop, serve).await;
        }
    })
}

async fn server(servers: Vec<String>) -> std::io::Result<TcpStream> {
    let mut error = std::io::ErrorKind::NotConnected.into();
    for address in servers {
        let connected = TcpStream::connect((address, API_PORT));
        match tokio::time::timeout(CONNECT, connected).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(refused)) => error = refused,
            Err(_) => error = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(error)
}

impl Lab {
    /// Answers one client; true when the lab should end.
    async fn converse(&mut self, stream: UnixStream) -> bool {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        if BufReader::new(reader).read_line(&mut line).await.is_err() {
            return false;
        }
        let asked = serde_json::from_str::<Ask>(&line).map_err(|e| anyhow!("parse the request: {e}"));
        let quit = matches!(asked, Ok(Ask::Quit));
        let done = asked.and_then(|ask| self.obey(ask));
        // An address that nobody has would hold each connection up for as long as one may take.
        self.servers.send_replace(self.may_serve());
        let answer = Reply {
            error: done.err().map(|e| format!("{e:#}")),
            nodes: self.nodes.iter().map(|(name, (_, m))| (name.clone(), m.clone())).collect(),
            api: self.api.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
        };
        if let Ok(mut text) = serde_json::to_string(&answer) {
            text.push('\n');
            let _ = writer.write_all(text.as_bytes()).await;
        }
        quit
    }

    fn may_serve(&self) -> Vec<String> {
        let first = (1..=SERVERS).map(|index| self.family.addresses(index));
        let running =
            |address: &Vec<String>| self.nodes.keys().any(|node| self.addresses.get(node) == Some(address));
        first.filter(running).flat_map(|addresses| addresses.into_iter().take(1)).collect()
    }

    fn obey(&mut self, ask: Ask) -> Result<()> {
        self.nodes.retain(|_, (child, _)| matches!(child.try_wait(), Ok(None)));
        match ask {
            Ask::Boot { node, apart } => self.boot(&node, apart),
            Ask::PowerOff { node } => self.power_off(&node),
            Ask::Link { node, up } => network::set_link(&node, up),
            Ask::Status | Ask::Quit => Ok(()),
        }
    }

    fn boot(&mut self, node: &str, apart: bool) -> Result<()> {
        if self.nodes.contains_key(node) {
            bail!("node {node} runs already");
        }
        // a link name holds 15 characters
        if node.is_empty()
            || node.len() > 12
            || !node.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            bail!("{node:?} is no name for a node: 1 to 12 of a-z, 0-9 and '-'");
        }
        let next = u8::try_from(self.addresses.len() + 1).context("too many nodes")?;
        let family = self.family;
        let new = || if apart { vec![apart_address(next)] } else { family.addresses(next) };
        let addresses = self.addresses.entry(node.to_owned()).or_insert_with(new).clone();
        let running = machine::boot(&self.layout, node, &addresses, family)?;
        self.nodes.insert(node.to_owned(), running);
        Ok(())
    }

    fn power_off(&mut self, node: &str) -> Result<()> {
        let (mut child, machine) =
            self.nodes.remove(node).ok_or_else(|| anyhow!("node {node} does not run"))?;
        // PID 1's end makes the kernel kill every process of the node
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(machine.pid), nix::sys::signal::Signal::SIGKILL)
            .with_context(|| format!("power off {node}"))?;
        child.wait().with_context(|| format!("wait for {node}"))?;
        network::detach(node);
        Ok(())
    }
}
