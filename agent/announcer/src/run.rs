//! The loop.
//!
//! Woken by: a change of a LoadBalancer Service; while there is one with an address of ours, of nodes, and of endpoints where a policy is
//! Local; the kernel's word that a link or an address changed; what is said of the addresses on the links; the time that something is due.
//! Reads: the newest state of these, and the kernel's links. Writes: frames, and events on Services. Promises: an address is answered for by
//! one node of each link, and again within three seconds when that node is gone; a node that may not answer is silent at once; what our
//! controller did not give, and what is a node's own, is answered for by nobody here; when the agent ends, so do the answers. Costs nothing
//! but one watch where no Service has an address of ours.
//!
//! Why no lease says who answers: the API learns after 40 seconds that a node is gone, so each address would need a lease of its own, written
//! every second, and nothing would move while the API server is away, which is on one of those nodes. Whether anybody answers is
//! what clients see, and can be asked on the link itself: the next nodes ask for each address as clients do, and take it when there is
//! no answer. Who is next they all reckon alike from the same objects (`rank`); where they know different ones, they hear each other, and the
//! one that is wrong gives way (`claim`). Nodes on other links are neither heard nor in the way.
//!
//! Why the kernel does not answer (an address on the link, proxy neighbours): it would go on when the agent is killed, beside the node that took
//! over. The proxy's rules take what arrives before the kernel asks whether an address is its own.

use crate::addresses::Addresses;
use crate::link;
use crate::model::Model;
use client::recorder::Recorder;
use client::{Event, Source, mirror};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use netlink::changes::Changes;
use netlink::{Kernel, Protocol};
use std::future::{pending, poll_fn};
use std::io;
use std::time::{Duration, Instant};
use supervise::{Scope, Supervisor};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long a node that starts takes no address from another.
const NEWCOMER: Duration = Duration::from_secs(5);
/// After a watch failed, so long what it showed may be old, unless it shows something new. Longer than the longest pause between its tries.
const DOUBT: Duration = Duration::from_secs(45);
/// Changes this close together are taken together.
const GATHER: Duration = Duration::from_millis(200);
/// How often the links are looked at though the kernel said nothing.
const AUDIT: Duration = Duration::from_secs(60);
/// The same after they could not be listened to.
const RETRY: Duration = Duration::from_secs(5);
/// How long the API server may take to say that it is there, when another node has what is ours.
const CHECK: Duration = Duration::from_secs(2);
/// Labels of slices that are no Service's front.
const SLICES: &str = "!service.kubernetes.io/headless";

/// Why the loop ended; it is begun again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's changes cannot be had.
    #[error("read the kernel's changes of links and addresses")]
    Changes(#[source] io::Error),
    /// The kernel's links cannot be had.
    #[error("list links and their addresses")]
    Links(#[from] netlink::Error),
    /// The watch ended, which it does not do by itself.
    #[error("the watch of Services ended")]
    WatchEnded,
}

/// What is watched only while it matters.
struct Watches {
    nodes: Option<BoxStream<'static, Event<Node>>>,
    slices: Option<BoxStream<'static, Event<EndpointSlice>>>,
    changes: Option<Changes>,
}

async fn next<T>(stream: &mut Option<BoxStream<'static, T>>) -> Option<T> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

async fn changed(changes: &mut Option<Changes>) -> io::Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => pending().await,
    }
}

async fn checked(check: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match check {
        Some(check) => check.await,
        None => pending().await,
    }
}

struct Loop {
    node: String,
    client: Client,
    model: Model,
    addresses: Addresses,
    kernel: Kernel,
    watches: Watches,
    /// Every node was seen once.
    listed: bool,
    started: Instant,
    /// When a watch failed last.
    doubt: Option<Instant>,
    /// When everything is brought in line again.
    settle: Option<Instant>,
    /// When links are looked at again.
    look: Instant,
    check: Option<BoxFuture<'static, bool>>,
}

/// Runs until cancelled, as the node of this name; with it end the answers. `client` reads Services, nodes and EndpointSlices, as a proxy
/// does.
///
/// # Errors
/// The kernel or the watch ended; the caller starts again.
pub async fn run(
    node: String,
    client: Client,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let scope = Scope::new(supervisor, "announcer/", &shutdown);
    let (recorder, writer) = Recorder::new(Some(client.clone()), Some(&node));
    scope.keep(writer.task("events"));
    let balanced = Source::all::<Service>(&client).fields("spec.type=LoadBalancer");
    let mut services = mirror::<Service>(balanced);
    let mut work = Loop {
        addresses: Addresses::new(node.clone(), recorder),
        node,
        client,
        model: Model::default(),
        kernel: Kernel::of(Protocol::Route),
        watches: Watches { nodes: None, slices: None, changes: None },
        listed: false,
        started: Instant::now(),
        doubt: None,
        settle: None,
        look: Instant::now(),
        check: None,
    };
    loop {
        let due = work.due();
        let addresses = &work.addresses;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = services.next() => work.service(event.ok_or(Error::WatchEnded)?),
            event = next(&mut work.watches.nodes) => work.node(event.ok_or(Error::WatchEnded)?),
            event = next(&mut work.watches.slices) => work.slice(event.ok_or(Error::WatchEnded)?),
            changed = changed(&mut work.watches.changes) => {
                changed.map_err(Error::Changes)?;
                work.look = work.look.min(Instant::now() + GATHER);
            }
            there = checked(&mut work.check) => work.checked(there),
            (link, said) = poll_fn(|cx| addresses.poll_said(cx)) => work.hear(link, said),
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
        work.round().await?;
    }
}

impl Loop {
    fn service(&mut self, event: Event<Service>) {
        let changed = match event {
            Event::Set(key, service) => self.model.set_service(key, Some(&service)),
            Event::Gone(gone) => self.model.set_service(gone.key, None),
            Event::Synced => true,
            Event::Failed(_) => return self.failed(),
            Event::Unreadable(_) => false,
        };
        self.shown(changed);
    }

    fn node(&mut self, event: Event<Node>) {
        let changed = match event {
            Event::Set(key, node) => self.model.set_node(&key.name, Some(&node)),
            Event::Gone(gone) => self.model.set_node(&gone.key.name, None),
            Event::Synced => !std::mem::replace(&mut self.listed, true),
            Event::Failed(_) => return self.failed(),
            Event::Unreadable(_) => false,
        };
        self.shown(changed);
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        let changed = match event {
            Event::Set(key, slice) => self.model.set_slice(key, Some(&slice)),
            Event::Gone(gone) => self.model.set_slice(gone.key, None),
            Event::Synced => true,
            Event::Failed(_) => return self.failed(),
            Event::Unreadable(_) => false,
        };
        self.shown(changed);
    }

    /// A watch showed something: it works.
    fn shown(&mut self, changed: bool) {
        self.doubt = None;
        if changed {
            self.settle = Some(Instant::now());
        }
    }

    fn failed(&mut self) {
        self.doubt = Some(Instant::now());
    }

    fn hear(&mut self, link: u32, said: crate::frame::Said) {
        // Whoever has it instead may have been chosen by a control plane that does not reach us.
        if self.addresses.hear(link, said, Instant::now()) && self.check.is_none() && self.addresses.is_firm()
        {
            let api: Api<Node> = Api::all(self.client.clone());
            let node = self.node.clone();
            let check = async move { matches!(timeout(CHECK, api.get_metadata(&node)).await, Ok(Ok(_))) };
            self.check = Some(check.boxed());
        }
    }

    fn checked(&mut self, there: bool) {
        self.check = None;
        if !there {
            self.failed();
        }
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Option<Instant> {
        if !self.model.has_addresses() {
            return self.settle;
        }
        let firm = (!self.addresses.is_firm()).then(|| self.firm_from());
        [self.settle, self.addresses.next(), firm, Some(self.look)].into_iter().flatten().min()
    }

    /// When what is known counts.
    fn firm_from(&self) -> Instant {
        let sure = self.doubt.map_or(self.started, |doubt| doubt + DOUBT);
        sure.max(self.started + NEWCOMER)
    }

    /// Brings in line what is to be, and says what is due.
    async fn round(&mut self) -> Result<(), Error> {
        self.watch()?;
        let now = Instant::now();
        if self.model.has_addresses() && now >= self.look {
            self.look = now + AUDIT;
            self.addresses.set_links(self.kernel.call(link::observe).await?);
            self.settle = Some(now);
        }
        let now = Instant::now();
        let firm = now >= self.firm_from();
        if firm != self.addresses.is_firm() {
            self.addresses.set_firm(firm);
            self.settle = Some(now);
        }
        if self.settle.is_some_and(|at| at <= now) {
            self.settle = None;
            // Before every node is known, the wrong one would answer.
            let knows = self.listed || !self.model.has_addresses();
            if knows && !self.addresses.settle(&self.model, now) {
                self.look = now + RETRY;
            }
        }
        self.addresses.tick(now);
        Ok(())
    }

    /// Begins and ends watches, as they matter.
    fn watch(&mut self) -> Result<(), Error> {
        let (wanted, endpoints) = (self.model.has_addresses(), self.model.needs_endpoints());
        if wanted && self.watches.nodes.is_none() {
            self.watches.nodes = Some(mirror::<Node>(Source::all::<Node>(&self.client)));
            self.watches.changes = Some(Changes::subscribe().map_err(Error::Changes)?);
            self.look = Instant::now();
        } else if !wanted && self.watches.nodes.is_some() {
            (self.watches.nodes, self.watches.changes, self.listed) = (None, None, false);
            self.model.forget_nodes();
            self.settle = Some(Instant::now());
        }
        if endpoints && self.watches.slices.is_none() {
            let slices = Source::all::<EndpointSlice>(&self.client).labels(SLICES);
            self.watches.slices = Some(mirror::<EndpointSlice>(slices));
        } else if !endpoints && self.watches.slices.is_some() {
            self.watches.slices = None;
            self.model.forget_slices();
        }
        Ok(())
    }
}
